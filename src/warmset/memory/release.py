"""
Release reports: how much memory was returned to the system, and what still references the rest.

From the first report on, removed instances are tracked by weak references. A report runs a full
garbage collection, returns free memory to the system, measures the process, and searches for the
referrers of removed instances that are still alive. It takes as long as a full collection, and
longer if there are survivors, so it is meant for the end of a run.
"""

from __future__ import annotations

import gc
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from .. import _process_memory
from .._text import printable
from ..events import RemovalCause
from ..observe.leaks import track_leaks
from ..stats import holder_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..observe.leaks import LeakTracker
    from ..registry import BaseRegistry

__all__ = ["ReleaseReport", "Survivor", "release"]

_MAX_SEARCHED = 20  # survivors whose referrers are searched


class Survivor(NamedTuple):
    """A removed instance that is still alive."""

    class_name: str
    type_name: str
    cause: RemovalCause
    """The cause of the removal."""
    seconds: float
    """The time since the removal."""
    holders: tuple[str, ...]
    """The threads that hold it with a lease or a running call."""
    referrers: tuple[str, ...]
    """The paths by which it is referenced; empty if it is held or none was found."""

    def __str__(self) -> str:
        text = printable(f"{self.class_name} ({self.type_name}), {self.cause.name.lower()}")
        if self.holders:
            return f"{text}: held by {printable(', '.join(self.holders))}"
        referrers = self.referrers or ("(no referrer found)",)
        return "\n    ".join((f"{text}: referenced by", *map(printable, referrers)))


class ReleaseReport(NamedTuple):
    """The results of releasing memory."""

    rss_before_bytes: int | None
    """None if the process cannot be measured."""
    rss_after_bytes: int | None
    removed: int
    """The number of instances that were removed."""
    collected: int
    """The number of unreachable objects of any type that the collector found."""
    trimmed: bool
    """Whether the C library was asked to return free memory, which only glibc supports."""
    survivors: tuple[Survivor, ...]
    untracked: int
    """The number of removed instances that do not support weak references."""
    remove_seconds: float
    """The time for removing and closing instances."""
    collect_seconds: float
    trim_seconds: float
    search_seconds: float
    """The time for finding the referrers of survivors."""

    @property
    def returned_bytes(self) -> int | None:
        """The decrease of the RSS; negative if it increased."""
        if self.rss_before_bytes is None or self.rss_after_bytes is None:
            return None
        return self.rss_before_bytes - self.rss_after_bytes

    @property
    def leaked(self) -> tuple[Survivor, ...]:
        """The survivors without holders."""
        return tuple(survivor for survivor in self.survivors if not survivor.holders)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        survivors = [
            {
                "class_name": survivor.class_name,
                "type": survivor.type_name,
                "cause": survivor.cause.name.lower(),
                "seconds": survivor.seconds,
                "holders": list(survivor.holders),
                "referrers": list(survivor.referrers),
            }
            for survivor in self.survivors
        ]
        return {
            **self._asdict(),
            "returned_bytes": self.returned_bytes,
            "survivors": survivors,
        }

    def __str__(self) -> str:
        returned = self.returned_bytes
        amount = "unknown" if returned is None else f"{returned / 1e6:+.1f} MB"
        lines = [
            f"returned to the system: {amount}; {self.removed} removed by this call, "
            f"{self.collected} objects collected, {'trimmed' if self.trimmed else 'not trimmed'}"
        ]
        if self.untracked:
            lines.append(f"  {self.untracked} untracked: no support for weak references")
        return "\n".join([*lines, *(f"  alive: {survivor}" for survivor in self.survivors)])


def release(registry: BaseRegistry, remove: Callable[[], int]) -> ReleaseReport:
    """
    Remove instances, release memory, and report the results.

    Args:
        registry: The registry.
        remove: Removes the instances and returns their number.

    Returns:
        The report.

    Takes as long as two full garbage collections, plus up to ten seconds if there are survivors.
    """
    tracker = track_leaks(registry)
    untracked = tracker.untracked
    before = _resident()
    began = perf_counter()
    removed = remove()
    removal_ended = perf_counter()
    # Twice, because objects finalised by the first pass may be freed only by the second.
    collected = gc.collect() + gc.collect()
    collection_ended = perf_counter()
    trimmed = _process_memory.give_back_free_memory()
    trim_ended = perf_counter()
    after = _resident()
    survivors = _survivors(registry, tracker)
    return ReleaseReport(
        rss_before_bytes=before,
        rss_after_bytes=after,
        removed=removed,
        collected=collected,
        trimmed=trimmed,
        survivors=survivors,
        untracked=tracker.untracked - untracked,
        remove_seconds=removal_ended - began,
        collect_seconds=collection_ended - removal_ended,
        trim_seconds=trim_ended - collection_ended,
        search_seconds=perf_counter() - trim_ended,
    )


def _resident() -> int | None:
    try:
        return _process_memory.resident_bytes()
    except Exception:
        return None


def _survivors(registry: BaseRegistry, tracker: LeakTracker) -> tuple[Survivor, ...]:
    from .referrers import ReferrerSearch

    now = registry.now()
    threads = holder_threads(registry)
    search = ReferrerSearch()
    survivors: list[Survivor] = []
    for removed in tracker.alive():
        holders = tuple(sorted(set(threads.get(removed.serial, ()))))
        referrers: tuple[str, ...] = ()
        if not holders:  # else a reference from here could keep its closer from running
            instance = removed.reference()
            if instance is None:
                continue
            if len(survivors) < _MAX_SEARCHED:
                referrers = search.paths_to(instance)
            del instance
        survivors.append(
            Survivor(
                removed.class_name,
                f"{removed.kind.__module__}.{removed.kind.__qualname__}",
                RemovalCause(removed.cause),
                max(0.0, now - removed.removed_at),
                holders,
                referrers,
            )
        )
    return tuple(survivors)
