"""
The pure-Python core's atomic operations: they change slots and entries, each in one step.

Every operation is conditional on the entry or the slot that its caller saw. `cache.py` composes
them. `_ring_py` tells why no half-made change is ever visible; the same rules hold here.

Why foreign code never runs under the lock
    Dropping the last reference to an instance runs its finaliser. A removed entry keeps its
    instance, and the caller gets it after the lock.
"""

from __future__ import annotations

import sys
from _operator import index
from itertools import starmap
from weakref import ref as weak_reference

from ._entry_py import NEW, Entry, Hold, Slot, checked_cause
from ._ring_py import Ring
from .codes import (
    AGED,
    CACHED,
    CLEARED,
    COLLECTED,
    FULL,
    HELD,
    IDLE,
    MEMORY,
    NO_LIMIT,
    NOTHING_TO_CLOSE,
    PUBLISHED,
    RECYCLED,
    STALE,
    WAITING,
    WEAK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._entry_py import Holder

__all__ = ["Changes"]


class Changes(Ring):
    """What puts instances into a registry and takes them out of it, one atomic step at a time."""

    weak_mode: bool
    now: Callable[[], float]
    give_back: Callable[..., None]

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The ring is a cycle, and a dropped registry's instances must not wait for the collector.
        # When the interpreter exits, a daemon thread may be frozen with the lock, and the names of
        # this module may be gone.
        if hasattr(self, "lock") and not _is_finalizing():
            self.take_all(CLEARED)

    # -- slots -----------------------------------------------------------------------------------

    def add_slot(self, class_name: Any, target: Any, options: Any = None) -> tuple[Slot, Any]:
        """Return the slot of a name, made if need be, and its target before; None keeps that."""
        name = sys.intern(class_name) if (registers := type(class_name) is str) else class_name
        fresh = Slot(name, self._owner)
        with self.lock:
            while True:
                slot = self._slots.setdefault(name, fresh)
                before = slot.target, slot.options  # dropped after the change
                alive = slot.alive
                new = before if alive and target is None else (target, options)
                limits = self._idle_limit, self._age_limit
                if alive:
                    limits = slot.idle_limit, slot.age_limit
                more = registers * ((new[0] is not None) - (before[0] is not None))
                # It may have been registered or dropped meanwhile.
                if (
                    name in self._slots
                    and self._slots[name] is slot
                    and slot.alive is alive
                    and slot.target is before[0]
                    and slot.options is before[1]
                ):
                    slot.alive = True
                    slot.idle_limit, slot.age_limit = limits
                    slot.target, slot.options = new
                    self.registered += more
                    return slot, before[0]
                fresh = Slot(name, self._owner)

    def drop_slot(self, slot: Slot) -> bool:
        """Forget a slot, if it is the one of its name; nothing is published in it any more."""
        self._check_owner(slot)
        is_named = type(slot.key) is str
        with self.lock:
            if slot.alive:
                slot.alive = False
                slot.generation += 1
                self.registered -= (slot.target is not None) & is_named
                del self._slots[slot.key]
                return True
        return False

    def token(self, slot: Slot) -> int:
        """Return a number that changes when the slot or the registry is cleared: see `publish`."""
        self._check_owner(slot)
        return slot.generation + self._generation

    def invalidate(self, slot: Slot) -> None:
        """Let no build of a slot that is in progress be published."""
        self._check_owner(slot)
        with self.lock:
            slot.generation += 1

    def seal(self) -> None:
        """Publish nothing any more: the registry is being closed."""
        with self.lock:
            self.sealed = True

    def set_limits(self, slot: Slot, idle_seconds: float | None, age_seconds: float | None) -> None:
        """Give a slot limits of its own; None takes the registry's, inf is none."""
        self._check_owner(slot)
        idle = self._idle_limit if idle_seconds is None else float(idle_seconds)
        age = self._age_limit if age_seconds is None else float(age_seconds)
        with self.lock:
            if idle != self._idle_limit or age != NO_LIMIT:
                self._one_limit = False
            slot.idle_limit = idle
            slot.age_limit = age
            entry = slot.entry
            if entry is not None and not entry.weak:
                entry.deadline = entry.built_at + age

    def defer(self, entry: Entry, deadline: float) -> None:
        """Let a look-up after a time take the slow path; the entry expires by its age alone."""
        self._check_owner(entry.slot)
        deadline = float(deadline)
        with self.lock:
            if not entry.weak:
                entry.deadline = min(deadline, entry.built_at + entry.slot.age_limit)

    # -- entries: construction and publication ---------------------------------------------------

    def construct(
        self, slot: Slot, make: Any, source: Any = None, arguments: Any = None
    ) -> Entry | None:
        """
        Run a constructor, and put what it returns straight into a new entry, held once.

        It gets the arguments, a tuple; None: the slot. The entry keeps the options of the slot, and
        the `closer` of the source, which may be set by the constructor; there is none if the
        instance is None. The source gets it as its `entry`, in the same step, also if an error
        follows it; see `give_back`.
        """
        self._check_owner(slot)
        entry = Entry(slot)
        target: Holder = Hold() if source is None else source
        made = map(make, (slot,)) if arguments is None else starmap(make, (arguments,))
        try:
            # In C from the constructor's return to the store: no interrupt arrives in between.
            if not [*map(setattr, (entry,), ("content",), made)]:
                raise RuntimeError("it raised StopIteration")
            self._count_build(entry, target, source)
            entry.built_at = entry.last_used = self.now()
        except BaseException:
            self._count_build(entry, target, source)
            if source is None:
                self.give_back(target, None)
            raise
        return target.entry

    def place(self, entry: Entry, slot: Slot) -> None:
        """Let an entry that `construct` made, and that is not published yet, belong to a slot."""
        self._check_owner(slot)
        self._check_owner(entry.slot)
        with self.lock:
            if entry.state == HELD and not entry.eviction_serial:
                entry.slot = slot
                return
        raise ValueError(f"{entry!r} was published or removed: it stays in its slot")

    def _count_build(self, entry: Entry, holder: Holder, source: Any) -> None:
        """Count an entry that has its instance, once."""
        closer = None if source is None else source.closer
        with self.lock:
            if entry.content is not None and entry.state == NEW:
                self.builds += 1
                entry.serial = self.builds + self.adopted
                entry.holds = 1
                entry.closer = closer
                entry.state = HELD
                self._states[HELD] += 1
                holder.entry = entry

    def publish(
        self,
        entry: Entry,
        token: int,
        seconds: float,
        *,
        most: int | None = None,
        replacing: Entry | None = None,
        strict: bool = False,
    ) -> int:
        """
        Cache an entry that `construct` made, unless its name was cleared since `token`.

        Args:
            entry: The entry.
            token: What `token` returned when the build began.
            seconds: What the build took.
            most: How many instances may be cached after it; None: any number.
            replacing: What has to be in the slot. It is removed as RECYCLED, and the new entry
                takes its place in the ring and its last use. None: the slot has to be empty.
            strict: Whether `most` holds also where no cached instance can be evicted.

        Returns:
            PUBLISHED, STALE or FULL.
        """
        self._check_owner(entry.slot)
        slot = entry.slot
        content, weak = entry.content, False
        if self.weak_mode and replacing is None and entry.closer is None:
            try:
                content, weak = weak_reference(content), True
            except TypeError:
                weak = False  # its type has no weak references: it is cached strongly
        bound = NO_LIMIT if most is None else most
        state = WEAK if weak else CACHED
        deadline = -NO_LIMIT if weak else entry.built_at + slot.age_limit
        with self.lock:
            self.build_seconds += seconds - entry.build_seconds
            entry.build_seconds = seconds
        while True:
            # Locked within the loop: an interrupt at the jump back skips a handler around it.
            with self.lock:
                if not (
                    slot.alive
                    and not self.sealed
                    and slot.generation + self._generation == token
                    and slot.entry is replacing
                    and entry.state == HELD
                    and not entry.eviction_serial
                ):
                    return STALE
                if replacing is not None:
                    if self._replace(replacing, entry, token, deadline):
                        return PUBLISHED
                    continue
                if not weak and self.cached >= bound and (strict or self._oldest(None) is not None):
                    return FULL
                newest = self._root.older
                # Searching the ring may have let somebody in.
                if (
                    slot.entry is None
                    and slot.alive
                    and not self.sealed
                    and slot.generation + self._generation == token
                    and self._root.older is newest
                    and entry.state == HELD
                    and not entry.eviction_serial
                ):
                    entry.content = content
                    entry.weak = weak
                    entry.deadline = deadline
                    entry.uses = 1
                    entry.touched = True
                    self._stamp = entry.stamp = self._stamp + 1
                    self._other_uses += 1
                    entry.state = state
                    self._states[HELD] -= 1
                    self._states[state] += 1
                    slot.entry = entry
                    self.cached += not weak
                    self.weakly_kept += weak
                    if not weak:  # it holds where there is more to do
                        entry.older = newest
                        entry.newer = self._root
                        newest.newer = entry  # type: ignore[union-attr]
                        self._root.older = entry
                    return PUBLISHED

    def _replace(self, old: Entry, entry: Entry, token: int, deadline: float) -> bool:
        """Put an entry into the place of another one; False if somebody was let in meanwhile."""
        slot = entry.slot
        holds, size = old.holds, old.bytes
        known = size * (size > 0)
        state = HELD if holds else WAITING
        queue = self.removal_queue
        newer, older = old.newer, old.older
        if (
            slot.entry is old
            and slot.generation + self._generation == token
            and entry.state == HELD
            and not entry.eviction_serial
            and old.holds == holds
            and old.bytes == size
            and old.newer is newer
            and old.older is older
        ):
            entry.deadline = deadline
            entry.last_used = old.last_used
            entry.stamp = old.stamp
            entry.touched = old.touched
            entry.state = CACHED
            old.state = state
            old.cause = RECYCLED
            old.held = holds > 0
            self._removal_serial = old.eviction_serial = self._removal_serial + 1
            old.newer = old.older = None
            entry.newer = newer
            entry.older = older
            newer.older = entry  # type: ignore[union-attr]
            older.newer = entry  # type: ignore[union-attr]
            slot.entry = entry
            self.known_bytes -= known
            self._states[HELD] -= 1
            self._states[state] += 1
            self._removals[RECYCLED] += 1
            self.evictions += 1
            if state == WAITING:  # it holds where there is more to do
                self.unclosed[old] = None
            if queue is not None:
                queue.append(old)
            return True
        return False

    def adopt(
        self, slot: Slot, content: Any, *, weak: bool, built_at: float, last_used: float, uses: int
    ) -> Entry | None:
        """
        Cache an instance that was not built here, in an empty slot; its entry, or None.

        It is a weak reference where `weak` says so. The times are by the registry's clock; the last
        use decides on the place in the ring.
        """
        self._check_owner(slot)
        entry = Entry(slot)
        entry.content = content
        entry.weak = weak
        entry.built_at, entry.last_used = float(built_at), float(last_used)
        entry.uses = index(uses)
        entry.shared = entry.touched = True
        entry.deadline = -NO_LIMIT if weak else entry.built_at + slot.age_limit
        state = WEAK if weak else CACHED
        with self.lock:
            newest = self._root.older
            if slot.alive and not self.sealed and slot.entry is None and self._root.older is newest:
                slot.generation += 1
                slot.entry = entry
                entry.state = state
                self._stamp = entry.stamp = self._stamp + 1
                self._other_uses += 1
                self.adopted += 1
                entry.serial = self.builds + self.adopted
                self._states[state] += 1
                self.cached += not weak
                self.weakly_kept += weak
                if not weak:  # it holds where there is more to do
                    entry.older = newest
                    entry.newer = self._root
                    newest.newer = entry  # type: ignore[union-attr]
                    self._root.older = entry
            if entry.state == NEW:
                return None
            self._sort_if_older(entry.last_used)
        return entry

    def amend(self, entry: Entry, built_at: float, last_used: float, uses: int) -> None:
        """Rewrite the times and uses of a cached entry, and move it to where they belong."""
        self._check_owner(entry.slot)
        built_at, last_used, uses = float(built_at), float(last_used), index(uses)
        with self.lock:
            if entry.state == CACHED:
                entry.built_at = built_at
                entry.last_used = last_used
                entry.uses = uses
                entry.touched = True
                entry.deadline = built_at + entry.slot.age_limit
                self._stamp = entry.stamp = self._stamp + 1
                self._other_uses += 1
                self._sort_if_older(last_used)

    # -- entries: removal ------------------------------------------------------------------------

    def remove(
        self, entry: Entry, cause: int, *, more_than: float = -1, even_held: bool = False
    ) -> bool:
        """
        Remove an entry from the cache, if it is there.

        Args:
            entry: The entry.
            cause: Up to MEMORY, a held or pinned entry stays.
            more_than: For SIZE only while more than so many instances are cached, for MEMORY only
                while these are known to have more than so many bytes.
            even_held: Whether it is removed although it is held.

        Returns:
            Whether it was removed; then the caller passes it to `handle_removed`.
        """
        self._check_owner(entry.slot)
        cause = checked_cause(cause)
        removed: list[Entry] = []
        with self.lock:
            much = self.known_bytes if cause == MEMORY else self.cached
            if much > more_than and not (cause <= MEMORY and entry.slot.pinned):
                self._detach(entry, cause, removed, even_held)
        return bool(removed)

    def take_all(self, cause: int) -> list[Entry]:
        """Remove every entry, and let no build in progress be published; what was removed."""
        cause = checked_cause(cause)
        removed: list[Entry] = []
        with self.lock:
            self._take_all(cause, removed)
        return removed

    def _take_all(self, cause: int, removed: list[Entry]) -> None:
        self._generation += 1
        count = -1
        while len(removed) > count:  # others may have been cached meanwhile
            count = len(removed)
            for entry in self.ring(from_oldest=True):
                self._detach(entry, cause, removed)
        # Once: a weak entry whose slot was just dropped is removed by the thread that dropped it,
        # and weak ones that are cached from here on were looked up later.
        if self.weakly_kept:
            for slot in list(self._slots.values()):
                weak = slot.entry
                if weak is not None and weak.weak and slot.owner is self._owner:
                    self._detach(weak, cause, removed)

    def expire(self, entry: Entry, now: float) -> bool:
        """Remove an entry if it is stale; whether it was removed, as `remove`."""
        self._check_owner(entry.slot)
        removed: list[Entry] = []
        with self.lock:
            self._expire(entry, now, removed)
        return bool(removed)

    def _expire(self, entry: Entry, now: float, removed: list[Entry]) -> bool:
        if not now <= entry.built_at + entry.slot.age_limit and not entry.weak:
            return self._detach(entry, AGED, removed)
        return self.is_stale(entry, now) and self._detach(entry, IDLE, removed)

    def _detach(
        self, entry: Entry, cause: int, removed: list[Entry], even_held: bool = False
    ) -> bool:
        """Take an entry out of its slot and count that, if it is there and may be removed."""
        slot = entry.slot
        while True:
            holds, size, newer, older = entry.holds, entry.bytes, entry.newer, entry.older
            before, weak, queue = entry.state, entry.weak, self.removal_queue
            if slot.entry is not entry or (holds and cause <= MEMORY and not even_held):
                return False
            known = size * (size > 0) * (not weak)
            state = NOTHING_TO_CLOSE if weak else HELD if holds else WAITING
            if (
                slot.entry is entry
                and entry.holds == holds
                and entry.bytes == size
                and entry.newer is newer
                and entry.older is older
                and self.removal_queue is queue
            ):
                slot.entry = None
                entry.state = state
                entry.cause = slot.last_cause = cause
                entry.held = holds > 0
                self._removal_serial = entry.eviction_serial = self._removal_serial + 1
                self._states[before] -= 1
                self._states[state] += 1
                self._removals[cause] += 1
                self.evictions += cause <= COLLECTED
                self.known_bytes -= known
                self.cached -= not weak
                self.weakly_kept -= weak
                if newer is not None:  # it holds where there is more to do
                    newer.older = older
                    older.newer = newer  # type: ignore[union-attr]
                    entry.newer = entry.older = None
                if state == WAITING:
                    self.unclosed[entry] = None
                if queue is not None:
                    queue.append(entry)
                removed.append(entry)
                return True
