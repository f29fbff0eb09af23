"""
Choosing who leaves: a heap by priority and worth, which is brought up to date as it is looked at.

A hit changes no heap, and neither does time. What was used since it was put in has risen, so it
lies too far to the front; what was not may have fallen, and lie too far back. So of those that come
up first a few that were not used are told anew, and the least of them leaves; and when there were
as many choices as there are instances, all are told anew. A choice is O(log n), amortised over uses
and choices.
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
_TOLD_ANEW = 8  # of those that come up first and were not used
_SMALL = 64  # a heap that is not worth purging


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
        # Whether what was just built may be chosen, too: then it is handed out and not kept.
        self._passes = bool(getattr(policy, "passes", False))
        self._heap: list[_Candidate] = []
        self._number = 0
        self._purge_at = _SMALL
        self._choices = 0  # since all were told anew
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
            much = len(self._heap) > self._purge_at
        if much:
            self.purge()

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        Tell the policy that an instance left, if it wants to know.

        Args:
            name: The class name.
            uses: How often it was used.
            built_at: When it was built.
            last_used: When it was used last.
        """
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
        weigh: bool = False,
    ) -> tuple[Slot, int] | None:
        """
        Choose who leaves next; it is a candidate no more.

        Args:
            registry: What is cached.
            now: The registry's clock.
            spare: What was just built.
            weigh: Whether it is weighed, too, where the policy `passes` what is not worth its
                place; it is given then although it is held. Else it is not to leave.

        Returns:
            Slot and epoch; None if all that is cached is held, pinned or spared.

        O(log n) amortised; O(n) where much is held or pinned.
        """
        self._refresh(now)
        weigh = weigh and self._passes
        chosen = self._search(now, spare, weigh)
        if chosen is None and self._resync(registry, now):
            chosen = self._search(now, spare, weigh)
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
        self._say(slot.name, problem)
        return slot.last_used

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

    def _search(self, now: float, spare: Slot | None, weigh: bool) -> tuple[Slot, int] | None:
        """The least of the first few; the others go back."""
        passed: list[_Candidate] = []
        told: list[_Candidate] = []
        try:
            while len(told) < _TOLD_ANEW:
                with self._lock:
                    if not self._heap:
                        break
                    candidate = heappop(self._heap)
                slot = candidate.slot
                if slot.epoch != candidate.epoch or slot.kind != _STRONG:
                    if _may_return(slot, candidate.epoch):
                        passed.append(candidate)
                elif slot.pinned or not (weigh if slot is spare else not slot.holds):
                    passed.append(candidate)
                elif told and candidate.priority > told[0].priority:
                    passed.append(candidate)
                    break
                elif slot.uses != candidate.uses:
                    self.note(slot, now)
                else:
                    told.append(self._candidate(slot, now))
            if not told:
                return None
            least = min(told, key=_rank)
            told.remove(least)
            return least.slot, least.epoch
        finally:
            with self._lock:
                for candidate in (*passed, *told):
                    heappush(self._heap, candidate)

    def _refresh(self, now: float) -> None:
        """Tell all anew, when there were as many choices as there are candidates."""
        with self._lock:
            self._choices += 1
            due = self._choices > len(self._heap)
            if due:
                self._choices = 0
        if not due:
            return
        with self._lock:
            stale, self._heap = self._heap, []
        # Outside of the lock: the policy is foreign. Who chooses meanwhile finds the rest by
        # `_resync`, and what is entered twice by that is stale once it has left.
        told = []
        for candidate in stale:
            slot = candidate.slot
            if slot.epoch == candidate.epoch and slot.kind == _STRONG:
                told.append(self._candidate(slot, now))
            elif _may_return(slot, candidate.epoch):
                told.append(candidate)
        with self._lock:
            self._heap += told
            heapify(self._heap)
            self._purge_at = 2 * len(self._heap) + _SMALL

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
            # The next time when as much again has come, so that it is O(1) for each.
            self._purge_at = 2 * len(self._heap) + _SMALL


def _rank(candidate: _Candidate) -> tuple[int, float, int]:
    return candidate[:3]


def _may_return(slot: Slot, epoch: int) -> bool:
    """Whether what had this epoch is still held, so that it may be revived."""
    return any(departure.epoch == epoch for departure in list(slot.leaving or ()))
