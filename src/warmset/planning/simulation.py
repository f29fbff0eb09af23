"""
Replaying a trace against a cache, request by request: builds, build seconds, and peak bytes.

Builds take no time in a replay, and an instance that exceeds a byte budget alone is not kept, as in
a registry.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .traces import Trace

__all__ = ["Displacement", "LruCache", "Simulated", "SimulatedCache", "simulate"]

_INFINITE = float("inf")


class SimulatedCache(Protocol):
    """A cache of classes, which are numbers."""

    @property
    def bytes(self) -> int:
        """The bytes of the cached instances."""

    def use(self, number: int, now: float) -> bool:
        """
        Use a class.

        Args:
            number: The class.
            now: The time, in seconds.

        Returns:
            Whether it was warm; if not, it is built, and others may be evicted.
        """

    def take_evicted(self) -> Sequence[int]:
        """Return the classes that were evicted for a bound since the last call."""


class Displacement(NamedTuple):
    """Two classes that evict each other."""

    one: str
    other: str
    times: int
    """How often a build of either evicted the other, which was built again later."""


class Simulated(NamedTuple):
    """The result of a replay."""

    builds: int
    build_seconds: float
    peak_bytes: int
    mean_bytes: float
    """The mean over time of the bytes of the cached instances."""
    displacements: tuple[Displacement, ...]


class LruCache:
    """
    Least recently used first, within a number of instances, a budget of bytes, and an idle TTL.

    Args:
        sizes: The bytes of each class.
        max_size: The most instances.
        max_bytes: The most bytes.
        ttl_seconds: Instances that were not used for longer are built anew.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        max_size: float = _INFINITE,
        max_bytes: float = _INFINITE,
        ttl_seconds: float = _INFINITE,
    ) -> None:
        self.bytes = 0
        self._sizes = sizes
        self._max_size, self._max_bytes, self._ttl = max_size, max_bytes, ttl_seconds
        self._used: OrderedDict[int, float] = OrderedDict()  # class -> its last use
        self._evicted: list[int] = []

    def use(self, number: int, now: float) -> bool:
        used = self._used
        last = used.pop(number, None)
        warm = last is not None and now - last <= self._ttl
        size = self._sizes[number]
        if last is None:
            if size > self._max_bytes:
                return False
            self.bytes += size
        used[number] = now
        while len(used) > self._max_size or self.bytes > self._max_bytes:
            victim, _ = used.popitem(last=False)
            self.bytes -= self._sizes[victim]
            self._evicted.append(victim)
        return warm

    def take_evicted(self) -> Sequence[int]:
        evicted, self._evicted = self._evicted, []
        return evicted


def simulate(trace: Trace, cache: SimulatedCache, *, most_displacements: int = 5) -> Simulated:
    """
    Replay a trace.

    Args:
        trace: The trace.
        cache: An empty cache.
        most_displacements: How many pairs of classes that evict each other are reported.

    Returns:
        The builds, and the pairs that evict each other most often.
    """
    builds, seconds, peak, area = 0, 0.0, 0, 0.0
    costs = trace.build_seconds
    evicted_by: dict[int, int] = {}  # evicted class -> the class whose build evicted it
    pairs: Counter[tuple[int, int]] = Counter()
    before = trace.requests[0][0] if trace.requests else 0.0
    for now, number in trace.requests:
        area += cache.bytes * (now - before)
        before = now
        if cache.use(number, now):
            continue
        builds += 1
        seconds += costs[number]
        peak = max(peak, cache.bytes)
        by = evicted_by.pop(number, None)
        if by is not None:
            pairs[min(by, number), max(by, number)] += 1
        for victim in cache.take_evicted():
            if victim != number:  # not admitted
                evicted_by[victim] = number
    length = before - trace.requests[0][0] if trace.requests else 0.0
    # One direction alone is no mutual displacement, but reads the same in a count of two or more.
    most = tuple(
        Displacement(trace.names[one], trace.names[other], times)
        for (one, other), times in pairs.most_common(most_displacements)
        if times > 1
    )
    return Simulated(builds, seconds, peak, area / length if length else float(cache.bytes), most)
