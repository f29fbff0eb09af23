"""
Replaying a trace: what each cache had to build, and how much it had at most.

A request for what is not there builds it, which costs its seconds; what does not fit pushes out
others. Time is that of the trace: builds take none of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from warmset.memory.policy_cache import PolicyCache

from .traces import replayable

if TYPE_CHECKING:
    from collections.abc import Callable

    from warmset.memory.adaptive import AdaptiveTtl
    from warmset.memory.policies import Policy
    from warmset.memory.policy_cache import CachedClass

    from .traces import Trace

_STEPS = 200
_PATIENCE = 15  # steps without a better bound, after which they get shorter

__all__ = ["Cache", "Ours", "Replayed", "lower_bound", "offline", "replay"]


class Replayed(NamedTuple):
    """The result of replaying a trace."""

    build_seconds: float
    builds: int
    peak_bytes: int


class Cache(Protocol):
    """A cache of classes."""

    bytes: int

    def get(self, number: int, now: float) -> bool:
        """Whether it is there; it is used by that."""

    def put(self, number: int, now: float) -> None:
        """It was built."""


def replay(trace: Trace, cache: Cache) -> Replayed:
    """
    Ask a cache for all that a trace asks for.

    Args:
        trace: The requests.
        cache: An empty one.

    Returns:
        What it had to build, and its most bytes.
    """
    seconds, builds, peak = 0.0, 0, 0
    for now, number in trace.requests:
        if not cache.get(number, now):
            seconds += trace.build_seconds[number]
            builds += 1
            cache.put(number, now)
            peak = max(peak, cache.bytes)
    return Replayed(seconds, builds, peak)


class Ours(PolicyCache):
    """
    Our chooser with one of our policies, within a budget of bytes.

    Args:
        trace: The requests that will be made.
        budget: Bytes.
        policy: Determines the eviction order.
        adaptive: Determines the idle limits; None: there are none.
    """

    def __init__(
        self, trace: Trace, budget: int, policy: Policy, adaptive: AdaptiveTtl | None = None
    ) -> None:
        super().__init__(replayable(trace), policy, max_size=math.inf, max_bytes=budget)
        self.evicted: list[int] = []
        self._adaptive = adaptive
        self._last_used: dict[int, float] = {}  # of removed instances

    def idle_limit(self, class_name: str) -> float:
        """Return the idle TTL of a class."""
        return math.inf if self._adaptive is None else self._adaptive.limit(class_name).seconds

    def put(self, number: int, now: float) -> None:
        """Build a class, and evict after that."""
        if self._adaptive is not None and number in self._last_used:
            self._adaptive.observe_return(str(number), now - self._last_used[number])
        super().put(number, now)

    def remove(self, entry: CachedClass) -> None:
        """Remove a class."""
        super().remove(entry)
        self.evicted.append(entry.number)
        if self._adaptive is not None:
            self._last_used[entry.number] = entry.last_used
            self._adaptive.observe_residence(
                entry.name, entry.uses, entry.built_at, entry.last_used, entry.build_seconds
            )


class Weighed:
    """A cache of cachetools or cachebox, which knows weights."""

    def __init__(self, trace: Trace, budget: int, make: Callable[..., Any]) -> None:
        self._sizes = trace.sizes
        self._cache = make(budget, getsizeof=self._sizes.__getitem__)

    @property
    def bytes(self) -> int:
        """What it has."""
        size = self._cache.current_size if hasattr(self._cache, "current_size") else None
        return int(self._cache.currsize if size is None else size())

    def get(self, number: int, now: float) -> bool:
        """Whether it is there."""
        return self._cache.get(number) is not None

    def put(self, number: int, now: float) -> None:
        """What is bigger than all of it is not kept."""
        try:
            self._cache[number] = number
        except (ValueError, OverflowError):
            return


class Counted:
    """
    A cache that counts: it is given as many places as instances of the usual size fit.

    Args:
        trace: What it will be asked for.
        budget: Bytes.
        make: Takes the number of places; gives the look-up and the store.

    What it has is not told: it could be asked only in a way that is a use.
    """

    def __init__(self, trace: Trace, budget: int, make: Callable[[int], Any]) -> None:
        asked = {number for _, number in trace.requests}
        places = max(1, int(budget * len(asked) / trace.bytes))
        self._get, self._set = make(places)
        self.bytes = 0

    def get(self, number: int, now: float) -> bool:
        """Whether it is there."""
        return self._get(number) is not None

    def put(self, number: int, now: float) -> None:
        """It pushes out others."""
        self._set(number)


# -- with the future known -----------------------------------------------------------------------


def _next_uses(trace: Trace) -> list[int]:
    """For each request, the number of the next one for the same class; or one past the last."""
    end = len(trace.requests)
    seen: dict[int, int] = {}
    following = [end] * end
    for at in range(end - 1, -1, -1):
        number = trace.requests[at][1]
        following[at] = seen.get(number, end)
        seen[number] = at
    return following


def offline(trace: Trace, budget: int) -> Replayed:
    """
    Evict with the future known: the least seconds saved per byte and request until the next use.

    Belady's rule, weighted by cost and size. It is greedy, so something might do better still; see
    `lower_bound` for what nothing can.
    """
    following = _next_uses(trace)
    end = len(trace.requests)
    warm: dict[int, int] = {}  # class -> its next use
    used, peak, seconds, builds = 0, 0, 0.0, 0
    for at, (_, number) in enumerate(trace.requests):
        if number not in warm:
            seconds += trace.build_seconds[number]
            builds += 1
            used += trace.sizes[number]
            peak = max(peak, min(used, budget))
        warm[number] = following[at]
        while used > budget:

            def worth(other: int, at: int = at) -> float:
                after = warm[other] - at
                if warm[other] >= end:
                    return 0.0
                return trace.build_seconds[other] / (trace.sizes[other] * after)

            loser = min(warm, key=worth)
            del warm[loser]
            used -= trace.sizes[loser]
    return Replayed(seconds, builds, peak)


def lower_bound(trace: Trace, budget: int, known: float) -> float:
    """
    Seconds of builds that no policy can save, whatever it knows.

    To save a build an instance must be kept from one use to the next. What can be saved so within
    the budget is at most what can be saved if each byte kept from one request to the next is paid
    for, at any prices whatever, and what the whole budget brings at these prices is added: the
    Lagrangian dual of the linear program of Berger, Beckmann and Harchol-Balter ("Practical Bounds
    on Optimal Caching with Variable Object Sizes", 2018), with costs. Each set of prices gives a
    bound that holds; those of the best are come closer to step by step.

    Args:
        trace: The requests.
        budget: Bytes.
        known: Seconds that some policy needs; it sets how far each step goes.

    Returns:
        The greatest bound that was found.
    """
    import numpy

    end = len(trace.requests)
    numbers = numpy.array([number for _, number in trace.requests])
    costs = numpy.array(trace.build_seconds)[numbers]
    rooms = numpy.array(trace.sizes, dtype=float)[numbers] / budget
    following = numpy.array(_next_uses(trace))
    total = float(costs.sum())
    keeps = (following < end) & (rooms <= 1.0)
    first, after, gains, rooms = (
        part[keeps] for part in (numpy.arange(end), following, costs, rooms)
    )
    prices = numpy.full(end, _even_price(gains, rooms * (after - first), end))
    saved, step, since = math.inf, 1.0, 0
    for _ in range(_STEPS):
        paid = numpy.concatenate(([0.0], numpy.cumsum(prices)))
        nets = gains - rooms * (paid[after] - paid[first])
        kept = nets > 0.0
        value = float(nets[kept].sum() + prices.sum())
        since = 0 if value < saved else since + 1
        saved = min(saved, value)
        if since == _PATIENCE:
            step, since = step / 2.0, 0
        comes = numpy.bincount(first[kept], rooms[kept], end + 1)
        goes = numpy.bincount(after[kept], rooms[kept], end + 1)
        unused = 1.0 - numpy.cumsum(comes - goes)[:end]
        length = float(unused @ unused)
        if length == 0.0:
            break
        prices = numpy.maximum(0.0, prices - step * (value - (total - known)) / length * unused)
    return total - saved


def _even_price(gains: Any, areas: Any, end: int) -> float:
    """The price, one for all times, at which as much is kept as there is room for."""
    import numpy

    best_first = numpy.argsort(-gains / areas)
    taken = numpy.cumsum(areas[best_first])
    at = int(numpy.searchsorted(taken, float(end)))
    return 0.0 if at >= len(best_first) else float(gains[best_first[at]] / areas[best_first[at]])
