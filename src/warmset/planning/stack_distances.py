"""
Stack distances: for each use, the smallest bound with which it would have been a hit under LRU.

Under LRU the content of a cache is always a prefix of the list of classes by last use, the *stack*.
So a use is a hit exactly if the class and those used since its last use fit within the bound
(Mattson, Gecsei, Slutz and Traiger, 1970). One pass gives the distance of each use, in classes or
weighted by bytes, and thereby the builds for every bound.

Above a size, only the classes whose hashed names lie below a threshold are followed (SHARDS:
Waldspurger, Park, Garthwaite and Ahmad, FAST 2015). Distances and counts are divided by the rate.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

from .fenwick import PrefixSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["COLD", "distances", "sampled_numbers"]

COLD = 0
"""The distance of the first use of a class, which is a build within any bound."""
_BUCKETS = 1 << 32


def distances(numbers: Sequence[int], weights: Sequence[int] | None = None) -> array[int]:
    """
    Compute the stack distance of each use.

    Args:
        numbers: The used classes, in the order of time.
        weights: The weight of each class; None weighs each 1.

    Returns:
        The weight of the class and of all others used since its last use; `COLD` for its first use.
        A class of weight 0 has a distance of at least 1, so that it differs from `COLD`.

    O(n log n).
    """
    latest: dict[int, int] = {}
    stack = PrefixSums(len(numbers))  # the weight of a class, at the position of its last use
    found = array("q", bytes(8 * len(numbers)))
    total = 0
    for position, number in enumerate(numbers):
        weight = 1 if weights is None else weights[number]
        previous = latest.get(number)
        if previous is None:
            total += weight
        else:
            found[position] = max(1, total - stack.before(previous))
            stack.add(previous, -weight)
        stack.add(position, weight)
        latest[number] = position
    return found


def sampled_numbers(names: Iterable[str], rate: float, *, part: int | None = None) -> set[int]:
    """
    Select classes by their hashed names: the same ones at each call, and nested for smaller rates.

    Args:
        names: The class of each number.
        rate: The share of classes, above 0 and at most 1.
        part: 0 or 1 selects one of two disjoint halves; None both.

    Returns:
        The numbers of the selected classes.
    """
    threshold = int(rate * _BUCKETS)
    chosen = set()
    for number, name in enumerate(names):
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=5).digest()
        within = int.from_bytes(digest[:4], "big") < threshold
        if within and (part is None or digest[4] & 1 == part):
            chosen.add(number)
    return chosen
