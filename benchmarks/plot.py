"""The picture: bars on a logarithmic scale, ours highlighted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .report import number
from .results import COMPILED, PURE, Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .results import Row

PANELS = (
    "hit-one",
    "get-method",
    "handle",
    "evict-100000",
    "latency-build",
    "bytes-rss",
    "execute-2",
    "import",
)
OURS, TWIN, FLOOR, OTHERS = "#c2410c", "#f2a977", "#475569", "#b6c2d1"
LEGEND = (
    (OURS, "warmset, compiled core"),
    (TWIN, "warmset, pure core"),
    (FLOOR, "what the work is made of"),
    (OTHERS, "others"),
)


def draw(rows: Sequence[Row], path: Path) -> None:
    """
    Draw the rows of the panels that were measured.

    Args:
        rows: What was measured.
        path: The PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    table = {row.name: row for row in rows}
    panels = [table[name] for name in PANELS if name in table] or list(rows)[:1]
    pairs = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    heights = [0.9 + 0.26 * max(_bars(row) for row in pair) for pair in pairs]
    figure, axes = pyplot.subplots(
        len(pairs),
        2,
        figsize=(13, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
        facecolor="white",
    )
    for line, pair in zip(axes, pairs, strict=True):
        for axis, row in zip(line, pair, strict=False):
            _panel(axis, row, max(_bars(each) for each in pair))
        for axis in line[len(pair) :]:
            axis.remove()
    figure.legend(
        handles=[Patch(color=colour, label=label) for colour, label in LEGEND],
        loc="outside upper center",
        ncols=len(LEGEND),
        frameon=False,
    )
    # No date and no version of the tool: the same figures give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _bars(row: Row) -> int:
    return sum(isinstance(cell, Figure) for cell in row.cells.values())


def _label(value: float, unit: str) -> str:
    return f"{number(value / 1e6)} ms" if unit == "ns" and value >= 1e6 else number(value)


def _panel(axis: Any, row: Row, places: int) -> None:
    cells = [(name, cell) for name, cell in row.cells.items() if isinstance(cell, Figure)]
    cells.sort(key=lambda item: item[1].median)
    names = [name for name, _ in cells]
    values = [cell.median for _, cell in cells]
    colours = [
        {COMPILED: OURS, PURE: TWIN}.get(name, FLOOR if name == row.floor else OTHERS)
        for name in names
    ]
    bars = axis.barh(names, values, color=colours, height=0.72)
    axis.bar_label(bars, [_label(value, row.unit) for value in values], padding=4, fontsize=8.5)
    axis.set_ylim(places - 0.4, -0.6)  # bars of one thickness, the shortest on top
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter("")
    span = max(max(values) / min(values), 10.0)
    axis.set_xlim(min(values) / span**0.1, max(values) * span**0.2)  # room for the labels
    axis.set_title(f"{row.title}, {row.unit}".replace("`", ""), loc="left", fontsize=11)
    axis.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.tick_params(axis="x", labelsize=8)
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        if name in (COMPILED, PURE):
            label.set_fontweight("bold")
