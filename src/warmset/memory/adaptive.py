"""
The adaptive TTL: how long a class may stay idle follows from how it is used and what it costs.

The rule: a class stays for three times its usual gap between uses, or for sixty times what its
build takes, whichever is longer, within the stated bounds; one of which nothing is known stays as
long as the bounds allow. The usual gap is the mean and two mean deviations above it, both faded, so
that the last ten gaps or so count.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AdaptiveTtl", "Limit"]

_PATIENCE = 3.0  # usual gaps
_PER_BUILD_SECOND = 60.0
_WEIGHT = 0.1  # of a new gap
_MOST_OF_A_RESIDENCE = 0.6  # weight of all gaps of one residence together


class Limit(NamedTuple):
    """How long a class may stay idle, and why."""

    seconds: float
    reason: str


class _Gaps:
    __slots__ = ("build_seconds", "count", "deviation", "mean")

    def __init__(self) -> None:
        self.mean = self.deviation = self.build_seconds = 0.0
        self.count = 0

    def add(self, gap: float, weight: float) -> None:
        if not self.count:
            self.mean = gap
        else:
            self.deviation += weight * (abs(gap - self.mean) - self.deviation)
            self.mean += weight * (gap - self.mean)
        self.count += 1


class AdaptiveTtl:
    """
    Tells the idle limit of each class.

    Args:
        min_seconds: The least limit.
        max_seconds: The most.
    """

    def __init__(self, min_seconds: float, max_seconds: float) -> None:
        self._min, self._max = min_seconds, max_seconds
        self._gaps: dict[str, _Gaps] = {}

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
        known = self._gaps.setdefault(name, _Gaps())
        known.build_seconds = build_seconds
        gaps = uses - 1
        if gaps > 0:
            weight = min(_MOST_OF_A_RESIDENCE, 1.0 - (1.0 - _WEIGHT) ** gaps)
            known.add(max(0.0, last_used - built_at) / gaps, weight)

    def observe_return(self, name: str, gap_seconds: float) -> None:
        """
        Learn from a class that is built again.

        Args:
            name: The class name.
            gap_seconds: From the last use before to this build.
        """
        self._gaps.setdefault(name, _Gaps()).add(max(0.0, gap_seconds), _WEIGHT)

    def limit(self, name: str) -> Limit:
        """
        Tell how long a class may stay idle.

        Args:
            name: The class name.

        Returns:
            The limit, and from what it came.
        """
        known = self._gaps.get(name)
        if known is None or not known.count:
            return Limit(self._max, "nothing is known of its use yet, so it has the most")
        usual = known.mean + 2.0 * known.deviation
        by_use, by_cost = _PATIENCE * usual, _PER_BUILD_SECOND * known.build_seconds
        seconds = min(max(by_use, by_cost, self._min), self._max)
        return Limit(
            seconds,
            f"{_PATIENCE:g} x its usual gap of {usual:.3g} s is {by_use:.3g} s, "
            f"{_PER_BUILD_SECOND:g} x its build of {known.build_seconds:.3g} s is {by_cost:.3g} s, "
            f"the longer one within {self._min:g} s and {self._max:g} s",
        )
