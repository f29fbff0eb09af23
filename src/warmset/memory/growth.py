"""
Estimation of instance sizes by the growth of the process during their builds.

At the start and end of each build the memory of the process is measured. The growth between two
measurements is divided equally among the builds in progress. For nested builds in one thread, only
the innermost build counts, so a build is not charged for the classes that it looks up. The result
is an estimate, because other activity also changes the memory of the process.
"""

from __future__ import annotations

import tracemalloc
from _thread import RLock, get_ident
from typing import TYPE_CHECKING

from .._locks import locked
from .._process_memory import resident_bytes
from ..foreign import PROBE, contain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Growth", "Mark"]


class Mark:
    """A build in progress, and the growth attributed to it so far."""

    __slots__ = ("bytes", "grown", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.grown = 0.0
        self.bytes: int | None = None  # set at the end if the memory could be measured


class Growth:
    """
    Attributes the growth of the process to builds.

    Args:
        probe: Returns the memory of the process in bytes. None means the memory traced by
            tracemalloc if it is tracing, otherwise the resident set size.

    Thread-safe. The probe is called outside the lock.
    """

    def __init__(self, probe: Callable[[], int] | None = None) -> None:
        self._probe = probe
        self._lock = RLock()  # re-entrant, because a finaliser may start a build
        self._stacks: dict[int, list[Mark]] = {}  # thread -> its builds, the innermost last
        self._level = 0
        self._failed: set[str] = set()

    def reset_after_fork(self) -> None:
        """Replace the lock, and drop the builds of threads that do not exist in the child."""
        self._lock = RLock()
        me = get_ident()
        self._stacks = {me: self._stacks[me]} if me in self._stacks else {}

    def begin(self) -> Mark:
        """
        Record the start of a build in the current thread.

        Returns:
            The argument for `end`.
        """
        mark = Mark(get_ident())
        self._begin(mark, self._measured())
        return mark

    @locked
    def _begin(self, mark: Mark, level: int | None) -> None:
        self._apportion(level)
        self._stacks.setdefault(mark.thread, []).append(mark)

    def end(self, mark: Mark) -> None:
        """
        Record the end of a build, and set the bytes of its mark if they could be measured.

        Args:
            mark: The result of `begin`.
        """
        self._end(mark, self._measured())

    @locked
    def _end(self, mark: Mark, level: int | None) -> None:
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
        innermost = [stack[-1] for stack in self._stacks.values() if stack]
        for mark in innermost:
            mark.grown += (level - self._level) / len(innermost)
        self._level = level

    def _measured(self) -> int | None:
        about = "the sizes of instances are unknown"
        measured = contain(PROBE, self._ask, about=about, logged=self._failed)
        return None if measured is None else int(measured)

    def _ask(self) -> int:
        if self._probe is not None:
            return int(self._probe())
        if tracemalloc.is_tracing():
            return tracemalloc.get_traced_memory()[0]
        return resident_bytes()
