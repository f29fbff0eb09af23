"""
A simulated cache that evicts by a policy, with the chooser of a registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import CACHED, CLOSED
from .choosing import Chooser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..planning.traces import Trace
    from .policies import Policy

__all__ = ["CachedClass", "PolicyCache"]


class _Slot:
    """The view of a slot that a chooser gets: nothing is pinned, and all priorities are equal."""

    options = None
    pinned = False


class CachedClass:
    """The view of an entry that a chooser and a policy get."""

    __slots__ = ("build_seconds", "built_at", "bytes", "holds", "last_used", "name", "number",
                 "serial", "slot", "state", "uses")  # fmt: skip

    def __init__(
        self, name: str, number: int, build_seconds: float, size: int, now: float, serial: int
    ) -> None:
        self.name = name
        self.number = number
        self.build_seconds = build_seconds
        self.bytes = size
        self.built_at = self.last_used = now
        self.serial = serial
        self.slot = _Slot
        self.state = CACHED
        self.holds = 0
        self.uses = 1


class PolicyCache:
    """
    A cache of the classes of a trace.

    Args:
        trace: Tells names, costs and sizes.
        policy: A policy of its own.
        max_size: The most instances.
        max_bytes: The most bytes.
        ttl_seconds: Instances that were not used for longer are built anew.
    """

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        *,
        max_size: float,
        max_bytes: float,
        ttl_seconds: float = float("inf"),
    ) -> None:
        self.bytes = 0
        self._trace = trace
        self._max_size, self._max_bytes, self._ttl = max_size, max_bytes, ttl_seconds
        self._entries: dict[int, CachedClass] = {}
        self._builds = 0
        self._chooser = Chooser(policy)
        self._evicted: list[int] = []

    @property
    def cached(self) -> int:
        """The number of cached instances, for the chooser."""
        return len(self._entries)

    def warm_entries(self) -> list[CachedClass]:
        """Return the cached entries, for the chooser."""
        return list(self._entries.values())

    def use(self, number: int, now: float) -> bool:
        """Use a class; see `warmset.planning.simulation.SimulatedCache`."""
        if self.get(number, now):
            return True
        self.put(number, now)
        return False

    def get(self, number: int, now: float) -> bool:
        """Return whether a class is warm, and use it."""
        entry = self._entries.get(number)
        if entry is None:
            return False
        if now - entry.last_used > self.idle_limit(entry.name):
            self.remove(entry)
            return False
        entry.uses += 1
        entry.last_used = now
        return True

    def put(self, number: int, now: float) -> None:
        """Build a class that is not warm, and evict after that."""
        self._builds += 1
        trace, size = self._trace, self._trace.sizes[number]
        entry = self._entries[number] = CachedClass(
            trace.names[number], number, trace.build_seconds[number], size, now, self._builds
        )
        self.bytes += max(0, size)
        self._chooser.note(entry, now)  # type: ignore[arg-type]
        if size > self._max_bytes:  # the others stay
            self.remove(entry)
        while len(self._entries) > self._max_size or self.bytes > self._max_bytes:
            chosen = self._chooser.victim(self, now, entry)  # type: ignore[arg-type]
            assert chosen is not None
            self._evicted.append(chosen.number)  # type: ignore[attr-defined]
            self.remove(chosen)  # type: ignore[arg-type]

    def idle_limit(self, class_name: str) -> float:
        """Return the idle TTL of a class."""
        return self._ttl

    def take_evicted(self) -> Sequence[int]:
        """Return the classes that were evicted for a bound since the last call."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def remove(self, entry: CachedClass) -> None:
        """Remove a class."""
        entry.state = CLOSED
        del self._entries[entry.number]
        self.bytes -= max(0, entry.bytes)
        self._chooser.removed(entry)  # type: ignore[arg-type]
