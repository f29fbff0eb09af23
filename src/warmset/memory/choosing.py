"""
Choosing who leaves: a heap by priority and worth, which is brought up to date as it is looked at.

A hit changes no heap. What was used since it was put in has risen, so it lies too far to the front;
it is found out when it comes up, gets its new worth, and goes back. Each such step is paid for by a
use, so choosing is O(log n) amortised over uses and choices.
"""

from __future__ import annotations

import math
from _thread import RLock
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


class _Candidate(NamedTuple):
    priority: int
    worth: float
    number: int  # no two have the same: slots are never compared
    slot: Slot
    epoch: int
    uses: int  # when the worth was told


class Chooser:
    """
    Knows who leaves next.

    Args:
        policy: Tells what instances are worth.
        priority_of: Tells the priority of a class.

    Safe under threads. The policy is called outside the lock.
    """

    def __init__(self, policy: Policy, priority_of: Callable[[str], int]) -> None:
        self._policy = policy
        self._priority_of = priority_of
        self._heap: list[_Candidate] = []
        self._number = 0
        self._failed = False  # whether it was said that the policy fails
        self._lock = RLock()  # re-entrant: a finaliser may come in

    def reset_after_fork(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = RLock()

    def note(self, slot: Slot, now: float) -> None:
        """
        Let an instance be a candidate, as when it was built.

        Args:
            slot: Where it is.
            now: The registry's clock.
        """
        candidate = self._candidate(slot, now)
        with self._lock:
            heappush(self._heap, candidate)

    def victim(
        self, registry: Registry, now: float, spare: Slot | None = None
    ) -> tuple[Slot, int] | None:
        """
        Choose who leaves next; it is a candidate no more.

        Args:
            registry: What is cached.
            now: The registry's clock.
            spare: Is not to leave.

        Returns:
            Slot and epoch; None if all that is cached is held, pinned or spared.

        O(log n) amortised; O(n) where much is held or pinned.
        """
        chosen = self._search(now, spare)
        if chosen is None and self._resync(registry, now):
            chosen = self._search(now, spare)
        return chosen

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
        candidates = [
            self._candidate(slot, now)
            for slot in registry._warm_slots()
            if not slot.holds and not slot.pinned
        ]
        return [(c.slot.name, c.worth) for c in sorted(candidates, key=lambda c: c[:2])]

    def _candidate(self, slot: Slot, now: float) -> _Candidate:
        epoch, uses = slot.epoch, slot.uses
        worth = self._worth(slot, now)
        self._number += 1
        return _Candidate(self._priority_of(slot.name), worth, self._number, slot, epoch, uses)

    def _worth(self, slot: Slot, now: float) -> float:
        try:
            worth = float(self._policy.worth(slot, now))
            if math.isfinite(worth):
                return worth
            problem: object = f"it gave {worth!r}, expected a finite number"
        except Exception as error:
            problem = error
        if not self._failed:
            self._failed = True
            _logs.warning(
                "memory",
                "the policy %r cannot tell what %r is worth, its last use counts: %s",
                self._policy,
                slot.name,
                problem,
                fields={"class_name": slot.name},
                error=problem if isinstance(problem, Exception) else None,
            )
        return slot.last_used

    def _search(self, now: float, spare: Slot | None) -> tuple[Slot, int] | None:
        passed: list[_Candidate] = []
        try:
            while True:
                with self._lock:
                    if not self._heap:
                        return None
                    candidate = heappop(self._heap)
                slot = candidate.slot
                if slot.epoch != candidate.epoch or slot.kind != _STRONG:
                    if _may_return(slot, candidate.epoch):
                        passed.append(candidate)
                elif slot is spare or slot.holds or slot.pinned:
                    passed.append(candidate)
                elif (
                    slot.uses != candidate.uses
                    or self._priority_of(slot.name) != candidate.priority
                ):
                    self.note(slot, now)
                else:
                    return slot, candidate.epoch
        finally:
            with self._lock:
                for candidate in passed:
                    heappush(self._heap, candidate)

    def _resync(self, registry: Registry, now: float) -> bool:
        """Take up what is cached and no candidate, as what was written from outside."""
        with self._lock:
            known = {(c.slot.name, c.epoch) for c in self._heap}
        missing = [slot for slot in registry._warm_slots() if (slot.name, slot.epoch) not in known]
        for slot in missing:
            self.note(slot, now)
        return bool(missing)

    def purge(self) -> None:
        """Forget candidates that have left. O(n)."""
        with self._lock:
            self._heap = [
                c for c in self._heap if c.slot.epoch == c.epoch or _may_return(c.slot, c.epoch)
            ]
            heapify(self._heap)


def _may_return(slot: Slot, epoch: int) -> bool:
    """Whether what had this epoch is still held, so that it may be revived."""
    return any(departure.epoch == epoch for departure in list(slot.leaving or ()))
