"""
The verdict on the runs: whether calls succeed, instances are released, and memory stays level.

Growth is judged twice, because a process needs some runs to settle. The *level* is the median RSS
of the first half of the runs. No run after the first may exceed it by more than the bound. In the
second half, memory in use may rise by a quarter of the bound, as the slope of the runs tells:
settling ends, a leak does not. So a first run that has not settled neither fails a sound pipeline
nor hides a leak. Memory in use is RSS without what is free inside the interpreter's heap: that part
changes by some MB over dozens of runs, and is used again by the next run.

MB is 10^6 bytes throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .pipeline_run import Outcome, RunRecord
    from .targets import WorkerRecord

_Number = TypeVar("_Number", int, float)

MB = 1_000_000
SLOPE_PART = 4  # the slope may use this part of the bound
_SLOPE_RUNS = 3  # the least number of runs in the second half that give a slope
_MAX_POINTS = 120  # of which slopes are computed, each with each


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    The result of judging the runs.

    Args:
        status: ``"pass"``, ``"fail"``, or ``"none"`` if nothing failed and there are fewer than two
            complete runs, so that growth is not known.
        text: The verdict in one line.
        reasons: Why it is a FAIL: ``"calls"``, ``"survivors"``, ``"bound"``, ``"slope"``.
        bound_bytes: The largest growth that passes.
        level_bytes: The level that growth is counted from; None without two complete runs.
        last_growth_bytes: The RSS after the last complete run minus the level.
        max_growth_bytes: The largest RSS of any run after the first minus the level.
        max_growth_run: The run with that RSS.
        slope_bound_bytes: The largest rise in the second half that passes.
        slope_bytes: The rise of the memory in use in the second half by its slope; None with fewer
            than five runs.
        failed_share: Failed calls divided by calls; 0.0 without calls.
        survivors: The number of removed instances that are still referenced; None if they were not
            searched for.
    """

    status: str
    text: str
    reasons: tuple[str, ...] = ()
    bound_bytes: int
    level_bytes: int | None = None
    last_growth_bytes: int | None = None
    max_growth_bytes: int | None = None
    max_growth_run: int | None = None
    slope_bound_bytes: int
    slope_bytes: int | None = None
    failed_share: float = 0.0
    survivors: int | None = None


class Growth(NamedTuple):
    """The growth of one process over its runs, in bytes."""

    level: int
    level_runs: tuple[int, int]
    """The first and the last of the runs that the level is the median of."""
    last: int
    worst: int
    worst_run: int
    slope: int | None
    """The rise over the second half, by its slope."""
    slope_runs: tuple[int, int]
    """The first and the last run of the second half."""


def measure_growth(runs: Sequence[tuple[int, int]], free: Sequence[int] = ()) -> Growth:
    """
    Compute the growth of a process.

    Args:
        runs: The number and the RSS of each run, at least two.
        free: How much of each RSS is free inside the interpreter's heap; empty if it is not known.

    Returns:
        The growth.
    """
    half = len(runs) // 2
    level = _median(size for _, size in runs[:half])
    # The first of the runs with the largest RSS. Run 1 is none of them: it has not grown yet.
    worst_run, worst = max(runs[1:], key=lambda run: run[1])
    later = runs[half:]
    slope = None
    if len(later) >= _SLOPE_RUNS:
        unused = free[half:] or [0] * len(later)
        in_use = [(run, size - free) for (run, size), free in zip(later, unused, strict=True)]
        slope = round(_slope(in_use) * (later[-1][0] - later[0][0]))
    return Growth(
        level,
        (runs[0][0], runs[half - 1][0]),
        runs[-1][1] - level,
        worst - level,
        worst_run,
        slope,
        (later[0][0], later[-1][0]),
    )


def _slope(runs: Sequence[tuple[int, int]]) -> float:
    """The median of the slopes between any two runs (Theil-Sen): one outlier does not change it."""
    stride = -(-len(runs) // _MAX_POINTS)
    points = runs[::stride]
    return _median(
        (after - before) / (m - n) for (n, before), (m, after) in combinations(points, 2)
    )


def _median(values: Iterable[_Number]) -> _Number:
    """Of an even number of values, the upper one of the two in the middle."""
    found = sorted(values)
    return found[len(found) // 2]


def settled(records: Sequence[WorkerRecord]) -> Sequence[WorkerRecord]:
    """Return the records of one process since it has had the classes that it has."""
    return records[max((at for at, each in enumerate(records) if each.moved), default=0) :]


def judge(
    outcome: Outcome,
    max_growth_mb: float,
    *,
    max_failures: float = 0.0,
    max_survivors: int = 0,
    searched: bool = True,
) -> Verdict:
    """
    Judge the runs.

    Args:
        outcome: The result of the runs.
        max_growth_mb: The bound of the growth in MB; growth that equals it passes.
        max_failures: The largest share of failed calls that passes.
        max_survivors: The largest number of instances that outlive their removal and passes.
        searched: Whether such instances were searched for.

    Returns:
        The verdict.
    """
    bound = round(max_growth_mb * MB)
    slope_bound = bound // SLOPE_PART
    share = outcome.failed / outcome.calls if outcome.calls else 0.0
    records = [record for record in outcome.records if record.complete]
    growth, growth_text = _growth(outcome, records, bound, slope_bound)
    survivors = len(outcome.survivors) if searched else None
    reasons: list[str] = []
    if share > max_failures or (outcome.calls and outcome.failed == outcome.calls):
        reasons.append("calls")
    if survivors is not None and survivors > max_survivors:
        reasons.append("survivors")
    if growth is not None and growth.worst > bound:
        reasons.append("bound")
    if growth is not None and growth.slope is not None and growth.slope > slope_bound:
        reasons.append("slope")
    status = "fail" if reasons else "none" if growth is None else "pass"
    parts = [
        *_call_texts(outcome, max_failures),
        *_survivor_texts(survivors, max_survivors),
        growth_text,
    ]
    word = {"pass": "PASS", "fail": "FAIL", "none": "NO VERDICT"}[status]
    return Verdict(
        status=status,
        text=f"{word}: {'; '.join(parts)}",
        reasons=tuple(reasons),
        bound_bytes=bound,
        level_bytes=None if growth is None else growth.level,
        last_growth_bytes=None if growth is None else growth.last,
        max_growth_bytes=None if growth is None else growth.worst,
        max_growth_run=None if growth is None else growth.worst_run,
        slope_bound_bytes=slope_bound,
        slope_bytes=None if growth is None else growth.slope,
        failed_share=share,
        survivors=survivors,
    )


def _call_texts(outcome: Outcome, max_failures: float) -> list[str]:
    if not outcome.failed:
        return []
    calls = f"{outcome.calls:,} call{'' if outcome.calls == 1 else 's'}"
    share = f"{outcome.failed / outcome.calls:.1%}"
    return [f"{outcome.failed:,} of {calls} failed ({share}, bound {max_failures:.3g})"]


def _survivor_texts(survivors: int | None, max_survivors: int) -> list[str]:
    if survivors is None:
        return ["removed instances were not searched for (--no-trim)"]
    if not survivors:
        return []
    count = f"{survivors:,} removed instance{' is' if survivors == 1 else 's are'}"
    return [f"{count} still referenced (bound {max_survivors})"]


def _growth(
    outcome: Outcome, records: Sequence[RunRecord], bound: int, slope_bound: int
) -> tuple[Growth | None, str]:
    if len(records) < 2:
        return None, "growth needs two complete runs"
    if outcome.workers:
        return _worker_growth(outcome, records, bound, slope_bound)
    growth = measure_growth(
        [(record.run, record.rss_bytes) for record in records],
        [record.heap_free_bytes for record in records],
    )
    worst = f"{megabytes(growth.worst, '+')} MB at run {growth.worst_run}"
    text = (
        f"RSS {_change(growth.last)} from {_level(growth)} to run {records[-1].run}, at worst"
        f" {worst} (bound {megabytes(bound)} MB)"
    )
    return growth, text + _slope_text(growth, slope_bound)


def _worker_growth(
    outcome: Outcome, records: Sequence[RunRecord], bound: int, slope_bound: int
) -> tuple[Growth | None, str]:
    """Judge the process with the largest growth: a memory limit applies to each process."""
    last_run = records[-1].run
    processes: dict[tuple[str, int], list[WorkerRecord]] = {}
    for row in outcome.workers:
        if row.run <= last_run:
            processes.setdefault((row.worker, row.pid), []).append(row)
    grown = [
        (
            measure_growth(
                [(row.run, row.rss_bytes) for row in rows], [row.heap_free_bytes for row in rows]
            ),
            worker,
        )
        for (worker, _), every in processes.items()
        if len(rows := settled(every)) > 1
    ]
    if not grown:
        return None, "growth needs a worker that completes two runs"
    worst, worker = max(grown, key=lambda each: each[0].worst)
    steepest = max((growth.slope or 0 for growth, _ in grown), default=0)
    slope = None if worst.slope is None else steepest
    total = records[-1].growth_bytes
    text = (
        f"RSS of all workers {_change(total)} from run 1 to run {last_run}; of one worker at worst"
        f" {megabytes(worst.worst, '+')} MB from {_level(worst)}, at run {worst.worst_run},"
        f" {worker} (bound {megabytes(bound)} MB for each)"
    )
    growth = worst._replace(slope=slope, last=total)
    return growth, text + _slope_text(growth, slope_bound)


def _slope_text(growth: Growth, slope_bound: int) -> str:
    if growth.slope is None:
        return ""
    first, last = growth.slope_runs
    return (
        f", in use by the slope of runs {first} to {last} {megabytes(growth.slope, '+')} MB"
        f" (bound {megabytes(slope_bound)} MB)"
    )


def _level(growth: Growth) -> str:
    first, last = growth.level_runs
    return f"run {first}" if first == last else f"the median of runs {first} to {last}"


def megabytes(size: int, sign: str = "") -> str:
    """Format bytes as MB with one digit after the point; `sign` as in a format specification."""
    text = f"{size / MB:{sign}.1f}"
    # "-0.0" would look like a small decrease.
    return text.replace("-", "+" if sign else "") if text == "-0.0" else text


def _change(growth: int) -> str:
    return f"{'shrank' if growth < 0 else 'grew'} by {megabytes(abs(growth))} MB"
