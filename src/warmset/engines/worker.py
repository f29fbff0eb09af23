"""The state of one worker: its registry, its executor and the durations of its calls."""

from __future__ import annotations

import os
import time
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

from .._locks import locked
from .._process_memory import resident_bytes
from ..executor import MethodExecutor
from ..family_keys import check_key
from .affinity import duration_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..events import BuildEvent
    from ..family_keys import SlotKey
    from ..legacy import MethodRegistry
    from .settings import WorkerSettings

__all__ = ["ClusterStats", "WorkResult", "Worker", "WorkerStats", "sum_stats"]

_NEW_CALL_WEIGHT = 0.2  # in the moving average of call durations


class WorkerStats(NamedTuple):
    """A snapshot of one worker."""

    worker: str
    """The name of the worker in the engine."""
    pid: int
    rss_bytes: int
    calls: int
    """The number of calls through the engine, including failed ones."""
    warm: tuple[str, ...]
    """The warm classes, the most recently used first."""
    call_seconds: Mapping[str, float]
    """Class or family -> moving average of the duration of a call, without builds."""
    build_seconds: Mapping[str, float]
    """Class or family -> duration of the last build."""
    registry: Mapping[str, Any]
    """The result of `get_stats` without the cache entries."""


class ClusterStats(NamedTuple):
    """A snapshot of all workers, and their totals."""

    workers: Mapping[str, WorkerStats]
    total: Mapping[str, Any]
    """The summed counters of `get_stats`, `workers`, `calls`, `rss_bytes` and `cache_hit_rate`."""


class Worker:
    """
    The registry of one worker of a cluster, and the measurements of its calls.

    Args:
        name: The name of the worker in the engine.
        settings: The settings of the registry.

    Thread-safe.
    """

    def __init__(self, name: str, settings: WorkerSettings) -> None:
        self.name = name
        self.settings = settings
        self.registry: MethodRegistry = settings.make_registry()
        self.executor = MethodExecutor(method_registry=self.registry)
        self._calls = 0
        self._call_seconds: dict[str, float] = {}
        self._build_seconds: dict[str, float] = {}
        self._import_seconds: dict[str, float] = {}
        self._lock = RLock()
        self.registry.add_build_listener(self._record_build)

    def _record_build(self, event: BuildEvent) -> None:
        if event.succeeded:
            name = event.family or event.class_name
            self._build_seconds[name] = event.seconds
            self._import_seconds[name] = event.import_seconds

    def call(self, class_name: SlotKey, method_name: str, arguments: Mapping[str, Any]) -> Any:
        """
        Call a method with `MethodExecutor.execute` and measure the call.

        Args:
            class_name: The class, or the key of a family.
            method_name: The method.
            arguments: The keyword arguments.

        Returns:
            The result of the method.

        Raises:
            Exception: Any error of the method, or of the build and routing before it.
        """
        warm = self.is_warm(class_name)
        began = time.perf_counter()
        try:
            return self.executor.execute(class_name, method_name, **arguments)
        finally:
            seconds = time.perf_counter() - began
            self._note_call(class_name, seconds, warm)

    def is_warm(self, class_name: SlotKey) -> bool:
        """Return whether a call of a class, or of a key of a family, needs no build."""
        slot = self.registry.slots.get(class_name)
        return slot is not None and self.registry.instance_in(slot) is not None

    @locked
    def _note_call(self, class_name: SlotKey, seconds: float, warm: bool) -> None:
        self._calls += 1
        if warm:  # otherwise the duration is mostly that of the build
            name = duration_name(class_name)
            before = self._call_seconds.get(name, seconds)
            self._call_seconds[name] = before + _NEW_CALL_WEIGHT * (seconds - before)

    @locked
    def times(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the durations of calls and of builds, each by the name of a class or family."""
        return dict(self._call_seconds), dict(self._build_seconds)

    def times_of_class(self, class_name: SlotKey) -> tuple[float | None, float | None]:
        """Return the durations of a call and of the last build of a class; None if unknown."""
        name = duration_name(class_name)
        return self._call_seconds.get(name), self._build_seconds.get(name)

    def start_seconds(self, class_name: SlotKey) -> float:
        """Return the duration of the last build of a class, with the import before it."""
        name = duration_name(class_name)
        return self._build_seconds.get(name, 0.0) + self._import_seconds.get(name, 0.0)

    def stats(self) -> WorkerStats:
        """Return a snapshot of the worker."""
        registry_stats = self.registry.get_stats()
        warm = tuple(entry["class_name"] for entry in registry_stats.pop("cache_entries"))
        calls, builds = self.times()
        return WorkerStats(
            worker=self.name,
            pid=os.getpid(),
            rss_bytes=resident_bytes(),
            calls=self._calls,
            warm=warm,
            call_seconds=calls,
            build_seconds=builds,
            registry=registry_stats,
        )

    def clear(self, *, release: bool = False) -> dict[str, Any]:
        """Call `Registry.clear_cache`."""
        return self.registry.clear_cache(release=release)

    def warm_up(self, class_names: Iterable[SlotKey], **options: Any) -> dict[str, Any]:
        """Call `Registry.warm_up` and return the report as plain data."""
        return self.registry.warm_up(list(class_names), **options).as_dict()

    def close(self) -> None:
        """Close the registry."""
        self.registry.close()


class WorkResult(NamedTuple):
    """The result of a function that `Cluster.run` calls on a worker."""

    report: Any
    """Sent to the client."""
    kept: Any
    """Stays on the workers, where it can be an argument of later calls."""


class Returned(NamedTuple):
    """The result of a function on a worker, which may itself be an exception object."""

    value: Any


def call_on_worker(worker: Worker, function: Any, arguments: tuple[Any, ...]) -> Returned:
    """Call ``function(worker, *arguments)`` and wrap the result."""
    return Returned(function(worker, *arguments))


def measured_times(worker: Worker) -> tuple[dict[str, float], dict[str, float]]:
    """Return `Worker.times`; a function, so that it can be sent to workers."""
    return worker.times()


def class_names_of(profile_or_names: Any) -> list[SlotKey]:
    """
    Return the names of the classes to warm up.

    Args:
        profile_or_names: A `Profile`, or an iterable of class names and keys of families.

    Returns:
        The class names and keys.

    Raises:
        TypeError: The argument is neither.
    """
    if isinstance(profile_or_names, str):
        raise TypeError(f"expected a Profile or class names, got the str {profile_or_names!r}")
    classes = getattr(profile_or_names, "classes", profile_or_names)
    return [check_key(name) for name in classes]


_COUNTERS = (
    "cached_instances",
    "weakref_instances",
    "failed_classes",
    "cache_hits",
    "cache_misses",
    "evictions",
    "total_instantiations",
)


def sum_stats(workers: Iterable[WorkerStats]) -> ClusterStats:
    """
    Combine the snapshots of workers into one with totals.

    Args:
        workers: The snapshots, one per worker.

    Returns:
        The combined statistics.
    """
    by_worker = {each.worker: each for each in workers}
    total: dict[str, Any] = {
        "workers": len(by_worker),
        "calls": sum(each.calls for each in by_worker.values()),
        "rss_bytes": sum(each.rss_bytes for each in by_worker.values()),
    }
    for counter in _COUNTERS:
        total[counter] = sum(each.registry[counter] for each in by_worker.values())
    lookups = total["cache_hits"] + total["cache_misses"]
    total["cache_hit_rate"] = total["cache_hits"] / lookups if lookups else 0.0
    return ClusterStats(by_worker, total)
