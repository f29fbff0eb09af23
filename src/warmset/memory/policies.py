"""
Eviction policies: the instance with the lowest worth is evicted first.

A policy is an object with a method ``worth(entry, now) -> float``. It is called after a build and
when the instance is a candidate for eviction, never on a hit. The worth may increase with uses and
decrease with time. Three further methods are optional:

- ``left(name, uses, built_at, last_used)`` is called for each removed instance.
- ``passes(entry, now) -> bool`` decides about admission: if it returns True and the new instance
  has the lowest worth itself, it is returned but not cached, and closed at its last release.
- ``prospect(entry) -> tuple[float, float]`` is called before a removal: with it, `Registry.plan`
  can tell which builds a larger bound would have avoided, see `CostPolicy.prospect`.

The argument ``entry`` has the attributes ``name``, ``uses``, ``built_at``, ``last_used`` (seconds
on the timer of the registry), ``build_seconds`` and ``bytes`` (-1 if unknown). A policy may call
the registry.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import Any

_IDLE_WEIGHT = 0.3  # of the current idle time in the expected time to the next use
_PAST_WEIGHT = 0.6  # of earlier residences relative to the last one
_MIN_GAP_SECONDS = 1.0
_SOON_SHARE = 0.05  # a gap shorter than this share of the mean gap counts as soon
_SOON_WEIGHT = 0.3  # of the last residence in the moving average `soon`
_INITIAL_SOON = 0.2
_MAX_SOON = 0.25  # a class with a lower `soon` may be refused admission
_SIZE_WEIGHT = 0.02  # of a new size in the moving average of sizes
_MAX_NAMES = 100_000

__all__ = ["CachedInstance", "CostPolicy", "LruPolicy", "Policy", "policy_of"]


class CachedInstance(Protocol):
    """The view of an instance that a policy gets; a policy must not store it."""

    @property
    def name(self) -> str:
        """The class name."""

    @property
    def uses(self) -> int:
        """The number of uses since the build."""

    @property
    def built_at(self) -> float:
        """The time of the build."""

    @property
    def last_used(self) -> float:
        """The time of the last use."""

    @property
    def build_seconds(self) -> float:
        """The duration of the build."""

    @property
    def bytes(self) -> int:
        """The size; -1 if unknown."""


class Policy(Protocol):
    """Determines the eviction order."""

    def worth(self, entry: CachedInstance, now: float) -> float:
        """
        Return the worth of an instance.

        Args:
            entry: The instance.
            now: The current time of the registry.

        Returns:
            A finite number; the instance with the lowest worth is evicted first.
        """


class LruPolicy:
    """Least recently used first; used only if some class has a priority."""

    def worth(self, entry: CachedInstance, now: float) -> float:
        """Return the time of the last use."""
        return entry.last_used


class _Past(NamedTuple):
    """The history of a class from its finished residences in the cache."""

    gaps: float  # decayed number of gaps
    seconds: float  # decayed sum of these gaps
    last_used: float
    second_use: float | None  # seconds from the last build to its second use; None if there is none
    soon: float  # decayed share of residences, without the last, whose next use came soon

    def soon_at(self, built_at: float) -> float:
        """Update `soon` with the last residence, whose next use is known at the next build."""
        between = max(0.0, built_at - self.last_used)  # residences overlap if it was recycled
        gap = between if self.second_use is None else self.second_use
        is_soon = gap < _SOON_SHARE * (self.seconds + between) / (self.gaps + 1.0)
        return self.soon + _SOON_WEIGHT * (is_soon - self.soon)


class CostPolicy:
    """
    Rebuild seconds saved per byte and per second until the expected next use.

    The expected time to the next use is the mean gap between uses of the class plus three tenths of
    its current idle time, because an instance that is idle for unusually long is less likely to be
    used again. The mean includes gaps within a residence in the cache and between residences; each
    earlier residence has six tenths of the weight of the following one. For a class that was used
    only once, the idle time is used. An unknown size is replaced by the typical known size.

    A new instance is returned but not cached if it is worth less than the instance that would be
    evicted for it, and if its class is rarely used again soon after a build. The second condition
    avoids one build per call when calls come in bursts.

    The factors are those of GreedyDual-Size-Frequency (Cherkasova, 1998): cost, frequency and size.
    The frequency here is a rate over time, which decays by itself; there it is a count, which is
    offset by an increasing clock.

    Thread-safe; each call is O(1).
    """

    def __init__(self) -> None:
        self._past: dict[str, _Past] = {}
        self._typical_size = 0.0  # base-2 logarithm

    def worth(self, entry: CachedInstance, now: float) -> float:
        """Return the base-2 logarithm of the build seconds saved per second and byte."""
        gaps, seconds = self._gaps(entry.name, entry.uses, entry.built_at, entry.last_used)
        idle = max(0.0, now - entry.last_used)
        expected = idle if gaps <= 0.0 else seconds / gaps + _IDLE_WEIGHT * idle
        size = self._typical_size
        if entry.bytes >= 0:
            size = math.log2(max(entry.bytes, 1))
            self._typical_size += _SIZE_WEIGHT * (size - self._typical_size)
        cost = math.log2(max(entry.build_seconds, 1e-9))
        return cost - size - math.log2(expected + _MIN_GAP_SECONDS)

    def prospect(self, entry: CachedInstance) -> tuple[float, float]:
        """
        Return what determines the worth of an instance at any later time, without uses.

        Args:
            entry: An instance that is being removed, before `left` is called for it.

        Returns:
            The build seconds per byte, and the mean gap between uses; below 0 if there was none,
            so that only the idle time counts.
        """
        gaps, seconds = self._gaps(entry.name, entry.uses, entry.built_at, entry.last_used)
        size = 2.0**self._typical_size if entry.bytes < 0 else max(entry.bytes, 1)
        return max(entry.build_seconds, 1e-9) / size, seconds / gaps if gaps > 0.0 else -1.0

    def passes(self, entry: CachedInstance, now: float) -> bool:
        """
        Decide whether a new instance may be returned without being cached.

        Args:
            entry: The instance.
            now: The current time of the registry.

        Returns:
            Whether the class is rarely used again soon after a build, as far as is known.
        """
        past = self._past.get(entry.name)
        # A class without history has a high worth right after its build, so it is cached anyway.
        return past is None or past.soon_at(entry.built_at) < _MAX_SOON

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        Record the residence of a removed instance.

        Args:
            name: The class name.
            uses: The number of uses, including the build.
            built_at: The time of the build.
            last_used: The time of the last use.
        """
        past = self._past.get(name)
        gaps, seconds = self._gaps(name, uses, built_at, last_used)
        soon = _INITIAL_SOON if past is None else past.soon_at(built_at)
        second_use = (last_used - built_at) / (uses - 1.0) if uses > 1 else None
        self._past.pop(name, None)  # reinsert at the end; the front is forgotten first
        self._past[name] = _Past(gaps, seconds, last_used, second_use, soon)
        if len(self._past) > _MAX_NAMES:
            with suppress(RuntimeError):  # modified by another thread; the next call catches up
                self._past.pop(next(iter(self._past)), None)

    def _gaps(self, name: str, uses: int, built_at: float, last_used: float) -> tuple[float, float]:
        gaps, seconds = max(0.0, uses - 1.0), max(0.0, last_used - built_at)
        past = self._past.get(name)
        if past is not None:
            gaps += 1.0 + _PAST_WEIGHT * past.gaps
            seconds += max(0.0, built_at - past.last_used) + _PAST_WEIGHT * past.seconds
        return gaps, seconds


def policy_of(setting: Any) -> Policy:
    """
    Return the policy for the value of the setting.

    Args:
        setting: "lru", "cost", or a policy object.

    Returns:
        The policy.
    """
    if setting == "lru":
        return LruPolicy()
    if setting == "cost":
        return CostPolicy()
    return setting  # type: ignore[no-any-return]
