"""
A clock that is moved by hand.
"""

from __future__ import annotations

import math
from threading import RLock

__all__ = ["FakeTimer"]


class FakeTimer:
    """
    Gives monotonic seconds that pass only when a test says so.

    Args:
        start_seconds: What it shows at first; not 0, so that a time which nobody stamped is seen.

    Raises:
        ValueError: The start is not a finite number.

    To be given as ``timer=`` to a registry. Safe under threads; reading takes no lock.
    """

    __slots__ = ("_lock", "_now")

    def __init__(self, start_seconds: float = 1000.0) -> None:
        if not math.isfinite(start_seconds):
            raise ValueError(f"start_seconds must be a finite number, got {start_seconds!r}")
        self._now = float(start_seconds)
        # Re-entrant: a signal handler or a finaliser may advance it in the middle of `advance`.
        self._lock = RLock()

    def __call__(self) -> float:
        return self._now

    @property
    def now(self) -> float:
        """The seconds that it shows."""
        return self._now

    def advance(self, seconds: float) -> float:
        """
        Let time pass.

        Args:
            seconds: How much; 0 or more, because the clocks that it stands for never go back.

        Returns:
            The seconds that it shows then.

        Raises:
            ValueError: The seconds are negative, or not a finite number.

        Safe under threads: each advance counts. Nothing expires by it alone; the next look-up,
        `evict_expired` or the sweeper finds what has.
        """
        if not (math.isfinite(seconds) and seconds >= 0.0):
            raise ValueError(f"seconds must be a finite number, 0 or more, got {seconds!r}")
        with self._lock:
            self._now += seconds
            return self._now

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._now!r} s>"
