"""
The text and the JSON report of the runs: tables, verdict, failures, and the exit status.

MB is 10^6 bytes throughout.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import warmset
from warmset._text import printable

from .exit_codes import FAILED, INTERRUPTED, NOT_PASSED, PASSED
from .tables import new_table, render_table
from .verdict import megabytes as _mb
from .verdict import settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipeline_calls import FailureGroup
    from .pipeline_file import Pipeline
    from .pipeline_run import Outcome, RunRecord
    from .run_options import RunOptions
    from .targets import WorkerRecord
    from .verdict import Verdict

FAILURES_SHOWN = 5


def exit_status(outcome: Outcome, verdict: Verdict) -> int:
    """
    Choose the exit status of the command.

    Args:
        outcome: The result of the runs.
        verdict: The verdict.

    Returns:
        130 after Ctrl-C; 3 if `strict` stopped the runs or every call failed; 1 if the verdict is
        FAIL; 0 otherwise.
    """
    if outcome.ended == "interrupted":
        return INTERRUPTED
    if outcome.ended == "stopped" or (outcome.calls and outcome.failed == outcome.calls):
        return FAILED
    return NOT_PASSED if verdict.status == "fail" else PASSED


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
        threads = f"{engine}, {_count(options.workers, 'task')} at once"
    file = printable(os.path.basename(pipeline.file))
    count = len(pipeline.families)
    families = f" {count} {'family' if count == 1 else 'families'}," if count else ""
    return (
        f"{file}: {_count(len(pipeline.class_paths), 'class', 'es')},{families}"
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
        since = settled(rows)
        mark = "*" if last.run < final else "+" if rows[0].new else "=" if since[0].moved else ""
        table.add_row(
            worker,
            f"{pid}{mark}",
            _mb(last.rss_bytes),
            _mb(last.rss_before_clear_bytes - last.rss_bytes),
            _mb(max(row.growth_bytes for row in since), "+") if len(since) > 1 else "-",
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
    if any(settled(rows)[0].moved for rows in by_process.values()):
        stream.write(
            "= was given further classes after run 1; its growth is counted from then on\n"
        )


def failure_lines(outcome: Outcome) -> Iterator[str]:
    """
    Report the failures, grouped by step and type of error, with the first of each group.

    Args:
        outcome: The result of the runs.

    Returns:
        Lines; none if no call failed.
    """
    if not outcome.failed:
        return
    skipped = f", {outcome.skipped} skipped because of them" if outcome.skipped else ""
    yield f"{outcome.failed} of {_count(outcome.calls, 'call')} failed{skipped}:"
    shown = outcome.failure_groups[:FAILURES_SHOWN]
    for group in shown:
        yield f"  {_group_text(group)}"
    others = sum(group.count for group in outcome.failure_groups[FAILURES_SHOWN:])
    if others:
        kinds = len(outcome.failure_groups) - len(shown)
        yield f"  and {others} more, of {_count(kinds, 'other kind')}"


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
        "families": {name: family["factory"] for name, family in pipeline.families.items()},
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
        "failure_groups": [asdict(group) for group in outcome.failure_groups],
        "survivors": list(outcome.survivors),
        "verdict": asdict(verdict),
        "exit_status": exit_status(outcome, verdict),
    }


def _finite(value: Any) -> Any:
    return "inf" if value == float("inf") else value


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def _group_text(group: FailureGroup) -> str:
    first = group.first
    place = f"run {first.run}"
    if first.document is not None:
        place += f", document {first.document!r}"
    call = f"{first.class_name}.{first.method}"
    return f"{group.count} x step {first.step!r}, {call}: {first.error} (first in {place})"
