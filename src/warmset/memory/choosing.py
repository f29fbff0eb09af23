"""
Choosing who leaves: a heap by priority and worth, which is brought up to date as it is looked at.

A hit changes no heap. What was used since its worth was told has risen, and so lies too far to the
front: it is told anew when it comes up. What has fallen by time alone lies too far back: of those
that come up first a few are told anew at each choice, and so are those that were told longest ago.
So a choice is O(log n) amortised, it is exact for a policy whose worths never fall, and for any
other one no worth is older than half as many choices as there are candidates.
"""

from __future__ import annotations

import math
from _thread import RLock
from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from .. import _logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Slot
    from ..registry import Registry
    from .policies import Policy

__all__ = ["Chooser"]

_STRONG = 1  # a slot's kind
_LOOKED_AT = 8  # of those that come up first
_RENEWED = 2  # of those that were told longest ago
_SMALL = 64  # a heap that is not worth clearing up


class _Candidate(NamedTuple):
    priority: int
    worth: float
    last_used: float  # of equal worth, who was used least recently
    number: int  # of equal last use, who was noticed first; no two have the same
    slot: Slot
    epoch: int
    uses: int  # when the worth was told

    @property
    def has_left(self) -> bool:
        return self.slot.epoch != self.epoch or self.slot.kind != _STRONG


class Chooser:
    """
    Knows who leaves next.

    Args:
        policy: Tells what instances are worth.
        priority_of: Tells the priority of a class.

    Safe under threads, and when the policy asks the registry: it is called outside the lock. An
    instance that it cannot judge counts as worth less than any other of its priority; of those, who
    was used least recently leaves first.
    """

    def __init__(self, policy: Policy, priority_of: Callable[[str], int]) -> None:
        self._policy = policy
        self._priority_of = priority_of
        # Class name -> its one valid candidate, those told longest ago first. What is in the heap
        # but not here is passed over.
        self._told: OrderedDict[str, _Candidate] = OrderedDict()
        self._heap: list[_Candidate] = []
        self._number = 0
        self._searching = 0  # threads that have some candidates out of the heap
        self._failed = False  # whether it was said that the policy fails
        self._lock = RLock()  # re-entrant: a finaliser may come in

    def reset_after_fork(self) -> None:
        """Have a lock that no thread of the parent holds, and no candidates that one has taken."""
        self._lock = RLock()
        self._told, self._heap, self._searching = OrderedDict(), [], 0

    def note(self, slot: Slot, now: float) -> None:
        """
        Let an instance be a candidate, as when it was built; or tell its worth anew.

        Args:
            slot: Where it is.
            now: The registry's clock.
        """
        self._tell(slot, now, to_heap=True)

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        An instance has left: it is a candidate no more, and the policy is told if it wants that.

        Args:
            name: The class name.
            uses: How often it was used.
            built_at: When it was built.
            last_used: When it was used last.
        """
        with self._lock:
            candidate = self._told.get(name)
            if candidate is not None and candidate.has_left:  # and not another, or it came back
                del self._told[name]
        left = getattr(self._policy, "left", None)
        if left is None:
            return
        try:
            left(name, uses, built_at, last_used)
        except Exception as error:
            self._say(name, error)

    def victim(
        self,
        registry: Registry,
        now: float,
        spare: Slot | None = None,
        *,
        may_pass: bool = True,
    ) -> tuple[Slot, int] | None:
        """
        Choose who leaves next. It stays a candidate until it has left.

        Args:
            registry: What is cached.
            now: The registry's clock.
            spare: What was just built. It is not to leave, unless the policy says that it passes
                and it is worth least: then it is chosen although it is held.
            may_pass: False where it passes already, and more has to leave.

        Returns:
            Slot and epoch; None if all that is cached is held, pinned or spared.

        O(log n) amortised; O(n) where much is held or pinned, and after something came in by
        another way than a build.
        """
        if spare is not None and spare.kind == _STRONG and spare.name not in self._told:
            self.note(spare, now)  # cached already, though its build has not ended
        if len(self._told) < registry._cached:
            self._resync(registry, now)
        self._renew(now)
        passes = may_pass and spare is not None and self._passes(spare, now)
        chosen = self._search(now, spare, passes)
        if chosen is None and (self._resync(registry, now) or self._searching):
            # What another thread has out of the heap just now is no reason to find nobody.
            free = [slot for slot in registry._warm_slots() if _may_leave(slot, spare, passes)]
            told = [self._candidate(slot, now) for slot in free]
            chosen = min(told, default=None)
        return None if chosen is None else (chosen.slot, chosen.epoch)

    def order(self, registry: Registry, now: float) -> list[tuple[str, float]]:
        """
        Tell in which order instances would leave.

        Args:
            registry: What is cached.
            now: The registry's clock.

        Returns:
            Name and worth of each that is neither held nor pinned, who leaves first at the front.
            It changes nothing. O(n log n).
        """
        free = [slot for slot in registry._warm_slots() if _may_leave(slot)]
        candidates = sorted(self._candidate(slot, now) for slot in free)
        return [(candidate.slot.name, candidate.worth) for candidate in candidates]

    def purge(self, now: float | None = None) -> None:
        """
        Forget candidates that have left, and tell the others anew.

        Args:
            now: The registry's clock; None only forgets.

        O(n log n).
        """
        with self._lock:
            candidates = list(self._told.values())
        for candidate in candidates:
            if candidate.has_left:
                self._forget(candidate)
            elif now is not None:
                self._tell(candidate.slot, now, to_heap=True, instead_of=candidate)
        with self._lock:
            self._clear_up()

    # -- worths ----------------------------------------------------------------------------------

    def _candidate(self, slot: Slot, now: float) -> _Candidate:
        # The use before the worth: one between the two makes it look too old, which does no harm.
        epoch, uses, last_used = slot.epoch, slot.uses, slot.last_used
        worth = self._worth(slot, now)
        priority = self._priority_of(slot.name)
        with self._lock:
            before = self._told.get(slot.name)
            if before is not None and before[-3:] == (slot, epoch, uses):
                number = before.number
            else:
                number = self._number = self._number + 1
        return _Candidate(priority, worth, last_used, number, slot, epoch, uses)

    def _worth(self, slot: Slot, now: float) -> float:
        try:
            worth = float(self._policy.worth(slot, now))
            if math.isfinite(worth):
                return worth
            problem: object = f"it gave {worth!r}, expected a finite number"
        except Exception as error:
            problem = error
        self._say(slot.name, problem)
        return -math.inf

    def _passes(self, slot: Slot, now: float) -> bool:
        """Whether what was just built may be handed out and not kept."""
        passes = getattr(self._policy, "passes", None)
        try:
            return passes is not None and bool(passes(slot, now))
        except Exception as error:
            self._say(slot.name, error)
        return False

    def _say(self, class_name: str, problem: object) -> None:
        if self._failed:
            return
        self._failed = True
        _logs.warning(
            "memory",
            "the policy %r cannot tell what %r is worth, its last use counts: %s",
            type(self._policy).__qualname__,
            class_name,
            problem,
            fields={"class_name": class_name},
            error=problem if isinstance(problem, Exception) else None,
        )

    def _tell(
        self, slot: Slot, now: float, *, to_heap: bool, instead_of: _Candidate | None = None
    ) -> _Candidate | None:
        """Ask for a worth and let it be the valid one; not if another was told meanwhile."""
        candidate = self._candidate(slot, now)
        with self._lock:
            if instead_of is not None and self._told.get(slot.name) is not instead_of:
                return None
            self._told[slot.name] = candidate
            self._told.move_to_end(slot.name)
            if to_heap:
                self._push(candidate)
        return candidate

    def _push(self, candidate: _Candidate) -> None:
        heappush(self._heap, candidate)
        if len(self._heap) > 2 * len(self._told) + _SMALL:
            self._clear_up()

    def _clear_up(self) -> None:
        self._heap = list(self._told.values())
        heapify(self._heap)

    def _forget(self, candidate: _Candidate) -> None:
        with self._lock:
            if self._told.get(candidate.slot.name) is candidate:
                del self._told[candidate.slot.name]

    # -- choosing --------------------------------------------------------------------------------

    def _renew(self, now: float) -> None:
        """Tell anew what was told longest ago."""
        for _ in range(_RENEWED):
            with self._lock:
                oldest = next(iter(self._told.values()), None)
            if oldest is None:
                return
            if oldest.has_left:
                self._forget(oldest)
            else:
                self._tell(oldest.slot, now, to_heap=True, instead_of=oldest)

    def _search(self, now: float, spare: Slot | None, passes: bool) -> _Candidate | None:
        """The least of those that come up first; what was taken out of the heap goes back."""
        aside: list[_Candidate] = []
        least: _Candidate | None = None
        looked_at = 0
        with self._lock:
            self._searching += 1
        try:
            while (candidate := self._take(least, looked_at >= _LOOKED_AT)) is not None:
                slot = candidate.slot
                if candidate.has_left:
                    self._forget(candidate)
                    continue
                aside.append(candidate)
                if not _may_leave(slot, spare, passes):
                    continue
                looked_at += slot.uses == candidate.uses
                anew = self._tell(slot, now, to_heap=False, instead_of=candidate)
                if anew is not None:
                    aside[-1] = anew
                    least = anew if least is None else min(least, anew)
        finally:
            with self._lock:
                self._searching -= 1
                for candidate in aside:
                    if self._told.get(candidate.slot.name) is candidate:
                        self._push(candidate)
        return least

    def _take(self, least: _Candidate | None, enough: bool) -> _Candidate | None:
        """The first of the heap; None if there is none, or none that could be less."""
        with self._lock:
            while self._heap:
                first = self._heap[0]
                valid = self._told.get(first.slot.name) is first
                if valid and enough and least is not None and least < first:
                    return None
                heappop(self._heap)
                if valid:
                    return first
        return None

    def _resync(self, registry: Registry, now: float) -> bool:
        """Take up what is cached and no candidate, as what was written from outside."""
        found = False
        for slot in registry._warm_slots():
            candidate = self._told.get(slot.name)
            if candidate is None or candidate.slot is not slot or candidate.epoch != slot.epoch:
                self.note(slot, now)
                found = True
        return found


def _may_leave(slot: Slot, spare: Slot | None = None, passes: bool = False) -> bool:
    if slot is spare:  # its caller holds it, and gives it back soon
        return passes and not slot.pinned
    return not slot.holds and not slot.pinned
