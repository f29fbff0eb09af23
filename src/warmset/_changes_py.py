"""
What a registry has the pure-Python core change: slots made and forgotten, instances put in.

It stands on the rules that `_ring_py` tells.
"""

from __future__ import annotations

import sys
from weakref import ref as weak_reference

from ._ring_py import Ring
from ._slots_py import (
    DISCARDED,
    EMPTY,
    MEMORY,
    NO_LIMIT,
    RECYCLED,
    REPLACED,
    STRONG,
    WEAK,
    Departure,
    Slot,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from weakref import ReferenceType

__all__ = ["Changes"]


def _references(box: list[Any]) -> int:
    return sys.getrefcount(box[0])


# What the count is for an object that only its box refers to. It depends on the interpreter.
_ALONE = _references([object()])


class Changes(Ring):
    """The part of a registry that its upper half puts instances into, and takes them out of."""

    _weak_mode: bool
    _idle_limit: float
    _age_limit: float
    _one_limit: bool
    _by_policy: bool
    _builds: int
    _build_seconds: float

    def _now(self) -> float:
        raise NotImplementedError

    def _token(self, slot: Slot) -> int:
        """Changes when an instance leaves the slot, or all are cleared: see `_publish`."""
        return slot.epoch + self._generation

    def _give_back(self, slot: Slot, epoch: int, now: float, *, share: bool = False) -> None:
        raise NotImplementedError

    # -- slots -----------------------------------------------------------------------------------

    def _add_slot(self, class_name: str, class_path: str | None) -> tuple[Slot, str | None]:
        """The slot of a name, made if need be, with a path; and the path that it had before."""
        fresh = Slot(class_name, None)
        with self._lock:
            slot = self._slots.setdefault(class_name, fresh)
            before = slot.path
            if not slot.alive:
                slot.alive = True
                slot.idle_limit = self._idle_limit
                slot.age_limit = self._age_limit
            slot.path = class_path
            self._registered += (class_path is not None) - (before is not None)
        return slot, before

    def _drop_slot(self, slot: Slot, cause: int) -> bool:
        """Forget a slot, if it is still the one of its name; nothing is put into it any more."""
        with self._lock:
            dropped = slot.alive
            if slot.alive:
                slot.alive = False
                self._registered -= slot.path is not None
                del self._slots[slot.name]
        if dropped:
            self._remove(slot, cause)
        return dropped

    # -- instances -------------------------------------------------------------------------------

    def _publish(self, slot: Slot, instance: Any, token: int, build_seconds: float) -> int:
        """
        Cache what was built, unless the slot or the registry was cleared since `token`.

        The epoch under which it is held for the builder, or -1 if it was not cached.
        """
        now = self._now()
        content, kind = instance, STRONG
        if self._weak_mode:
            try:
                content, kind = weak_reference(instance), WEAK
            except TypeError:
                kind = STRONG  # its type has no weak references: under TTL and size bound, then
        departed: list[Departure] = []
        held = -1
        with self._lock:
            self._builds += 1
            self._build_seconds += build_seconds
            serial = self._builds
            current = slot.alive and not self._sealed
            if current and slot.epoch + self._generation == token and slot.kind == EMPTY:
                if kind == STRONG and not self._by_policy:
                    self._make_room(self._max_size - 1, departed)
                held = self._attach(
                    slot, token, content, kind, None, now, now, 1, build_seconds, serial, 1, False
                )
        if departed:
            try:
                self._departed(departed)
            except BaseException:  # an interrupt in a closer: nobody will give this back
                if held >= 0:
                    self._give_back(slot, held, now)
                raise
        return held

    def _insert(
        self, slot: Slot, instance: Any, built_at: float, last_used: float, uses: int
    ) -> bool:
        """
        Write an instance into a slot, at the place in the ring that its last use gives it.

        False if the slot has been forgotten meanwhile, or the registry closed.
        """
        departed: list[Departure] = []
        with self._lock:
            self._vacate(slot, REPLACED, departed)
            older, token, serial = self._place(slot, last_used), self._token(slot), self._builds
            epoch = self._attach(
                slot,
                token,
                instance,
                STRONG,
                older,
                built_at,
                last_used,
                uses,
                0.0,
                serial,
                0,
                True,
            )
        if departed:
            self._departed(departed)
        return epoch >= 0

    def _insert_weak(self, slot: Slot, reference: ReferenceType[Any]) -> bool:
        """Write a weak reference into a slot; as `_insert`."""
        now = self._now()
        departed: list[Departure] = []
        with self._lock:
            self._vacate(slot, REPLACED, departed)
            token, serial = self._token(slot), self._builds
            epoch = self._attach(
                slot, token, reference, WEAK, None, now, now, 1, 0.0, serial, 0, False
            )
        if departed:
            self._departed(departed)
        return epoch >= 0

    def _amend(self, slot: Slot, built_at: float, last_used: float, uses: int) -> None:
        """Rewrite the times and the count of a cached instance, and move it where they put it."""
        with self._lock:
            older = self._place(slot, last_used)
            newer, own_older = slot.newer, slot.older
            if newer is not None and older.newer is not None and older is not slot:
                slot.built_at = built_at
                slot.last_used = last_used
                slot.uses = uses
                newer.older = own_older
                own_older.newer = newer  # type: ignore[union-attr]
                newer = older.newer
                slot.older = older
                slot.newer = newer
                newer.older = slot
                older.newer = slot

    def _unhold(self, slot: Slot, epoch: int) -> None:
        """Give back a hold that a build gave, for a caller who was interrupted."""
        self._give_back(slot, epoch, slot.last_used)

    def _exchange(
        self, slot: Slot, epoch: int, token: int, instance: Any, build_seconds: float
    ) -> int:
        """
        Put what was built into the place of what is there under this epoch, which is recycled.

        It was not used by that: it inherits the last use. Unless something left since `token`. The
        epoch of the new instance, or -1.
        """
        now = self._now()
        exchanged = -1
        departed: list[Departure] = []
        with self._lock:
            self._builds += 1
            self._build_seconds += build_seconds
            serial = self._builds
            current = slot.alive and not self._sealed and slot.kind == STRONG
            if current and slot.epoch == epoch and self._token(slot) == token:
                self._detach(slot, epoch, RECYCLED, departed)
                if departed:
                    last_used = slot.last_used
                    older, token = self._place(slot, last_used), self._token(slot)
                    exchanged = self._attach(
                        slot,
                        token,
                        instance,
                        STRONG,
                        older,
                        now,
                        last_used,
                        0,
                        build_seconds,
                        serial,
                        0,
                        False,
                    )
        if departed:
            self._departed(departed)
        if self._cached > self._max_size:  # others came into the place that was free meanwhile
            self._trim(slot)
        return exchanged

    # -- removals --------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether an instance can be added within the bound."""
        return self._cached < self._max_size or self._least_recent() is not None

    def _seal(self) -> None:
        """Put nothing into any slot any more: the registry is being closed."""
        self._sealed = True

    def _remove(self, slot: Slot, cause: int) -> bool:
        departed: list[Departure] = []
        with self._lock:
            self._vacate(slot, cause, departed)
        if departed:
            self._departed(departed)
        return bool(departed)

    def _trim(self, spare: Slot | None = None) -> None:
        """Evict down to the bound; one slot may be spared."""
        if self._by_policy:
            self._choose_room(spare)
            return
        departed: list[Departure] = []
        with self._lock:
            self._make_room(self._max_size, departed, spare)
        if departed:
            self._departed(departed)

    def _is_alone(self, box: list[Any]) -> bool:
        """Whether nothing but this list refers to what is in it, as far as that can be known."""
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return False  # of the two counts there is only a sum here, which is of no one moment
        return len(box) == 1 and _references(box) == _ALONE

    def _abandon(self, slot: Slot) -> bool:
        """Take an instance out and leave it alone: after a fork it is the parent's."""
        departed: list[Departure] = []
        with self._lock:
            self._detach(slot, slot.epoch, DISCARDED, departed)
            slot.leaving = []
        return bool(departed)

    def _evict(self, slot: Slot, epoch: int, cause: int, more_than: int) -> bool:
        """
        Evict what is there under this epoch, unless it is held or pinned.

        For SIZE only while more than so many are cached, for MEMORY only while they are known to
        have more than so many bytes. Whether it left.
        """
        departed: list[Departure] = []
        with self._lock:
            much = self._bytes if cause == MEMORY else self._cached
            if not slot.holds and not slot.pinned and much > more_than:
                self._detach(slot, epoch, cause, departed)
        if departed:
            self._departed(departed)
        return bool(departed)

    def _least_recent(self, spare: Slot | None = None) -> Slot | None:
        """The slot whose instance was used least recently, of those that may be evicted."""
        with self._lock:
            slot = self._root.newer
            while slot is not self._root and slot is not None:
                if not slot.holds and not slot.pinned and slot is not spare:
                    return slot
                slot = slot.newer
        return None

    def _warm_slots(self) -> list[Slot]:
        """The slots that hold an instance strongly, newest first."""
        slots = []
        with self._lock:
            slot = self._root.older
            while slot is not self._root and slot is not None:
                slots.append(slot)
                slot = slot.older
        return slots

    def _set_bytes(self, slot: Slot, epoch: int, size: int) -> bool:
        """Note how big an instance is, -1 if that is not known; whether it is still there."""
        with self._lock:
            before, counted = slot.bytes, slot.kind == STRONG
            more = (max(size, 0) - max(before, 0)) * counted
            if slot.epoch == epoch and slot.kind != EMPTY and slot.bytes == before:
                slot.bytes = size
                self._bytes += more
                return True
        return False

    def _set_limits(
        self, slot: Slot, idle_seconds: float | None, age_seconds: float | None
    ) -> None:
        """Give a class limits of its own; None takes the registry's, inf is none."""
        idle = self._idle_limit if idle_seconds is None else idle_seconds
        age = self._age_limit if age_seconds is None else age_seconds
        with self._lock:
            slot.idle_limit = idle
            slot.age_limit = age
            if idle != self._idle_limit or age != NO_LIMIT:
                self._one_limit = False

    def _set_pinned(self, slot: Slot, pinned: bool) -> None:
        """Let an instance not leave for want of use, room or memory; or let it again."""
        slot.pinned = pinned

    def _choose_room(self, spare: Slot | None) -> None:
        """Evict down to the bound by a policy; the registry overrides it."""
