"""
Totals of finished builds: a histogram of their seconds, and sums per class label.
"""

from __future__ import annotations

from bisect import bisect_left
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
        self.counts = [0] * (len(self.buckets) + 1)
        """Successful builds per bucket, not cumulative; the last bucket has no upper bound."""
        self.seconds = 0.0
        self.by_label: dict[str, BuildSums] = {}

    def _add(self, event: BuildEvent) -> None:
        label = self.labels.of(event.class_name)
        sums = self.by_label.get(label, BuildSums())
        if event.succeeded:
            self.counts[bisect_left(self.buckets, event.seconds)] += 1
            self.seconds += event.seconds
            sums = BuildSums(sums.succeeded + 1, sums.failed, sums.seconds + event.seconds)
        else:
            sums = BuildSums(sums.succeeded, sums.failed + 1, sums.seconds)
        self.by_label[label] = sums

    def read(self) -> tuple[list[tuple[float, int]], float, dict[str, BuildSums]]:
        """
        Read the totals.

        Returns:
            Cumulative pairs of a bucket's upper bound and the builds up to it, the last bound being
            infinite; the seconds of all successful builds; and the sums of each class label.
        """
        self._settle()
        total = 0
        cumulative = []
        for bound, count in zip((*self.buckets, float("inf")), list(self.counts), strict=True):
            total += count
            cumulative.append((bound, total))
        kept = {name: sums for name, sums in self.by_label.copy().items() if name in self.labels}
        for name in self.by_label.keys() - kept.keys():
            self.by_label.pop(name, None)  # its sums restart at zero if it gets its label back
        return cumulative, self.seconds, kept
