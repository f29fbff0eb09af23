"""
Listeners: each removal and each build is reported to them once, outside every lock.

A build is reported by the thread that built, after it has completed, so that the context of that
thread, as a tracing context, is current for the listener. Removals are reported in the order in
which they happened: removed entries are queued in the course of the change itself. One thread at a
time reports them; another one, or a listener that removes something, leaves its own to that thread.
"""

from __future__ import annotations

from _thread import RLock
from collections import deque

from .._locks import call_if_free
from ..event_logs import build_event, removal_event
from ..extension import Extension
from ..foreign import BUILD_LISTENER, REMOVAL_LISTENER, call_each, is_interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Entry
    from ..builder import Build
    from ..events import BuildEvent, RemovalEvent
    from ..registry import BaseRegistry

__all__ = ["BuildListeners", "RemovalListeners", "build_listeners", "removal_listeners"]


class _Listeners:
    """Some listeners, in the order in which they were added; each step is one operation."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # By keys that are equal to nothing else: no lock is needed, and one may be added twice.
        self._known: dict[object, Callable[[Any], Any]] = {}

    def add(self, listener: Callable[[Any], Any]) -> None:
        self._known[object()] = listener

    def remove(self, listener: Callable[[Any], Any]) -> bool:
        found = [key for key, known in self._known.copy().items() if known == listener]
        removed = [self._known.pop(key, None) for key in found]
        return any(listener is not None for listener in removed)

    def all(self) -> list[Callable[[Any], Any]]:
        return list(self._known.values())


class RemovalListeners(Extension):
    """The removal listeners of one registry, and the removals that are still to be reported."""

    def __init__(self) -> None:
        self._listeners = _Listeners()
        self._reporting: Any = RLock()
        self._parents: deque[Entry] | None = None
        self.queue: deque[Entry] = deque()

    def add(self, listener: Callable[[RemovalEvent], Any]) -> None:
        """Report removals to a listener from now on."""
        self._listeners.add(listener)

    def remove(self, listener: Callable[[RemovalEvent], Any]) -> bool:
        """Report to a listener no more; whether it was there."""
        return self._listeners.remove(listener)

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        self._parents = None
        reporting = self._reporting  # a listener may fork
        # Unless another thread, or this one further up, is reporting.
        while self.queue:
            if call_if_free(reporting, self._report_queued, registry) is None:
                return

    def _report_queued(self, registry: BaseRegistry) -> bool:
        """Report what is queued, and return True; an interrupt is raised when all was reported."""
        try:
            self._report_each(registry)
        except BaseException as error:
            if is_interrupt(error):
                self._report_queued(registry)
            raise
        return True

    def _report_each(self, registry: BaseRegistry) -> None:
        while self.queue:
            now = registry.now()  # first: an injected timer may raise
            self._report(registry, self.queue.popleft(), now)

    def _report(self, registry: BaseRegistry, entry: Entry, now: float) -> None:
        event = removal_event(entry, now)
        name, listeners = event.class_name, self._listeners.all()
        call_each(REMOVAL_LISTENER, listeners, event, class_name=name, registry=registry)

    def after_fork(self, registry: BaseRegistry) -> None:
        self._reporting = RLock()
        # What is queued is reported by the parent. It is dropped later: it has instances, whose
        # finalisers are foreign code.
        self._parents = self.queue
        registry.removal_queue = self.queue = deque()


class BuildListeners(Extension):
    """The build listeners of one registry."""

    def __init__(self) -> None:
        self._listeners = _Listeners()

    def add(self, listener: Callable[[BuildEvent], Any]) -> None:
        """Report builds to a listener from now on."""
        self._listeners.add(listener)

    def remove(self, listener: Callable[[BuildEvent], Any]) -> bool:
        """Report to a listener no more; whether it was there."""
        return self._listeners.remove(listener)

    def built(self, registry: BaseRegistry, build: Build) -> None:
        listeners = self._listeners.all()
        if listeners:
            event = build_event(build)
            name = event.class_name
            call_each(BUILD_LISTENER, listeners, event, class_name=name, registry=registry)


def removal_listeners(registry: BaseRegistry) -> RemovalListeners:
    """Return the removal listeners of a registry, attached at the first call."""
    listeners = registry.extension(RemovalListeners) or registry.attach(RemovalListeners())
    registry.removal_queue = listeners.queue
    return listeners


def build_listeners(registry: BaseRegistry) -> BuildListeners:
    """Return the build listeners of a registry, attached at the first call."""
    return registry.extension(BuildListeners) or registry.attach(BuildListeners())
