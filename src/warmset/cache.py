"""
The cache: what puts entries in and takes them out, composed of the core's atomic operations.

It is written once, for both cores. Each operation below may be re-entered or overtaken between two
atomic ones; each of these is conditional on the entry that was seen before it.
"""

from __future__ import annotations

from ._core import Entry, RegistryCore, Slot
from .codes import COLLECTED, FULL, NO_CAUSE, NO_LIMIT, PUBLISHED, REPLACED, SIZE
from .owners import Owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from weakref import ReferenceType

    from ._core import Lease
    from .builds import Holder
    from .family_keys import SlotKey

__all__ = ["Cache"]


_MOST_CAUSES = 1_000


class Cache(RegistryCore):
    """The part of a registry that keeps entries within its bound."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.owners = Owners()
        # Why the slots that were last forgotten with their instances lost them; for `explain`.
        self.causes_of_forgotten: dict[SlotKey, int] = {}

    def add(
        self, entry: Entry, token: int, seconds: float, *, wait: Callable[[], None] | None = None
    ) -> bool:
        """
        Publish a built entry, after evicting what has to be evicted for it.

        Args:
            entry: The entry; its builder has a hold on it.
            token: What `token` returned when the build began.
            seconds: What the build took.
            wait: Waits until there is capacity; None: the bound is exceeded where everything else
                is held or pinned.

        Returns:
            Whether it was cached. If not, it is closed when its last hold is released.
        """
        try:
            return self._add(entry, token, seconds, wait)
        except BaseException:
            self.left_over = True
            raise

    def _add(
        self, entry: Entry, token: int, seconds: float, wait: Callable[[], object] | None
    ) -> bool:
        strict = wait is not None
        victims: list[Entry] = []
        while True:
            most = None if self.by_policy and not strict else self.max_size
            result = self.publish(entry, token, seconds, most=most, strict=strict)
            if result != FULL:
                break
            if self.by_policy:
                if self.evict_by_policy(self.max_size - 1):
                    continue
            elif (victim := self.oldest()) is not None:
                if self.remove(victim, SIZE, more_than=self.max_size - 1):
                    victims.append(victim)
                continue
            if wait is not None:
                wait()
        # Closed after the publication: others need not wait for their closers.
        if victims:
            self.handle_removed(victims)
        return result == PUBLISHED

    def evict_by_policy(self, more_than: int) -> bool:
        """Evict what an extension chooses, while more than so many are cached; whether it did."""
        return False

    def substitute(self, old: Entry, entry: Entry, token: int, seconds: float) -> bool:
        """
        Put a built entry into the place of a cached one, which is recycled.

        Args:
            old: The entry that is removed.
            entry: The entry that takes its place and its last use.
            token: What `token` returned when the build began.
            seconds: What the build took.

        Returns:
            Whether it did; not if anything was removed from the slot meanwhile.
        """
        try:
            if self.publish(entry, token, seconds, replacing=old) != PUBLISHED:
                return False
            self.handle_removed([old])
        except BaseException:
            self.left_over = True
            raise
        if self.cached > self.max_size:  # others were cached while the old one was held
            self.make_capacity(entry)
        return True

    def write(
        self, slot: Slot, instance: Any, built_at: float, last_used: float, uses: int
    ) -> Entry | None:
        """
        Cache an instance that was not built here, in place of what the slot has.

        Args:
            slot: The slot.
            instance: The instance.
            built_at: By the registry's clock.
            last_used: By the registry's clock; it decides on the eviction order.
            uses: How often it was used.

        Returns:
            Its entry; None if the slot was dropped, or the registry is closed.
        """
        return self._write(slot, instance, False, built_at, last_used, uses)

    def write_weak(self, slot: Slot, reference: ReferenceType[Any]) -> Entry | None:
        """Cache a weak reference in place of what the slot has; as `write`."""
        now = self.now()
        return self._write(slot, reference, True, now, now, 1)

    def _write(
        self, slot: Slot, content: Any, weak: bool, built_at: float, last_used: float, uses: int
    ) -> Entry | None:
        while True:
            self.remove_from(slot, REPLACED)
            entry = self.adopt(
                slot, content, weak=weak, built_at=built_at, last_used=last_used, uses=uses
            )
            if entry is not None:
                self.owners.note(entry)
                return entry
            if not slot.alive or self.sealed:
                return None

    def evict(
        self, entry: Entry, cause: int, *, more_than: float = -1, even_held: bool = False
    ) -> bool:
        """
        Remove an entry and close its instance, unless it is held; see `RegistryCore.remove`.

        Returns:
            Whether it was removed.
        """
        try:
            if not self.remove(entry, cause, more_than=more_than, even_held=even_held):
                return False
            self.handle_removed([entry])
        except BaseException:
            self.left_over = True
            raise
        return True

    def remove_from(self, slot: Slot, cause: int) -> bool:
        """
        Remove what a slot has, and let no build of it that is in progress be cached.

        Args:
            slot: The slot.
            cause: An explicit one.

        Returns:
            Whether it had anything.
        """
        self.invalidate(slot)
        entry = slot.entry
        return entry is not None and self.evict(entry, cause)

    def forget_slot(self, slot: Slot, cause: int) -> bool:
        """Drop a slot, and remove what it has; whether it was the slot of its name."""
        try:
            if not self.drop_slot(slot):
                return False
            self._evict_dropped(slot, cause)
        except BaseException:
            # An interrupt between the two: nothing else removes what a dropped slot has.
            if not slot.alive:
                self._evict_dropped(slot, cause)
            raise
        return True

    def _evict_dropped(self, slot: Slot, cause: int) -> None:
        entry = slot.entry
        if entry is not None:
            self.evict(entry, cause)

    def set_pinned(self, slot: Slot, pinned: bool) -> None:
        """
        Keep what a slot has, whatever its last use and the bounds; or let it be evicted again.

        Args:
            slot: The slot.
            pinned: Whether it is kept.

        What exceeds the bound after this is evicted at the next build or sweep.
        """
        slot.pinned = pinned
        if not pinned and self.watched:
            self.capacity_freed()

    def evict_expired(self) -> int:
        """
        Evict the instances that were idle for longer than their TTL, or are past their age.

        Returns:
            How many were evicted.

        Thread-safe; O(evicted + used since the last eviction + held). O(cached) where a class has
        limits of its own, or there is a maximum age.
        """
        now = self.now()
        try:
            return self._evict_stale(now)
        except BaseException:
            self.left_over = True
            raise

    def _evict_stale(self, now: float) -> int:
        expired = [entry for entry in self.stale(now) if self.expire(entry, now)]
        count = len(expired)
        if expired:
            self.handle_removed(expired)
        return count

    def make_capacity(self, spare: Entry | None = None) -> None:
        """Evict down to the bound, sparing one entry; held and pinned ones stay."""
        while self.cached > self.max_size:
            victim = self.oldest(spare)
            if victim is None:
                return
            self.evict(victim, SIZE, more_than=self.max_size)

    def has_capacity(self) -> bool:
        """Whether an instance can be added within the bound."""
        return self.cached < self.max_size or self.oldest() is not None

    def find_held(self, slot: Slot, holder: Holder) -> Any:
        """
        Find what is warm in a slot, and let a holder hold it; this is no look-up.

        Args:
            slot: The slot.
            holder: Gets the hold; see `give_back`.

        Returns:
            The instance; None if there is none.
        """
        now = self.now()
        entry = slot.entry
        if entry is None:
            return None
        if self.evict_if_stale(entry, now):
            return None
        if self.hold(entry, holder):
            instance = entry.instance
            if entry.in_cache and instance is not None:
                return instance
            self.give_back(holder, None)
            if entry.weak:
                self.evict(entry, COLLECTED)
        return None

    def copy_lease(self, lease: Lease[Any]) -> Lease[Any]:
        """Return another lease on what a lease holds; it is no look-up."""
        instance, entry = lease.instance, lease.entry
        copy = self.use(lease.class_name)
        if instance is not None and entry is not None:
            copy.take(lambda holder: instance if self.hold(entry, holder) else None)
        return copy

    def share(self, entry: Entry) -> None:
        """Note that somebody has an instance without a lease."""
        if self.hold(entry):
            self.release(entry, None, share=True)

    def evict_if_stale(self, entry: Entry, now: float) -> bool:
        """Evict an entry that has expired; whether it had."""
        try:
            if not self.expire(entry, now):
                return False
            self.handle_removed([entry])
        except BaseException:
            self.left_over = True
            raise
        return True

    def pinned(self) -> list[str]:
        """
        Return the names that are pinned, warm or not, in the order of their registration.

        Returns:
            A new list; O(names).
        """
        return [slot.name for slot in list(self.slots.values()) if slot.pinned]

    def set_limits(self, slot: Slot, idle_seconds: float | None, age_seconds: float | None) -> None:
        super().set_limits(slot, idle_seconds, age_seconds)
        entry = slot.entry
        options = None if entry is None else entry.options
        if entry is not None and options is not None and options.validate is not None:
            # The new deadline is that of the age: without this, it would not be checked again.
            self.defer(entry, -NO_LIMIT)

    def expires_in(self, entry: Entry) -> float:
        """Return the seconds until a cached entry expires if it is not used; inf: never."""
        now = self.now()
        # Not by its deadline, which may be that of a check.
        left = NO_LIMIT if entry.weak else entry.built_at + entry.slot.age_limit - now
        if not entry.holds and not entry.slot.pinned:
            left = min(left, entry.slot.idle_limit - (now - entry.last_used))
        return left

    def note_forgotten(self, slot: Slot) -> None:
        """Note why a slot that was dropped had lost its instance; the first noted are forgotten."""
        causes = self.causes_of_forgotten
        if slot.last_cause != NO_CAUSE:
            causes[slot.key] = slot.last_cause
        while len(causes) > _MOST_CAUSES:
            try:
                causes.pop(next(iter(causes)), None)
            except (RuntimeError, StopIteration):  # another thread changed it
                return

    def leave_to_parent(self, serial: int) -> None:
        """Abandon the cached entries up to a serial number, which were built before a fork."""
        for slot in list(self.slots.values()):
            entry = slot.entry
            if entry is not None and entry.serial <= serial:
                self.abandon(entry)

    def weakly_alive(self) -> int:
        """Return how many weakly kept instances are alive."""
        if not self.weakly_kept:
            return 0
        entries = [slot.entry for slot in list(self.slots.values())]
        return sum(
            entry is not None and entry.weak and entry.instance is not None for entry in entries
        )

    def warm_entries(self) -> list[Entry]:
        """Return the entries that are cached strongly, the most recently used first."""
        return self.ring()

    def instance_in(self, slot: Slot) -> Any:
        """Return the instance that a slot has, which is no use of it; None if it has none."""
        entry = slot.entry
        return None if entry is None else entry.instance
