"""What the rows share: who takes part, and how loops become a row."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..results import Absent, Row, figure
from ..subjects import SUBJECTS, absence
from ..timing import calibrated, turns, without_collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..results import Figure
    from ..subjects import Subject
    from ..timing import Scale

NANOSECONDS = 1e9
FILL_SECONDS = 60.0  # a cache that takes longer to fill is left out at that capacity
TOO_SLOW = f"filling it would take more than {FILL_SECONDS:.0f} s"


def present(
    subjects: Iterable[Subject] = SUBJECTS,
) -> tuple[list[Subject], dict[str, Figure | Absent]]:
    """
    Part the subjects that are there from those that are not.

    Args:
        subjects: Who should take part.

    Returns:
        Those that can, and a cell with the reason for each that cannot.
    """
    there: list[Subject] = []
    cells: dict[str, Figure | Absent] = {}
    for subject in subjects:
        reason = absence(subject)
        if reason is None:
            there.append(subject)
        else:
            cells[subject.name] = Absent(reason)
    return there, cells


def timed_row(
    name: str,
    title: str,
    floor: str,
    loops: Mapping[str, Callable[[int], float]],
    empty: Callable[[int], float],
    scale: Scale,
    cells: Mapping[str, Figure | Absent],
) -> Row:
    """
    Time loops in turns, net of the empty loop.

    Args:
        name: Of the row.
        title: What is done.
        floor: The subject that the others are compared with.
        loops: Subject -> its loop.
        empty: The same loop without the work.
        scale: How much to do.
        cells: Of those that take no part.

    Returns:
        The row, in nanoseconds.
    """
    cases = {subject: calibrated(run, scale.sample_seconds) for subject, run in loops.items()}
    nothing = calibrated(empty, scale.sample_seconds)
    samples = turns(cases, scale.rounds, nothing)
    figures = {subject: figure(values, NANOSECONDS) for subject, values in samples.items()}
    return Row(name, title, "ns", floor, {**figures, **cells})


def filled(fetch: Callable[[str], Any], names: Sequence[str]) -> bool:
    """
    Fill a cache, unless it is plain that this would take too long.

    Args:
        fetch: Builds and stores the instance of a name.
        names: The names.

    Returns:
        Whether it was filled.
    """
    began = time.perf_counter()
    with without_collector():
        for number, name in enumerate(names, 1):
            fetch(name)
            if number % 1000 == 0 and number < len(names):
                expected = (time.perf_counter() - began) * len(names) / number
                if expected > FILL_SECONDS and number >= 2000:
                    return False
    return True
