"""
A clock that only a test advances.
"""

from __future__ import annotations

import math
from threading import RLock

from .._locks import locked

__all__ = ["FakeTimer"]


class FakeTimer:
    """
    A monotonic clock in seconds that advances only when a test calls `advance`.

    Args:
        start_seconds: The initial time. The default is not 0, so that a missing time stamp shows.

    Raises:
        ValueError: The initial time is not a finite number.

    Pass it as ``timer=`` to a registry. Thread-safe; reading does not acquire a lock.
    """

    __slots__ = ("_lock", "_now")

    def __init__(self, start_seconds: float = 1000.0) -> None:
        if not math.isfinite(start_seconds):
            raise ValueError(f"start_seconds must be a finite number, got {start_seconds!r}")
        self._now = float(start_seconds)
        # Re-entrant, because a signal handler or finaliser may call `advance` within `advance`.
        self._lock = RLock()

    def __call__(self) -> float:
        return self._now

    @property
    def now(self) -> float:
        """The current time in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """
        Advance the clock.

        Args:
            seconds: The step, 0 or more; a monotonic clock never goes back.

        Returns:
            The new time.

        Raises:
            ValueError: The step is negative or not a finite number.

        Thread-safe; no advance is lost. Advancing the clock does not evict; expired instances are
        evicted by the next look-up, `evict_expired` or the sweeper.
        """
        if not (math.isfinite(seconds) and seconds >= 0.0):
            raise ValueError(f"seconds must be a finite number, 0 or more, got {seconds!r}")
        return self._advance(seconds)

    @locked
    def _advance(self, seconds: float) -> float:
        self._now += seconds
        return self._now

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._now!r} s>"
