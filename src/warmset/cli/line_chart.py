"""
A chart of lines as SVG: text, no script, readable on light and dark backgrounds.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from warmset._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Line", "line_chart"]

_WIDTH, _HEIGHT = 780, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 16, 34, 48
_COLOURS = ("#2f7fc1", "#c06a12", "#1d8a6a", "#8a5fd0", "#c0392b", "#6d7786")


class Line(NamedTuple):
    """A line, or points that are not connected."""

    label: str
    points: Sequence[tuple[float, float]]
    connected: bool = True


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str] = "{:,.4g}".format,
    y_text: Callable[[float], str] = "{:,.4g}".format,
    marks: Sequence[tuple[float, str]] = (),
    width: int = _WIDTH,
    class_name: str = "",
) -> str:
    """
    Draw lines over a common x axis; both axes begin at 0.

    Args:
        lines: The lines; each has at least one point.
        title: The accessible name.
        x_label: What the x axis shows.
        y_label: What the y axis shows.
        x_text: Formats the numbers of the x axis.
        y_text: Formats the numbers of the y axis.
        marks: Vertical lines: an x value and its text.
        width: The width; the text has the same size in any.
        class_name: The class of the element, for a style sheet.

    Returns:
        An ``<svg>`` element, which is also a complete file.
    """
    x_end = _nice(max([x for line in lines for x, _ in line.points] + [x for x, _ in marks]))
    y_end = _nice(max(y for line in lines for _, y in line.points))

    def x_at(value: float) -> float:
        return round(_LEFT + (width - _LEFT - _RIGHT) * value / x_end, 1)

    def y_at(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / y_end, 1)

    kind = f' class="{class_name}"' if class_name else ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" role="img"'
        f'{kind} aria-label="{_text(title)}" font-family="system-ui, sans-serif" font-size="12"'
        ' fill="#7a8594">'
    ]
    bottom = y_at(0)
    for step in range(6):
        x, y = x_end * step / 5, y_end * step / 5
        parts.append(
            f'<path d="M{_LEFT} {y_at(y)}H{width - _RIGHT}" stroke="#7a8594"'
            f' stroke-opacity="{1 if step == 0 else 0.25}"/>'
            f'<text x="{_LEFT - 8}" y="{y_at(y) + 4}" text-anchor="end">{_text(y_text(y))}</text>'
            f'<text x="{x_at(x)}" y="{bottom + 18}" text-anchor="middle">{_text(x_text(x))}</text>'
        )
    parts.append(
        f'<text x="{(_LEFT + width) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f'{_text(x_label)}</text><text x="{_LEFT - 60}" y="14">{_text(y_label)}</text>'
    )
    for x, text in marks:
        end = "end" if x > x_end / 2 else "start"
        parts.append(
            f'<path d="M{x_at(x)} {_TOP}V{bottom}" stroke="#7a8594" stroke-dasharray="4 4"/>'
            f'<text x="{x_at(x) + (-5 if end == "end" else 5)}" y="{_TOP + 10}"'
            f' text-anchor="{end}">{_text(text)}</text>'
        )
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(x_at(x), y_at(y)) for x, y in line.points]
        if line.connected:
            path = " ".join(f"{x} {y}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"'
                         ' stroke-width="2"/>')  # fmt: skip
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        if len(lines) > 1:
            parts.append(
                f'<text x="{width - _RIGHT}" y="{14 + 15 * number}" text-anchor="end"'
                f' fill="{colour}">{_text(line.label)}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


def _nice(largest: float) -> float:
    """Return a round number that is not below the largest value."""
    if largest <= 0.0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(largest))
    rounded = (unit * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10))
    return next((each for each in rounded if each >= largest), largest)


def _text(text: str) -> str:
    return escape(printable(text))
