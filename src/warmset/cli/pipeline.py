"""
The engine: runs a pipeline N times over one registry and measures each run.

Nothing is printed here. What a run leaves behind is numbers and short texts only: an instance, a
result or a traceback that the engine kept would be counted as growth of the pipeline.
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
from warmset.resolver import told

from .pipeline_file import Reference
from .places import Here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from warmset import MethodRegistry

    from .documents import Document
    from .pipeline_file import Pipeline, Step
    from .places import Place, WorkerRecord

# The rest is counted: failures of every step of every document in every run would be growth.
MAX_FAILURES_KEPT = 100
# Numbers of one run in the ledger: those of its place, and those of its calls.
_LEDGER_WIDTH = 7 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """
    How to run a pipeline.

    Args:
        runs: How often.
        workers: Threads that work on documents; the steps of one document stay in one thread.
        clear: Whether the cache is cleared after each run.
        per_run: Whether each run registers the classes anew, as ``Name@3`` in run 3.
        strict: Whether the first failure ends everything.
        trim: Whether free memory is given back to the system before each measurement.
    """

    runs: int = 10
    workers: int = 1
    clear: bool = True
    per_run: bool = False
    strict: bool = False
    trim: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """
    What one run did and what it left.

    Args:
        run: Its number, from 1.
        complete: False for a run that a failure ended (`strict`).
        seconds: From the first step to the last, without clearing and measuring.
        calls: Steps that were called, the failed ones included.
        failed: Calls that raised.
        skipped: Steps that were not called because a step that they need had failed.
        rss_before_clear_bytes: Resident set size at the end of the run, before anything is freed.
        rss_bytes: The same after the cache was cleared (if it is), the garbage collected, and free
            memory given back to the system (if it is).
        growth_bytes: `rss_bytes` less that of run 1.
        hits: Look-ups that found a live instance.
        misses: Look-ups that did not.
        evictions: Removals that the registry decided.
        cached: Instances in the cache at the end of the run, before clearing.
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

    @property
    def returned_bytes(self) -> int:
        """Give what the system got back when the run had ended."""
        return self.rss_before_clear_bytes - self.rss_bytes

    @property
    def hit_rate(self) -> float:
        """Give hits by look-ups, from 0.0 to 1.0; 0.0 where there was no look-up."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """
    One call that raised.

    Args:
        run: The number of the run.
        step: The name of the step.
        class_name: Its class.
        method: Its method.
        document: The document's name; None for a step that is called once per run.
        error: Type and text of the error.
    """

    run: int
    step: str
    class_name: str
    method: str
    document: str | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    All that came out.

    Args:
        records: One for each run that ended, in order.
        failures: The first failures, at most `MAX_FAILURES_KEPT`.
        failed: How many there were.
        skipped: How many steps were skipped for them.
        calls: How many calls there were.
        ended: ``"finished"``, ``"stopped"`` (`strict`) or ``"interrupted"`` (Ctrl-C).
        survivors: What was dropped by the end of the last run and lived on, and who keeps it.
        workers: With an engine, one for each run and worker.
    """

    records: tuple[RunRecord, ...]
    failures: tuple[Failure, ...]
    failed: int
    skipped: int
    calls: int
    ended: str
    survivors: tuple[str, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()


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
    Run a pipeline.

    Args:
        pipeline: What to run.
        documents: What to run it over.
        options: How.
        rss: Gives the resident set size in bytes.
        timer: Gives monotonic seconds.
        on_step: Called after each step, also a skipped one, in the thread that ran it.
        on_run: Called with the number of each run before it starts.
        watch: Called with the registry before the first run, for example to add a listener; the
            registry is closed when this function returns.

    Returns:
        What came out, also after Ctrl-C.
    """
    place = Here(pipeline, documents, options, rss)
    watch(place.registry)
    return run_at(place, pipeline, documents, options, timer=timer, on_step=on_step, on_run=on_run)


def run_at(
    place: Place,
    pipeline: Pipeline,
    documents: Sequence[Document],
    options: RunOptions,
    *,
    timer: Callable[[], float] = time.perf_counter,
    on_step: Callable[[], None] = lambda: None,
    on_run: Callable[[int], None] = lambda number: None,
) -> Outcome:
    """
    Run a pipeline where its calls are to be done.

    Args:
        place: Where; it is closed when this function returns.
        pipeline: What to run.
        documents: What to run it over.
        options: How.
        timer: Gives monotonic seconds.
        on_step: As for `run_pipeline`.
        on_run: As for `run_pipeline`.

    Returns:
        What came out, also after Ctrl-C.
    """
    return _Engine(pipeline, documents, options, place, timer, on_step).execute(on_run)


def make_registry(pipeline: Pipeline, documents: Sequence[Document]) -> MethodRegistry:
    """
    Make the registry of a pipeline, with its rules, and run nothing.

    Args:
        pipeline: The pipeline.
        documents: What its rules are given.

    Returns:
        The registry; whoever asked for it closes it.
    """
    return Here(pipeline, documents, RunOptions(trim=False), resident_bytes).registry


@dataclass(slots=True)
class _Tally:
    # What one thread counted for one document; merged by the thread that runs the run.
    calls: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: _Tally) -> None:
        self.calls += other.calls
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures[: MAX_FAILURES_KEPT - len(self.failures)]


@dataclass(frozen=True, slots=True)
class _Run:
    # One run while it runs: the results of the run steps live as long as this does.
    number: int
    names: Mapping[str, str]
    results: dict[str, Any]
    broken: set[str]


class _Engine:
    def __init__(
        self,
        pipeline: Pipeline,
        documents: Sequence[Document],
        options: RunOptions,
        place: Place,
        timer: Callable[[], float],
        on_step: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self._documents = tuple(documents)
        self._options = options
        self._place = place
        self._timer = timer
        self._on_step = on_step
        self._run_steps = [step for step in pipeline.steps if not step.per_document]
        self._document_steps = [step for step in pipeline.steps if step.per_document]
        # The result of any other step is dropped at once.
        self._wanted = frozenset().union(*(step.needs for step in pipeline.steps))
        self._corpus = {
            "names": [document.name for document in documents],
            "texts": [document.text for document in documents],
        }
        self._stop = threading.Event()
        self._tally = _Tally()
        # Bare numbers in memory of their own, made into records at the end. A Python int or float
        # that is made while a run's instances are alive lies among their objects, and would keep
        # a whole arena of them (1 MiB) from going back to the system, run after run.
        self._ledger = array("q")
        self._seconds = array("d")
        self._names: Mapping[str, str] = {}

    def execute(self, on_run: Callable[[int], None]) -> Outcome:
        ended = "finished"
        pool = None
        try:
            if self._options.workers > 1:
                # One pool for all runs, so that its threads and their arenas are no growth.
                pool = ThreadPoolExecutor(self._options.workers, thread_name_prefix="warmset-run")
            for number in range(1, self._options.runs + 1):
                on_run(number)
                self._run(number, pool)
                if self._stop.is_set():
                    ended = "stopped"
                    break
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            # A step that is running cannot be cut short; those that wait are dropped.
            self._stop.set()
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
            self._place.close()
        return Outcome(
            records=tuple(self._records()),
            failures=tuple(self._tally.failures),
            failed=self._tally.failed,
            skipped=self._tally.skipped,
            calls=self._tally.calls,
            ended=ended,
            survivors=self._place.survivors,
            workers=tuple(self._place.workers),
        )

    def _run(self, number: int, pool: ThreadPoolExecutor | None) -> None:
        self._names = self._place.begin(number)
        started = self._timer()
        tally = self._call_steps(number, pool)
        seconds = self._timer() - started
        self._place.finish(self._ledger, clear=self._options.clear, trim=self._options.trim)
        self._ledger.extend((tally.calls, tally.failed, tally.skipped, not self._stop.is_set()))
        self._seconds.append(seconds)

    def _records(self) -> Iterator[RunRecord]:
        for at, seconds in enumerate(self._seconds):
            row = self._ledger[at * _LEDGER_WIDTH : (at + 1) * _LEDGER_WIDTH].tolist()
            before_clear, rss, first, hits, misses, evictions, cached, *counts = row
            calls, failed, skipped, whole = counts
            yield RunRecord(
                run=at + 1,
                complete=bool(whole),
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
            )

    def _call_steps(self, number: int, pool: ThreadPoolExecutor | None) -> _Tally:
        # A function of its own: the results of the run are gone when it returns.
        run = _Run(number, self._names, {}, set())
        tally = self._process(run, self._run_steps, None, run.results, run.broken)
        self._tally.add(tally)
        work = functools.partial(self._process_document, run)
        tallies = map(work, self._documents) if pool is None else pool.map(work, self._documents)
        for part in tallies:
            tally.add(part)
            self._tally.add(part)
        return tally

    def _process_document(self, run: _Run, document: Document) -> _Tally:
        results, broken = dict(run.results), set(run.broken)
        return self._process(run, self._document_steps, document, results, broken)

    def _process(
        self,
        run: _Run,
        steps: Sequence[Step],
        document: Document | None,
        results: dict[str, Any],
        broken: set[str],
    ) -> _Tally:
        tally = _Tally()
        for step in steps:
            if self._stop.is_set():
                break
            if not broken.isdisjoint(step.needs):
                broken.add(step.name)
                tally.skipped += 1
                self._on_step()
                continue
            tally.calls += 1
            try:
                arguments = self._bind(step.arguments, document, results)
                result = self._place.call(run.names[step.class_name], step.method, arguments)
            except (Exception, SystemExit) as error:
                # SystemExit too: a method that calls `sys.exit` must not take the others along.
                broken.add(step.name)
                tally.failed += 1
                if len(tally.failures) < MAX_FAILURES_KEPT:
                    tally.failures.append(_failure(run, step, document, error))
                if self._options.strict:
                    self._stop.set()
            else:
                if step.name in self._wanted:
                    results[step.name] = result
                del result
            self._on_step()
        return tally

    def _bind(self, value: Any, document: Document | None, results: Mapping[str, Any]) -> Any:
        # Lists and tables are made anew for each call, so that a method may change its arguments.
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
        error=told(error),
    )
