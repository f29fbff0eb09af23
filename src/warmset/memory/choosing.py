"""
Eviction by a policy: a heap by priority and worth, which is brought up to date as it is searched.

A hit changes no heap. An entry that was used since its worth was determined has risen, and so lies
too far to the front: its worth is determined anew when it comes up. One whose worth has fallen with
time alone lies too far back: so at each choice the worths of a few that come up first are
determined anew, and of a few that were determined longest ago. The worth of a new entry may fall
fast, when its burst of uses has ended: it is determined anew 1, 2, 4, ... 64 choices after its
build. A choice is O(log n) amortised; it is exact for a policy whose worths never fall, and for any
other one no worth is older than half as many choices as there are candidates.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from .._locks import locked, make_lock
from ..codes import CACHED
from ..foreign import POLICY, Kind, contain

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Entry
    from ..registry import BaseRegistry
    from .policies import Policy

__all__ = ["Chooser"]

_SEARCHED = 8  # of those that come up first
_RENEWED = 2  # of those whose worth was determined longest ago
_AGES = tuple(1 << level for level in range(7))  # choices after the build
_MOST_OF_AGE = 4  # entries of each age that are judged anew at one choice; the others wait
_SMALL = 64  # a heap that is not worth rebuilding


class _Candidate(NamedTuple):
    priority: int
    worth: float
    last_used: float  # of equal worth, the least recently used one comes first
    serial: int  # of equal last use, the one that was built first
    entry: Entry
    uses: int  # when the worth was determined


class Chooser:
    """
    Determines the eviction order.

    Args:
        policy: Determines what instances are worth.

    Thread-safe, also when the policy calls the registry: it is called outside the lock. An instance
    whose worth the policy cannot determine counts as worth less than any other of its priority; of
    those, the least recently used one is evicted first.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # Serial number of an entry -> its one valid candidate, those judged longest ago first. What
        # is in the heap but not here is skipped.
        self._judged: OrderedDict[int, _Candidate] = OrderedDict()
        self._heap: list[_Candidate] = []
        self._searching: dict[int, list[_Candidate]] = {}  # what is out of the heap, by its id
        # For each age, the number of the choice at which new entries reach it, and their serials.
        self._young: list[deque[tuple[int, int]]] = [deque() for _ in _AGES]
        self._choices = 0
        self._failed = False  # whether it was logged that the policy fails
        self._lock = make_lock()  # re-entrant: a finaliser may use the registry

    def reset_after_fork(self) -> None:
        """Make the lock anew, and forget candidates that a thread of the parent had taken."""
        self._lock = make_lock()
        self._judged, self._heap, self._searching = OrderedDict(), [], {}
        self._young = [deque() for _ in _AGES]

    def note(self, entry: Entry, now: float) -> None:
        """
        Make an entry a candidate, or determine its worth anew.

        Args:
            entry: The entry.
            now: The registry's clock.
        """
        is_new = entry.serial not in self._judged
        self._judge(entry, now, to_heap=True)
        if is_new:
            self._await_age(entry.serial)

    def removed(self, entry: Entry) -> None:
        """
        Forget a removed entry, and report it to a policy that has a method `left`.

        Args:
            entry: The entry.
        """
        self._pop(entry)
        self._ask(entry, _left, self._policy, entry)

    def victim(
        self, registry: BaseRegistry, now: float, spare: Entry | None = None
    ) -> Entry | None:
        """
        Choose what is evicted next. It stays a candidate until it is removed.

        Args:
            registry: The registry.
            now: The registry's clock.
            spare: The entry that was just built. It is chosen, although it is held, only if the
                policy allows not to admit it and it is worth least.

        Returns:
            The entry; None if all that is cached is held, pinned or spared.

        O(log n) amortised; O(n) if much is held or pinned, and after an instance was cached without
        a build.
        """
        if spare is not None and spare.serial not in self._judged:
            self.note(spare, now)  # cached already, though its build is still being reported
        if len(self._judged) < registry.cached:
            self._resync(registry, now)
        self._choices += 1
        self._renew(now)
        self._renew_young(now)
        dispensable = spare is not None and self._dispensable(spare, now)
        chosen = self._search(now, spare, dispensable)
        if chosen is None and (self._resync(registry, now) or self._searching):
            # Candidates that another thread has out of the heap must not be missed.
            free = [e for e in registry.warm_entries() if _evictable(e, spare, dispensable)]
            chosen = min([self._candidate(entry, now) for entry in free], default=None)
        return None if chosen is None else chosen.entry

    def order(self, registry: BaseRegistry, now: float) -> list[tuple[Entry, float]]:
        """
        Return the eviction order.

        Args:
            registry: The registry.
            now: The registry's clock.

        Returns:
            Each entry that is neither held nor pinned, and its worth, the next victim first. It
            changes nothing. O(n log n).
        """
        free = [entry for entry in registry.warm_entries() if _evictable(entry)]
        candidates = sorted(self._candidate(entry, now) for entry in free)
        return [(candidate.entry, candidate.worth) for candidate in candidates]

    def purge(self, now: float | None = None) -> None:
        """
        Forget candidates that were removed, and judge the others anew.

        Args:
            now: The registry's clock; None only forgets.

        O(n log n).
        """
        for candidate in self._all_judged():
            if candidate.entry.state != CACHED:
                self._forget(candidate)
            elif now is not None:
                self._judge(candidate.entry, now, to_heap=True, instead_of=candidate)
        self._rebuild()

    @locked
    def _pop(self, entry: Entry) -> None:
        self._judged.pop(entry.serial, None)

    @locked
    def _all_judged(self) -> list[_Candidate]:
        return list(self._judged.values())

    # -- worths ----------------------------------------------------------------------------------

    def _candidate(self, entry: Entry, now: float) -> _Candidate:
        # The use before the worth: one between the two makes it look too old, which does no harm.
        uses, last_used = entry.uses, entry.last_used
        worth = self._worth(entry, now)
        options = entry.slot.options
        priority = 0 if options is None else options.priority
        return _Candidate(priority, worth, last_used, entry.serial, entry, uses)

    def _worth(self, entry: Entry, now: float) -> float:
        return float(self._ask(entry, _worth, self._policy, entry, now, failed=-math.inf))

    def _dispensable(self, entry: Entry, now: float) -> bool:
        """Return whether the policy allows not to admit an entry that was just built."""
        return bool(self._ask(entry, _passes, self._policy, entry, now, failed=False))

    def _ask(
        self, entry: Entry, ask: Callable[..., Any], *arguments: Any, failed: Any = None
    ) -> Any:
        """Have the policy asked; what it raises is logged once."""
        if self._failed:
            return contain(_POLICY_AGAIN, ask, *arguments, failed=failed)
        about = type(self._policy).__qualname__
        answer = contain(
            POLICY, ask, *arguments, failed=_FAILED, about=about, class_name=entry.name
        )
        if answer is not _FAILED:
            return answer
        self._failed = True
        return failed

    def _judge(
        self, entry: Entry, now: float, *, to_heap: bool, instead_of: _Candidate | None = None
    ) -> _Candidate | None:
        """Determine a worth, and make it the valid one, unless another thread did meanwhile."""
        candidate = self._candidate(entry, now)
        return candidate if self._make_valid(candidate, to_heap, instead_of) else None

    @locked
    def _make_valid(
        self, candidate: _Candidate, to_heap: bool, instead_of: _Candidate | None
    ) -> bool:
        serial = candidate.serial
        if instead_of is not None and self._judged.get(serial) is not instead_of:
            return False
        if candidate.entry.state != CACHED:  # removed meanwhile
            self._judged.pop(serial, None)
            return False
        self._judged[serial] = candidate
        self._judged.move_to_end(serial)
        if to_heap:
            self._push(candidate)
        return True

    def _push(self, candidate: _Candidate) -> None:
        heappush(self._heap, candidate)
        if len(self._heap) > 2 * len(self._judged) + _SMALL:
            self._rebuild()

    @locked
    def _rebuild(self) -> None:
        self._heap = list(self._judged.values())
        heapify(self._heap)

    @locked
    def _forget(self, candidate: _Candidate) -> None:
        if self._judged.get(candidate.serial) is candidate:
            del self._judged[candidate.serial]

    # -- choosing --------------------------------------------------------------------------------

    def _renew(self, now: float) -> None:
        """Determine the oldest worths anew."""
        for _ in range(_RENEWED):
            oldest = self._oldest_judged()
            if oldest is None:
                return
            if oldest.entry.state != CACHED:
                self._forget(oldest)
            else:
                self._judge(oldest.entry, now, to_heap=True, instead_of=oldest)

    def _renew_young(self, now: float) -> None:
        """Determine the worths of entries anew that have reached one of the ages."""
        for age in range(len(_AGES)):
            for _ in range(_MOST_OF_AGE):
                candidate = self._take_of_age(age)
                if candidate is None:
                    break
                if candidate.entry.state == CACHED:
                    self._judge(candidate.entry, now, to_heap=True, instead_of=candidate)

    @locked
    def _take_of_age(self, age: int) -> _Candidate | None:
        """Return the next entry of an age, which waits for the following age from now on."""
        waiting = self._young[age]
        while waiting and waiting[0][0] <= self._choices:
            # The newest first, which the many that filled the cache must not keep waiting.
            _, serial = waiting.pop() if age == 0 else waiting.popleft()
            candidate = self._judged.get(serial)
            if candidate is not None:
                if age + 1 < len(_AGES):
                    due = self._choices + _AGES[age + 1] - _AGES[age]
                    self._young[age + 1].append((due, serial))
                return candidate
        return None

    @locked
    def _await_age(self, serial: int) -> None:
        waiting = self._young[0]
        waiting.append((self._choices + _AGES[0], serial))
        if len(waiting) > 2 * len(self._judged) + _SMALL:  # many came and went without a choice
            self._young[0] = deque(one for one in waiting if one[1] in self._judged)

    @locked
    def _oldest_judged(self) -> _Candidate | None:
        return next(iter(self._judged.values()), None)

    def _search(self, now: float, spare: Entry | None, dispensable: bool) -> _Candidate | None:
        """Return the least of those that come up first; all go back into the heap."""
        aside: list[_Candidate] = []
        try:
            self._searching[id(aside)] = aside
            return self._least(now, spare, dispensable, aside)
        finally:
            try:
                self._put_back(aside)
            except BaseException:  # an interrupt; once more does no harm
                self._put_back(aside)
                raise

    def _least(
        self, now: float, spare: Entry | None, dispensable: bool, aside: list[_Candidate]
    ) -> _Candidate | None:
        """Take candidates out of the heap and into a list, and return the least of them."""
        least: _Candidate | None = None
        searched = 0
        while self._take(least, searched >= _SEARCHED, aside):
            candidate = aside[-1]
            entry = candidate.entry
            if entry.state != CACHED:
                self._forget(candidate)
                continue
            if not _evictable(entry, spare, dispensable):
                continue
            searched += entry.uses == candidate.uses
            anew = self._judge(entry, now, to_heap=False, instead_of=candidate)
            if anew is not None:
                aside.append(anew)
                least = anew if least is None else min(least, anew)
        return least

    @locked
    def _take(self, least: _Candidate | None, enough: bool, aside: list[_Candidate]) -> bool:
        """Take the first out of the heap; False if none is left, or none that could be less."""
        while self._heap:
            first = self._heap[0]
            valid = self._judged.get(first.serial) is first
            if valid and enough and least is not None and least < first:
                return False
            if valid:
                aside.append(first)
            heappop(self._heap)
            if valid:
                return True
        return False

    @locked
    def _put_back(self, aside: list[_Candidate]) -> None:
        for candidate in aside:
            if self._judged.get(candidate.serial) is candidate:
                self._push(candidate)
        self._searching.pop(id(aside), None)

    def _resync(self, registry: BaseRegistry, now: float) -> bool:
        """Add cached entries that are not candidates, such as those written from outside."""
        found = False
        for entry in registry.warm_entries():
            if entry.serial not in self._judged:
                self.note(entry, now)
                found = True
        return found


_FAILED = object()
_POLICY_AGAIN = Kind("", "")  # it was logged that the policy fails


def _worth(policy: Policy, entry: Entry, now: float) -> float:
    worth = float(policy.worth(entry, now))
    if not math.isfinite(worth):
        raise ValueError(f"it returned {worth!r}, expected a finite number")
    return worth


def _passes(policy: Policy, entry: Entry, now: float) -> bool:
    passes = getattr(policy, "passes", None)
    return passes is not None and bool(passes(entry, now))


def _left(policy: Policy, entry: Entry) -> None:
    left = getattr(policy, "left", None)
    if left is not None:
        left(entry.name, entry.uses, entry.built_at, entry.last_used)


def _evictable(entry: Entry, spare: Entry | None = None, dispensable: bool = False) -> bool:
    if entry is spare:  # its caller holds it
        return dispensable and not entry.slot.pinned
    return not entry.holds and not entry.slot.pinned
