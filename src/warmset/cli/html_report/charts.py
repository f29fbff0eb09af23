"""
Draws the plots, each for a wide and for a narrow page, so that text is never scaled down.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from warmset._text import printable

from .formatting import MB, cause_name, megabytes, seconds_text
from .svg import COLOURS, embedded_svg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from .report_data import ClassRow, ReportData

__all__ = ["Plot", "draw_plots"]

# Pixels; the style sheet switches between them.
_WIDE, _NARROW = 780, 340
_ROW_HEIGHT = 24
# The minimum width of a span as a fraction of the timeline; shorter spans would be invisible.
_MIN_SPAN = 0.002
# A line with more points has no markers.
_MAX_MARKERS = 40

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "warmset",
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "legend.handlelength": 1.4,
    "legend.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.labelsize": 12,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 1,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "text.color": COLOURS["ink"],
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """
    One plot.

    Args:
        wide: The SVG for a wide page.
        narrow: The SVG for a narrow page.
    """

    wide: str
    narrow: str


@dataclass(frozen=True, slots=True)
class _Canvas:
    figure: Figure
    axes: Axes
    narrow: bool


def draw_plots(data: ReportData, descriptions: dict[str, tuple[str, str]]) -> dict[str, Plot]:
    """
    Draw all plots that have data.

    Args:
        data: The data.
        descriptions: Name of a plot -> its title and its description.

    Returns:
        Name -> plot.
    """
    wanted: list[tuple[str, bool, int, Callable[[_Canvas, ReportData], None]]] = [
        ("rss", bool(data.run_rows), 280, _draw_rss),
        ("hits", any(row.hit_rate is not None for row in data.run_rows), 200, _draw_hits),
        ("removals", bool(data.run_rows and data.causes), 230, _draw_removals),
        ("builds", bool(_built(data)), _rows_height(len(_built(data))), _draw_builds),
        (
            "timeline",
            bool(data.timeline),
            _rows_height(len(data.timeline)) + 20,
            _draw_timeline,
        ),
    ]
    # The user's settings of matplotlib must not affect the plots. Warnings about missing glyphs do
    # not matter, because the browser draws the text with its own fonts.
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _draw_wanted(data, descriptions, wanted)


def _draw_wanted(
    data: ReportData,
    descriptions: dict[str, tuple[str, str]],
    wanted: list[tuple[str, bool, int, Callable[[_Canvas, ReportData], None]]],
) -> dict[str, Plot]:
    plots: dict[str, Plot] = {}
    for name, present, height, draw in wanted:
        if present:
            title, description = descriptions[name]
            svgs = [
                _draw(draw, data, name, title, description, width, height)
                for width in (_WIDE, _NARROW)
            ]
            plots[name] = Plot(*svgs)
    return plots


def _draw(
    draw: Callable[[_Canvas, ReportData], None],
    data: ReportData,
    name: str,
    title: str,
    description: str,
    width: int,
    height: int,
) -> str:
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    canvas = _Canvas(figure, figure.add_subplot(), width == _NARROW)
    draw(canvas, data)
    return embedded_svg(figure, name, "narrow" if canvas.narrow else "wide", title, description)


def _rows_height(rows: int) -> int:
    return rows * _ROW_HEIGHT + 46


# -- over runs -----------------------------------------------------------------------------------


def _draw_rss(canvas: _Canvas, data: ReportData) -> None:
    axes, rows = canvas.axes, data.run_rows
    across = [row.middle for row in rows]
    marker = "o" if len(rows) <= _MAX_MARKERS else None
    before = [row.rss_before_clear_bytes / MB for row in rows]
    after = [row.rss_bytes / MB for row in rows]
    axes.plot(across, before, color=COLOURS["peak"], lw=1.5, ls=(0, (2, 1.5)), marker=marker, ms=3,
              label="at the end of the run")  # fmt: skip
    axes.plot(across, after, color=COLOURS["rss"], marker=marker, ms=5,
              label="after clearing and collecting")  # fmt: skip
    bound = (data.level_bytes + data.bound_growth_bytes) / MB
    axes.axhline(
        bound,
        color=COLOURS["bound"],
        lw=1.5,
        ls=(0, (6, 3)),
        label=f"bound: level + {megabytes(data.bound_growth_bytes)} MB",
    )
    low, high = min(*before, *after, bound), max(*before, *after, bound)
    margin = max((high - low) * 0.08, 1.0)
    axes.set_ylim(max(0.0, low - margin), high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_ylabel("MB")
    _run_axis(canvas, data)
    _legend(canvas, columns=1 if canvas.narrow else 3)


def _draw_hits(canvas: _Canvas, data: ReportData) -> None:
    axes = canvas.axes
    rows = [row for row in data.run_rows if row.hit_rate is not None]
    rates = [100.0 * (row.hit_rate or 0.0) for row in rows]
    axes.bar([row.middle for row in rows], rates, _widths(rows), color=COLOURS["hits"])
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
    _run_axis(canvas, data)


def _draw_removals(canvas: _Canvas, data: ReportData) -> None:
    axes, rows = canvas.axes, data.run_rows
    across, widths = [row.middle for row in rows], _widths(rows)
    base = [0] * len(rows)
    for cause in data.causes:
        heights = [row.removals[cause] for row in rows]
        axes.bar(across, heights, widths, base, color=COLOURS[f"cause-{cause}"],
                 edgecolor=COLOURS["paper"], linewidth=1 if len(rows) <= _MAX_MARKERS else 0,
                 label=cause_name(cause))  # fmt: skip
        base = [under + height for under, height in zip(base, heights, strict=True)]
    axes.set_ylim(0, max(1, *base) * 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("instances")
    _run_axis(canvas, data)
    _legend(canvas, columns=2 if canvas.narrow else 4)


def _widths(rows: Sequence[Any]) -> list[float]:
    # Without gaps if they would be narrower than a pixel.
    part = 0.62 if len(rows) <= _MAX_MARKERS else 1.0
    return [part * (row.last - row.first + 1) for row in rows]


def _run_axis(canvas: _Canvas, data: ReportData) -> None:
    axes = canvas.axes
    last = data.run_rows[-1].last
    axes.set_xlim(0.5, last + 0.5)
    ticks = 6 if canvas.narrow else 12
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    axes.set_xlabel("run")


def _legend(canvas: _Canvas, *, columns: int) -> None:
    handles, labels = canvas.axes.get_legend_handles_labels()
    canvas.figure.legend(handles, labels, loc="outside upper left", ncols=columns)


# -- over classes --------------------------------------------------------------------------------


def _built(data: ReportData) -> list[ClassRow]:
    rows = [*data.class_rows, *([data.others] if data.others else [])]
    return [row for row in rows if row.tally.builds]


def _draw_builds(canvas: _Canvas, data: ReportData) -> None:
    axes, rows = canvas.axes, _built(data)
    means = [row.mean_build_seconds for row in rows]
    longest = [row.tally.longest_build_seconds for row in rows]
    axes.barh(range(len(rows)), means, 0.62, color=COLOURS["build"])
    for at in range(len(rows)):
        if longest[at] > 1.02 * means[at]:
            axes.plot([means[at], longest[at]], [at, at], color=COLOURS["ink"], lw=1.5)
            axes.plot(longest[at], at, "|", color=COLOURS["ink"], ms=9, mew=1.5)
    widest = max(longest) or 1e-6
    for at, row in enumerate(rows):
        text = seconds_text(row.mean_build_seconds)
        if not canvas.narrow:
            text += f"  \u00d7 {row.tally.builds:,}"
        axes.text(longest[at] + widest * 0.02, at, text, va="center", color=COLOURS["muted"])
    axes.set_xlim(0, widest * (1.32 if canvas.narrow else 1.18))
    axes.xaxis.set_major_locator(MaxNLocator(3 if canvas.narrow else 6))
    _seconds_axis(axes, widest)
    _class_axis(canvas, rows)


def _draw_timeline(canvas: _Canvas, data: ReportData) -> None:
    axes, rows = canvas.axes, data.timeline
    width = max(data.seconds, 1e-6)
    for begin in data.run_begins:
        axes.axvline(begin, color=COLOURS["grid"], lw=1, zorder=0)
    for at, row in enumerate(rows):
        boxes = [(span.begin, max(span.end - span.begin, width * _MIN_SPAN)) for span in row.spans]
        axes.add_patch(PathPatch(_boxes(boxes, at), facecolor=COLOURS["warm"]))
    axes.set_xlim(0, width * 1.005)
    axes.xaxis.set_major_locator(MaxNLocator(4 if canvas.narrow else 8))
    _seconds_axis(axes, width)
    _class_axis(canvas, rows)
    axes.grid(visible=False)
    _run_ticks_above(canvas, data, width)


def _boxes(boxes: Sequence[tuple[float, float]], at: int) -> Path:
    # One path for all boxes: one element for each would dominate the size of the page.
    corners: list[tuple[float, float]] = []
    low, high = at - 0.31, at + 0.31
    for begin, width in boxes:
        end = begin + width
        corners += [(begin, low), (end, low), (end, high), (begin, high), (begin, low)]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return Path(corners, codes)


def _run_ticks_above(canvas: _Canvas, data: ReportData, width: float) -> None:
    # Only as many labels as fit.
    above = canvas.axes.secondary_xaxis("top")
    fitting = 5 if canvas.narrow else 14
    stride = -(-len(data.run_begins) // fitting)
    above.set_xticks(
        list(data.run_begins[::stride]),
        [f"run {number}" if at == 0 else f"{number}"
         for at, number in enumerate(data.run_numbers[::stride])],
    )  # fmt: skip
    above.tick_params(length=3, labelsize=11)
    above.spines["top"].set_visible(False)
    for label in above.get_xticklabels():
        label.set_horizontalalignment("left")


def _seconds_axis(axes: Axes, widest: float) -> None:
    scale, unit = (1.0, "seconds") if widest >= 1.0 else (1000.0, "milliseconds")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * scale:,.4g}"))
    axes.set_xlabel(unit)


def _class_axis(canvas: _Canvas, rows: Sequence[ClassRow]) -> None:
    axes = canvas.axes
    most = 13 if canvas.narrow else 28
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_shortened(printable(row.name), most) for row in rows])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: math.ceil(most * 0.6)]}…{text[-most // 3 :]}"
