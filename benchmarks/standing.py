"""The rows in which warmset is ahead of what users would switch from, and those it is behind in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .results import COMPILED, PURE, Figure
from .subjects import DICT, OURS, PIPELINE, SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .results import Row

LEVEL = 0.05
"""Within this part of each other, two medians are level."""
FORMER = PIPELINE.name
# A bare dict keeps for ever, and nobody asks it to build or to evict: it is a floor.
OTHERS = {subject.name for subject in SUBJECTS} - {subject.name for subject in OURS} - {DICT.name}


class Standing(NamedTuple):
    """
    One row: how many times what warmset takes the others take.

    `best` is the one that takes least, whatever else it leaves out: most caches neither build by
    name nor hold what is in use. A ratio above 1 means that warmset is ahead.
    """

    row: str
    title: str
    core: str
    former: float | None
    best: str
    ratio: float

    @property
    def word(self) -> str:
        """Where warmset stands beside the best of the others."""
        if self.ratio > 1 + LEVEL:
            return "ahead"
        return "behind" if self.ratio < 1 - LEVEL else "level"


def standings(rows: Sequence[Row], core: str = COMPILED) -> list[Standing]:
    """
    Compare a core with the others, row by row.

    Args:
        rows: What was measured.
        core: `COMPILED` or `PURE`.

    Returns:
        One for each row in which it has a figure and another subject, too; those that are furthest
        behind come first.
    """
    found = []
    for row in rows:
        ours = row.median(core)
        others = {
            name: cell.median
            for name, cell in row.cells.items()
            if isinstance(cell, Figure) and _is_other(name, row)
        }
        if not ours or not others:
            continue
        best = min(others, key=others.__getitem__)
        former = row.median(FORMER)
        found.append(
            Standing(
                row.name,
                row.title,
                core,
                None if former is None else former / ours,
                best,
                others[best] / ours,
            )
        )
    return sorted(found, key=lambda standing: standing.ratio)


def _is_other(name: str, row: Row) -> bool:
    if name in (COMPILED, PURE, row.floor):
        return False
    # Start and import name the packages.
    return name in OTHERS or row.name in ("import", "start")
