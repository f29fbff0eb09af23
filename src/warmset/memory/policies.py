"""
Policies: what an instance is worth keeping for. Whose worth is least leaves first.

A policy is an object with one method, ``worth(slot, now) -> float``. It is asked when an instance
was built, and again when that comes up for eviction; never at a hit. A worth may rise by uses and
fall by time. A policy that learns from what is over has a second one, ``left(name, uses, built_at,
last_used)``, which is told of each instance that left. With a third one, ``passes(slot, now) ->
bool``, what was just built may be weighed with the others: if it is worth least itself, it is
handed out and not kept.

What it is given, and may read: ``name``, ``uses``, ``built_at``, ``last_used`` (seconds of the
registry's clock), ``build_seconds``, ``bytes`` (-1: not known). It may ask the registry, too.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import Any

_IDLE_SHARE = 0.3
_PAST_SHARE = 0.6
_LEAST_GAP_SECONDS = 1.0
_SOON_SHARE = 0.05  # of the mean gap: less is soon
_SOON_WEIGHT = 0.3  # of a new stay
_SOON_AT_FIRST = 0.2
_SOON_AT_MOST = 0.25  # of the stays, for a class that may pass
_SIZE_WEIGHT = 0.02  # of a size that was just seen
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


class _Past(NamedTuple):
    """What is known of a class from stays in the cache that are over."""

    gaps: float  # faded
    seconds: float  # of these gaps together
    last_used: float
    lone: bool  # whether the last stay had one use: the gap to the second is still to be seen
    soon: float  # in what part of the stays the second use came soon after the first, faded

    def second_use(self, gap: float) -> float:
        """Tell `soon`, with one more gap between a build and the use after it."""
        if self.gaps <= 0.0:
            return self.soon
        is_soon = gap < _SOON_SHARE * self.seconds / self.gaps
        return self.soon + _SOON_WEIGHT * (is_soon - self.soon)


class CostPolicy:
    """
    Rebuild seconds saved per byte, by how soon the next use is to be expected.

    The next use is expected after the class's mean gap between uses, and three tenths of the time
    for which it has been idle now: what is idle for long, for its habits, is not asked for any
    more. The mean is over gaps within a stay in the cache and between two stays, where those before
    the last one count six tenths, before that six tenths of these, and so on. Of a class that was
    used once, nothing but the idle time is known. Bytes that are not known are taken for the usual
    number of those that are.

    What was just built passes, if it is worth less than who would leave for it, and if its class is
    known for not being used again soon: where calls come in bursts, it would be built for each.

    It is what GreedyDual-Size-Frequency (Cherkasova, 1998) weighs, cost by frequency by size; but
    its frequency is a rate in time, which fades by itself, where theirs is a count, which an
    inflating clock outbids.

    Safe under threads; each call is O(1).
    """

    def __init__(self) -> None:
        self._past: dict[str, _Past] = {}
        self._usual_size = 0.0  # logarithm, base 2

    def worth(self, slot: Warm, now: float) -> float:
        """Give the logarithm, base 2, of seconds saved per second and byte."""
        gaps, seconds = self._gaps(slot.name, slot.uses, slot.built_at, slot.last_used)
        idle = max(0.0, now - slot.last_used)
        expected = idle if gaps <= 0.0 else seconds / gaps + _IDLE_SHARE * idle
        size = self._usual_size
        if slot.bytes >= 0:
            size = math.log2(max(slot.bytes, 1))
            self._usual_size += _SIZE_WEIGHT * (size - self._usual_size)
        cost = math.log2(max(slot.build_seconds, 1e-9))
        return cost - size - math.log2(expected + _LEAST_GAP_SECONDS)

    def passes(self, slot: Warm, now: float) -> bool:
        """
        Tell whether what was just built may be handed out and not kept.

        Args:
            slot: The instance.
            now: The registry's clock.

        Returns:
            Whether its class is mostly not used again soon after a build, as far as is known.
        """
        past = self._past.get(slot.name)
        if past is None:  # its first use alone makes it worth much
            return True
        soon = past.second_use(slot.built_at - past.last_used) if past.lone else past.soon
        return soon < _SOON_AT_MOST

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        Remember how a class was used.

        Args:
            name: The class name.
            uses: How often, its build counted.
            built_at: When it was built.
            last_used: When it was used last.
        """
        past = self._past.get(name)
        if past is not None and past.last_used > built_at:  # it was revived: the stay is known
            return
        gaps, seconds = self._gaps(name, uses, built_at, last_used)
        soon = _SOON_AT_FIRST
        if past is not None:
            soon = past.second_use(built_at - past.last_used) if past.lone else past.soon
        now = _Past(gaps, seconds, last_used, uses <= 1, soon)
        if uses > 1:
            now = now._replace(soon=now.second_use((last_used - built_at) / (uses - 1.0)))
        self._past.pop(name, None)  # to the end: the front is forgotten first
        self._past[name] = now
        if len(self._past) > _MOST_NAMES:
            with suppress(RuntimeError):  # another thread came between: the next one forgets it
                self._past.pop(next(iter(self._past)), None)

    def _gaps(self, name: str, uses: int, built_at: float, last_used: float) -> tuple[float, float]:
        gaps, seconds = max(0.0, uses - 1.0), max(0.0, last_used - built_at)
        past = self._past.get(name)
        if past is not None:
            gaps += 1.0 + _PAST_SHARE * past.gaps
            seconds += max(0.0, built_at - past.last_used) + _PAST_SHARE * past.seconds
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
