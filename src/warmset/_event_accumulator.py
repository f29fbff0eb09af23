"""A lock-free base class for listeners that accumulate events."""

from __future__ import annotations

from _thread import RLock
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

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
        # Its owner is known to the interpreter, so an interrupt right after it was acquired cannot
        # hide that it must be released.
        self._adding: Any = RLock()
        self._unfinished = False  # whether an event is being added, or was not added to its end
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        self._adding = RLock()

    def __call__(self, event: Event) -> None:
        """Queue an event and process the queue."""
        self._queue.append(event)
        self._settle()

    def _settle(self) -> None:
        """Process the queued events, unless a thread is already doing so."""
        # A thread that fails to acquire the lock has queued its event before that, so the queue is
        # checked again after each release.
        adding = self._adding
        while (self._queue or self._unfinished) and not adding._is_owned():  # by an outer call
            try:
                if not adding.acquire(False):
                    return
                if self._unfinished:
                    self._recover()
                    self._unfinished = False
                self._add_queued()
            finally:
                # As in `_locks.call_locked`.
                try:  # noqa: SIM105
                    adding.release()
                except RuntimeError:  # it was not acquired
                    pass

    def _add_queued(self) -> None:
        while self._queue:
            self._unfinished = True
            self._add(self._queue.popleft())
            self._unfinished = False

    @abstractmethod
    def _add(self, event: Event) -> None:
        """Accumulate one event; calls never overlap."""

    def _recover(self) -> None:
        """
        Make what was accumulated usable again after a call of `_add` that did not end.

        It was interrupted, or ran in another thread when the process forked. By default there is
        nothing to do: at worst, one event is missing from a sum.
        """
