"""
What builds add to the process: its growth while they are under way, apportioned among them.

The growth between two marks, a mark being the beginning or the end of a build, is shared equally
among the builds under way between them. Of builds in one thread, that is of a build that asked for
another, only the innermost has a share: what another class's build took is not its own. What is
told is an estimate: the process may grow and shrink by other things meanwhile.
"""

from __future__ import annotations

import tracemalloc
from _thread import RLock, get_ident
from typing import TYPE_CHECKING

from .. import _logs
from .._process_memory import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Growth", "Mark"]


class Mark:
    """A build under way, and what was added in its course so far."""

    __slots__ = ("bytes", "grown", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.grown = 0.0
        self.bytes: int | None = None  # at the end, if it could be measured


class Growth:
    """
    Measures builds by the memory of the process.

    Args:
        probe: Gives the bytes that the process has; None: what tracemalloc has traced, where it is
            tracing, else the resident set.

    Safe under threads. The probe is called outside the lock.
    """

    def __init__(self, probe: Callable[[], int] | None = None) -> None:
        self._probe = probe
        self._lock = RLock()  # re-entrant: a finaliser may come in and build
        self._stacks: dict[int, list[Mark]] = {}  # thread -> its builds, the innermost last
        self._level = 0
        self._failed = False

    def reset_after_fork(self) -> None:
        """Have a lock that no thread of the parent holds; its builds are not under way here."""
        self._lock = RLock()
        me = get_ident()
        self._stacks = {me: self._stacks[me]} if me in self._stacks else {}

    def begin(self) -> Mark:
        """
        A build begins, in this thread.

        Returns:
            What `end` takes.
        """
        level = self._measured()
        mark = Mark(get_ident())
        with self._lock:
            self._apportion(level)
            self._stacks.setdefault(mark.thread, []).append(mark)
        return mark

    def end(self, mark: Mark) -> None:
        """
        A build ends: from now on its mark tells the bytes, unless they cannot be measured.

        Args:
            mark: What `begin` gave.
        """
        level = self._measured()
        with self._lock:
            self._apportion(level)
            stack = self._stacks.get(mark.thread, [])
            if mark in stack:
                stack.remove(mark)
            if not stack:
                self._stacks.pop(mark.thread, None)
            if level is not None:
                mark.bytes = max(0, round(mark.grown))

    def _apportion(self, level: int | None) -> None:
        if level is None:
            return
        sharers = [stack[-1] for stack in self._stacks.values() if stack]
        for mark in sharers:
            mark.grown += (level - self._level) / len(sharers)
        self._level = level

    def _measured(self) -> int | None:
        try:
            if self._probe is not None:
                return int(self._probe())
            if tracemalloc.is_tracing():
                return tracemalloc.get_traced_memory()[0]
            return resident_bytes()
        except Exception as error:
            if not self._failed:
                self._failed = True
                _logs.warning(
                    "memory",
                    "the memory of the process cannot be measured: %s",
                    error,
                    fields={"error_type": type(error).__qualname__},
                    error=error,
                )
            return None
