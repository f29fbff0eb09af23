"""
The data of the plots and the tables, reduced to a limited size.

Plots and tables use the same rows, so they always agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .recorder import CAUSES, ClassTally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..pipeline_file import Pipeline
    from ..pipeline_run import Outcome, RunRecord
    from ..verdict import Verdict
    from .recorder import Recorder, Span

MAX_RUN_ROWS = 100
MAX_CLASS_ROWS = 30
MAX_SPANS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """
    One run, or a group of consecutive runs: the maximum of sizes and `cached`, sums otherwise.
    """

    first: int
    last: int
    complete: bool
    seconds: float
    calls: int
    failed: int
    skipped: int
    rss_bytes: int
    rss_before_clear_bytes: int
    growth_bytes: int
    hits: int
    misses: int
    evictions: int
    cached: int
    removals: tuple[int, ...]

    @property
    def label(self) -> str:
        """The number of the run, or the numbers of the first and the last run."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def middle(self) -> float:
        """The position in the plot."""
        return (self.first + self.last) / 2

    @property
    def hit_rate(self) -> float | None:
        """Hits divided by look-ups; None without look-ups."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else None


@dataclass(frozen=True, slots=True)
class ClassRow:
    """
    One class, or all classes without a row of their own.
    """

    name: str
    path: str
    tally: ClassTally
    spans: tuple[Span, ...] = ()

    @property
    def mean_build_seconds(self) -> float:
        """Build seconds per build; 0.0 without builds."""
        return self.tally.build_seconds / self.tally.builds if self.tally.builds else 0.0

    @property
    def evictions(self) -> int:
        """Removals that the registry decided on."""
        return _evictions(self.tally.removals)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """
    The data of one page.

    Args:
        run_rows: The runs that ended.
        runs: The number of runs that ended.
        runs_per_row: The most runs in one row.
        unfinished_removals: The removals in a run that did not end; None if all runs ended.
        class_rows: The classes with the longest total build time, sorted by it.
        others: All other classes as one row; None if there are none.
        other_classes: The number of the other classes.
        span_gap_seconds: The longest gap that was closed between two spans; 0.0 if none was.
        run_begins: The starts of the runs that the timeline marks, in seconds since the first.
        run_numbers: The numbers of these runs.
        seconds: The length of the timeline.
        level_bytes: The level that growth is counted from: see `verdict`; 0 if no run ended.
        bound_growth_bytes: The largest growth from that level that passes.
    """

    run_rows: tuple[RunRow, ...]
    runs: int
    runs_per_row: int
    unfinished_removals: tuple[int, ...] | None
    class_rows: tuple[ClassRow, ...]
    others: ClassRow | None
    other_classes: int
    span_gap_seconds: float
    run_begins: tuple[float, ...]
    run_numbers: tuple[int, ...]
    seconds: float
    level_bytes: int
    bound_growth_bytes: int

    @property
    def causes(self) -> list[int]:
        """The indices of the causes that have at least one removal."""
        rows = [row.removals for row in self.run_rows]
        rows += [self.unfinished_removals] if self.unfinished_removals else []
        return [cause for cause in CAUSES if any(row[cause] for row in rows)]

    @property
    def timeline(self) -> list[ClassRow]:
        """The classes that were warm at some time, sorted by the start of their first span."""
        return sorted(
            (row for row in self.class_rows if row.spans), key=lambda row: row.spans[0].begin
        )


def collect_report_data(
    pipeline: Pipeline, outcome: Outcome, verdict: Verdict, recorder: Recorder
) -> ReportData:
    """
    Collect the data of the page.

    Args:
        pipeline: The pipeline.
        outcome: The result of the runs.
        verdict: The verdict, for the bound.
        recorder: The recorder that was attached during the runs.

    Returns:
        The data, with at most `MAX_RUN_ROWS` rows for runs, `MAX_CLASS_ROWS` rows for classes plus
        one for the others, and `MAX_SPANS` spans.
    """
    records = outcome.records
    removals = recorder.removals_by_run()
    per_row = -(-len(records) // MAX_RUN_ROWS) or 1
    begins = recorder.run_begins()
    stride = -(-len(begins) // MAX_RUN_ROWS) or 1
    class_rows, others, gap = _class_rows(pipeline, recorder)
    return ReportData(
        run_rows=tuple(
            _run_row(records[at : at + per_row], removals[at : at + per_row])
            for at in range(0, len(records), per_row)
        ),
        runs=len(records),
        runs_per_row=per_row,
        unfinished_removals=removals[-1] if len(removals) > len(records) else None,
        class_rows=tuple(class_rows),
        others=_combine(others) if others else None,
        other_classes=len(others),
        span_gap_seconds=gap,
        run_begins=tuple(begins[::stride]),
        run_numbers=tuple(range(1, len(begins) + 1, stride)),
        seconds=recorder.seconds(),
        level_bytes=_level(records, verdict),
        bound_growth_bytes=verdict.bound_bytes,
    )


def _level(records: Sequence[RunRecord], verdict: Verdict) -> int:
    if verdict.level_bytes is not None:
        return verdict.level_bytes
    return records[0].rss_bytes if records else 0


def _run_row(records: Sequence[RunRecord], removals: Sequence[tuple[int, ...]]) -> RunRow:
    return RunRow(
        first=records[0].run,
        last=records[-1].run,
        complete=all(record.complete for record in records),
        seconds=sum(record.seconds for record in records),
        calls=sum(record.calls for record in records),
        failed=sum(record.failed for record in records),
        skipped=sum(record.skipped for record in records),
        rss_bytes=max(record.rss_bytes for record in records),
        rss_before_clear_bytes=max(record.rss_before_clear_bytes for record in records),
        growth_bytes=max(record.growth_bytes for record in records),
        hits=sum(record.hits for record in records),
        misses=sum(record.misses for record in records),
        evictions=sum(record.evictions for record in records),
        cached=max(record.cached for record in records),
        removals=_sums(removals),
    )


def _class_rows(
    pipeline: Pipeline, recorder: Recorder
) -> tuple[list[ClassRow], list[ClassRow], float]:
    rows = [
        ClassRow(name, path, tally)
        for (name, path), tally in zip(
            pipeline.target_paths.items(), recorder.class_tallies(), strict=True
        )
    ]
    by_build_time = sorted(range(len(rows)), key=lambda at: -rows[at].tally.build_seconds)
    shown, rest = by_build_time[:MAX_CLASS_ROWS], by_build_time[MAX_CLASS_ROWS:]
    spans: dict[int, list[Span]] = {at: [] for at in shown}
    found, gap = recorder.spans(MAX_SPANS, only=frozenset(shown))
    for span in found:
        spans[span.class_index].append(span)
    with_spans = [
        ClassRow(rows[at].name, rows[at].path, rows[at].tally, tuple(spans[at])) for at in shown
    ]
    return with_spans, [rows[at] for at in rest], gap


def _combine(rows: Sequence[ClassRow]) -> ClassRow:
    tallies = [row.tally for row in rows]
    return ClassRow(
        f"{len(rows)} other {'class' if len(rows) == 1 else 'classes'}",
        "",
        ClassTally(
            builds=sum(tally.builds for tally in tallies),
            build_seconds=sum(tally.build_seconds for tally in tallies),
            longest_build_seconds=max(tally.longest_build_seconds for tally in tallies),
            warm_seconds=sum(tally.warm_seconds for tally in tallies),
            uses=sum(tally.uses for tally in tallies),
            removals=_sums([tally.removals for tally in tallies]),
        ),
    )


def _sums(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True))) if rows else (0,) * len(CAUSES)


def _evictions(removals: tuple[int, ...]) -> int:
    return sum(removals[cause] for cause in CAUSES if cause.evicted)
