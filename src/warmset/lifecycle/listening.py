"""
Telling of removals: each once, in the order in which instances left, outside every lock.

Departures are queued in the course of the change itself. One thread at a time tells; who comes
meanwhile, also a listener that removes something, leaves the telling to it.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque

from .._tallies import LISTENER_FAILURES
from ..events import RemovalCause, RemovalEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..registry import Registry

__all__ = ["Listeners"]


class Listeners:
    """The listeners of one registry, and what is still to be told."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[RemovalEvent], Any], ...] = ()
        self._telling = allocate_lock()
        self.queue: deque[Any] = deque()

    def add(self, listener: Callable[[RemovalEvent], Any]) -> None:
        """Tell a listener of removals from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Callable[[RemovalEvent], Any]) -> bool:
        """Tell a listener no more; whether it was there."""
        kept = tuple(known for known in self._listeners if known != listener)
        found = len(kept) < len(self._listeners)
        self._listeners = kept
        return found

    def tell(self, registry: Registry) -> None:
        """Tell what is queued, unless another thread, or this one further up, is at it."""
        while self.queue and self._telling.acquire(False):
            try:
                while self.queue:
                    self._tell(registry, self.queue.popleft())
            finally:
                self._telling.release()

    def _tell(self, registry: Registry, departure: Any) -> None:
        now = registry._now()
        event = RemovalEvent(
            class_name=departure.class_name,
            cause=RemovalCause(departure.cause),
            age_seconds=max(0.0, now - departure.built_at),
            idle_seconds=max(0.0, now - departure.last_used),
            uses=departure.uses,
            build_seconds=departure.build_seconds,
            held=departure.held,
        )
        for listener in self._listeners:
            _call(registry, listener, event)


def _call(registry: Registry, listener: Callable[[RemovalEvent], Any], event: RemovalEvent) -> None:
    try:
        listener(event)
    except Exception:
        from logging import getLogger

        registry._tally(LISTENER_FAILURES)
        getLogger("warmset.lifecycle").exception("a removal listener failed: %r", listener)
