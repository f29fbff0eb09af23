"""
Runs a pipeline several times over one target and measures each run.

This module prints nothing. It keeps only numbers and short texts of a run: an instance, a result or
a traceback kept here would be measured as growth of the pipeline.
"""

from __future__ import annotations

import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmset._process_memory import resident_bytes

from .pipeline_batches import BatchedRuns
from .pipeline_calls import FailureGroup, StepCaller, Tally
from .run_options import RunOptions
from .targets import EngineTarget, LocalTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from warmset import MethodRegistry

    from .documents import Document
    from .pipeline_calls import Failure
    from .pipeline_file import Pipeline
    from .pipeline_steps import Step
    from .targets import Target, WorkerRecord

# Numbers of one run in the ledger: eight from the target and four about the calls.
_LEDGER_WIDTH = 8 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """
    The calls, the look-ups and the memory of one run.

    Args:
        run: The number of the run, from 1.
        complete: False for a run that a failure stopped (`strict`).
        seconds: Time from the first step to the last, without clearing and measuring.
        calls: Steps that were called, including those that failed.
        failed: Calls that raised an error.
        skipped: Steps that were not called because a step that they need had failed.
        rss_before_clear_bytes: Resident set size at the end of the run, before memory is freed.
        rss_bytes: Resident set size after the cache was cleared (`clear`), the garbage collected,
            and free memory returned to the system (`trim`).
        growth_bytes: `rss_bytes` minus that of run 1.
        hits: Look-ups that found a live instance.
        misses: Look-ups that did not.
        evictions: Removals that the registry decided on.
        cached: Instances in the cache at the end of the run, before clearing.
        heap_free_bytes: The part of `rss_bytes` that is free inside the interpreter's heap, and is
            used again by the next run; 0 if it is not known.
    """

    run: int
    complete: bool
    seconds: float
    calls: int
    failed: int
    skipped: int
    rss_before_clear_bytes: int
    rss_bytes: int
    growth_bytes: int
    hits: int
    misses: int
    evictions: int
    cached: int
    heap_free_bytes: int = 0

    @property
    def returned_bytes(self) -> int:
        """The memory returned to the system at the end of the run."""
        return self.rss_before_clear_bytes - self.rss_bytes

    @property
    def hit_rate(self) -> float:
        """Hits divided by look-ups; 0.0 without look-ups."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    The result of all runs.

    Args:
        records: One record for each run that ended, in order.
        failures: The first failures, at most `MAX_FAILURES_KEPT`.
        failure_groups: All failures in groups, the largest group first.
        failed: The number of calls that failed.
        skipped: The number of steps that were skipped because of failures.
        calls: The number of calls.
        ended: ``"finished"``, ``"stopped"`` (`strict`) or ``"interrupted"`` (Ctrl-C).
        survivors: Instances that outlived their removal in the last run, with their referrers.
        workers: With an engine, one record for each run and worker.
    """

    records: tuple[RunRecord, ...]
    failures: tuple[Failure, ...]
    failed: int
    skipped: int
    calls: int
    ended: str
    survivors: tuple[str, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()
    failure_groups: tuple[FailureGroup, ...] = ()


def run_pipeline(
    pipeline: Pipeline,
    documents: Sequence[Document],
    options: RunOptions,
    *,
    rss: Callable[[], int] = resident_bytes,
    timer: Callable[[], float] = time.perf_counter,
    on_step: Callable[[], None] = lambda: None,
    on_run: Callable[[int], None] = lambda number: None,
    watch: Callable[[MethodRegistry], None] = lambda registry: None,
) -> Outcome:
    """
    Run a pipeline in this process.

    Args:
        pipeline: The pipeline.
        documents: The documents to run it over.
        options: The options of the runs.
        rss: Returns the resident set size in bytes.
        timer: Returns monotonic seconds.
        on_step: Called after each step, including skipped ones, in the thread that ran it.
        on_run: Called with the number of each run before it starts.
        watch: Called with the registry before the first run, for example to add a listener. The
            registry is closed when this function returns.

    Returns:
        The result, including the completed runs after Ctrl-C.
    """
    target = LocalTarget(pipeline, documents, options, rss)
    watch(target.registry)
    return run_on(target, pipeline, documents, options, timer=timer, on_step=on_step, on_run=on_run)


def run_on(
    target: Target,
    pipeline: Pipeline,
    documents: Sequence[Document],
    options: RunOptions,
    *,
    timer: Callable[[], float] = time.perf_counter,
    on_step: Callable[[], None] = lambda: None,
    on_run: Callable[[int], None] = lambda number: None,
) -> Outcome:
    """
    Run a pipeline on a target.

    Args:
        target: The target of the calls; it is closed when this function returns.
        pipeline: The pipeline.
        documents: The documents to run it over.
        options: The options of the runs.
        timer: Returns monotonic seconds.
        on_step: As for `run_pipeline`.
        on_run: As for `run_pipeline`.

    Returns:
        The result, including the completed runs after Ctrl-C.
    """
    runner = _EngineRunner if isinstance(target, EngineTarget) else _Runner
    return runner(pipeline, documents, options, target, timer, on_step).execute(on_run)


def make_registry(pipeline: Pipeline, documents: Sequence[Document]) -> MethodRegistry:
    """
    Make the registry of a pipeline, with its classes and rules, without running the pipeline.

    Args:
        pipeline: The pipeline.
        documents: The documents, for its rules.

    Returns:
        The registry; the caller closes it.
    """
    return LocalTarget(pipeline, documents, RunOptions(trim=False), resident_bytes).registry


class _Runner:
    def __init__(
        self,
        pipeline: Pipeline,
        documents: Sequence[Document],
        options: RunOptions,
        target: Target,
        timer: Callable[[], float],
        on_step: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self._documents = tuple(documents)
        self._options = options
        self._target = target
        self._timer = timer
        self._on_step = on_step
        self._run_steps = [step for step in pipeline.steps if not step.per_document]
        self._document_steps = [step for step in pipeline.steps if step.per_document]
        self._stop = threading.Event()
        self._tally = Tally()
        # Raw numbers in separate memory, which become records at the end. A Python int or float
        # that is created while a run's instances are alive may share an arena (1 MiB) with them and
        # would keep that arena from being returned to the system, in every run.
        self._ledger = array("q")
        self._seconds = array("d")
        self._names: Mapping[str, str] = {}

    def execute(self, on_run: Callable[[int], None]) -> Outcome:
        pool = self._make_pool()
        try:
            ended = self._execute_runs(on_run, pool)
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            # A running step cannot be interrupted; steps that have not started are cancelled.
            self._stop.set()
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
            self._target.close()
        return Outcome(
            records=tuple(self._records()),
            failures=tuple(self._tally.failures),
            failed=self._tally.failed,
            skipped=self._tally.skipped,
            calls=self._tally.calls,
            ended=ended,
            survivors=self._target.survivors,
            workers=tuple(self._target.workers),
            failure_groups=tuple(
                FailureGroup(first, count)
                for first, count in sorted(self._tally.groups.values(), key=lambda each: -each[1])
            ),
        )

    def _make_pool(self) -> ThreadPoolExecutor | None:
        if self._options.workers == 1:
            return None
        # One pool for all runs: new threads and their arenas would be measured as growth.
        return ThreadPoolExecutor(self._options.workers, thread_name_prefix="warmset-run")

    def _execute_runs(self, on_run: Callable[[int], None], pool: ThreadPoolExecutor | None) -> str:
        for number in range(1, self._options.runs + 1):
            on_run(number)
            self._run(number, pool)
            if self._stop.is_set():
                return "stopped"
        return "finished"

    def _run(self, number: int, pool: ThreadPoolExecutor | None) -> None:
        self._names = self._target.begin(number)
        started = self._timer()
        tally = self._call_steps(number, pool)
        seconds = self._timer() - started
        self._target.finish(self._ledger, clear=self._options.clear, trim=self._options.trim)
        self._ledger.extend((tally.calls, tally.failed, tally.skipped, not self._stop.is_set()))
        self._seconds.append(seconds)

    def _records(self) -> Iterator[RunRecord]:
        for index, seconds in enumerate(self._seconds):
            start = index * _LEDGER_WIDTH
            row = self._ledger[start : start + _LEDGER_WIDTH].tolist()
            before_clear, rss, first, hits, misses, evictions, cached, free, *counts = row
            calls, failed, skipped, complete = counts
            yield RunRecord(
                run=index + 1,
                complete=bool(complete),
                seconds=seconds,
                calls=calls,
                failed=failed,
                skipped=skipped,
                rss_before_clear_bytes=before_clear,
                rss_bytes=rss,
                growth_bytes=rss - first,
                hits=hits,
                misses=misses,
                evictions=evictions,
                cached=cached,
                heap_free_bytes=free,
            )

    def _call_steps(self, number: int, pool: ThreadPoolExecutor | None) -> Tally:
        # A separate method, so that the results of the run are released when it returns.
        caller = StepCaller(
            self._pipeline,
            self._documents,
            self._target.call,
            run=number,
            names=self._names,
            strict=self._options.strict,
            stopped=self._stop.is_set,
            on_step=self._on_step,
        )
        results: dict[str, Any] = {}
        unavailable: set[str] = set()
        tally = self._process(caller, self._run_steps, None, results, unavailable)
        self._tally.add(tally)

        def work(document: Document) -> Tally:
            own = dict(results), set(unavailable)
            return self._process(caller, self._document_steps, document, *own)

        tallies = map(work, self._documents) if pool is None else pool.map(work, self._documents)
        for part in tallies:
            tally.add(part)
            self._tally.add(part)
        return tally

    def _process(
        self,
        caller: StepCaller,
        steps: Sequence[Step],
        document: Document | None,
        results: dict[str, Any],
        unavailable: set[str],
    ) -> Tally:
        tally = Tally()
        caller.process(steps, document, results, unavailable, tally)
        if tally.failed and self._options.strict:
            self._stop.set()
        return tally


class _EngineRunner(_Runner):
    """Runs the steps in batches on the workers of an engine."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert isinstance(self._target, EngineTarget)
        self._batched = BatchedRuns(
            self._target, self._pipeline, self._documents, self._options, self._on_step
        )

    def _make_pool(self) -> None:
        return None

    def _call_steps(self, number: int, pool: ThreadPoolExecutor | None) -> Tally:
        tally = Tally()
        for part in self._batched.run(number):
            tally.add(part)
            self._tally.add(part)
        if tally.failed and self._options.strict:
            self._stop.set()
        return tally
