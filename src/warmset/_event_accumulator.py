"""A lock-free base class for listeners that accumulate events."""

from __future__ import annotations

from _thread import RLock
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _fork

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EventAccumulator"]

Event = TypeVar("Event")
Found = TypeVar("Found")

_PATIENCE_SECONDS = 1.0


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
                self._drain()
            finally:
                # As in `_locks.call_locked`.
                try:  # noqa: SIM105
                    adding.release()
                except RuntimeError:  # it was not acquired
                    pass

    def _drain(self) -> None:
        """Process the queued events; for the owner of the lock."""
        if self._unfinished:
            self._recover()
            self._unfinished = False
        while self._queue:
            self._unfinished = True
            self._add(self._queue.popleft())
            self._unfinished = False

    def _read(self, look: Callable[[], Found]) -> Found | None:
        """
        Call a function while no event is being added, after those that were queued.

        Args:
            look: Reads what was accumulated.

        Returns:
            Its result; None inside a call of `_add` of this thread, and if other threads do not
            finish within a second. It is the only method that waits, so no event calls it.
        """
        adding = self._adding
        if adding._is_owned():
            return None
        try:
            if not adding.acquire(timeout=_PATIENCE_SECONDS):
                return None
            self._drain()
            found = look()
        finally:
            try:  # noqa: SIM105
                adding.release()
            except RuntimeError:  # it was not acquired
                pass
        self._settle()  # what other threads queued meanwhile
        return found

    @abstractmethod
    def _add(self, event: Event) -> None:
        """Accumulate one event; calls never overlap."""

    def _recover(self) -> None:
        """
        Make what was accumulated usable again after a call of `_add` that did not end.

        It was interrupted, or ran in another thread when the process forked. By default there is
        nothing to do: at worst, one event is missing from a sum.
        """
