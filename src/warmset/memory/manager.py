"""
What a registry asks about memory: who leaves, when, and how big things are.

A registry has a manager only where a setting or the option of a class asks for one. It is told of
builds, removals and sweeps, never of a hit: what a use tells stands in the slot.
"""

from __future__ import annotations

from contextlib import suppress

from .budgets import Budgets
from .sizing import Sizing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._core import Slot
    from ..registry import Registry
    from .adaptive import AdaptiveTtl
    from .choosing import Chooser
    from .recycling import Recycling

__all__ = ["MemoryManager"]

_SIZE, _MEMORY = 1, 2  # values of `events.RemovalCause`
_MOST_NAMES = 10_000  # of which it is remembered when they were used last


class MemoryManager:
    """
    Does for one registry what its settings ask for.

    Args:
        registry: Its settings and the options of its classes say what; it is given at each call
            and not kept.
    """

    def __init__(self, registry: Registry) -> None:
        settings = registry.settings
        bounds = settings.max_cache_bytes, settings.max_rss_bytes
        sized = any(bounds) or settings.host_budget
        # A budget needs sizes: for the process's, they tell before a build that it will not fit.
        sizer = "measured" if settings.sizer is None and sized else settings.sizer
        self.sizing = Sizing(sizer)
        self.budgets = Budgets(*bounds, settings.low_rss_bytes) if any(bounds) else None
        self.adaptive: AdaptiveTtl | None = None
        self.chooser: Chooser | None = None
        self.recycling: Recycling | None = None
        self._last_used: dict[str, float] = {}  # of what has left
        # Class name -> slot, epoch, cause and bound of what was handed out and is not kept.
        self._passing: dict[str, tuple[Slot, int, int, int]] = {}
        if settings.policy != "lru":
            self._choose(registry)
        if settings.adaptive_ttl:
            from .adaptive import AdaptiveTtl

            self.adaptive = AdaptiveTtl(
                settings.adaptive_ttl_min_seconds, settings.adaptive_ttl_max_seconds
            )

    def ask_for(self, registry: Registry, slot: Slot) -> None:
        """Do what the options of a class ask for from now on."""
        options = registry._options.get(slot.name)
        if options is not None and options.priority and self.chooser is None:
            self._choose(registry)
        if options is not None and options.recycles and self.recycling is None:
            from .recycling import Recycling

            self.recycling = Recycling()

    def _choose(self, registry: Registry) -> None:
        """Let the policy say who leaves from now on, and no more the core's ring."""
        from .choosing import Chooser
        from .policies import policy_of

        # By the dict and not the registry, which would be a cycle.
        options = registry._options

        def priority_of(class_name: str) -> int:
            mine = options.get(class_name)
            return 0 if mine is None else mine.priority

        self.chooser = Chooser(policy_of(registry.settings.policy), priority_of)
        registry._by_policy = True

    # -- told by the registry --------------------------------------------------------------------

    def begins(self, registry: Registry, slot: Slot) -> Any:
        """A build begins, in this thread; what is given comes back to `ends` and `built`."""
        if self.budgets is not None:
            self.budgets.before_build(self, registry, slot)
        return self.sizing.begins(registry, slot.name)

    def ends(self, registry: Registry, slot: Slot, begun: Any) -> None:
        """The build has ended, well or not."""
        self.sizing.ends(begun)

    def built(self, registry: Registry, slot: Slot, epoch: int, instance: Any, begun: Any) -> None:
        """An instance was built, and is cached if the epoch is not negative."""
        if epoch < 0:
            return
        self.sizing.built(registry, slot, epoch, instance, begun)
        if self.adaptive is not None:
            self._learn_return(slot)
            self._adapt(registry, slot)
        if self.chooser is not None:
            self.chooser.note(slot, registry._now())
            if registry._cached > registry.settings.max_cache_size:
                self.choose_room(registry, slot)
        if self.budgets is not None:
            self.budgets.after_build(self, registry, slot)
        if registry._host is not None:
            registry._host.check(self, registry, slot)

    def choose_room(self, registry: Registry, spare: Slot | None) -> None:
        """Evict by the policy, down to `max_cache_size`."""
        most = registry.settings.max_cache_size
        while registry._cached > most + len(self._still_passing()):
            if not self.evict_one(registry, _SIZE, most, spare=spare):
                break

    def evict_one(
        self, registry: Registry, cause: int, more_than: int, *, spare: Slot | None = None
    ) -> bool:
        """
        Evict who is to leave next.

        Args:
            registry: The registry.
            cause: SIZE or MEMORY.
            more_than: Only while more than this is cached: instances or bytes, by the cause.
            spare: What was just built. If it is not worth its place, it leaves as soon as its
                caller, who holds it, gives it back.

        Returns:
            Whether there was somebody, who has left by now, or passes.
        """
        while True:
            if self.chooser is not None:
                # What passes already is weighed no more: it would be chosen again and again.
                may_pass = spare is not None and spare.name not in self._passing
                chosen = self.chooser.victim(registry, registry._now(), spare, may_pass=may_pass)
                if chosen is None:
                    return False
                slot, epoch = chosen
                if slot is spare and slot.holds:
                    self._let_pass(registry, slot, epoch, cause, more_than)
                    return True
            else:
                found = registry._least_recent(spare)
                if found is None:
                    return False
                slot, epoch = found, found.epoch
            if registry._evict(slot, epoch, cause, more_than):
                return True
            if self.chooser is not None and slot.epoch == epoch:  # held meanwhile, or not in excess
                self.chooser.note(slot, registry._now())
            over = registry._bytes if cause == _MEMORY else registry._cached
            if over <= more_than:  # another thread was at it
                return True

    # -- what is handed out and not kept ---------------------------------------------------------

    def passing_bytes(self) -> int:
        """Bytes of what leaves as soon as nobody holds it."""
        return sum(max(0, slot.bytes) for slot in self._still_passing())

    def _still_passing(self) -> list[Slot]:
        """The slots of what passes; not of what left for another reason."""
        return [slot for slot, epoch, *_ in list(self._passing.values()) if slot.epoch == epoch]

    def _let_pass(
        self, registry: Registry, slot: Slot, epoch: int, cause: int, more_than: int
    ) -> None:
        entry = slot, epoch, cause, more_than
        registry._block(1)  # from now on releases call `released`
        while self._passing.setdefault(slot.name, entry) is not entry:
            # Who takes an entry out takes its count along.
            if self._passing.pop(slot.name, None) is not None:
                registry._block(-1)
        if not slot.holds:  # given back before the entry was there to be found
            self.released(registry)

    def released(self, registry: Registry) -> None:
        """Something was given back: what passes may leave now."""
        for class_name, (slot, epoch, *_) in list(self._passing.items()):
            if slot.epoch == epoch and slot.holds:
                continue
            entry = self._passing.pop(class_name, None)
            if entry is None:
                continue  # another thread was at it
            registry._block(-1)
            slot, epoch, cause, more_than = entry
            if slot.epoch == epoch and slot.holds:  # it is not the one that was looked at
                self._let_pass(registry, *entry)
            # Where there is room by now it is kept.
            elif not registry._evict(slot, epoch, cause, more_than) and slot.epoch == epoch:
                assert self.chooser is not None
                self.chooser.note(slot, registry._now())

    def departed(self, registry: Registry, departed: list[Any]) -> None:
        """Instances have left their slots."""
        if self.chooser is not None:
            for departure in departed:
                self.chooser.left(
                    departure.class_name, departure.uses, departure.built_at, departure.last_used
                )
        if self.adaptive is not None:
            for departure in departed:
                self._last_used.pop(departure.class_name, None)  # to the end
                self._last_used[departure.class_name] = departure.last_used
                self.adaptive.observe_residence(
                    departure.class_name,
                    departure.uses,
                    departure.built_at,
                    departure.last_used,
                    departure.build_seconds,
                )
            while len(self._last_used) > _MOST_NAMES:
                with suppress(RuntimeError, StopIteration):  # another thread came between
                    self._last_used.pop(next(iter(self._last_used)), None)

    def sweep(self, registry: Registry) -> None:
        """Look after what time alone changes."""
        if self.chooser is not None:
            self.chooser.purge(registry._now())
        if self.adaptive is not None:
            for slot in registry._warm_slots():
                self._adapt(registry, slot)
        if self.budgets is not None:
            self.budgets.check(self, registry)
        if registry._host is not None:
            registry._host.check(self, registry)
        if self.recycling is not None:
            self.recycling.sweep(registry)

    def _learn_return(self, slot: Slot) -> None:
        assert self.adaptive is not None
        last_used = self._last_used.pop(slot.name, None)
        if last_used is not None:
            self.adaptive.observe_return(slot.name, slot.built_at - last_used)

    def _adapt(self, registry: Registry, slot: Slot) -> None:
        """Give a class that has no TTL of its own the one that follows from its use."""
        options = registry._options.get(slot.name)
        if options is not None and options.cache_ttl_seconds is not None:
            return
        assert self.adaptive is not None
        age = None if options is None else options.max_age_seconds
        limit = self.adaptive.limit(slot.name).seconds
        registry._set_limits(slot, limit, float("inf") if age == 0.0 else age)

    def waiting_to_pass(self) -> int:
        """How many leave as soon as nobody holds them."""
        return len(self._passing)

    def _reset_after_fork(self) -> None:
        self._passing.clear()
        self.sizing.reset_after_fork()
        if self.budgets is not None:
            self.budgets.reset_after_fork()
        if self.chooser is not None:
            self.chooser.reset_after_fork()
        if self.recycling is not None:
            self.recycling.reset_after_fork()
