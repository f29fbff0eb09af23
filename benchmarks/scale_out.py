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
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from warmset.cli.pipeline_run import Outcome

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


def measure(engine: str, runs: int, workers: int) -> tuple[Outcome, list[float], Traffic]:
    """
    Run the demo on an engine and, in turn, in this process.

    Args:
        engine: "dask" or "ray".
        runs: The number of runs, the first one included.
        workers: The number of worker processes.

    Returns:
        The runs on the engine, the seconds in this process, and the traffic of the last run.
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
    local: list[tuple[float, float]] = []
    used: list[dict[str, float]] = []

    def before_run(number: int) -> None:
        began = time.process_time()
        outcome = run_pipeline(pipeline, documents, RunOptions(runs=1, trim=False))
        assert not outcome.failed, outcome.failures[0]
        local.append((outcome.records[0].seconds, time.process_time() - began))
        used.append(target.cluster.on_each_worker(_processor_seconds))
        traffic.counts = number == runs

    outcome = run_on(target, pipeline, documents, options, on_run=before_run)
    assert not outcome.failed, outcome.failures[0]
    return outcome, local, traffic


def _processor_seconds(worker: Any) -> float:
    return time.process_time()


def table(rows: Sequence[tuple[str, Outcome, list[float], Traffic]]) -> str:
    """Return the results in Markdown."""
    lines = [
        "| engine | one process | workers | ratio | ratios of the runs | tasks | bytes sent |"
        " received |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for engine, outcome, local, traffic in rows:
        there = [record.seconds for record in outcome.records[1:]]
        here = local[1:]
        ratios = sorted(b / a for a, b in zip(here, there, strict=True))
        lines.append(
            f"| {engine} | {median(here):.2f} s | {median(there):.2f} s | {median(ratios):.2f} x |"
            f" {', '.join(f'{ratio:.2f}' for ratio in ratios)} | {traffic.tasks} |"
            f" {traffic.sent:,} | {traffic.received:,} |"
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
        outcome, local, traffic = measure(engine, chosen.runs, chosen.workers)
        for number, (here, record) in enumerate(zip(local, outcome.records, strict=True), 1):
            counted = "" if number > 1 else "  (not counted)"
            print(
                f"{engine:>5} run {number}: one process {here:.2f} s,"
                f" {chosen.workers} workers {record.seconds:.2f} s{counted}",
                flush=True,
            )
        rows.append((engine, outcome, local, traffic))
    print()
    print(table(rows))


if __name__ == "__main__":
    main()
