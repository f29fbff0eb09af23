"""
The demo on two workers, in relation to one process: seconds of each run, tasks, and bytes.

``python -m benchmarks.scale_out`` runs the demo pipeline over the same documents in this process
and on the workers of each installed engine. Before each run on an engine there is one in this
process, so that a change of the machine's pace falls on both. The start of the cluster is in no
run, and the first run of each, which imports the packages and measures what the steps take, is
printed but not counted. The cache is cleared after each run, so that each run builds every class.
"""

from __future__ import annotations

import argparse
import pickle
import time
from importlib.util import find_spec
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PACKAGES = {"dask": "distributed", "ray": "ray"}


class Traffic:
    """Counts what the client sends to the workers of a cluster and receives from them."""

    def __init__(self, cluster: Any) -> None:
        self.tasks = self.sent = self.received = 0
        self.counts = True
        self._run, self._wait = cluster.run, cluster.wait
        cluster.run, cluster.wait = self.run, self.wait

    def run(self, worker: str, function: Any, arguments: tuple[Any, ...], **options: Any) -> Any:
        """Count a task, with a reference of 100 bytes for each result that stays there."""
        if self.counts:
            spec, *references = arguments
            self.tasks += 1
            self.sent += len(pickle.dumps((function, spec))) + 100 * len(references)
        return self._run(worker, function, arguments, **options)

    def wait(self, works: Iterable[Any]) -> list[Any]:
        """Count the reports that arrived."""
        done: list[Any] = self._wait(works)
        if self.counts:
            self.received += sum(len(pickle.dumps(work.result())) for work in done)
        return done


class Measured(NamedTuple):
    """The runs on one engine and, in turn, in one process; the first of each is not counted."""

    engine: str
    here: list[float]
    """Seconds of the runs in this process."""
    there: list[float]
    """Seconds of the runs on the workers."""
    processor_here: list[float]
    """Processor seconds, with those of clearing, which do not depend on other processes' load."""
    processor_there: list[float]
    """Of the busiest worker."""
    traffic: Traffic
    """Of the last run."""


def measure(engine: str, runs: int, workers: int) -> Measured:
    """
    Run the demo on an engine and, in turn, in this process.

    Args:
        engine: "dask" or "ray".
        runs: The number of runs, the first one included.
        workers: The number of worker processes.

    Returns:
        The seconds of both.
    """
    from warmset.cli import demo
    from warmset.cli.documents import load_documents
    from warmset.cli.engine import Engine, default_workers, start_workers
    from warmset.cli.pipeline_file import load_pipeline
    from warmset.cli.pipeline_run import run_on, run_pipeline
    from warmset.cli.run_options import RunOptions

    pipeline = load_pipeline(demo.PIPELINE_FILE)
    assert pipeline.documents is not None
    documents = load_documents(pipeline.documents, pipeline.file)
    chosen = Engine(engine, None, workers)
    options = RunOptions(runs=runs, workers=default_workers(chosen), trim=False)
    target = start_workers(chosen, pipeline, documents, options)
    traffic = Traffic(target.cluster)
    here: list[float] = []
    processor_here: list[float] = []
    used: list[dict[str, float]] = []
    close = target.close

    def note_used() -> None:
        used.append(target.cluster.on_each_worker(_processor_seconds))

    def before_run(number: int) -> None:
        began = time.process_time()
        outcome = run_pipeline(pipeline, documents, RunOptions(runs=1, trim=False))
        assert not outcome.failed, outcome.failures[0]
        here.append(outcome.records[0].seconds)
        processor_here.append(time.process_time() - began)
        note_used()
        traffic.counts = number == runs

    def close_after_last_run() -> None:
        note_used()
        close()

    target.close = close_after_last_run  # type: ignore[method-assign]
    outcome = run_on(target, pipeline, documents, options, on_run=before_run)
    assert not outcome.failed, outcome.failures[0]
    return Measured(
        engine,
        here,
        [record.seconds for record in outcome.records],
        processor_here,
        [
            max(after[name] - before.get(name, 0.0) for name in after)
            for before, after in pairwise(used)
        ],
        traffic,
    )


def _processor_seconds(worker: Any) -> float:
    return time.process_time()


def table(rows: Sequence[Measured], workers: int) -> str:
    """Return the results in Markdown."""
    lines = [
        f"| engine | one process | {workers} workers | ratio | ratios of the runs |"
        " processor seconds: one process | busiest worker | ratio |"
        " tasks | bytes sent | received |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = sorted(b / a for a, b in zip(row.here[1:], row.there[1:], strict=True))
        one, busiest = median(row.processor_here[1:]), median(row.processor_there[1:])
        lines.append(
            f"| {row.engine} | {median(row.here[1:]):.2f} s | {median(row.there[1:]):.2f} s |"
            f" {median(ratios):.2f} x | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"
            f" {one:.2f} s | {busiest:.2f} s | {busiest / one:.2f} x |"
            f" {row.traffic.tasks} | {row.traffic.sent:,} | {row.traffic.received:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=6, help="with the first one, not counted")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", action="append", choices=tuple(PACKAGES))
    chosen = parser.parse_args()

    from warmset.cli import demo

    demo.check_packages()
    demo.prepare_process()
    rows = []
    for engine in chosen.engine or [e for e, package in PACKAGES.items() if find_spec(package)]:
        rows.append(measure(engine, chosen.runs, chosen.workers))
        for number, (here, there) in enumerate(zip(rows[-1].here, rows[-1].there, strict=True), 1):
            counted = "" if number > 1 else "  (not counted)"
            print(
                f"{engine:>5} run {number}: one process {here:.2f} s,"
                f" {chosen.workers} workers {there:.2f} s{counted}",
                flush=True,
            )
    print()
    print(table(rows, chosen.workers))


if __name__ == "__main__":
    main()
