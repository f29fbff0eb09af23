"""
The text and the JSON report of the runs: tables, verdict, failures, and the exit status.

MB is 10^6 bytes throughout.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

import warmset
from warmset._text import printable

from .exit_codes import FAILED, GREW, INTERRUPTED, PASSED
from .tables import new_table, render_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipeline_file import Pipeline
    from .pipeline_run import Failure, Outcome, RunRecord
    from .run_options import RunOptions
    from .targets import WorkerRecord

MB = 1_000_000
FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    The result of comparing the growth with its bound.

    Args:
        status: ``"pass"``, ``"fail"``, or ``"none"`` with fewer than two complete runs.
        text: The verdict in one line.
        bound_bytes: The largest growth that passes.
        last_growth_bytes: Growth of the last complete run since run 1; None without a verdict.
        max_growth_bytes: The largest growth of any complete run, which decides the verdict.
        max_growth_run: The run with the largest growth.

    The largest growth decides, because a memory limit applies to the largest size of a process, and
    because further runs must never turn a FAIL into a PASS.
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
        outcome: The result of the runs.
        max_growth_mb: The bound in MB; growth that equals it passes.

    Returns:
        The verdict.
    """
    bound = round(max_growth_mb * MB)
    records = [record for record in outcome.records if record.complete]
    if len(records) < 2:
        text = "NO VERDICT: growth since run 1 needs two complete runs"
        return Verdict("none", text, bound)
    if outcome.workers:
        return _judge_workers(outcome, records, bound)
    last = records[-1]
    # The first run with the largest growth; not run 1, whose growth is 0 by definition.
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
    """Judge the worker with the largest growth: a memory limit applies to each process."""
    last = records[-1]
    rows = [row for row in outcome.workers if 1 < row.run <= last.run]
    if not rows:
        return Verdict("none", "NO VERDICT: no worker completed run 2", bound)
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
        outcome: The result of the runs.
        verdict: The verdict.

    Returns:
        130 after Ctrl-C; 3 if `strict` stopped the runs or every call failed; 1 if the growth
        exceeded its bound; 0 otherwise.
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
    Describe the pipeline and the options in two lines.

    Args:
        pipeline: The pipeline.
        documents: The number of documents.
        options: The options of the runs.
        engine: The description of the engine; None for this process.

    Returns:
        Two lines.
    """
    cache = "cache cleared after each run" if options.clear else "cache not cleared"
    trim = "" if options.trim else ", free memory not returned"
    names = ", new class names for each run" if options.per_run else ""
    threads = _count(options.workers, "worker")
    if engine is not None:
        threads = f"{engine}, {_count(options.workers, 'document')} at once"
    file = printable(os.path.basename(pipeline.file))
    return (
        f"{file}: {_count(len(pipeline.class_paths), 'class', 'es')},"
        f" {_count(len(pipeline.steps), 'step')}, {_count(documents, 'document')}"
        f"; warmset {version_text()}\n"
        f"{_count(options.runs, 'run')}, {threads}, {cache}{trim}{names},"
        f" max_cache_size {pipeline.settings.max_cache_size}"
    )


def version_text() -> str:
    """
    Return the version and the core in use.

    Returns:
        For example ``0.1.0 (compiled)``.
    """
    return f"{warmset.__version__} ({warmset.implementation})"


def print_table(records: tuple[RunRecord, ...], stream: TextIO) -> None:
    """
    Print one row for each run.

    Args:
        records: The runs.
        stream: The output; colours are used only if it is a terminal.
    """
    # Optional columns appear only if they have data, so that most tables fit into 80 columns.
    failing = any(record.failed or record.skipped for record in records)
    table = new_table(gap=2)
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
    stream.write(render_table(table, stream))
    if not all(record.complete for record in records):
        stream.write("* not complete: a step failed and --strict stopped the runs\n")


def print_workers(records: tuple[WorkerRecord, ...], stream: TextIO) -> None:
    """
    Print one row for each worker: counters summed over the runs, memory after its last run.

    Args:
        records: One record for each run and worker.
        stream: The output.
    """
    table = new_table(gap=2)
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
    stream.write(render_table(table, stream))
    if any(rows[-1].run < final for rows in by_process.values()):
        stream.write("* lost before the last run ended; its calls were repeated on other workers\n")
    if any(rows[0].new for rows in by_process.values()):
        stream.write("+ joined after run 1; its growth is counted from its own first run\n")


def failure_lines(outcome: Outcome) -> Iterator[str]:
    """
    Report the failures: the first few in full, the number of the others.

    Args:
        outcome: The result of the runs.

    Returns:
        Lines; none if no call failed.
    """
    if not outcome.failed:
        return
    skipped = f", {outcome.skipped} skipped because of them" if outcome.skipped else ""
    yield f"{outcome.failed} of {_count(outcome.calls, 'call')} failed{skipped}:"
    shown = outcome.failures[:FAILURES_SHOWN]
    for failure in shown:
        yield f"  {_failure_text(failure)}"
    if outcome.failed > len(shown):
        yield f"  and {outcome.failed - len(shown)} more"


def survivor_lines(outcome: Outcome) -> Iterator[str]:
    """
    Report the instances that outlived their removal in the last run, with their referrers.

    Args:
        outcome: The result of the runs.

    Returns:
        Lines; none if no instance outlived its removal.
    """
    if outcome.survivors:
        yield f"{_count(len(outcome.survivors), 'instance')} removed but still referenced:"
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
    Return the report as data for JSON.

    Args:
        pipeline: The pipeline.
        documents: The number of documents.
        options: The options of the runs.
        outcome: The result of the runs.
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
    # "-0.0" would look like a small decrease.
    return text.replace("-", "+") if text == "-0.0" else text


def _change(growth: int) -> str:
    return f"{'shrank' if growth < 0 else 'grew'} by {_mb(abs(growth))} MB"


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def _failure_text(failure: Failure) -> str:
    location = "" if failure.document is None else f", document {failure.document!r}"
    call = f"{failure.class_name}.{failure.method}"
    return f"run {failure.run}, step {failure.step!r}, {call}{location}: {failure.error}"
