"""The targets of a pipeline's calls: this process, or the workers of an engine."""

from __future__ import annotations

import gc
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmset import MethodExecutor, MethodRegistry
from warmset._process_memory import share_one_heap, unshared_bytes
from warmset.observe.leaks import track_leaks

from .pipeline_classes import register_classes, registered_name
from .python_heap import free_heap_bytes

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from warmset.engines.cluster import Cluster
    from warmset.engines.worker import Worker

    from .documents import Document
    from .pipeline_file import Pipeline
    from .run_options import RunOptions

    class Target(Protocol):
        """The operations that a run needs."""

        @property
        def survivors(self) -> tuple[str, ...]:
            """Instances that outlived their removal in the last run, with their referrers."""
            ...

        @property
        def workers(self) -> Sequence[WorkerRecord]:
            """One record for each run and worker; empty for this process."""
            ...

        def begin(self, number: int) -> Mapping[str, str]:
            """Prepare a run; returns class name in the pipeline file -> class name to call."""
            ...

        def call(self, class_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
            """Call a method; the class name may be the key of a family."""
            ...

        def finish(self, ledger: array[int], *, clear: bool, trim: bool) -> None:
            """
            End a run: measure, clear, measure again.

            Eight numbers are appended to `ledger`: RSS before memory is freed; RSS after it; RSS
            after run 1, from which growth is counted; hits, misses and evictions of the run;
            instances cached at its end; free memory inside the interpreter's heap.
            """
            ...

        def close(self) -> None:
            """Close the target and its registries."""
            ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """
    The counters and the memory of one worker at the end of one run.

    Args:
        run: The number of the run.
        worker: The engine's name of the worker.
        pid: The process of the worker.
        new: Whether the process is new in this run; False for all processes of run 1.
        rss_before_clear_bytes: Resident set size before memory is freed, as for `RunRecord`.
        rss_bytes: Resident set size after clearing.
        growth_bytes: `rss_bytes` minus that of the first run that this process completed.
        hits: Look-ups that found a live instance.
        misses: Look-ups that did not.
        evictions: Removals that the registry decided on.
        cached: Instances in the cache at the end of the run.
        heap_free_bytes: The part of `rss_bytes` that is free inside the interpreter's heap.
        moved: Whether the process was given a class in this run that it had not run before. Growth
            is then counted from this run, as the class's packages were imported.
    """

    run: int
    worker: str
    pid: int
    new: bool
    rss_before_clear_bytes: int
    rss_bytes: int
    growth_bytes: int
    hits: int
    misses: int
    evictions: int
    cached: int
    heap_free_bytes: int = 0
    moved: bool = False


class LocalTarget:
    """
    One registry in this process.

    Args:
        pipeline: The pipeline.
        documents: The documents, for its rules.
        options: The options of the runs.
        rss: Returns the resident set size in bytes.
    """

    workers: tuple[WorkerRecord, ...] = ()

    def __init__(
        self,
        pipeline: Pipeline,
        documents: Sequence[Document],
        options: RunOptions,
        rss: Callable[[], int],
    ) -> None:
        self.survivors: tuple[str, ...] = ()
        self.registry = MethodRegistry({}, **pipeline.settings.as_options())
        self._pipeline, self._documents = pipeline, documents
        self._per_run = options.per_run
        self._rss = rss
        self._names = self._register(1)
        self._executor = MethodExecutor(method_registry=self.registry)
        self._before: Mapping[str, Any] = {}
        if options.trim:
            track_leaks(self.registry)  # before the first run: `release_memory` reports leaks

    def _register(self, number: int) -> Mapping[str, str]:
        run = number if self._per_run else None
        return register_classes(self.registry, self._pipeline, self._documents, run=run)

    def begin(self, number: int) -> Mapping[str, str]:
        """Register the classes of the run, if each run has its own."""
        if self._per_run and number > 1:
            self._names = self._register(number)
        self._before = self.registry.get_stats()
        return self._names

    def call(self, class_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method."""
        return self._executor.execute(class_name, method, **arguments)

    def finish(self, ledger: array[int], *, clear: bool, trim: bool) -> None:
        """See `Target`."""
        before, after = self._before, self.registry.get_stats()
        ledger.append(self._rss())
        if clear:
            self.registry.clear_cache()
        if trim:
            report = self.registry.release_memory()
            # Only the texts of the last run are kept: anything kept for every run would be growth.
            self.survivors = tuple(str(survivor) for survivor in report.leaked)
            del report
        else:
            gc.collect()
        ledger.append(self._rss())
        ledger.append(ledger[1])
        ledger.extend(
            (
                after["cache_hits"] - before["cache_hits"],
                after["cache_misses"] - before["cache_misses"],
                after["evictions"] - before["evictions"],
                after["cached_instances"],
                free_heap_bytes(),
            )
        )

    def close(self) -> None:
        """Close the registry."""
        self.registry.close()


class PreparePipeline:
    """
    Registers a pipeline's classes on a worker; it is pickled and sent to each worker.

    Args:
        pipeline: The pipeline.
        documents: The documents, for its rules.
        runs: The number of runs that have class names of their own; 0 if all runs share them.
        trim: Whether to track removed instances, for `release_memory`.
        import_path: Directories to import modules from.
        own_process: Whether the worker process was started for this pipeline only. If so, its heap
            and its logging are set up like those of the command's own process.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        documents: Sequence[Document],
        *,
        runs: int,
        trim: bool,
        import_path: Sequence[str],
        own_process: bool = False,
    ) -> None:
        self._own_process = own_process
        self.pipeline, self.documents = pipeline, tuple(documents)
        self.stopped_run = 0  # runs up to this one have been stopped
        self._runs, self._trim, self._import_path = runs, trim, tuple(import_path)

    def __call__(self, registry: MethodRegistry) -> None:
        """Register the classes on a worker's registry."""
        sys.path[:0] = [directory for directory in self._import_path if directory not in sys.path]
        for run in range(1, self._runs + 1) if self._runs else (None,):
            register_classes(registry, self.pipeline, self.documents, run=run)
        if self._own_process:
            # Done here, before a class's package configures it for the whole process.
            logging.basicConfig(level=logging.WARNING)
            if self._trim:
                share_one_heap()
        if self._trim:
            track_leaks(registry)


class EngineTarget:
    """
    The workers of an engine.

    Args:
        cluster: The engine, with registries that `PreparePipeline` has prepared.
        pipeline: The pipeline.
        options: The options of the runs.
    """

    def __init__(self, cluster: Cluster, pipeline: Pipeline, options: RunOptions) -> None:
        self.survivors: tuple[str, ...] = ()
        self.workers: list[WorkerRecord] = []
        self.cluster = cluster
        self._pipeline = pipeline
        self._per_run = options.per_run
        self._run = 0
        # Worker and process -> its counters at the end of the previous run, and its first RSS.
        self._counters: dict[tuple[str, int], tuple[int, int, int]] = {}
        self._first: dict[tuple[str, int], int] = {}
        self._classes: dict[str, set[object]] = {}  # by worker, those of all runs
        self._moved: set[str] = set()  # workers with further classes in this run

    def begin(self, number: int) -> Mapping[str, str]:
        """Return the class names of the run."""
        self._run = number
        run = number if self._per_run else None
        return {name: registered_name(name, run) for name in self._pipeline.target_paths}

    def note_class(self, worker: str, class_name: object) -> None:
        """Note that a worker is given steps of a class."""
        classes = self._classes.setdefault(worker, set())
        if class_name not in classes:
            classes.add(class_name)
            self._moved.add(worker)

    def call(self, class_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method on a worker where its class is warm, and wait for the result."""
        return self.cluster.submit(class_name, method, arguments).result()

    def finish(self, ledger: array[int], *, clear: bool, trim: bool) -> None:
        """See `Target`; the numbers are sums over the workers."""
        known = {record.pid for record in self.workers}
        rows = []
        survivors: list[str] = []
        for worker, report in self.cluster.on_each_worker(_finish_run, clear, trim).items():
            process = worker, report["pid"]
            before = self._counters.get(process, (0, 0, 0))
            self._counters[process] = report["counters"]
            hits, misses, evictions = (
                now - then for now, then in zip(report["counters"], before, strict=True)
            )
            moved = worker in self._moved and process in self._first
            if moved:
                del self._first[process]
            first = self._first.setdefault(process, report["rss_bytes"])
            rows.append(
                WorkerRecord(
                    run=self._run,
                    worker=worker,
                    pid=report["pid"],
                    new=bool(known) and report["pid"] not in known,
                    rss_before_clear_bytes=report["rss_before_clear_bytes"],
                    rss_bytes=report["rss_bytes"],
                    growth_bytes=report["rss_bytes"] - first,
                    hits=hits,
                    misses=misses,
                    evictions=evictions,
                    cached=report["cached"],
                    heap_free_bytes=report["heap_free_bytes"],
                    moved=moved,
                )
            )
            survivors += (f"{worker}: {survivor}" for survivor in report["survivors"])
            if clear:
                self.cluster.router.mark_cold(worker)
        self._moved.clear()
        self.workers += rows
        self.survivors = tuple(survivors)
        total = sum(row.rss_bytes for row in rows)
        ledger.extend(
            (
                sum(row.rss_before_clear_bytes for row in rows),
                total,
                # Growth is then the sum over the workers, even if one was lost and replaced.
                total - sum(row.growth_bytes for row in rows),
                sum(row.hits for row in rows),
                sum(row.misses for row in rows),
                sum(row.evictions for row in rows),
                sum(row.cached for row in rows),
                sum(row.heap_free_bytes for row in rows),
            )
        )

    def close(self) -> None:
        """Stop the engine."""
        self.cluster.close()


def _finish_run(worker: Worker, clear: bool, trim: bool) -> dict[str, Any]:
    """End a run on a worker: measure, clear, measure again."""
    import os

    registry = worker.registry
    stats = registry.get_stats()
    before = unshared_bytes()
    survivors: tuple[str, ...] = ()
    if clear:
        registry.clear_cache()
    if trim:
        survivors = tuple(str(survivor) for survivor in registry.release_memory().leaked)
    else:
        gc.collect()
    return {
        "pid": os.getpid(),
        "rss_before_clear_bytes": before,
        "rss_bytes": unshared_bytes(),
        "heap_free_bytes": free_heap_bytes(),
        "counters": (stats["cache_hits"], stats["cache_misses"], stats["evictions"]),
        "cached": stats["cached_instances"],
        "survivors": survivors,
    }
