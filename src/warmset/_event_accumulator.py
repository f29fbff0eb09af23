"""A lock-free base class for listeners that accumulate events."""

from __future__ import annotations

from _thread import allocate_lock
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from . import _fork

__all__ = ["EventAccumulator"]

Event = TypeVar("Event")


class EventAccumulator(ABC, Generic[Event]):
    """
    A listener that queues events and processes them in one thread at a time.

    Thread-safe, safe in finalisers and after a fork, and never blocks: if another thread, or an
    outer call in the same thread, is already processing events, it also processes the new event.
    """

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._adding = allocate_lock()
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        self._adding = allocate_lock()

    def __call__(self, event: Event) -> None:
        """Queue an event and process the queue."""
        self._queue.append(event)
        self._settle()

    def _settle(self) -> None:
        """Process the queued events, unless a thread is already doing so."""
        # A thread that fails to acquire the lock has queued its event before that, so the queue is
        # checked again after each release.
        while self._queue and self._adding.acquire(False):
            try:
                while self._queue:
                    self._add(self._queue.popleft())
            finally:
                self._adding.release()

    @abstractmethod
    def _add(self, event: Event) -> None:
        """Accumulate one event; calls never overlap."""
