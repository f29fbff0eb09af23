"""
Listeners: each removal and each build is reported to them once, outside every lock.

A build is reported by the thread that built, after it has completed, so that the context of that
thread, as a tracing context, is current for the listener. Removals are reported in the order in
which they happened: removed entries are queued in the course of the change itself. One thread at a
time reports them; another one, or a listener that removes something, leaves its own to that thread.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque

from ..event_logs import build_event, removal_event
from ..extension import Extension
from ..foreign import BUILD_LISTENER, REMOVAL_LISTENER, call_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Entry
    from ..builder import Build
    from ..events import BuildEvent, RemovalEvent
    from ..registry import BaseRegistry

__all__ = ["BuildListeners", "RemovalListeners", "build_listeners", "removal_listeners"]


class RemovalListeners(Extension):
    """The removal listeners of one registry, and the removals that are still to be reported."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[RemovalEvent], Any], ...] = ()
        self._reporting = allocate_lock()
        self.queue: deque[Entry] = deque()

    def add(self, listener: Callable[[RemovalEvent], Any]) -> None:
        """Report removals to a listener from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Callable[[RemovalEvent], Any]) -> bool:
        """Report to a listener no more; whether it was there."""
        kept = tuple(known for known in self._listeners if known != listener)
        found = len(kept) < len(self._listeners)
        self._listeners = kept
        return found

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        # Unless another thread, or this one further up, is reporting.
        while self.queue and self._reporting.acquire(False):
            try:
                while self.queue:
                    self._report(registry, self.queue.popleft())
            finally:
                self._reporting.release()

    def _report(self, registry: BaseRegistry, entry: Entry) -> None:
        event = removal_event(entry, registry.now())
        call_each(
            REMOVAL_LISTENER,
            self._listeners,
            event,
            class_name=event.class_name,
            registry=registry,
        )


class BuildListeners(Extension):
    """The build listeners of one registry."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[BuildEvent], Any], ...] = ()

    def add(self, listener: Callable[[BuildEvent], Any]) -> None:
        """Report builds to a listener from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Callable[[BuildEvent], Any]) -> bool:
        """Report to a listener no more; whether it was there."""
        kept = tuple(known for known in self._listeners if known != listener)
        found = len(kept) < len(self._listeners)
        self._listeners = kept
        return found

    def built(self, registry: BaseRegistry, build: Build) -> None:
        if self._listeners:
            event = build_event(build)
            call_each(
                BUILD_LISTENER,
                self._listeners,
                event,
                class_name=event.class_name,
                registry=registry,
            )


def removal_listeners(registry: BaseRegistry) -> RemovalListeners:
    """Return the removal listeners of a registry, attached at the first call."""
    listeners = registry.extension(RemovalListeners) or registry.attach(RemovalListeners())
    registry.removal_queue = listeners.queue
    return listeners


def build_listeners(registry: BaseRegistry) -> BuildListeners:
    """Return the build listeners of a registry, attached at the first call."""
    return registry.extension(BuildListeners) or registry.attach(BuildListeners())
