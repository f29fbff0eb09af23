"""
The latest builds, each with what would have avoided it: packed records of a bounded number.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FIRST", "LEVELS", "MOST_MISSES", "Miss", "MissLog", "level_bounds"]

FIRST = -1
"""The cause of a build whose class was not evicted before, as far as is remembered."""
LEVELS = (1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
"""The multiples of a bound that are followed."""
MOST_MISSES = 4096
_TRIES = 5  # to copy them while none is added; else the order of the last ones may be wrong

_PACKED = Struct("=dbdqqdHq")  # a `Miss` without its class name


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
    idle_seconds: float
    """The smallest idle TTL that would have avoided it; 0.0: none."""
    byte_levels: int = 0
    """The multiples of `max_bytes` in `LEVELS` that would have avoided it, as bits."""
    max_bytes: int = 0
    """The `max_cache_bytes` that applied."""

    def avoided_by_bytes(self, bound: int, level: int) -> bool:
        """
        Whether a larger `max_cache_bytes` than the present one would have avoided it.

        Args:
            bound: The present one.
            level: The index of the multiple in `LEVELS`.
        """
        # Not each budget above the smallest one: it may also keep instances that exceed that one.
        if self.max_bytes == bound:
            return bool(self.byte_levels >> level & 1)
        return bound < self.bytes <= level_bounds(bound)[level]


def level_bounds(bound: int) -> list[int]:
    """
    Return the multiples of a bound that are followed.

    Args:
        bound: Instances or bytes.

    Returns:
        One larger bound for each of `LEVELS`.
    """
    return [max(bound + 1, int(bound * level)) for level in LEVELS]


class MissLog:
    """
    The latest `MOST_MISSES` builds; one thread adds to it at a time, any number read it.

    A record takes some 140 bytes and a reference to the class name.
    """

    def __init__(self) -> None:
        # Each record is one element, so that a reader never finds a part of one. When the list is
        # full, the oldest one is overwritten: a list, unlike a deque, is copied in one step, also
        # without an interpreter lock.
        self._records: list[tuple[str, bytes]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, miss: Miss) -> None:
        """Add a build; the oldest one is dropped when the log is full."""
        at, class_name, *others = miss
        record = class_name, _PACKED.pack(at, *others)
        if len(self._records) < MOST_MISSES:
            self._records.append(record)
        else:
            self._records[self._added % MOST_MISSES] = record
        self._added += 1

    def since(self, start: float) -> Iterator[Miss]:
        """
        Iterate over the builds from a time on, the latest first.

        Args:
            start: The time.
        """
        for class_name, packed in reversed(self._copied()):
            at, *others = _PACKED.unpack(packed)
            if at < start:
                return
            yield Miss(at, class_name, *others)

    @property
    def forgotten_before(self) -> float | None:
        """The time of the oldest record if earlier ones were dropped; None if none were."""
        records = self._copied()
        return _PACKED.unpack(records[0][1])[0] if len(records) == MOST_MISSES else None

    def _copied(self) -> list[tuple[str, bytes]]:
        """Return the records, the oldest first."""
        added, records = self._added, self._records.copy()
        for _ in range(_TRIES):
            if self._added == added:
                break
            added, records = self._added, self._records.copy()
        first = added % MOST_MISSES if len(records) == MOST_MISSES else 0
        return records[first:] + records[:first]
