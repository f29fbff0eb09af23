"""
The registry that the pipeline had, in words of our own: what warmset replaces.

It is kept with its faults, because they are what is measured: one lock around everything, the
constructor included; wall-clock time; a sort of the whole cache at each overflow; a bound that is
exceeded by one, because room is made before the new entry is counted; a class that failed once is
refused for ever; nothing that leaves is closed.
"""

from __future__ import annotations

import importlib
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .base import TTL_SECONDS, Kept, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..workload import Work


@dataclass
class Entry:
    """An instance and its times, in seconds since the epoch."""

    instance: Any
    created_at: float
    last_accessed: float
    access_count: int = 0

    def is_expired(self, ttl_seconds: float, now: float) -> bool:
        """Whether it was idle for longer than the TTL; 0 switches that off."""
        return ttl_seconds > 0 and now - self.last_accessed > ttl_seconds

    def touch(self, now: float) -> None:
        """Note a use."""
        self.last_accessed = now
        self.access_count += 1


class PipelineRegistry:
    """
    Instances by class name, with an idle TTL and a size bound, under one lock.

    Args:
        class_paths: Class name -> dotted path.
        cache_ttl_seconds: Seconds without use after which an entry goes; 0: never.
        enable_weakref: Keep weak references only.
        max_cache_size: The bound, which is exceeded by one.
        clock: Gives seconds. The only thing that it had not, so that expiry can be measured.
    """

    def __init__(
        self,
        class_paths: Mapping[str, str],
        cache_ttl_seconds: float = 300.0,
        enable_weakref: bool = False,
        max_cache_size: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._class_paths = dict(class_paths)
        self._ttl_seconds = cache_ttl_seconds
        self._enable_weakref = enable_weakref
        self._max_cache_size = max_cache_size
        self._clock = clock
        self._lock = threading.Lock()
        self._cache: dict[str, Entry] = {}
        self._weakref_cache: dict[str, weakref.ref[Any]] = {}
        self._failed: set[str] = set()
        self._injected: dict[tuple[str, str], Callable[..., Any]] = {}
        self._hits = self._misses = self._evictions = self._builds = 0

    def __len__(self) -> int:
        return len(self._cache)

    def get_instance(self, class_name: str) -> Any:
        """Give the instance of a class; build it under the lock if it is not there."""
        with self._lock:
            if class_name in self._failed:
                raise RuntimeError(f"class {class_name!r} failed before")
            if self._enable_weakref:
                reference = self._weakref_cache.get(class_name)
                if reference is not None:
                    instance = reference()
                    if instance is not None:
                        self._hits += 1
                        return instance
                    del self._weakref_cache[class_name]
            entry = self._cache.get(class_name)
            if entry is not None:
                now = self._clock()
                if not entry.is_expired(self._ttl_seconds, now):
                    entry.touch(now)
                    self._hits += 1
                    return entry.instance
                del self._cache[class_name]
                self._evictions += 1
            self._misses += 1
            return self._keep(class_name, self._build(class_name))

    def _build(self, class_name: str) -> Any:
        try:
            module_name, _, attribute = self._class_paths[class_name].rpartition(".")
            instance = getattr(importlib.import_module(module_name), attribute)()
        except Exception as error:
            self._failed.add(class_name)
            raise RuntimeError(f"class {class_name!r} cannot be had") from error
        self._builds += 1
        return instance

    def _keep(self, class_name: str, instance: Any) -> Any:
        if self._enable_weakref:
            self._weakref_cache[class_name] = weakref.ref(instance)
            return instance
        self._evict_if_full()
        now = self._clock()
        self._cache[class_name] = Entry(instance, now, now)
        return instance

    def _evict_if_full(self) -> None:
        excess = len(self._cache) - self._max_cache_size
        if excess <= 0:
            return
        oldest = sorted(self._cache.items(), key=lambda item: item[1].last_accessed)
        for class_name, _ in oldest[:excess]:
            del self._cache[class_name]
            self._evictions += 1

    def get_method(self, class_name: str, method_name: str) -> Callable[..., Any]:
        """Give a bound method, or the injected callable."""
        injected = self._injected.get((class_name, method_name))
        if injected is not None:
            return injected
        method = getattr(self.get_instance(class_name), method_name, None)
        if not callable(method):
            raise RuntimeError(f"class {class_name!r} has no method {method_name!r}")
        return method  # type: ignore[no-any-return]

    def execute(self, class_name: str, method_name: str, **arguments: Any) -> Any:
        """Call a method; its arguments are not checked."""
        return self.get_method(class_name, method_name)(**arguments)

    def inject_method(self, class_name: str, method_name: str, method: Callable[..., Any]) -> None:
        """Give a method from outside."""
        self._injected[class_name, method_name] = method

    def evict_expired(self) -> int:
        """Walk the whole cache and drop what is expired; gives how many went."""
        with self._lock:
            now = self._clock()
            expired = [
                name
                for name, entry in self._cache.items()
                if entry.is_expired(self._ttl_seconds, now)
            ]
            for name in expired:
                del self._cache[name]
            self._evictions += len(expired)
            return len(expired)

    def clear_cache(self) -> int:
        """Drop everything; gives how many went."""
        with self._lock:
            cleared = len(self._cache) + len(self._weakref_cache)
            self._cache.clear()
            self._weakref_cache.clear()
            return cleared

    def get_stats(self) -> dict[str, Any]:
        """Give counters and entries."""
        with self._lock:
            now = self._clock()
            lookups = self._hits + self._misses
            return {
                "total_classes_registered": len(self._class_paths),
                "cached_instances": len(self._cache),
                "weakref_instances": len(self._weakref_cache),
                "failed_classes": len(self._failed),
                "direct_methods_injected": len(self._injected),
                "cache_hits": self._hits,
                "cache_misses": self._misses,
                "cache_hit_rate": self._hits / lookups if lookups else 0.0,
                "evictions": self._evictions,
                "total_instantiations": self._builds,
                "cache_ttl_seconds": self._ttl_seconds,
                "max_cache_size": self._max_cache_size,
                "enable_weakref": self._enable_weakref,
                "failed_class_names": list(self._failed),
                "cache_entries": [
                    {
                        "class_name": name,
                        "age_seconds": now - entry.created_at,
                        "last_accessed_seconds_ago": now - entry.last_accessed,
                        "access_count": entry.access_count,
                    }
                    for name, entry in self._cache.items()
                ],
            }


def make(work: Work, size: int) -> Kept:
    """The registry, and `execute` over it."""
    registry = PipelineRegistry(work.paths, cache_ttl_seconds=TTL_SECONDS, max_cache_size=size)
    return Kept(
        "get_instance({name})",
        registry.get_instance,
        {
            "get_instance": registry.get_instance,
            "get_method": registry.get_method,
            "execute": registry.execute,
        },
        bound="get_method({name}, 'tag')",
        executed="execute({name}, {method}, {arguments})",
    )


PIPELINE = Subject(
    "the former registry",
    "`get_instance`, `get_method`, and a call by name whose arguments are not checked",
    make,
)
