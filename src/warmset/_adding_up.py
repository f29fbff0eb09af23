"""Adding up what happens, by whichever thread it happens in, and waiting for none."""

from __future__ import annotations

from _thread import allocate_lock
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from . import _fork

__all__ = ["AddingUp"]

Event = TypeVar("Event")


class AddingUp(ABC, Generic[Event]):
    """
    A listener whose events are queued, and added up by one thread at a time.

    Safe under threads, in finalisers and after a fork, and it never waits: who finds another thread
    adding up, or itself further up its stack, leaves its event to that.
    """

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._adding = allocate_lock()
        _fork.watch(self)

    def _reset_after_fork(self) -> None:
        self._adding = allocate_lock()

    def __call__(self, event: Event) -> None:
        """Note an event."""
        self._queue.append(event)
        self._settle()

    def _settle(self) -> None:
        """Add up what is queued, unless that is being done."""
        # Who was turned away meanwhile has queued its event before: it is looked for once more.
        while self._queue and self._adding.acquire(False):
            try:
                while self._queue:
                    self._add(self._queue.popleft())
            finally:
                self._adding.release()

    @abstractmethod
    def _add(self, event: Event) -> None:
        """Add one up; no other one is being added."""
