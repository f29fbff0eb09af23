"""Where a pipeline's calls are done: in this process, or on the workers of an engine."""

from __future__ import annotations

import gc
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmset import MethodExecutor, MethodRegistry
from warmset._process_memory import share_one_heap, unshared_bytes
from warmset.observe.leaving import watch_leaving

from .pipeline_rules import class_name, register_classes

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from warmset.engines.cluster import Cluster
    from warmset.engines.worker import Worker

    from .documents import Document
    from .pipeline import RunOptions
    from .pipeline_file import Pipeline

    class Place(Protocol):
        """What a run needs of it."""

        @property
        def survivors(self) -> tuple[str, ...]:
            """What was dropped by the end of the last run and lived on, and who keeps it."""
            ...

        @property
        def workers(self) -> Sequence[WorkerRecord]:
            """One for each run and worker; none for this process."""
            ...

        def begin(self, number: int) -> Mapping[str, str]:
            """Get ready for a run; class name in the pipeline file -> class name to call."""
            ...

        def call(self, class_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
            """Call a method."""
            ...

        def finish(self, ledger: array[int], *, clear: bool, trim: bool) -> None:
            """
            End a run: measure, clear, measure again.

            It appends seven numbers: bytes before anything is freed; after; those after run 1,
            which growth is counted from; hits, misses, and evictions of the run; instances cached
            at its end.
            """
            ...

        def close(self) -> None:
            """End it."""
            ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """
    What one run left on one worker.

    Args:
        run: The number of the run.
        worker: What the engine calls the worker.
        pid: Its process.
        new: Whether it was not there at the end of the run before, and so counts as new.
        rss_before_clear_bytes: As for `RunRecord`, of this worker; so are the following ones.
        rss_bytes: After clearing.
        growth_bytes: `rss_bytes` less that of the first run that this process saw the end of.
        hits: Look-ups that found a live instance.
        misses: Look-ups that did not.
        evictions: Removals that the registry decided.
        cached: Instances in the cache at the end of the run.
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


class Here:
    """
    This process: one registry.

    Args:
        pipeline: The pipeline.
        documents: What its rules are given.
        options: How it is run.
        rss: Gives the resident set size in bytes.
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
            watch_leaving(self.registry)  # from the first run on, for `release_memory`

    def _register(self, number: int) -> Mapping[str, str]:
        run = number if self._per_run else None
        return register_classes(self.registry, self._pipeline, self._documents, run=run)

    def begin(self, number: int) -> Mapping[str, str]:
        """Register the classes of the run, where each has its own."""
        if self._per_run and number > 1:
            self._names = self._register(number)
        self._before = self.registry.get_stats()
        return self._names

    def call(self, class_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method."""
        return self._executor.execute(class_name, method, **arguments)

    def finish(self, ledger: array[int], *, clear: bool, trim: bool) -> None:
        """See `Place`."""
        before, after = self._before, self.registry.get_stats()
        ledger.append(self._rss())
        if clear:
            self.registry.clear_cache()
        if trim:
            report = self.registry.release_memory()
            # Texts, and those of one run only: what is kept from run to run is growth.
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
            )
        )

    def close(self) -> None:
        """Close the registry."""
        self.registry.close()


class PreparePipeline:
    """
    Registers a pipeline's classes on a worker; it is sent there.

    Args:
        pipeline: The pipeline.
        documents: What its rules are given.
        runs: For how many runs to register classes of their own; 0 for none.
        trim: Whether to watch what leaves, for `release_memory`.
        search: Where modules are looked for.
        own: Whether the worker was started for this alone: then its heap and its logging are set
            up as those of the command's own process.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        documents: Sequence[Document],
        *,
        runs: int,
        trim: bool,
        search: Sequence[str],
        own: bool = False,
    ) -> None:
        self._own = own
        self._pipeline, self._documents = pipeline, tuple(documents)
        self._runs, self._trim, self._search = runs, trim, tuple(search)

    def __call__(self, registry: MethodRegistry) -> None:
        """Register them."""
        sys.path[:0] = [place for place in self._search if place not in sys.path]
        for run in range(1, self._runs + 1) if self._runs else (None,):
            register_classes(registry, self._pipeline, self._documents, run=run)
        if self._own:
            # Before a class's own package does it, for the whole process.
            logging.basicConfig(level=logging.WARNING)
            if self._trim:
                share_one_heap()
        if self._trim:
            watch_leaving(registry)


class OnWorkers:
    """
    The workers of an engine.

    Args:
        cluster: The engine, with registries that `PreparePipeline` has prepared.
        pipeline: The pipeline.
        options: How it is run.
    """

    def __init__(self, cluster: Cluster, pipeline: Pipeline, options: RunOptions) -> None:
        self.survivors: tuple[str, ...] = ()
        self.workers: list[WorkerRecord] = []
        self._cluster = cluster
        self._pipeline = pipeline
        self._per_run = options.per_run
        self._run = 0
        # Worker and process -> its counters at the end of the run before, and its first RSS.
        self._counters: dict[tuple[str, int], tuple[int, int, int]] = {}
        self._first: dict[tuple[str, int], int] = {}

    def begin(self, number: int) -> Mapping[str, str]:
        """Give the names of the run."""
        self._run = number
        run = number if self._per_run else None
        return {name: class_name(name, run) for name in self._pipeline.class_paths}

    def call(self, class_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method on the worker where its class is warm, and wait for it."""
        return self._cluster.submit(class_name, method, arguments).result()

    def finish(self, ledger: array[int], *, clear: bool, trim: bool) -> None:
        """See `Place`; the numbers are sums over the workers."""
        known = {record.pid for record in self.workers}
        rows = []
        survivors: list[str] = []
        for worker, told in self._cluster.on_each_worker(_finished, clear, trim).items():
            place = worker, told["pid"]
            before = self._counters.get(place, (0, 0, 0))
            self._counters[place] = told["counters"]
            hits, misses, evictions = (
                now - then for now, then in zip(told["counters"], before, strict=True)
            )
            first = self._first.setdefault(place, told["rss_bytes"])
            rows.append(
                WorkerRecord(
                    run=self._run,
                    worker=worker,
                    pid=told["pid"],
                    new=bool(known) and told["pid"] not in known,
                    rss_before_clear_bytes=told["rss_before_clear_bytes"],
                    rss_bytes=told["rss_bytes"],
                    growth_bytes=told["rss_bytes"] - first,
                    hits=hits,
                    misses=misses,
                    evictions=evictions,
                    cached=told["cached"],
                )
            )
            survivors += (f"{worker}: {survivor}" for survivor in told["survivors"])
        self.workers += rows
        self.survivors = tuple(survivors)
        total = sum(row.rss_bytes for row in rows)
        ledger.extend(
            (
                sum(row.rss_before_clear_bytes for row in rows),
                total,
                # So that growth is that of the workers, also where one was lost and came back.
                total - sum(row.growth_bytes for row in rows),
                sum(row.hits for row in rows),
                sum(row.misses for row in rows),
                sum(row.evictions for row in rows),
                sum(row.cached for row in rows),
            )
        )

    def close(self) -> None:
        """End the engine."""
        self._cluster.close()


def _finished(worker: Worker, clear: bool, trim: bool) -> dict[str, Any]:
    """What a run left on a worker: measured, cleared, measured again."""
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
        "counters": (stats["cache_hits"], stats["cache_misses"], stats["evictions"]),
        "cached": stats["cached_instances"],
        "survivors": survivors,
    }
