"""What a measurement gives: rows of cells, each a figure or the reason why there is none."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMPILED = "warmset compiled"
PURE = "warmset pure"


class Figure(NamedTuple):
    """Median and median absolute deviation, in the unit of the row."""

    median: float
    spread: float = 0.0


class Absent(NamedTuple):
    """Why there is no figure."""

    reason: str


class Row(NamedTuple):
    """
    One kind of work, done by each subject.

    `floor` names the subject that the others are compared with: what the work is made of, or the
    least that does it.
    """

    name: str
    title: str
    unit: str
    floor: str | None
    cells: Mapping[str, Figure | Absent]

    def median(self, subject: str | None) -> float | None:
        """The median of a subject; None if it has no figure."""
        cell = self.cells.get(subject) if subject is not None else None
        return cell.median if isinstance(cell, Figure) else None

    def ratio(self, subject: str, to: str | None) -> float | None:
        """How many times what another subject takes; None if either has no figure."""
        value, base = self.median(subject), self.median(to)
        return value / base if value is not None and base is not None and base > 0.0 else None


def figure(samples: Iterable[float], scale: float = 1.0) -> Figure:
    """
    Sum up samples.

    Args:
        samples: At least one.
        scale: What to multiply them by to get the unit of the row.

    Returns:
        Their median and median absolute deviation.
    """
    values = [sample * scale for sample in samples]
    median = statistics.median(values)
    return Figure(median, statistics.median(abs(value - median) for value in values))
