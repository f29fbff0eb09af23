"""
Evictions one at a time, each when a test says so.
"""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING

from ..events import RemovalCause

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..events import RemovalEvent
    from ..registry import Registry
    from .timer import FakeTimer

__all__ = ["EvictionStepper"]

_WEAK = 2  # a slot's kind


class EvictionStepper:
    """
    Makes a registry evict in steps: by size, by idle time, or what nobody holds any more.

    Args:
        registry: The registry; its own evictions go on as ever.
        timer: The clock that the registry was made with; only `expire_next` needs it.

    A step goes the way of the registry's own evictions: counters, listeners and closers see no
    difference, and a held instance stays. It gives the events of all that left in its course, in
    order; that is more than one where a closer or a listener removes others. For one thread.
    """

    def __init__(self, registry: Registry, timer: FakeTimer | None = None) -> None:
        self._registry = registry
        self._timer = timer

    def order(self) -> list[str]:
        """
        Give the class names in the order in which the size bound would evict them.

        Returns:
            The least recently used first; held ones, which it passes over, are left out. O(cached).
        """
        entries = self._registry.stats().entries
        return [entry.class_name for entry in reversed(entries) if not entry.holders]

    def evict_next(self) -> tuple[RemovalEvent, ...]:
        """
        Evict the least recently used instance that nobody holds, as if one more had been built.

        Returns:
            The events; none if all that is cached is held. O(cached).
        """
        names = self.order()
        return self._evict(names[:1], RemovalCause.SIZE)

    def expire_next(self) -> tuple[RemovalEvent, ...]:
        """
        Let time pass until the next instance has been idle for too long, and evict it.

        Returns:
            The events; those that were used last at the same moment expire together. None if no
            instance can expire: nothing is cached, all is held, or there is no TTL; no time passes
            then. O(cached).

        Raises:
            ValueError: The stepper was made without the registry's timer.
        """
        registry, timer = self._registry, self._timer
        if timer is None:
            raise ValueError(
                "expire_next lets time pass: give the registry's timer,"
                " EvictionStepper(registry, timer)"
            )
        idle = [entry.idle_seconds for entry in registry.stats().entries if not entry.holders]
        ttl = registry.settings.cache_ttl_seconds
        if not idle or ttl <= 0.0:
            return ()
        timer.advance(max(0.0, ttl - max(idle)))
        # It expires past the TTL, not at it: by the least that a float can tell, doubled because
        # the difference to its last use is rounded, too.
        step = math.ulp(timer.now)
        events = self._told(registry.evict_expired)
        while not events and step < 1.0:
            timer.advance(step)
            step *= 2.0
            events = self._told(registry.evict_expired)
        if not events:
            raise ValueError("nothing expired: the registry was made with another timer")
        return events

    def collect(self) -> tuple[RemovalEvent, ...]:
        """
        Collect garbage, and evict the weakly kept instances that nobody holds any more.

        Returns:
            The events, in the order of registration; none where the registry keeps none weakly.

        Without it, the next look-up of such a name finds it. O(names), and a full collection.
        """
        gc.collect()
        dead = [
            slot.name
            for slot in list(self._registry._slots.values())
            if slot.kind == _WEAK and self._registry._instance_in(slot) is None
        ]
        return self._evict(dead, RemovalCause.COLLECTED)

    def _evict(self, names: list[str], cause: RemovalCause) -> tuple[RemovalEvent, ...]:
        # The public `discard` would name the caller as the cause, and count no eviction.
        registry = self._registry
        slots = [registry._slots[name] for name in names]
        return self._told(lambda: [registry._remove(slot, cause) for slot in slots])

    def _told(self, step: Callable[[], object]) -> tuple[RemovalEvent, ...]:
        events: list[RemovalEvent] = []
        listener = events.append
        self._registry.add_listener(listener)
        try:
            step()
        finally:
            self._registry.remove_listener(listener)
        return tuple(events)
