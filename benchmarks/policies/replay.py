"""
Replaying a trace: what each cache had to build, and how much it had at most.

A request for what is not there builds it, which costs its seconds; what does not fit pushes out
others. Time is that of the trace: builds take none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from warmset.memory.choosing import Chooser

if TYPE_CHECKING:
    from collections.abc import Callable

    from warmset.memory.adaptive import AdaptiveTtl
    from warmset.memory.policies import Policy

    from .traces import Trace

__all__ = ["Cache", "Ours", "Replayed", "lower_bound", "offline", "replay"]


class Replayed(NamedTuple):
    """What came of a trace."""

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


class _Slot:
    """What a chooser and a policy see of a slot."""

    __slots__ = ("build_seconds", "built_at", "bytes", "epoch", "holds", "kind", "last_used",
                 "leaving", "name", "pinned", "uses")  # fmt: skip

    def __init__(self, name: str, build_seconds: float, size: int) -> None:
        self.name = name
        self.build_seconds = build_seconds
        self.bytes = size
        self.built_at = self.last_used = 0.0
        self.uses = self.epoch = self.kind = self.holds = 0
        self.pinned = False
        self.leaving = None


class Ours:
    """
    Our chooser with one of our policies, within a budget of bytes.

    Args:
        trace: What it will be asked for.
        budget: Bytes.
        policy: Who leaves.
        adaptive: Also lets go what has been idle for as long as this tells.
    """

    def __init__(
        self, trace: Trace, budget: int, policy: Policy, adaptive: AdaptiveTtl | None = None
    ) -> None:
        self.bytes = 0
        self._cached = 0
        self.evicted: list[int] = []
        self._budget = budget
        self._adaptive = adaptive
        self._slots = [
            _Slot(str(number), seconds, size)
            for number, (seconds, size) in enumerate(
                zip(trace.build_seconds, trace.sizes, strict=True)
            )
        ]
        self._chooser = Chooser(policy, lambda name: 0)
        self._left_at: dict[int, float] = {}

    def _warm_slots(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.kind]

    def get(self, number: int, now: float) -> bool:
        """Whether it is warm."""
        slot = self._slots[number]
        if (
            slot.kind
            and self._adaptive is not None
            and now - slot.last_used > self._adaptive.limit(slot.name).seconds
        ):
            self._remove(slot)
        if not slot.kind:
            return False
        slot.uses += 1
        slot.last_used = now
        return True

    def put(self, number: int, now: float) -> None:
        """Build it first, and evict then."""
        slot = self._slots[number]
        slot.kind, slot.uses = 1, 1
        slot.built_at, left = now, slot.last_used
        if self._adaptive is not None and number in self._left_at:
            self._adaptive.observe_return(slot.name, now - left)
        slot.last_used = now
        self.bytes += slot.bytes
        self._cached += 1
        self._chooser.note(slot, now)  # type: ignore[arg-type]
        if slot.bytes > self._budget:  # handed out and let go; the others stay
            self._remove(slot)
        while self.bytes > self._budget:
            chosen = self._chooser.victim(self, now, slot)  # type: ignore[arg-type]
            assert chosen is not None
            self._remove(chosen[0])  # type: ignore[arg-type]

    def _remove(self, slot: _Slot) -> None:
        slot.kind = 0
        slot.epoch += 1
        self.bytes -= slot.bytes
        self._cached -= 1
        self.evicted.append(int(slot.name))
        self._chooser.left(slot.name, slot.uses, slot.built_at, slot.last_used)
        if self._adaptive is not None:
            self._left_at[int(slot.name)] = slot.last_used
            self._adaptive.observe_residence(
                slot.name, slot.uses, slot.built_at, slot.last_used, slot.build_seconds
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


def lower_bound(trace: Trace, budget: int) -> float:
    """
    Seconds of builds that no policy can save, whatever it knows.

    To save a build an instance must be kept from one use to the next, which takes its bytes for
    that long; all together cannot take more than the budget for the whole time. The best of such
    intervals by seconds per byte and request, taken until that is used up, save at least as much as
    any policy could: the bound that Berger, Beckmann and Harchol-Balter ("Practical Bounds on
    Optimal Caching with Variable Object Sizes", 2018) call PFOO-U, with costs.
    """
    following = _next_uses(trace)
    end = len(trace.requests)
    total = 0.0
    intervals = []
    for at, (_, number) in enumerate(trace.requests):
        total += trace.build_seconds[number]
        if following[at] < end and trace.sizes[number] <= budget:
            room = trace.sizes[number] * (following[at] - at)
            intervals.append((trace.build_seconds[number] / room, room))
    intervals.sort(reverse=True)
    left = float(budget) * end
    saved = 0.0
    for worth, room in intervals:
        taken = min(left, room)
        saved += worth * taken
        left -= taken
        if left <= 0.0:
            break
    return total - saved
