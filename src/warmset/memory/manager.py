"""
The memory manager of a registry: eviction order, idle limits, sizes and budgets.

A registry has one only if a setting or an option of a class needs it. It takes part in builds,
removals and sweeps, never in a hit, which changes its entry only.
"""

from __future__ import annotations

from contextlib import suppress

from ..codes import MEMORY, NO_LIMIT, SIZE
from ..extension import Extension
from .budgets import Budgets
from .sizing import Sizing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Entry, Slot
    from ..builder import Build
    from ..family_keys import SlotKey
    from ..options import ClassOptions
    from ..registry import BaseRegistry
    from .adaptive import AdaptiveTtl
    from .choosing import Chooser
    from .policies import Policy
    from .recycling import Recycling

__all__ = ["MemoryManager"]

_MOST_NAMES = 10_000  # whose last use is remembered after their removal


class MemoryManager(Extension):
    """
    Applies the settings of one registry, and the options of its classes, that concern memory.

    Args:
        registry: Its settings are read; it is not kept.
    """

    def __init__(self, registry: BaseRegistry) -> None:
        settings = registry.settings
        bounds = settings.max_cache_bytes, settings.max_rss_bytes
        sized = any(bounds) or settings.host_budget
        # A budget needs sizes; with that of the process, they show before a build that its result
        # will not fit.
        sizer = "measured" if settings.sizer is None and sized else settings.sizer
        self.sizing = Sizing(sizer)
        self.budgets = Budgets(*bounds, settings.low_rss_bytes) if any(bounds) else None
        self.adaptive: AdaptiveTtl | None = None
        self.chooser: Chooser | None = None
        self.policy: Policy | None = None  # of the chooser
        self.recycling: Recycling | None = None
        self._last_used: dict[SlotKey, float] = {}  # of removed instances
        if settings.policy != "lru":
            self._evict_by_policy(registry)
        if settings.adaptive_ttl:
            from .adaptive import AdaptiveTtl

            self.adaptive = AdaptiveTtl(
                settings.adaptive_ttl_min_seconds, settings.adaptive_ttl_max_seconds
            )

    def serve(self, registry: BaseRegistry, options: ClassOptions) -> None:
        """Apply the options of a class from now on."""
        if options.priority and self.chooser is None:
            self._evict_by_policy(registry)
        if options.recycles and self.recycling is None:
            from .recycling import Recycling

            self.recycling = Recycling(self.sizing.measure_anew)

    def _evict_by_policy(self, registry: BaseRegistry) -> None:
        """Let the policy determine the eviction order from now on, and not the core's ring."""
        from .choosing import Chooser
        from .policies import policy_of

        self.policy = policy_of(registry.settings.policy)
        self.chooser = Chooser(self.policy)
        registry.by_policy = True

    # -- hooks -----------------------------------------------------------------------------------

    def before_build(self, registry: BaseRegistry, build: Build) -> None:
        if self.budgets is not None:
            self.budgets.before_build(self, registry, build.slot)

    def build(self, registry: BaseRegistry, build: Build, make: Callable[[Slot], Any]) -> Any:
        mark = self.sizing.begins(build.slot)
        try:
            return make(build.slot)
        finally:
            self.sizing.ends(mark)
            build.notes[self] = mark

    def built(self, registry: BaseRegistry, build: Build) -> None:
        entry = build.entry
        if entry is None or not build.published:
            return
        self.sizing.built(registry, entry, build.notes.get(self))
        if self.adaptive is not None:
            self._learn_return(entry)
            self._adapt(registry, entry.slot)
        if self.chooser is not None:
            self.chooser.note(entry, registry.now())
            if registry.cached > registry.max_size:
                registry.make_capacity(entry)
        if self.budgets is not None:
            self.budgets.after_build(self, registry, entry)

    def choose_victim(self, registry: BaseRegistry, spare: Entry | None, more_than: int) -> bool:
        return self.evict_one(registry, SIZE, more_than, spare=spare)

    def evict_one(
        self, registry: BaseRegistry, cause: int, more_than: int, *, spare: Entry | None = None
    ) -> bool:
        """
        Evict the next entry in the eviction order.

        Args:
            registry: The registry.
            cause: SIZE or MEMORY.
            more_than: Only while more than this is cached: instances or bytes, by the cause.
            spare: The entry that was just built. It is removed only if the policy does not admit
                it: then its caller gets the instance, which is closed at its last release.

        Returns:
            Whether one was evicted, or the bound is not exceeded any more.
        """
        while True:
            if self.chooser is not None:
                chosen = self.chooser.victim(registry, registry.now(), spare)
            else:
                chosen = registry.oldest(spare)
            if chosen is None:
                return False
            if registry.evict(chosen, cause, more_than=more_than, even_held=chosen is spare):
                return True
            if self.chooser is not None and chosen.in_cache:  # held meanwhile, or not in excess
                self.chooser.note(chosen, registry.now())
            over = registry.known_bytes if cause == MEMORY else registry.cached
            if over <= more_than:  # another thread evicted
                return True

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        if self.chooser is not None:
            for entry in entries:
                self.chooser.removed(entry)
        if self.adaptive is not None:
            for entry in entries:
                key = entry.slot.key
                self._last_used.pop(key, None)  # to the end
                self._last_used[key] = entry.last_used
                self.adaptive.observe_residence(
                    key, entry.uses, entry.built_at, entry.last_used, entry.build_seconds
                )
            while len(self._last_used) > _MOST_NAMES:
                with suppress(RuntimeError, StopIteration):  # another thread came in between
                    self._last_used.pop(next(iter(self._last_used)), None)

    def sweep(self, registry: BaseRegistry) -> None:
        if self.chooser is not None:
            self.chooser.purge(registry.now())
        if self.adaptive is not None:
            for entry in registry.warm_entries():
                self._adapt(registry, entry.slot)
        if self.budgets is not None:
            self.budgets.check(self, registry)
        if self.recycling is not None:
            self.recycling.sweep(registry)

    def after_fork(self, registry: BaseRegistry) -> None:
        self.sizing.reset_after_fork()
        if self.budgets is not None:
            self.budgets.reset_after_fork()
        if self.chooser is not None:
            self.chooser.reset_after_fork()
        if self.recycling is not None:
            self.recycling.reset_after_fork()

    # -- adaptive limits -------------------------------------------------------------------------

    def _learn_return(self, entry: Entry) -> None:
        assert self.adaptive is not None
        key = entry.slot.key
        last_used = self._last_used.pop(key, None)
        # Not where it was removed already, and this is its own last use.
        if last_used is not None and last_used <= entry.built_at:
            self.adaptive.observe_return(key, entry.built_at - last_used)

    def _adapt(self, registry: BaseRegistry, slot: Slot) -> None:
        """Give a class without a TTL of its own the one that follows from its use."""
        options = slot.options
        if options is not None and options.cache_ttl_seconds is not None:
            return
        assert self.adaptive is not None
        age = None if options is None else options.max_age_seconds
        limit = self.adaptive.limit(slot.key).seconds
        registry.set_limits(slot, limit, NO_LIMIT if age == 0.0 else age)
