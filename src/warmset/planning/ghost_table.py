"""
A table of evicted instances, their *ghosts*: fixed-size records in arrays, found by hashed name.

A record takes 49 bytes, whatever the length of the name, and refers to no object. When the table is
full, the oldest record is overwritten.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from .fenwick import PrefixSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Ghost", "GhostTable"]

_FIRST_CAPACITY = 64
_NONE = -1
_FREE = -1  # the cause of an unused record
_LEVELS = 16
_MOST_LARGE = 64  # records whose bytes are listed one by one


class Ghost(NamedTuple):
    """
    An evicted instance.
    """

    name_hash: int
    bytes: int
    """-1 if unknown."""
    last_used: float
    cause: int
    """The cause of the eviction, see `warmset.codes`."""
    value: float = 0.0
    """What the policy expects it to save per second of the expected time to its next use."""
    mean_gap: float = 0.0
    """The mean gap between its uses; below 0 if only its idle time is known."""
    levels: int = 0
    """The multiples of the bounds within which it would still be cached, as bits."""


class GhostTable:
    """
    The most recently evicted instances, in the order of their eviction.

    Args:
        most: The most records; the memory of the table grows up to that.

    `level_counts` and `level_bytes` have the number and the bytes of the records with each bit of
    `Ghost.levels`. Adding and removing take O(log n). Not thread-safe.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._large: dict[int, int] = {}  # position -> bytes of those not in the sum of bytes
        self._allocate(min(most, _FIRST_CAPACITY))

    def _allocate(self, capacity: int) -> None:
        self._capacity = capacity
        self._cursor = 0  # the next position, which has the oldest record if all are used
        self._used = 0
        self._hashes = array("q", bytes(8 * capacity))
        self._bytes = array("q", bytes(8 * capacity))
        self._last_used = array("d", bytes(8 * capacity))
        self._causes = array("b", [_FREE]) * capacity
        self._values = array("f", bytes(4 * capacity))
        self._gaps = array("f", bytes(4 * capacity))
        self._levels = array("H", bytes(2 * capacity))
        # Chains of records whose hashes have the same remainder.
        self._heads = array("h", [_NONE]) * capacity
        self._nexts = array("h", [_NONE]) * capacity
        self.level_counts = [0] * _LEVELS
        self.level_bytes = [0] * _LEVELS
        self._counts = PrefixSums(capacity, "h")
        self._sums = PrefixSums(capacity)

    def __len__(self) -> int:
        return self._used

    @property
    def most(self) -> int:
        """The most records."""
        return self._most

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        columns = (self._hashes, self._bytes, self._last_used, self._causes, self._values,
                   self._gaps, self._levels, self._heads, self._nexts)  # fmt: skip
        arrays = sum(len(column) * column.itemsize for column in columns)
        return arrays + self._counts.nbytes + self._sums.nbytes

    def clear(self) -> None:
        """Remove all records, and shrink the table."""
        self._large = {}
        self._allocate(min(self._most, _FIRST_CAPACITY))

    def add(self, ghost: Ghost, *, large: bool = False) -> None:
        """
        Add a record as the newest one.

        Args:
            ghost: The record. Another one with the same hash is removed.
            large: Whether the instance exceeds the byte budget alone: its bytes are not in the sum
                of those evicted after another one, and are listed by `newer_large`.
        """
        self.pop(ghost.name_hash)
        if self._causes[self._cursor] != _FREE:
            self._make_place()
        position = self._cursor
        self._remove(position)
        self._cursor = (position + 1) % self._capacity
        self._used += 1
        self._hashes[position] = ghost.name_hash
        self._bytes[position] = ghost.bytes
        self._last_used[position] = ghost.last_used
        self._causes[position] = ghost.cause
        self._values[position] = ghost.value
        self._gaps[position] = ghost.mean_gap
        self._levels[position] = ghost.levels
        self._count_levels(ghost.levels, 1, max(0, ghost.bytes))
        bucket = ghost.name_hash % self._capacity
        self._nexts[position] = self._heads[bucket]
        self._heads[bucket] = position
        self._counts.add(position, 1)
        if large and len(self._large) < _MOST_LARGE:
            self._large[position] = ghost.bytes
        else:
            self._sums.add(position, max(0, ghost.bytes))

    def find(self, name_hash: int) -> int:
        """
        Find a record.

        Args:
            name_hash: The hash of the name.

        Returns:
            Its position; -1 if there is none.
        """
        position = self._heads[name_hash % self._capacity]
        while position != _NONE and self._hashes[position] != name_hash:
            position = self._nexts[position]
        return position

    def at(self, position: int) -> Ghost:
        """Return the record at a position."""
        return Ghost(
            self._hashes[position],
            self._bytes[position],
            self._last_used[position],
            self._causes[position],
            self._values[position],
            self._gaps[position],
            self._levels[position],
        )

    def pop(self, name_hash: int) -> Ghost | None:
        """Remove the record with a hash, and return it."""
        position = self.find(name_hash)
        if position == _NONE:
            return None
        ghost = self.at(position)
        self._remove(position)
        return ghost

    def newer(self, position: int) -> tuple[int, int]:
        """
        Return how many records are newer than the one at a position, and their bytes.

        Args:
            position: The position of a record.
        """
        return self._after(self._counts, position), self._after(self._sums, position)

    def newer_large(self, position: int) -> list[int]:
        """Return the bytes of the records added as large that were used later."""
        used = self._last_used
        return [size for other, size in self._large.items() if used[other] > used[position]]

    def is_large(self, position: int) -> bool:
        """Whether the record at a position was added as large."""
        return position in self._large

    @property
    def has_large(self) -> bool:
        """Whether a record was added as large."""
        return bool(self._large)

    def used_since(self, last_used: float) -> list[int]:
        """Return the bytes of the records that were used later; O(records)."""
        return [self.size(each) for each in self.positions() if self._last_used[each] > last_used]

    def newest_sizes(self) -> list[int]:
        """Return the bytes of all records, the newest first; 0 if unknown."""
        return [self.size(position) for position in self.positions()]

    def positions(self) -> Iterator[int]:
        """Iterate over the positions of all records, the newest first."""
        for age in range(self._capacity):
            position = (self._cursor - 1 - age) % self._capacity
            if self._causes[position] != _FREE:
                yield position

    # -- levels ----------------------------------------------------------------------------------

    def has_level(self, position: int, bit: int) -> bool:
        """Whether the record at a position is in use and has a bit."""
        return bool(self._levels[position] & bit) and self._causes[position] != _FREE

    def drop_level(self, position: int, bit: int) -> None:
        """Take a bit from a record; one without any is removed."""
        self._count_levels(bit, -1, -self.size(position))
        left = self._levels[position] & ~bit
        self._levels[position] = left
        if not left:
            self._remove(position)

    def worth(self, position: int, now: float, rate: Callable[[float, float], float]) -> float:
        """Return the value of a record, times the uses per second to be expected of it."""
        idle = max(0.0, now - self._last_used[position])
        return self._values[position] * rate(self._gaps[position], idle)

    def size(self, position: int) -> int:
        """Return the bytes of a record, 0 if unknown."""
        return max(0, self._bytes[position])

    @property
    def capacity(self) -> int:
        """The number of positions at present."""
        return self._capacity

    # -- inside ----------------------------------------------------------------------------------

    def _after(self, sums: PrefixSums, position: int) -> int:
        if position < self._cursor:
            return sums.before(self._cursor) - sums.before(position + 1)
        return sums.before(self._capacity) - sums.before(position + 1) + sums.before(self._cursor)

    def _remove(self, position: int) -> None:
        if self._causes[position] == _FREE:
            return
        self._causes[position] = _FREE
        self._count_levels(self._levels[position], -1, -self.size(position))
        self._levels[position] = 0
        self._used -= 1
        self._counts.add(position, -1)
        if self._large.pop(position, None) is None:
            self._sums.add(position, -max(0, self._bytes[position]))
        bucket = self._hashes[position] % self._capacity
        if self._heads[bucket] == position:
            self._heads[bucket] = self._nexts[position]
            return
        before = self._heads[bucket]
        while self._nexts[before] != position:
            before = self._nexts[before]
        self._nexts[before] = self._nexts[position]

    def _count_levels(self, levels: int, count: int, size: int) -> None:
        level = 0
        while levels:
            if levels & 1:
                self.level_counts[level] += count
                self.level_bytes[level] += size
            levels >>= 1
            level += 1

    def _make_place(self) -> None:
        """Move the records together, in a larger table if they fill most of this one."""
        capacity = self._capacity
        if 4 * self._used > 3 * capacity:
            if capacity == self._most:
                return  # the oldest one is overwritten
            capacity = min(self._most, 2 * capacity)
        kept = [(self.at(position), position in self._large) for position in self.positions()]
        self._large = {}
        self._allocate(capacity)
        for ghost, large in reversed(kept):
            self.add(ghost, large=large)
