"""
Single-step evictions, triggered by a test.
"""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING

from ..codes import COLLECTED, SIZE, WEAK
from ..lifecycle.listening import removal_listeners

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Entry
    from ..events import RemovalEvent
    from ..registry import BaseRegistry
    from .timer import FakeTimer

__all__ = ["EvictionStepper"]


class EvictionStepper:
    """
    Triggers single evictions of a registry: by size, by idle time, or of collected instances.

    Args:
        registry: The registry. Its own evictions remain active.
        timer: The timer of the registry; required only by `expire_next`.

    A step uses the code of the registry's own evictions: counters, listeners and closers see no
    difference, and held and pinned instances are not evicted. It returns the events of all removals
    that it caused, in order, which includes removals made by closers and listeners. Not
    thread-safe.
    """

    def __init__(self, registry: BaseRegistry, timer: FakeTimer | None = None) -> None:
        self._registry = registry
        self._timer = timer

    def order(self) -> list[str]:
        """
        Return the eviction order of the policy "lru".

        Returns:
            The class names without held and pinned instances, the least recently used first.
            O(cached).
        """
        return [entry.name for entry in self._evictable()]

    def evict_next(self) -> tuple[RemovalEvent, ...]:
        """
        Evict the least recently used instance, as an additional build would.

        Returns:
            The events; empty if every cached instance is held or pinned. O(cached).
        """
        return self._evict(self._evictable()[:1], SIZE)

    def expire_next(self) -> tuple[RemovalEvent, ...]:
        """
        Advance the timer until the next instance expires by its idle TTL, and evict it.

        Returns:
            The events. Instances with the same time of last use expire together. Empty if no
            instance can expire, because nothing is cached, every instance is held or pinned, or
            there is no TTL; the timer is then not advanced. O(cached).

        Raises:
            ValueError: The stepper was created without the timer of the registry.
        """
        registry, timer = self._registry, self._timer
        if timer is None:
            raise ValueError(
                "expire_next needs the timer of the registry: EvictionStepper(registry, timer)"
            )
        now = registry.now()
        times = [
            entry.slot.idle_limit - (now - entry.last_used)
            for entry in registry.warm_entries()
            if not entry.holds and not entry.slot.pinned
        ]
        next_expiry = min(times, default=math.inf)
        if next_expiry == math.inf:
            return ()
        timer.advance(max(0.0, next_expiry))
        # An instance expires when its idle time exceeds the TTL. Start with the smallest float
        # step and double it, because the difference to the last use is rounded as well.
        step = math.ulp(timer.now)
        events = self._events_of(registry.evict_expired)
        while not events and step < 1.0:
            timer.advance(step)
            step *= 2.0
            events = self._events_of(registry.evict_expired)
        if not events:
            raise ValueError("nothing expired: the registry uses another timer")
        return events

    def collect(self) -> tuple[RemovalEvent, ...]:
        """
        Run a garbage collection and evict the weakly referenced instances that it destroyed.

        Returns:
            The events, in the order of registration; empty without weak references.

        Without this step, such an eviction happens at the next look-up of the name. O(names) plus
        a full collection.
        """
        gc.collect()
        dead = [
            entry
            for slot in list(self._registry.slots.values())
            if (entry := slot.entry) is not None
            if entry.state == WEAK and entry.instance is None
        ]
        return self._evict(dead, COLLECTED)

    def _evictable(self) -> list[Entry]:
        entries = self._registry.ring(from_oldest=True)
        return [entry for entry in entries if not entry.holds and not entry.slot.pinned]

    def _evict(self, entries: list[Entry], cause: int) -> tuple[RemovalEvent, ...]:
        # The public `discard` would record another cause and would not count as an eviction.
        return self._events_of(lambda: [self._registry.evict(entry, cause) for entry in entries])

    def _events_of(self, step: Callable[[], object]) -> tuple[RemovalEvent, ...]:
        events: list[RemovalEvent] = []
        listener = events.append
        listeners = removal_listeners(self._registry)
        listeners.add(listener)
        try:
            step()
        finally:
            listeners.remove(listener)
        return tuple(events)
