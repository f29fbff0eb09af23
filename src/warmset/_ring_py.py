"""
The pure-Python ring: slots, linked in the order of last use, and how they change.

Why nothing half done is ever seen
    Everything that changes a slot happens under one re-entrant lock, so other threads wait. The
    *same* thread can come back into the middle of a change by two doors: a finaliser run by the
    garbage collector, and a signal handler. CPython opens both after a call, at a jump that is
    taken (since 3.11 only at a backward one), and (before 3.12) at the creation of a container.
    So each change below is a straight line of stores, the body of an `if` whose last test was that
    the change still applies: a test that holds falls through, without a jump. Within the line
    there is no other branch, no call but the last thing, and no new container. Where steps are
    repeated, the loop survives a ring that changed meanwhile. A plain lock would deadlock at the
    same doors. `tests/test_doors.py` comes in at each of them.

Why foreign code never runs under the lock
    Dropping the last reference to an instance runs its finaliser. What leaves a slot is therefore
    handed out of the locked block and dropped after it.
"""

from __future__ import annotations

import sys
from _thread import RLock

from . import _fork
from ._slots_py import (
    CAUSES,
    CLEARED,
    COLLECTED,
    EMPTY,
    MEMORY,
    NOT_REVIVED,
    REPLACED,
    SIZE,
    STRONG,
    WEAK,
    Departure,
    Slot,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any


class Ring:
    """
    The slots of a registry, and the ring of those that hold a strong instance.

    The lock guards both. `departed` lists are dropped by the caller, after the lock.
    """

    _max_size: int

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._registered = 0  # slots with a path
        self._sealed = False
        self._generation = 0
        self._cached = 0
        self._bytes = 0  # of the cached, as far as they are known
        self._weak = 0
        self._evictions = 0
        self._removals = [0] * CAUSES
        self._queue: deque[Departure] | None = None  # of departures to tell of, if any
        # The ring's root: its `older` is the newest slot, its `newer` the oldest.
        self._root = root = Slot("", None)
        root.newer = root.older = root
        self._lock = RLock()
        _fork.watch(self)

    def __del__(self, _is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # The ring is a cycle, and a dropped registry's instances must not wait for the collector.
        # At the end of the interpreter a daemon thread may be frozen with the lock, and the names
        # of this module may be gone.
        if hasattr(self, "_lock") and not _is_the_end():
            self._clear(CLEARED)

    def _reset_after_fork(self) -> None:
        # Whoever held the lock at the fork does not exist in the child; what it guards is whole,
        # because a thread is never switched in the middle of a change (see the module's text).
        self._lock = RLock()

    def _move_to_front(self, slot: Slot) -> None:
        root = self._root
        newest, newer, older = root.older, slot.newer, slot.older
        if newest is not slot and newer is not None:
            newer.older = older
            older.newer = newer  # type: ignore[union-attr]
            slot.older = newest
            slot.newer = root
            newest.newer = slot  # type: ignore[union-attr]
            root.older = slot

    def _detach(self, slot: Slot, epoch: int, cause: int, departed: list[Departure]) -> None:
        """
        Take the instance of this epoch out of its slot and count it, if it is still there.

        It goes to `departed`, which the caller hands on after the lock.
        """
        while True:
            moves, holds, kind, leaving = slot.moves, slot.holds, slot.kind, slot.leaving
            weak = kind == WEAK
            if kind == EMPTY or slot.epoch != epoch or (holds and cause <= MEMORY):
                return
            departure = Departure(slot, cause)
            if holds and not weak:
                leaving = [*leaving, departure]
            # Making these were calls: the slot may be another one now, or held.
            if slot.moves == moves and slot.holds == holds and slot.kind == kind:
                departure.shared = slot.shared
                departure.bytes = size = slot.bytes
                slot.kind = EMPTY
                slot.instance = slot.routes = None
                slot.holds = 0
                slot.bytes = -1
                slot.shared = False
                slot.leaving = leaving
                slot.moves = slot.epoch = moves + 1
                self._cached -= not weak
                self._bytes -= size * (size > 0) * (not weak)
                self._weak -= weak
                self._removals[cause] += 1
                self._evictions += cause <= COLLECTED
                newer, older = slot.newer, slot.older
                if newer is not None:  # it holds where there is more to do
                    newer.older = older
                    older.newer = newer  # type: ignore[union-attr]
                    slot.newer = slot.older = None
                departed.append(departure)
                if self._queue is not None:
                    self._queue.append(departure)
                return

    def _attach(
        self,
        slot: Slot,
        token: int,
        content: Any,
        kind: int,
        older: Slot | None,
        built_at: float,
        last_used: float,
        uses: int,
        build_seconds: float,
        serial: int,
        holds: int,
        shared: bool,
    ) -> int:
        """
        Put an instance into an empty slot, unless that or the registry was cleared since `token`.

        It is linked next to `older`, or as the newest; a weak reference is not linked. What is
        given is the epoch, or -1.
        """
        root = self._root
        if older is None:
            older = root.older
        strong = kind == STRONG
        epoch = slot.epoch
        while (
            slot.alive
            and not self._sealed
            and slot.kind == EMPTY
            and slot.epoch == epoch
            and epoch + self._generation == token
        ):
            newer = older.newer  # type: ignore[union-attr]
            if newer is not None:
                slot.built_at = built_at
                slot.last_used = last_used
                slot.uses = uses
                slot.build_seconds = build_seconds
                slot.serial = serial
                slot.holds = holds
                slot.shared = shared
                slot.instance = content
                slot.kind = kind
                self._cached += strong
                self._weak += not strong
                if strong:  # it holds where there is more to do
                    slot.older = older
                    slot.newer = newer
                    newer.older = slot
                    older.newer = slot  # type: ignore[union-attr]
                return epoch
            older = root.older  # the other one has left meanwhile
        return -1

    def _make_room(self, limit: int, departed: list[Departure], spare: Slot | None = None) -> None:
        """Evict the least recent instances that nobody holds until `limit` are cached."""
        root = self._root
        slot = root.newer
        while self._cached > limit and slot is not root:
            if slot is None:
                slot = root.newer
                continue
            newer = slot.newer
            if not slot.holds and not slot.pinned and slot is not spare:
                self._detach(slot, slot.epoch, SIZE, departed)
            slot = newer

    def _place(self, slot: Slot, last_used: float) -> Slot:
        """The neighbour on the older side that a last use at this time gives to a slot."""
        root = self._root
        older = root.older
        while older is not root:
            if older is None:
                older = root.older
            elif older is slot or older.last_used > last_used:
                older = older.older
            else:
                break
        return older

    def _revive(self, slot: Slot, now: float) -> None:
        """Put back what was taken out of a slot last and is still held; it keeps its epoch."""
        root, leaving = self._root, slot.leaving
        if leaving and slot.kind == EMPTY and leaving[-1].cause not in NOT_REVIVED:
            departure = leaving[-1]
            del leaving[-1]
            slot.epoch = departure.epoch
            slot.moves += 1
            slot.holds = departure.holds
            slot.shared = departure.shared
            slot.routes = departure.routes
            slot.serial = departure.serial
            slot.built_at = departure.built_at
            slot.last_used = now
            slot.uses = departure.uses
            slot.build_seconds = departure.build_seconds
            slot.bytes = size = departure.bytes
            slot.instance = departure.instance
            slot.kind = STRONG
            departure.holds = 0
            departure.instance = None
            self._cached += 1
            self._bytes += size * (size > 0)
            newest = root.older
            slot.older = newest
            slot.newer = root
            newest.newer = slot  # type: ignore[union-attr]
            root.older = slot

    def _account(self, slot: Slot, epoch: int, holds: int, share: bool) -> Slot | Departure | None:
        """
        Add to the holds on what has this epoch, in its slot or on its way out of it.

        What is given is the slot, where it is still there; the departure, where this was its last
        hold; else nothing.
        """
        while True:
            moves = slot.moves
            if slot.epoch == epoch:
                slot.holds += holds
                slot.shared |= share
                return slot
            for departure in slot.leaving:
                if departure.epoch == epoch and departure.holds:  # it has none once it is revived
                    departure.holds += holds
                    departure.shared |= share
                    if not departure.holds:
                        slot.moves += 1
                        slot.leaving.remove(departure)
                        return departure
                    return None
            if slot.moves == moves:
                return None

    def _vacate(self, slot: Slot, cause: int, departed: list[Departure]) -> None:
        """Empty a slot, and let no build that is under way fill it."""
        if slot.kind == EMPTY:
            slot.moves += 1
            slot.epoch = slot.moves
        self._detach(slot, slot.epoch, cause, departed)
        if cause == REPLACED:
            for departure in slot.leaving:
                departure.cause = REPLACED  # of another class now: not revived

    def _clear(self, cause: int) -> tuple[int, int, list[Departure]]:
        """Take everything out: how many were kept strongly, how many weakly, and what left."""
        departed: list[Departure] = []
        with self._lock:
            self._generation += 1
            root = self._root
            while (slot := root.newer) is not root and slot is not None:
                self._detach(slot, slot.epoch, cause, departed)
            strong = len(departed)
            if self._weak:
                for slot in list(self._slots.values()):
                    if slot.kind == WEAK:
                        self._detach(slot, slot.epoch, cause, departed)
        return strong, len(departed) - strong, departed

    def _departed(self, departed: list[Departure]) -> None:
        """Instances left; the registry overrides it. No lock is held."""

    def _let_go(self, departure: Departure) -> None:
        """Nobody holds a departed instance any more; the registry overrides it."""

    def _made_room(self) -> None:
        """Something was released while builds wait for that; the registry overrides it."""

    def _entries(self) -> list[tuple[str, float, float, int, float, int, int]]:
        """
        Name, built at, last used, uses, build seconds, holds, bytes: of the cached, newest first.
        """
        entries = []
        with self._lock:
            root = self._root
            slot = root.older
            while slot is not root and slot is not None:
                entries.append(
                    (
                        slot.name,
                        slot.built_at,
                        slot.last_used,
                        slot.uses,
                        slot.build_seconds,
                        slot.holds,
                        slot.bytes,
                    )
                )
                slot = slot.older
        return entries

    def _ring(self, *, from_oldest: bool = False) -> list[str]:
        """The names along one direction of the links, for the structural check."""
        names = []
        with self._lock:
            slot = self._root.newer if from_oldest else self._root.older
            while slot is not self._root and slot is not None:
                names.append(slot.name)
                slot = slot.newer if from_oldest else slot.older
        return names
