"""
Telling of removals and builds: each once, outside every lock.

A build is told by the thread that built, after it has ended, so that what is current there, as a
tracing context, is current for the listener. Removals are told in the order in which instances
left: departures are queued in the course of the change itself. One thread at a time tells; who
comes meanwhile, also a listener that removes something, leaves the telling to it.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque

from .. import _logs
from .._tallies import LISTENER_FAILURES
from ..events import BuildEvent, RemovalCause, RemovalEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..builder import Flight
    from ..registry import Registry

__all__ = ["Listeners", "log_clear", "log_removals", "tell_build"]


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
            bytes=None if departure.bytes < 0 else departure.bytes,
        )
        for listener in self._listeners:
            _call(registry, listener, event)


def tell_build(registry: Registry, flight: Flight, seconds: float) -> None:
    """
    Log a build that ended, and tell the registry's build listeners.

    Args:
        registry: Its listeners are called, and what they raise is counted there.
        flight: The build.
        seconds: How long it took.
    """
    slot, error, outer = flight.slot, flight.error, flight.outer
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    event = BuildEvent(
        class_name=slot.name,
        succeeded=error is None,
        started=flight.started or 0.0,
        seconds=seconds,
        stage=None if error is None else error.stage,
        error_type=None if cause is None else type(cause).__qualname__,
        error=None if error is None else str(error),
        bytes=None if error is not None or slot.bytes < 0 else slot.bytes,
        within=None if outer is None else outer.slot.name,
        asked_for=tuple(flight.asked_for),
        own_seconds=max(0.0, seconds - flight.elsewhere),
        opened=flight.opened,
    )
    _log_build(event, slot.path)
    for listener in registry._build_listeners:
        _call(registry, listener, event)


def _log_build(event: BuildEvent, class_path: str | None) -> None:
    fields = {
        "class_name": event.class_name,
        "class_path": class_path,
        "build_seconds": event.seconds,
        "bytes": event.bytes,
    }
    if event.succeeded:
        how = "opened the snapshot of" if event.opened else "built"
        _logs.info("builds", "%s %r in %.3f s", how, event.class_name, event.seconds, fields=fields)
    else:
        fields |= {"stage": event.stage, "error_type": event.error_type}
        _logs.warning(
            "builds",
            "no instance of %r, after %.3f s: %s",
            event.class_name,
            event.seconds,
            event.error,
            fields=fields,
        )


def log_removals(registry: Registry, departed: list[Any]) -> None:
    """Log each instance that left."""
    now = registry._now()
    for departure in departed:
        cause = RemovalCause(departure.cause).name.lower()
        age = max(0.0, now - departure.built_at)
        idle = max(0.0, now - departure.last_used)
        _logs.info(
            "removals",
            "removed %r: %s; %d uses, %.1f s old, idle for %.1f s%s",
            departure.class_name,
            cause,
            departure.uses,
            age,
            idle,
            ", still held" if departure.held else "",
            fields={
                "class_name": departure.class_name,
                "cause": cause,
                "age_seconds": age,
                "idle_seconds": idle,
                "access_count": departure.uses,
                "build_seconds": departure.build_seconds,
                "held": departure.held,
                "bytes": None if departure.bytes < 0 else departure.bytes,
            },
        )


def log_clear(strong: int, weak: int) -> None:
    """Log that the cache was cleared."""
    _logs.info(
        "removals",
        "cleared the cache: %d instances, and %d weakly kept",
        strong,
        weak,
        fields={"cause": "cleared", "entries_cleared": strong, "weakrefs_cleared": weak},
    )


def _call(registry: Registry, listener: Callable[[Any], Any], event: Any) -> None:
    try:
        listener(event)
    except Exception as error:
        registry._tally(LISTENER_FAILURES)
        kind = "build" if isinstance(event, BuildEvent) else "removal"
        _logs.warning(
            "listeners",
            "a %s listener failed: %r",
            kind,
            listener,
            fields={"class_name": event.class_name, "error_type": type(error).__qualname__},
            error=error,
        )
