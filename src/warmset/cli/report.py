"""
What a run is reported as: the table, the verdict, the failures, the JSON document, the exit status.

MB is 10^6 bytes throughout.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

import warmset

from .exit_codes import FAILED, GREW, INTERRUPTED, PASSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipeline import Failure, Outcome, RunOptions, RunRecord
    from .pipeline_file import Pipeline
    from .places import WorkerRecord

MB = 1_000_000
FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    How the growth compares with its bound.

    Args:
        status: ``"pass"``, ``"fail"``, or ``"none"`` with fewer than two complete runs.
        text: One line that says so.
        bound_bytes: The bound.
        last_growth_bytes: Growth of the last complete run since run 1; None without a verdict.
        max_growth_bytes: The largest growth of any complete run, which is what is judged.
        max_growth_run: The run that has it.

    The largest is judged, not the last: a process that must stay below a limit dies of its largest
    size, and more runs can then never turn a FAIL into a PASS.
    """

    status: str
    text: str
    bound_bytes: int
    last_growth_bytes: int | None = None
    max_growth_bytes: int | None = None
    max_growth_run: int | None = None


def judge(outcome: Outcome, max_growth_mb: float) -> Verdict:
    """
    Compare the growth of the resident set since run 1 with its bound.

    Args:
        outcome: What came out of the runs.
        max_growth_mb: The bound in MB; growth up to and including it passes.

    Returns:
        The verdict.
    """
    bound = round(max_growth_mb * MB)
    records = [record for record in outcome.records if record.complete]
    if len(records) < 2:
        text = "NO VERDICT: growth is measured from run 1 on, and needs two complete runs"
        return Verdict("none", text, bound)
    if outcome.workers:
        return _judge_workers(outcome, records, bound)
    last = records[-1]
    # The first of equals, and never run 1, whose growth is 0 by definition.
    worst = max(records[1:], key=lambda record: record.growth_bytes)
    failed = worst.growth_bytes > bound
    text = (
        f"{'FAIL' if failed else 'PASS'}: RSS {_change(last.growth_bytes)} from run 1 to run"
        f" {last.run}, at worst {_mb(worst.growth_bytes, '+')} MB at run {worst.run}"
        f" (bound {_mb(bound)} MB)"
    )
    status = "fail" if failed else "pass"
    return Verdict(status, text, bound, last.growth_bytes, worst.growth_bytes, worst.run)


def _judge_workers(outcome: Outcome, records: list[RunRecord], bound: int) -> Verdict:
    """The worker that grew most is judged: each of them is a process that may die of its size."""
    last = records[-1]
    rows = [row for row in outcome.workers if 1 < row.run <= last.run]
    if not rows:
        return Verdict("none", "NO VERDICT: no worker was there at the end of run 2", bound)
    worst = max(rows, key=lambda row: row.growth_bytes)
    failed = worst.growth_bytes > bound
    text = (
        f"{'FAIL' if failed else 'PASS'}: RSS of all workers {_change(last.growth_bytes)} from run"
        f" 1 to run {last.run}; of one worker at worst {_mb(worst.growth_bytes, '+')} MB, at run"
        f" {worst.run}, {worst.worker} (bound {_mb(bound)} MB for each)"
    )
    status = "fail" if failed else "pass"
    return Verdict(status, text, bound, last.growth_bytes, worst.growth_bytes, worst.run)


def exit_status(outcome: Outcome, verdict: Verdict) -> int:
    """
    Choose the exit status of the command.

    Args:
        outcome: What came out of the runs.
        verdict: Its verdict.

    Returns:
        130 after Ctrl-C; 3 if `strict` stopped the runs or no call at all succeeded; 1 if the
        growth is past its bound; 0 otherwise.
    """
    if outcome.ended == "interrupted":
        return INTERRUPTED
    if outcome.ended == "stopped" or (outcome.calls and outcome.failed == outcome.calls):
        return FAILED
    return GREW if verdict.status == "fail" else PASSED


def headline(
    pipeline: Pipeline, documents: int, options: RunOptions, engine: str | None = None
) -> str:
    """
    Say in two lines what runs, and how.

    Args:
        pipeline: The pipeline.
        documents: How many documents it runs over.
        options: How it runs.
        engine: Which workers run it; None for this process.

    Returns:
        Two lines.
    """
    cache = "cache cleared after each run" if options.clear else "cache not cleared"
    trim = "" if options.trim else ", free memory not given back"
    built = ", classes registered anew for each run" if options.per_run else ""
    threads = _count(options.workers, "worker")
    if engine is not None:
        threads = f"{engine}, {_count(options.workers, 'document')} at once"
    return (
        f"{os.path.basename(pipeline.file)}: {_count(len(pipeline.class_paths), 'class', 'es')},"
        f" {_count(len(pipeline.steps), 'step')}, {_count(documents, 'document')}"
        f"; warmset {version_text()}\n"
        f"{_count(options.runs, 'run')}, {threads}, {cache}{trim}{built},"
        f" max_cache_size {pipeline.settings.max_cache_size}"
    )


def version_text() -> str:
    """
    Name the version and the core in use.

    Returns:
        For example ``0.1.0 (compiled)``.
    """
    return f"{warmset.__version__} ({warmset.implementation})"


def print_table(records: tuple[RunRecord, ...], stream: TextIO) -> None:
    """
    Print one row for each run.

    Args:
        records: The runs.
        stream: Where to; colours and lines only if it is a terminal.
    """
    # Which columns there are is decided by the data, so that 80 characters do for most.
    failing = any(record.failed or record.skipped for record in records)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    headings = [
        "run",
        "seconds",
        "calls",
        "RSS\nMB",
        "returned\nMB",
        "growth\nMB",
        "hits",
        "misses",
        "hit\nrate",
    ]
    headings += ["evic-\ntions", "cached"]
    headings += ["failed", "skipped"] if failing else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for record in records:
        row = [
            f"{record.run}{'' if record.complete else '*'}",
            f"{record.seconds:.2f}",
            str(record.calls),
            _mb(record.rss_bytes),
            _mb(record.returned_bytes),
            _mb(record.growth_bytes, "+") if record.run > 1 else "-",
            str(record.hits),
            str(record.misses),
            f"{record.hit_rate:.1%}",
            str(record.evictions),
            str(record.cached),
        ]
        table.add_row(*row, *([str(record.failed), str(record.skipped)] if failing else []))
    _print_wide(table, stream)
    if not all(record.complete for record in records):
        stream.write("* not complete: a step failed and --strict stopped the runs\n")


def _print_wide(table: Table, stream: TextIO) -> None:
    console = Console(file=stream, highlight=False)
    # Wider than the terminal is better than cut off: a report is also read in a log.
    wide = Console(file=stream, width=10_000)
    console.width = max(console.width, wide.measure(table).maximum)
    # Not by rich itself, which would end the process if the reader has gone.
    with console.capture() as captured:
        console.print(table)
    stream.write(captured.get())


def print_workers(records: tuple[WorkerRecord, ...], stream: TextIO) -> None:
    """
    Print one row for each worker: its counters in sum over the runs, its memory after the last one.

    Args:
        records: One for each run and worker.
        stream: Where to.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("worker", no_wrap=True, vertical="bottom")
    headings = ["process", "RSS\nMB", "returned\nMB", "worst growth\nMB", "hits", "misses"]
    for heading in [*headings, "evic-\ntions", "cached"]:
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    by_process: dict[tuple[str, int], list[WorkerRecord]] = {}
    for record in records:
        by_process.setdefault((record.worker, record.pid), []).append(record)
    final = records[-1].run
    for (worker, pid), rows in by_process.items():
        last = rows[-1]
        mark = "*" if last.run < final else "+" if rows[0].new else ""
        table.add_row(
            worker,
            f"{pid}{mark}",
            _mb(last.rss_bytes),
            _mb(last.rss_before_clear_bytes - last.rss_bytes),
            _mb(max(row.growth_bytes for row in rows), "+") if len(rows) > 1 else "-",
            str(sum(row.hits for row in rows)),
            str(sum(row.misses for row in rows)),
            str(sum(row.evictions for row in rows)),
            str(last.cached),
        )
    stream.write("\n")
    _print_wide(table, stream)
    if any(rows[-1].run < final for rows in by_process.values()):
        stream.write("* lost before the last run ended; its calls were done again elsewhere\n")
    if any(rows[0].new for rows in by_process.values()):
        stream.write("+ came after run 1; its growth is counted from its own first run\n")


def failure_lines(outcome: Outcome) -> Iterator[str]:
    """
    Report the failures: the first few in full, the others as a count.

    Args:
        outcome: What came out of the runs.

    Returns:
        Lines; none where nothing failed.
    """
    if not outcome.failed:
        return
    skipped = f", {outcome.skipped} skipped for them" if outcome.skipped else ""
    yield f"{outcome.failed} of {_count(outcome.calls, 'call')} failed{skipped}:"
    shown = outcome.failures[:FAILURES_SHOWN]
    for failure in shown:
        yield f"  {_failure_text(failure)}"
    if outcome.failed > len(shown):
        yield f"  and {outcome.failed - len(shown)} more"


def survivor_lines(outcome: Outcome) -> Iterator[str]:
    """
    Report what was dropped at the end of the last run and lives, and who keeps it.

    Args:
        outcome: What came out of the runs.

    Returns:
        Lines; none where all that was dropped is gone.
    """
    if outcome.survivors:
        yield f"{_count(len(outcome.survivors), 'instance')} dropped, and alive:"
    for survivor in outcome.survivors[:FAILURES_SHOWN]:
        yield from (f"  {line}" for line in survivor.splitlines())
    if len(outcome.survivors) > FAILURES_SHOWN:
        yield f"  and {len(outcome.survivors) - FAILURES_SHOWN} more"


def as_data(
    pipeline: Pipeline,
    documents: int,
    options: RunOptions,
    outcome: Outcome,
    verdict: Verdict,
) -> dict[str, Any]:
    """
    Give the report as data for JSON.

    Args:
        pipeline: What ran.
        documents: How many documents it ran over.
        options: How it ran.
        outcome: What came out.
        verdict: The verdict.

    Returns:
        A dict of plain values; sizes are in bytes.
    """
    settings = pipeline.settings.as_options()
    return {
        "pipeline": pipeline.file,
        "warmset": warmset.__version__,
        "implementation": warmset.implementation,
        "python": platform.python_version(),
        "classes": dict(pipeline.class_paths),
        "documents": documents,
        "options": asdict(options),
        # JSON has no infinity; `retry_after_seconds` may be one.
        "registry": {key: _finite(value) for key, value in settings.items()},
        "runs": [
            {
                **asdict(record),
                "returned_bytes": record.returned_bytes,
                "hit_rate": record.hit_rate,
            }
            for record in outcome.records
        ],
        "workers": [asdict(record) for record in outcome.workers],
        "ended": outcome.ended,
        "calls": outcome.calls,
        "failed": outcome.failed,
        "skipped": outcome.skipped,
        "failures": [asdict(failure) for failure in outcome.failures],
        "survivors": list(outcome.survivors),
        "verdict": asdict(verdict),
        "exit_status": exit_status(outcome, verdict),
    }


def _finite(value: Any) -> Any:
    return "inf" if value == float("inf") else value


def _mb(size: int, sign: str = "") -> str:
    text = f"{size / MB:{sign}.1f}"
    # No change must not read as a small loss.
    return text.replace("-", "+") if text == "-0.0" else text


def _change(growth: int) -> str:
    return f"{'shrank' if growth < 0 else 'grew'} by {_mb(abs(growth))} MB"


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def _failure_text(failure: Failure) -> str:
    place = "" if failure.document is None else f", document {failure.document!r}"
    return (
        f"run {failure.run}, step {failure.step!r}, {failure.class_name}.{failure.method}{place}:"
        f" {failure.error}"
    )
