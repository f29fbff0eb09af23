"""
Policies: what an instance is worth keeping for. Whose worth is least leaves first.

A policy is an object with one method, ``worth(slot, now) -> float``. It is asked when an instance
was built, and again when that comes up for eviction; never at a hit. A worth may rise by uses and
fall by time. A policy that learns from what is over has a second one, ``left(name, uses, built_at,
last_used)``, which is told of each instance that left. With ``passes = True`` what was just built
is weighed with the others: if it is worth least itself, it is handed out and not kept.

What it is given, and may read: ``name``, ``uses``, ``built_at``, ``last_used`` (seconds of the
registry's clock), ``build_seconds``, ``bytes`` (-1: not known). It may ask the registry, too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any

_IDLE_SHARE = 0.3
_PAST_SHARE = 0.6
_LEAST_GAP_SECONDS = 1.0
_MOST_NAMES = 100_000

__all__ = ["CostPolicy", "LruPolicy", "Policy", "Warm", "policy_of"]


class Warm(Protocol):
    """What a policy sees of an instance; it reads and keeps nothing."""

    @property
    def name(self) -> str:
        """The class name."""

    @property
    def uses(self) -> int:
        """How often it was handed out since its build."""

    @property
    def built_at(self) -> float:
        """When it was built."""

    @property
    def last_used(self) -> float:
        """When it was used last."""

    @property
    def build_seconds(self) -> float:
        """What it cost to build."""

    @property
    def bytes(self) -> int:
        """How big it is; -1: not known."""


class Policy(Protocol):
    """Tells what instances are worth."""

    def worth(self, slot: Warm, now: float) -> float:
        """
        Tell what an instance is worth.

        Args:
            slot: The instance.
            now: The registry's clock.

        Returns:
            Any finite number; whose is least leaves first.
        """


class LruPolicy:
    """Least recently used first. It is asked only where classes have priorities of their own."""

    def worth(self, slot: Warm, now: float) -> float:
        """Give the time of the last use."""
        return slot.last_used


class CostPolicy:
    """
    Rebuild seconds saved per byte, by how soon the next use is to be expected.

    The next use is expected after the class's mean gap between uses, and three tenths of the time
    for which it has been idle now: what is idle for long, for its habits, is not asked for any
    more. The mean is over gaps within a stay in the cache and between two stays, where those before
    the last one count six tenths, before that six tenths of these, and so on. Of a class that was
    used once, nothing but the idle time is known. Bytes that are not known are taken as one and the
    same for all.

    It is what GreedyDual-Size-Frequency (Cherkasova, 1998) weighs, cost by frequency by size; but
    its frequency is a rate in time, which fades by itself, where theirs is a count, which an
    inflating clock outbids.
    """

    passes = True

    def __init__(self) -> None:
        # Class name -> gaps, the seconds of all together, and the last use, of stays that are over.
        self._past: dict[str, tuple[float, float, float]] = {}

    def worth(self, slot: Warm, now: float) -> float:
        """Give the logarithm, base 2, of seconds saved per second and byte."""
        gaps, seconds = self._gaps(slot.name, slot.uses, slot.built_at, slot.last_used)
        idle = max(0.0, now - slot.last_used)
        expected = idle if gaps <= 0.0 else seconds / gaps + _IDLE_SHARE * idle
        cost, size = max(slot.build_seconds, 1e-9), max(slot.bytes, 1)
        return math.log2(cost) - math.log2(size) - math.log2(expected + _LEAST_GAP_SECONDS)

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        Remember how a class was used.

        Args:
            name: The class name.
            uses: How often, its build counted.
            built_at: When it was built.
            last_used: When it was used last.
        """
        past = self._past.pop(name, None)
        if past is not None and past[2] >= last_used:  # it was revived, and this is known
            self._past[name] = past
            return
        gaps, seconds = max(0.0, uses - 1.0), max(0.0, last_used - built_at)
        if past is not None:
            gaps += 1.0 + _PAST_SHARE * past[0]
            seconds += max(0.0, built_at - past[2]) + _PAST_SHARE * past[1]
        self._past[name] = gaps, seconds, last_used
        if len(self._past) > _MOST_NAMES:
            self._past.pop(next(iter(self._past)), None)

    def _gaps(self, name: str, uses: int, built_at: float, last_used: float) -> tuple[float, float]:
        gaps, seconds = max(0.0, uses - 1.0), max(0.0, last_used - built_at)
        past = self._past.get(name)
        if past is not None:
            gaps += 1.0 + _PAST_SHARE * past[0]
            seconds += max(0.0, built_at - past[2]) + _PAST_SHARE * past[1]
        return gaps, seconds


def policy_of(setting: Any) -> Policy:
    """
    Give the policy that a setting names.

    Args:
        setting: "lru", "cost", or a policy.

    Returns:
        The policy.
    """
    if setting == "lru":
        return LruPolicy()
    if setting == "cost":
        return CostPolicy()
    return setting  # type: ignore[no-any-return]
