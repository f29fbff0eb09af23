"""
The adaptive TTL: how long a class may stay idle follows from how it is used and what it costs.

The rule: a class stays for three times its usual gap between uses, or for sixty times what its
build takes, whichever is longer, within the stated bounds.

- The usual gap is the mean and two mean deviations above it, both faded, so that the last ten gaps
  or so count. Those within a stay in the cache count, and those between two stays, up to the upper
  bound: no limit could bridge a longer one.
- When two stays in a row ended without a second use, and no shorter gap showed, what it is used for
  has changed: its build alone counts until it is used twice again.
- One of which nothing is known stays as long as the bounds allow.

Gaps are known only when a stay is over, from its uses and the times of the first and the last of
them: a hit pays nothing for it.
"""

from __future__ import annotations

from _thread import RLock
from collections import OrderedDict
from typing import NamedTuple

from .. import _fork

__all__ = ["AdaptiveTtl", "Limit"]

_PATIENCE = 3.0  # usual gaps
_PER_BUILD_SECOND = 60.0
_WEIGHT = 0.1  # of a new gap
_MOST_OF_A_STAY = 0.6  # weight of all gaps of one stay together
_LONE_STAYS = 2  # without a second use, after which gaps of before do not count
_MOST_CLASSES = 10_000


class Limit(NamedTuple):
    """How long a class may stay idle, and the numbers from which that came."""

    seconds: float
    usual_gap_seconds: float | None
    """None where no gap counts."""
    gaps: int
    """How many are known, those of before included."""
    build_seconds: float
    reason: str


class _Known:
    __slots__ = ("build_seconds", "deviation", "gaps", "lone", "mean")

    def __init__(self) -> None:
        self.mean = self.deviation = self.build_seconds = 0.0
        self.gaps = self.lone = 0

    def add(self, gap: float, count: int, weight: float) -> None:
        if not self.gaps:
            self.mean = gap
        else:
            self.deviation += weight * (abs(gap - self.mean) - self.deviation)
            self.mean += weight * (gap - self.mean)
        self.gaps += count
        self.lone = 0


class AdaptiveTtl:
    """
    Tells the idle limit of each class.

    Args:
        min_seconds: The least limit.
        max_seconds: The most.

    Safe under threads; each call is O(1). Of the classes that were looked at longest ago, those
    beyond ten thousand are forgotten.
    """

    def __init__(self, min_seconds: float, max_seconds: float) -> None:
        self._min, self._max = min_seconds, max_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = RLock()  # re-entrant: a finaliser may come in
        _fork.watch(self)

    def _reset_after_fork(self) -> None:
        self._lock = RLock()

    def observe_residence(
        self, name: str, uses: int, built_at: float, last_used: float, build_seconds: float
    ) -> None:
        """
        Learn from an instance that left.

        Args:
            name: The class name.
            uses: How often it was used, its build counted.
            built_at: When it was built.
            last_used: When it was used last.
            build_seconds: What its build took.
        """
        gaps = uses - 1
        with self._lock:
            known = self._of(name)
            known.build_seconds = build_seconds
            if gaps <= 0:
                known.lone += 1
                return
            # A longer one is there only where it was held, or had no limit.
            gap = min(max(0.0, last_used - built_at) / gaps, self._max)
            known.add(gap, gaps, min(_MOST_OF_A_STAY, 1.0 - (1.0 - _WEIGHT) ** gaps))

    def observe_return(self, name: str, gap_seconds: float) -> None:
        """
        Learn from a class that is built again.

        Args:
            name: The class name.
            gap_seconds: From the last use before to this build.
        """
        if gap_seconds > self._max:
            return
        with self._lock:
            self._of(name).add(max(0.0, gap_seconds), 1, _WEIGHT)

    def limit(self, name: str) -> Limit:
        """
        Tell how long a class may stay idle.

        Args:
            name: The class name.

        Returns:
            The limit, and from what it came.
        """
        with self._lock:
            known = self._known.get(name)
            if known is None or not (known.gaps or known.lone >= _LONE_STAYS):
                cost = 0.0 if known is None else known.build_seconds
                reason = f"nothing is known of its use yet, so it has the most, {self._max:g} s"
                return Limit(self._max, None, 0, cost, reason)
            gaps, lone, cost = known.gaps, known.lone, known.build_seconds
            usual = known.mean + 2.0 * known.deviation
        by_cost = _PER_BUILD_SECOND * cost
        told = f"{_PER_BUILD_SECOND:g} x its build of {cost:.3g} s is {by_cost:.3g} s"
        within = f"within {self._min:g} s and {self._max:g} s"
        if lone >= _LONE_STAYS:
            seconds = min(max(by_cost, self._min), self._max)
            reason = f"its last {lone} stays saw no second use; {told}, {within}"
            return Limit(seconds, None, gaps, cost, reason)
        by_use = _PATIENCE * usual
        seconds = min(max(by_use, by_cost, self._min), self._max)
        used = f"{_PATIENCE:g} x its usual gap of {usual:.3g} s is {by_use:.3g} s"
        return Limit(seconds, usual, gaps, cost, f"{used}, {told}, the longer one {within}")

    def _of(self, name: str) -> _Known:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _Known()
            while len(self._known) > _MOST_CLASSES:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(name)
        return known
