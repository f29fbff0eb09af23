"""
The latest builds, each with what would have avoided it: records in arrays, of a bounded number.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FIRST", "LEVELS", "MOST_MISSES", "Miss", "MissLog"]

FIRST = -1
"""The cause of a build whose class was not evicted before, as far as is remembered."""
LEVELS = (1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
"""The multiples of a bound that are followed."""
MOST_MISSES = 4096


class Miss(NamedTuple):
    """
    A build, and the bounds that would have avoided it.
    """

    at: float
    class_name: str
    cause: int
    """Why the instance had been evicted, see `warmset.codes`; `FIRST`."""
    seconds: float
    """The duration, without the builds of other classes."""
    places: int
    """The smallest `max_cache_size` that would have avoided it, all else unchanged; 0: none."""
    bytes: int
    """The smallest `max_cache_bytes` that would have avoided it; 0: none."""
    ttl_ratio: float
    """The smallest idle TTL that would have avoided it, by the one in effect; 0.0: none."""
    size_levels: int
    """The multiples of `max_cache_size` in `LEVELS` that would have avoided it, as bits."""
    byte_levels: int
    """The multiples of `max_cache_bytes` in `LEVELS` that would have avoided it, as bits."""


class MissLog:
    """
    The latest `MOST_MISSES` builds.

    A record takes 48 bytes and a reference to the class name. Not thread-safe.
    """

    def __init__(self) -> None:
        self._start = 0  # the position of the oldest record, once the log is full
        self._times, self._seconds = array("d"), array("d")
        self._causes, self._places, self._bytes = array("b"), array("i"), array("q")
        self._ratios, self._size_levels, self._byte_levels = array("f"), array("H"), array("H")
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, miss: Miss) -> None:
        """Add a build; the oldest one is overwritten when the log is full."""
        columns = (self._times, self._names, self._causes, self._seconds, self._places,
                   self._bytes, self._ratios, self._size_levels, self._byte_levels)  # fmt: skip
        if len(self._names) < MOST_MISSES:
            for column, value in zip(columns, miss, strict=True):
                column.append(value)  # type: ignore[attr-defined]
            return
        for column, value in zip(columns, miss, strict=True):
            column[self._start] = value  # type: ignore[index]
        self._start = (self._start + 1) % MOST_MISSES

    def since(self, start: float) -> Iterator[Miss]:
        """
        Iterate over the builds from a time on, the latest first.

        Args:
            start: The time.
        """
        count = len(self._names)
        for age in range(count):
            position = (self._start - 1 - age) % count
            if self._times[position] < start:
                return
            yield Miss(
                self._times[position],
                self._names[position],
                self._causes[position],
                self._seconds[position],
                self._places[position],
                self._bytes[position],
                self._ratios[position],
                self._size_levels[position],
                self._byte_levels[position],
            )

    @property
    def forgotten_before(self) -> float | None:
        """The time of the oldest record if earlier ones were overwritten; None if none were."""
        return self._times[self._start] if len(self._names) == MOST_MISSES else None
