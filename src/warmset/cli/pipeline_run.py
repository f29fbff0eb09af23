"""
Runs a pipeline several times over one target and measures each run.

This module prints nothing. It keeps only numbers and short texts of a run: an instance, a result or
a traceback kept here would be measured as growth of the pipeline.
"""

from __future__ import annotations

import functools
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from warmset._process_memory import resident_bytes
from warmset.family_keys import FamilyKey
from warmset.resolver import error_text

from .pipeline_steps import Reference
from .run_options import RunOptions
from .targets import LocalTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from warmset import MethodRegistry

    from .documents import Document
    from .pipeline_file import Pipeline
    from .pipeline_steps import Step
    from .targets import Target, WorkerRecord

# Further failures are only counted: keeping all of them would be measured as growth.
MAX_FAILURES_KEPT = 100
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


@dataclass(frozen=True, slots=True)
class Failure:
    """
    A call that raised an error.

    Args:
        run: The number of the run.
        step: The name of the step.
        class_name: The class of the step.
        method: The method of the step.
        document: The name of the document; None for a step that is called once per run.
        error: The type and the text of the error.
    """

    run: int
    step: str
    class_name: str
    method: str
    document: str | None
    error: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """
    The failures of one step with one type of error.

    Args:
        first: The first of them.
        count: Their number.
    """

    first: Failure
    count: int


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
    return _Runner(pipeline, documents, options, target, timer, on_step).execute(on_run)


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


@dataclass(slots=True)
class _Tally:
    # The counts of one thread for one document; the main thread adds them up.
    calls: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    # Step and type of error -> the first such failure, and how many there are.
    groups: dict[tuple[str, str], tuple[Failure, int]] = field(default_factory=dict)

    def note(self, failure: Failure, kind: str) -> None:
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(failure)
        first, count = self.groups.get((failure.step, kind), (failure, 0))
        self.groups[failure.step, kind] = first, count + 1

    def add(self, other: _Tally) -> None:
        self.calls += other.calls
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures[: MAX_FAILURES_KEPT - len(self.failures)]
        for key, (failure, more) in other.groups.items():
            first, count = self.groups.get(key, (failure, 0))
            self.groups[key] = first, count + more


@dataclass(frozen=True, slots=True)
class _Run:
    # A run in progress; it keeps the results of the run steps alive.
    number: int
    names: Mapping[str, str]
    results: dict[str, Any]
    unavailable: set[str]


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
        # The results of all other steps are dropped at once.
        self._needed_steps = frozenset().union(*(step.needs for step in pipeline.steps))
        self._corpus = {
            "names": [document.name for document in documents],
            "texts": [document.text for document in documents],
        }
        self._stop = threading.Event()
        self._tally = _Tally()
        # Raw numbers in separate memory, which become records at the end. A Python int or float
        # that is created while a run's instances are alive may share an arena (1 MiB) with them and
        # would keep that arena from being returned to the system, in every run.
        self._ledger = array("q")
        self._seconds = array("d")
        self._names: Mapping[str, str] = {}

    def execute(self, on_run: Callable[[int], None]) -> Outcome:
        pool = None
        try:
            if self._options.workers > 1:
                # One pool for all runs: new threads and their arenas would be measured as growth.
                pool = ThreadPoolExecutor(self._options.workers, thread_name_prefix="warmset-run")
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

    def _call_steps(self, number: int, pool: ThreadPoolExecutor | None) -> _Tally:
        # A separate method, so that the results of the run are released when it returns.
        run = _Run(number, self._names, {}, set())
        tally = self._process(run, self._run_steps, None, run.results, run.unavailable)
        self._tally.add(tally)
        work = functools.partial(self._process_document, run)
        tallies = map(work, self._documents) if pool is None else pool.map(work, self._documents)
        for part in tallies:
            tally.add(part)
            self._tally.add(part)
        return tally

    def _process_document(self, run: _Run, document: Document) -> _Tally:
        results, unavailable = dict(run.results), set(run.unavailable)
        return self._process(run, self._document_steps, document, results, unavailable)

    def _process(
        self,
        run: _Run,
        steps: Sequence[Step],
        document: Document | None,
        results: dict[str, Any],
        unavailable: set[str],
    ) -> _Tally:
        tally = _Tally()
        for step in steps:
            if self._stop.is_set():
                break
            if not unavailable.isdisjoint(step.needs):
                unavailable.add(step.name)
                tally.skipped += 1
                self._on_step()
                continue
            tally.calls += 1
            try:
                arguments = self._bind(step.arguments, document, results)
                target: Any = run.names[step.class_name]
                if step.key is not None:
                    target = FamilyKey(target, self._bind_key(step.key, document, results))
                result = self._target.call(target, step.method, arguments)
            except (Exception, SystemExit) as error:
                # SystemExit as well: a method that calls `sys.exit` must not stop the other steps.
                unavailable.add(step.name)
                tally.note(_failure(run, step, document, error), type(error).__qualname__)
                if self._options.strict:
                    self._stop.set()
            else:
                if step.name in self._needed_steps:
                    results[step.name] = result
                del result
            self._on_step()
        return tally

    def _bind_key(self, value: Any, document: Document | None, results: Mapping[str, Any]) -> Any:
        if isinstance(value, tuple):
            return tuple(self._bind_key(part, document, results) for part in value)
        bound = self._bind(value, document, results)
        return tuple(bound) if isinstance(bound, list) else bound

    def _bind(self, value: Any, document: Document | None, results: Mapping[str, Any]) -> Any:
        # Every call receives new lists and dicts, because a method may change its arguments.
        if isinstance(value, Reference):
            if value.scope == "steps":
                return results[value.name]
            if value.scope == "documents":
                return list(self._corpus[value.name])
            return getattr(document, value.name)
        if isinstance(value, list):
            return [self._bind(item, document, results) for item in value]
        if isinstance(value, dict):
            return {key: self._bind(item, document, results) for key, item in value.items()}
        return value


def _failure(run: _Run, step: Step, document: Document | None, error: BaseException) -> Failure:
    return Failure(
        run=run.number,
        step=step.name,
        class_name=step.class_name,
        method=step.method,
        document=None if document is None else document.name,
        error=error_text(error),
    )
