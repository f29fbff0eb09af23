"""
Proof of release: what came back to the system, and who keeps what did not.

What leaves a registry is watched by weak references, from the first request on. A request has the
cycles collected and the allocator give back what is free; then it measures, and of what was dropped
and still lives it tells who refers to it. It takes as long as a full collection, and longer where
something lives: it is for the end of a run, never for a hit.
"""

from __future__ import annotations

import gc
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from .. import _process_memory
from ..events import RemovalCause

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..observe.leaving import Leaving
    from ..registry import Registry

__all__ = ["ReleaseReport", "Survivor", "release"]

_SHOWN = 20  # survivors whose referrers are looked for


class Survivor(NamedTuple):
    """An instance that was dropped and lives."""

    class_name: str
    type_name: str
    cause: RemovalCause
    """Why it left."""
    seconds: float
    """Since it left."""
    held_by: tuple[str, ...]
    """The threads that hold it by a lease or a running call: it goes when they give it back."""
    kept_by: tuple[str, ...]
    """Who refers to it, each as a way from there to the instance; empty where none was found."""

    def __str__(self) -> str:
        text = f"{self.class_name} ({self.type_name}), {self.cause.name.lower()}"
        if self.held_by:
            return f"{text}: held by {', '.join(self.held_by)}"
        return "\n    ".join((f"{text}: kept by", *(self.kept_by or ("nobody that was found",))))


class ReleaseReport(NamedTuple):
    """What a release gave."""

    rss_before_bytes: int | None
    """None where the process cannot be measured."""
    rss_after_bytes: int | None
    removed: int
    """Instances that left in its course."""
    collected: int
    """Objects that the collector found unreachable, of all kinds."""
    trimmed: bool
    """Whether the allocator was asked to give back what is free; that is possible with glibc."""
    survivors: tuple[Survivor, ...]
    untracked: int
    """Instances that left and cannot be watched: their types have no weak references."""
    remove_seconds: float
    """For removing, closing and dropping."""
    collect_seconds: float
    trim_seconds: float
    search_seconds: float
    """For finding who refers to what lives."""

    @property
    def returned_bytes(self) -> int | None:
        """What the process has less than before; negative where it has more."""
        if self.rss_before_bytes is None or self.rss_after_bytes is None:
            return None
        return self.rss_before_bytes - self.rss_after_bytes

    @property
    def leaked(self) -> tuple[Survivor, ...]:
        """The survivors that nobody holds."""
        return tuple(survivor for survivor in self.survivors if not survivor.held_by)

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data."""
        survivors = [
            {
                "class_name": survivor.class_name,
                "type": survivor.type_name,
                "cause": survivor.cause.name.lower(),
                "seconds": survivor.seconds,
                "held_by": list(survivor.held_by),
                "kept_by": list(survivor.kept_by),
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
        came = "cannot be measured" if returned is None else f"{returned / 1e6:+.1f} MB"
        lines = [
            f"returned to the system: {came}; {self.removed} removed, {self.collected} objects "
            f"collected, {'trimmed' if self.trimmed else 'not trimmed'}"
        ]
        if self.untracked:
            lines.append(f"  {self.untracked} cannot be watched: no weak references")
        return "\n".join([*lines, *(f"  alive: {survivor}" for survivor in self.survivors)])


def release(registry: Registry, remove: Callable[[], int]) -> ReleaseReport:
    """
    Remove, collect, trim, measure, and look for what lives on.

    Args:
        registry: The registry.
        remove: Removes what is to leave; tells how many left.

    Returns:
        What it gave.
    """
    from ..observe.leaving import watch_leaving

    leaving = watch_leaving(registry)
    untracked = leaving.untracked
    before = _resident()
    began = perf_counter()
    removed = remove()
    dropped = perf_counter()
    # Twice: what the first pass finalises may be found dead by the second only.
    collected = gc.collect() + gc.collect()
    swept = perf_counter()
    trimmed = _process_memory.give_back_free_memory()
    given_back = perf_counter()
    after = _resident()
    survivors = _survivors(registry, leaving)
    return ReleaseReport(
        rss_before_bytes=before,
        rss_after_bytes=after,
        removed=removed,
        collected=collected,
        trimmed=trimmed,
        survivors=survivors,
        untracked=leaving.untracked - untracked,
        remove_seconds=dropped - began,
        collect_seconds=swept - dropped,
        trim_seconds=given_back - swept,
        search_seconds=perf_counter() - given_back,
    )


def _resident() -> int | None:
    try:
        return _process_memory.resident_bytes()
    except Exception:
        return None


def _survivors(registry: Registry, leaving: Leaving) -> tuple[Survivor, ...]:
    from .referrers import Referrers

    now = registry._now()
    holders = registry.holders()
    search = Referrers()
    survivors: list[Survivor] = []
    for class_name, epoch, reference, left, cause in leaving.alive(registry):
        # Those that took their hold before it left hold this one, and not a successor.
        since = now - left
        held_by = tuple(
            sorted({h.thread for h in holders if h.class_name == class_name
                    and h.held_seconds >= since and _is_held(registry, class_name, epoch)})
        )  # fmt: skip
        kept_by: tuple[str, ...] = ()
        instance = reference()
        if instance is None:
            continue
        kind = type(instance)
        type_name = f"{kind.__module__}.{kind.__qualname__}"
        if not held_by and len(survivors) < _SHOWN:
            kept_by = search.of(instance)
        del instance
        survivors.append(
            Survivor(class_name, type_name, RemovalCause(cause), since, held_by, kept_by)
        )
    return tuple(survivors)


def _is_held(registry: Registry, class_name: str, epoch: int) -> bool:
    slot = registry._slots.get(class_name)
    leaving = () if slot is None else slot.leaving or ()
    # A slot that was forgotten takes its departures with it; its holders still tell.
    return slot is None or any(departure.epoch == epoch for departure in list(leaving))
