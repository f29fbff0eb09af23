"""
What a registry keeps of a family, and how it takes part in builds and removals.

A slot is made when its key is first looked up, and forgotten when its instance was removed or not
built, and nobody waits for a build: any number of keys leave memory unchanged. A `FamilyRecord`
does not refer to the registry.
"""

from __future__ import annotations

from _thread import RLock

from ._locks import locked
from .codes import COLLECTED, NO_LIMIT, SIZE
from .extension import Extension

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._core import Entry, Slot
    from .builder import Build
    from .family_keys import FamilyKey
    from .options import ClassOptions
    from .registry import BaseRegistry

__all__ = ["Families", "FamilyRecord"]

_SPARE_SLOTS = 64  # without an instance, before they are searched for those to forget


class FamilyRecord:
    """
    What a registry keeps of one family: the target of the slots of its keys.

    Args:
        name: Its name.
        target: A class, a factory or a class path; it is called with the key first.
        options: Of all its instances.
        max_cache_size: How many of them are cached at most; None: no bound of its own.
    """

    def __init__(
        self, name: str, target: Any, options: ClassOptions, max_cache_size: int | None
    ) -> None:
        self.name = name
        self.set(target, options, max_cache_size)
        self.keys: dict[str, FamilyKey] = {}  # of the slots whose key is a str, by that
        self.slots: dict[FamilyKey, Slot] = {}
        # Those that had no entry when that was last seen. An interrupt can keep one from being
        # added, until the slots are searched for victims.
        self._empty: dict[FamilyKey, Slot] = {}
        self.misses = 0
        self.builds = 0
        self.failed_builds = 0
        self.evictions = 0
        self._uses = 0  # of entries that have been removed
        self._oldest: list[tuple[Entry, float, int]] = []  # the next victims, the first one last
        self._prune_at = _SPARE_SLOTS
        self._lock = RLock()  # re-entrant: a finaliser may look a key up
        self._watching = False

    def set(self, target: Any, options: ClassOptions, max_cache_size: int | None) -> None:
        """Give it a target, options and a bound."""
        self.target = target
        self.options = options
        self.max_cache_size = max_cache_size
        # What the path of a slot is made of.
        module, _, attribute = target.rpartition(".") if isinstance(target, str) else ("", "", "")
        kind = type(target)
        self.__module__ = module or getattr(target, "__module__", kind.__module__)
        self.__qualname__ = attribute or getattr(target, "__qualname__", kind.__qualname__)

    def reset_after_fork(self) -> None:
        """Reset what belongs to threads that do not exist in the child."""
        self._lock = RLock()
        self._watching = False

    def __repr__(self) -> str:
        return f"<family {self.name!r}: {len(self.warm())} warm>"

    # -- slots -----------------------------------------------------------------------------------

    @locked
    def slot_for(self, registry: BaseRegistry, key: FamilyKey) -> Slot:
        """Return the slot of a key that is to be built, made if need be."""
        slot = self.slots.get(key)
        if slot is None or not slot.alive:
            if len(self.slots) >= self._prune_at:
                self._prune(registry)
            slot, _ = registry.add_slot(key, self, self.options)
            idle, age = self.options.cache_ttl_seconds, self.options.max_age_seconds
            if idle is not None or age is not None:
                # 0 is none.
                registry.set_limits(
                    slot, NO_LIMIT if idle == 0.0 else idle, NO_LIMIT if age == 0.0 else age
                )
            self.add(slot)
            if type(key.key) is str:
                self.keys[key.key] = slot.key
        return slot

    def add(self, slot: Slot) -> None:
        """Add a slot that was just made for a key."""
        self._empty[slot.key] = slot
        self.slots[slot.key] = slot

    def _prune(self, registry: BaseRegistry) -> None:
        """Forget keys of interrupted builds, and of weakly kept instances that were collected."""
        for slot in list(self.slots.values()):
            entry = slot.entry
            if entry is not None and entry.weak and entry.instance is None:
                registry.evict(entry, COLLECTED)
            elif entry is None:
                self.forget(registry, slot)
        self._prune_at = 2 * len(self.slots) + _SPARE_SLOTS

    @locked
    def forget(self, registry: BaseRegistry, slot: Slot) -> None:
        """Forget a key that has no instance, unless somebody builds it, or waits for that."""
        if slot.entry is not None:
            return
        if registry.builder.is_building(slot.key):
            if self.slots.get(slot.key) is slot:
                self._empty[slot.key] = slot
            return
        registry.drop_slot(slot)
        registry.note_forgotten(slot)
        if slot.key.loop_number is not None:
            registry.classes.loop_slots.drop(slot)
        if self.slots.get(slot.key) is slot:
            del self.slots[slot.key]
            self._empty.pop(slot.key, None)
            if type(slot.key.key) is str and slot.key.loop_number is None:
                self.keys.pop(slot.key.key, None)

    def warm(self) -> list[Slot]:
        """Return the slots that have an instance, in the order in which they were made."""
        found = []
        for slot in list(self.slots.values()):
            entry = slot.entry
            if entry is not None and (not entry.weak or entry.instance is not None):
                found.append(slot)
        return found

    def warm_keys(self) -> list[Any]:
        """Return the keys that have an instance, once each: event loops may have one each."""
        keys = dict.fromkeys((slot.key[1], slot.key.key) for slot in self.warm())
        return [key for _, key in keys]

    @property
    def hits(self) -> int:
        """Look-ups that found a live instance."""
        entries = [slot.entry for slot in list(self.slots.values())]
        uses = sum(entry.uses for entry in entries if entry is not None)
        return max(0, self._uses + uses - self.builds)

    # -- the bound -------------------------------------------------------------------------------

    def _cached(self, registry: BaseRegistry) -> int:
        """Return how many are cached strongly; O(built since the last call), amortised O(1)."""
        if registry.weakly_kept:
            return sum(slot.entry is not None and not slot.entry.weak for slot in self.warm())
        for key, slot in list(self._empty.items()):
            if slot.entry is not None:
                self._empty.pop(key, None)
        return len(self.slots) - len(self._empty)

    def make_capacity(self, registry: BaseRegistry, more: int, spare: Entry | None = None) -> None:
        """
        Evict the least recently used ones until some more fit within the bound.

        Args:
            registry: The registry.
            more: How many.
            spare: An entry that stays.

        Held ones stay, and are evicted at their release.
        """
        bound = self.max_cache_size
        if bound is None:
            return
        while self._cached(registry) + more > bound:
            victim = self._victim(registry, spare)
            if victim is None:
                self._watch(registry, True)
                return
            registry.evict(victim, SIZE)
        self._watch(registry, False)

    def _victim(self, registry: BaseRegistry, spare: Entry | None) -> Entry | None:
        """Return the least recently used entry that is not held."""
        for fresh in (False, True):
            if fresh:
                self._search()
            while True:
                try:
                    entry, used, stamp = self._oldest.pop()
                except IndexError:  # another thread may have taken the last one
                    break
                # What was used since is newer than all others in the queue.
                if (
                    entry.slot.entry is entry
                    and entry is not spare
                    and not entry.holds
                    and not entry.slot.pinned
                    and (entry.last_used, entry.stamp) == (used, stamp)
                ):
                    return entry
        return None

    @locked
    def _search(self) -> None:
        """Find the next victims, and the slots without an entry, anew."""
        slots = list(self.slots.items())
        self._empty = {key: slot for key, slot in slots if slot.entry is None}
        rows = [
            (entry, entry.last_used, entry.stamp)
            for entry in [slot.entry for _, slot in slots]
            if entry is not None and not entry.weak
        ]
        rows.sort(key=lambda row: row[1:], reverse=True)
        self._oldest = rows

    @locked
    def _watch(self, registry: BaseRegistry, exceeded: bool) -> None:
        if self._watching is not exceeded:
            self._watching = exceeded
            registry.watch(1 if exceeded else -1)

    # -- what is reported to it ------------------------------------------------------------------

    @locked
    def count_miss(self) -> None:
        """Count a look-up that found no instance."""
        self.misses += 1

    def built(self, registry: BaseRegistry, build: Build) -> None:
        """Note a build that succeeded or failed."""
        self._count_build(build)
        self.forget(registry, build.slot)

    @locked
    def _count_build(self, build: Build) -> None:
        if build.error is None:
            self.builds += 1
            if not build.published and build.entry is not None:
                self._uses += 1
        else:
            self.failed_builds += 1

    def removed(self, registry: BaseRegistry, entry: Entry) -> None:
        """Note a removed entry."""
        self._count_removal(entry)
        self.forget(registry, entry.slot)

    @locked
    def _count_removal(self, entry: Entry) -> None:
        self._uses += entry.uses
        self.evictions += entry.cause <= COLLECTED

    def released(self, registry: BaseRegistry) -> None:
        """Evict what exceeds the bound, now that something is not held any more."""
        if self._watching:
            self.make_capacity(registry, 0)


class Families(Extension):
    """The families of one registry."""

    def before_build(self, registry: BaseRegistry, build: Build) -> None:
        key = build.slot.key
        if not build.slot.alive and registry.is_of_family(key):
            # The key was forgotten just before the build was entered into the table of builds.
            build.slot = registry.families[key.family].slot_for(registry, key)
            build.token = registry.token(build.slot)

    def built(self, registry: BaseRegistry, build: Build) -> None:
        record = build.slot.target
        if type(record) is FamilyRecord:
            record.built(registry, build)

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        for entry in entries:
            record = entry.slot.target
            if type(record) is FamilyRecord:
                record.removed(registry, entry)

    def released(self, registry: BaseRegistry) -> None:
        for record in list(registry.families.values()):
            record.released(registry)

    def after_fork(self, registry: BaseRegistry) -> None:
        for record in list(registry.families.values()):
            record.reset_after_fork()
