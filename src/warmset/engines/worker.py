"""What lives on a worker: its registry, its executor, and what its calls took."""

from __future__ import annotations

import os
import time
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

from .._process_memory import resident_bytes
from ..executor import MethodExecutor
from ..resolver import check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..events import BuildEvent
    from ..legacy import MethodRegistry
    from .settings import WorkerSettings

__all__ = ["ClusterStats", "Worker", "WorkerStats", "summed"]

_NEW_COUNTS = 0.2  # of a call, in the mean of what calls take


class WorkerStats(NamedTuple):
    """One worker at one moment."""

    worker: str
    """What the engine calls it."""
    pid: int
    rss_bytes: int
    calls: int
    """Through the engine, those that failed included."""
    warm: tuple[str, ...]
    """The classes that are warm, the last used first."""
    call_seconds: Mapping[str, float]
    """What a call of a class takes there, on the mean of the last ones, builds not counted."""
    build_seconds: Mapping[str, float]
    """What the last build of a class took there."""
    registry: Mapping[str, Any]
    """As `get_stats` gives it, without the entries."""


class ClusterStats(NamedTuple):
    """All workers, and their sum."""

    workers: Mapping[str, WorkerStats]
    total: Mapping[str, Any]
    """Counters of `get_stats` summed, with `workers`, `calls`, `rss_bytes` and `cache_hit_rate`."""


class Worker:
    """
    A registry for the calls that reach one worker of a cluster.

    Args:
        name: What the engine calls the worker.
        settings: What to make the registry from.

    Safe under threads.
    """

    def __init__(self, name: str, settings: WorkerSettings) -> None:
        self.name = name
        self.registry: MethodRegistry = settings.make_registry()
        self.executor = MethodExecutor(method_registry=self.registry)
        self._calls = 0
        self._call_seconds: dict[str, float] = {}
        self._build_seconds: dict[str, float] = {}
        self._lock = RLock()
        self.registry.add_build_listener(self._built)

    def _built(self, event: BuildEvent) -> None:
        if event.succeeded:
            self._build_seconds[event.class_name] = event.seconds

    def call(self, class_name: str, method_name: str, arguments: Mapping[str, Any]) -> Any:
        """
        Call a method, as `MethodExecutor.execute` does.

        Args:
            class_name: The class.
            method_name: The method.
            arguments: By keyword.

        Returns:
            What it returned.

        Raises:
            Exception: What it, or the way to it, raised.
        """
        slot = self.registry._slots.get(class_name)
        warm = slot is not None and slot.instance is not None
        began = time.perf_counter()
        try:
            return self.executor.execute(class_name, method_name, **arguments)
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self._calls += 1
                if warm:  # else it is the build that took most of it
                    before = self._call_seconds.get(class_name, seconds)
                    self._call_seconds[class_name] = before + _NEW_COUNTS * (seconds - before)

    def times(self) -> tuple[dict[str, float], dict[str, float]]:
        """Give what calls and builds took, by class."""
        with self._lock:
            return dict(self._call_seconds), dict(self._build_seconds)

    def times_of_class(self, class_name: str) -> tuple[float | None, float | None]:
        """Give what a call of a class takes, and what its last build took; None: not known."""
        return self._call_seconds.get(class_name), self._build_seconds.get(class_name)

    def stats(self) -> WorkerStats:
        """Tell how the worker does."""
        told = self.registry.get_stats()
        warm = tuple(entry["class_name"] for entry in told.pop("cache_entries"))
        calls, builds = self.times()
        return WorkerStats(
            worker=self.name,
            pid=os.getpid(),
            rss_bytes=resident_bytes(),
            calls=self._calls,
            warm=warm,
            call_seconds=calls,
            build_seconds=builds,
            registry=told,
        )

    def clear(self, *, release: bool = False) -> dict[str, Any]:
        """As `Registry.clear_cache`."""
        return self.registry.clear_cache(release=release)

    def warm_up(self, class_names: Iterable[str], **options: Any) -> dict[str, Any]:
        """As `Registry.warm_up`; the report as plain data."""
        return self.registry.warm_up(list(class_names), **options).as_dict()

    def close(self) -> None:
        """Close the registry."""
        self.registry.close()


class Told(NamedTuple):
    """What a function returned on a worker; so that an exception as a value is told from one."""

    value: Any


def call_on(worker: Worker, function: Any, arguments: tuple[Any, ...]) -> Told:
    """Call a function on a worker."""
    return Told(function(worker, *arguments))


def times_of(worker: Worker) -> tuple[dict[str, float], dict[str, float]]:
    """Give what calls and builds took on a worker, by class."""
    return worker.times()


def names_of(profile_or_names: Any) -> list[str]:
    """
    Give the classes that are to be warmed up.

    Args:
        profile_or_names: A `Profile`, or class names.

    Returns:
        Their names.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(profile_or_names, str):
        raise TypeError(f"expected a Profile or class names, got the str {profile_or_names!r}")
    classes = getattr(profile_or_names, "classes", profile_or_names)
    return [check_name(name) for name in classes]


_COUNTERS = (
    "cached_instances",
    "weakref_instances",
    "failed_classes",
    "cache_hits",
    "cache_misses",
    "evictions",
    "total_instantiations",
)


def summed(workers: Iterable[WorkerStats]) -> ClusterStats:
    """
    Sum up what workers told.

    Args:
        workers: Each of them once.

    Returns:
        All of it.
    """
    told = {each.worker: each for each in workers}
    total: dict[str, Any] = {
        "workers": len(told),
        "calls": sum(each.calls for each in told.values()),
        "rss_bytes": sum(each.rss_bytes for each in told.values()),
    }
    for counter in _COUNTERS:
        total[counter] = sum(each.registry[counter] for each in told.values())
    lookups = total["cache_hits"] + total["cache_misses"]
    total["cache_hit_rate"] = total["cache_hits"] / lookups if lookups else 0.0
    return ClusterStats(told, total)
