"""Prefix sums that can be updated: a binary indexed tree (Fenwick, 1994) in one array."""

from __future__ import annotations

from array import array

__all__ = ["PrefixSums"]


class PrefixSums:
    """
    Numbers at fixed positions, and the sums of their prefixes.

    Args:
        size: The number of positions; all numbers are 0.
        typecode: The type of the sums, see `array`.

    Each operation is O(log size). Not thread-safe.
    """

    __slots__ = ("_size", "_tree")

    def __init__(self, size: int, typecode: str = "q") -> None:
        self._size = size
        self._tree = array(typecode, [0]) * (size + 1)

    def add(self, position: int, amount: int) -> None:
        """
        Add to the number at a position.

        Args:
            position: From 0.
            amount: May be negative.
        """
        tree, size = self._tree, self._size
        position += 1
        while position <= size:
            tree[position] += amount
            position += position & -position

    def before(self, position: int) -> int:
        """
        Return the sum of the numbers before a position.

        Args:
            position: From 0 to the number of positions.
        """
        tree, total = self._tree, 0
        while position > 0:
            total += tree[position]
            position &= position - 1
        return total

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return len(self._tree) * self._tree.itemsize
