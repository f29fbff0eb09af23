"""
Totals of finished builds: a histogram of their seconds, and sums per class label.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from .._event_accumulator import EventAccumulator
from ..events import BuildEvent
from .registries import ClassLabels

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BUCKETS", "BuildSums", "BuildTally"]

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds; wide enough for everything from a parser to a large model."""


class BuildSums(NamedTuple):
    """The totals of the builds under one class label."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    """The total of the successful builds."""


class _Totals(NamedTuple):
    """What was counted up to one event; it is replaced, never changed."""

    counts: tuple[int, ...]  # of successful builds by bucket, the last one without an upper bound
    seconds: float
    by_label: dict[str, BuildSums]


class BuildTally(EventAccumulator[BuildEvent]):
    """
    A build listener that keeps totals.

    Args:
        max_classes: The most classes with a label of their own.
        buckets: Upper bounds of the histogram in seconds, in increasing order.

    Safe under threads, in finalisers and after a fork; it never blocks.
    """

    def __init__(self, max_classes: int, buckets: Sequence[float] = BUCKETS) -> None:
        super().__init__()
        self.labels = ClassLabels(max_classes)
        self.buckets = tuple(buckets)
        self._totals = _Totals((0,) * (len(self.buckets) + 1), 0.0, {})

    def _add(self, event: BuildEvent) -> None:
        counts, seconds, by_label = self._totals
        # The sums of a class that lost its label restart at zero if it gets one back.
        sums = {label: found for label, found in by_label.items() if label in self.labels}
        label = self.labels.of(event.class_name)
        own = sums.get(label, BuildSums())
        if event.succeeded:
            bucket = bisect_left(self.buckets, event.seconds)
            counts = (*counts[:bucket], counts[bucket] + 1, *counts[bucket + 1 :])
            seconds += event.seconds
            sums[label] = BuildSums(own.succeeded + 1, own.failed, own.seconds + event.seconds)
        else:
            sums[label] = BuildSums(own.succeeded, own.failed + 1, own.seconds)
        # In one store: a reader sees an event in all totals or in none.
        self._totals = _Totals(counts, seconds, sums)

    def read(self) -> tuple[list[tuple[float, int]], float, dict[str, BuildSums]]:
        """
        Read the totals.

        Returns:
            Cumulative pairs of a bucket's upper bound and the builds up to it, the last bound being
            infinite; the seconds of all successful builds; and the sums of each class label. All
            are of the same builds.
        """
        self._settle()
        counts, seconds, by_label = self._totals
        bounds = (*self.buckets, float("inf"))
        cumulative = list(zip(bounds, accumulate(counts), strict=True))
        kept = {label: sums for label, sums in by_label.items() if label in self.labels}
        return cumulative, seconds, kept
