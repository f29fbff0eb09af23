"""
The adaptive TTL: the idle limit of a class is derived from its usage and its build time.

The idle limit is three times the usual gap between uses, or sixty times the build time, whichever
is longer, within the configured bounds.

- The usual gap is the mean gap plus two mean deviations, as exponential moving averages over about
  the last ten gaps. Gaps within a residence in the cache count, and so do gaps between two
  residences, up to the upper bound; a longer gap cannot be covered by any limit.
- After two consecutive residences without a second use, and without a shorter gap between them, the
  usage is assumed to have changed: only the build time counts until the class is used twice again.
- Without any information, the limit is the upper bound.

Gaps are computed at the end of a residence from the number of uses and the times of the first and
last use, so hits cost nothing extra.
"""

from __future__ import annotations

from _thread import RLock
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from .. import _fork
from .._locks import locked

if TYPE_CHECKING:
    from ..family_keys import SlotKey

__all__ = ["AdaptiveTtl", "IdleLimit"]

_GAPS_PER_LIMIT = 3.0
_LIMIT_PER_BUILD_SECOND = 60.0
_GAP_WEIGHT = 0.1  # of a new gap
_MAX_RESIDENCE_WEIGHT = 0.6  # of all gaps of one residence together
_SINGLE_USE_RESIDENCES = 2  # in a row, after which earlier gaps no longer count
_MOST_CLASSES = 10_000


class IdleLimit(NamedTuple):
    """The idle limit of a class, and the values from which it was derived."""

    seconds: float
    usual_gap_seconds: float | None
    """None if no gap counts."""
    gaps: int
    """The number of observed gaps, including those that no longer count."""
    build_seconds: float
    reason: str


class _Known:
    __slots__ = ("build_seconds", "deviation", "gaps", "mean", "single_use")

    def __init__(self) -> None:
        self.mean = self.deviation = self.build_seconds = 0.0
        self.gaps = 0
        self.single_use = 0  # residences without a second use since the last gap

    def add(self, gap: float, count: int, weight: float) -> None:
        if not self.gaps:
            self.mean = gap
        else:
            self.deviation += weight * (abs(gap - self.mean) - self.deviation)
            self.mean += weight * (gap - self.mean)
        self.gaps += count
        self.single_use = 0


class AdaptiveTtl:
    """
    Computes the idle limit of each class.

    Args:
        min_seconds: The lower bound of limits.
        max_seconds: The upper bound of limits.

    Thread-safe; each call is O(1). Remembers the ten thousand most recently observed classes.
    """

    def __init__(self, min_seconds: float, max_seconds: float) -> None:
        self._min, self._max = min_seconds, max_seconds
        self._known: OrderedDict[SlotKey, _Known] = OrderedDict()
        self._lock = RLock()  # re-entrant, because a finaliser may call in
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        self._lock = RLock()

    @locked
    def observe_residence(
        self, key: SlotKey, uses: int, built_at: float, last_used: float, build_seconds: float
    ) -> None:
        """
        Record the residence of a removed instance.

        Args:
            key: The class name, or the key of a family.
            uses: The number of uses, including the build.
            built_at: The time of the build.
            last_used: The time of the last use.
            build_seconds: The duration of the build.
        """
        gaps = uses - 1
        known = self._of(key)
        known.build_seconds = build_seconds
        if gaps <= 0:
            known.single_use += 1
            return
        # A gap can exceed the bound only if the instance was held or had no limit.
        gap = min(max(0.0, last_used - built_at) / gaps, self._max)
        known.add(gap, gaps, min(_MAX_RESIDENCE_WEIGHT, 1.0 - (1.0 - _GAP_WEIGHT) ** gaps))

    @locked
    def observe_return(self, key: SlotKey, gap_seconds: float) -> None:
        """
        Record that a removed class was built again.

        Args:
            key: The class name, or the key of a family.
            gap_seconds: The time between the last use and this build.
        """
        if gap_seconds <= self._max:
            self._of(key).add(max(0.0, gap_seconds), 1, _GAP_WEIGHT)

    @locked
    def limit(self, key: SlotKey) -> IdleLimit:
        """
        Compute the idle limit of a class.

        Args:
            key: The class name, or the key of a family.

        Returns:
            The limit and the values from which it was derived.
        """
        known = self._known.get(key)
        if known is None or not (known.gaps or known.single_use >= _SINGLE_USE_RESIDENCES):
            cost = 0.0 if known is None else known.build_seconds
            reason = f"its usage is not known yet, so the upper bound of {self._max:g} s applies"
            return IdleLimit(self._max, None, 0, cost, reason)
        gaps, single_use, cost = known.gaps, known.single_use, known.build_seconds
        usual = known.mean + 2.0 * known.deviation
        by_cost = _LIMIT_PER_BUILD_SECOND * cost
        cost_text = f"{_LIMIT_PER_BUILD_SECOND:g} x its build of {cost:.3g} s is {by_cost:.3g} s"
        bounds = f"between {self._min:g} s and {self._max:g} s"
        if single_use >= _SINGLE_USE_RESIDENCES:
            seconds = min(max(by_cost, self._min), self._max)
            reason = f"no second use in its last {single_use} residences; {cost_text}, {bounds}"
            return IdleLimit(seconds, None, gaps, cost, reason)
        by_use = _GAPS_PER_LIMIT * usual
        seconds = min(max(by_use, by_cost, self._min), self._max)
        use_text = f"{_GAPS_PER_LIMIT:g} x its usual gap of {usual:.3g} s is {by_use:.3g} s"
        reason = f"{use_text}; {cost_text}; the longer applies, {bounds}"
        return IdleLimit(seconds, usual, gaps, cost, reason)

    def _of(self, key: SlotKey) -> _Known:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            while len(self._known) > _MOST_CLASSES:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known
