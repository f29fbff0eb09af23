"""
Eviction policies: the instance with the lowest worth is evicted first.

A policy is an object with a method ``worth(entry, now) -> float``. It is called after a build and
when the instance is a candidate for eviction, never on a hit. The worth may increase with uses and
decrease with time. Four further methods are optional:

- ``left(name, uses, built_at, last_used)`` is called for each removed instance.
- ``passes(entry, now) -> bool`` decides about admission: if it returns True and the new instance
  has the lowest worth itself, it is returned but not cached, and closed at its last release.
- ``prospect(entry) -> tuple[float, float]`` is called before a removal: with it, `Registry.plan`
  can tell which builds a larger bound would have avoided, see `CostPolicy.prospect`.
- ``expected_rate(gap, idle) -> float`` makes that more exact, see `CostPolicy.expected_rate`. It
  must not call the registry.

The argument ``entry`` has the attributes ``name``, ``uses``, ``built_at``, ``last_used`` (seconds
on the timer of the registry), ``build_seconds`` and ``bytes`` (-1 if unknown). A policy may call
the registry.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from .reuse import ReuseModel

if TYPE_CHECKING:
    from typing import Any

_SIZE_WEIGHT = 0.02  # of a new size in the moving average of sizes

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


class CostPolicy:
    """
    Rebuild seconds saved per byte and per second of keeping an instance.

    The worth is the cost of the build by the size, as in GreedyDual-Size-Frequency (Cherkasova,
    1998), times the uses to be expected per second, which are learned: see `ReuseModel`. An unknown
    size is replaced by the typical known size.

    A new instance is returned but not cached if it is worth less than what would be evicted for it.

    Thread-safe; each call is O(1) amortised.
    """

    def __init__(self) -> None:
        self._reuse = ReuseModel()
        self._typical_size = 0.0  # base-2 logarithm

    def worth(self, entry: CachedInstance, now: float) -> float:
        """Return the base-2 logarithm of the build seconds saved per second and byte."""
        density = self._reuse.density(entry.name, entry.uses, entry.built_at, entry.last_used, now)
        size = self._typical_size
        if entry.bytes >= 0:
            size = math.log2(max(entry.bytes, 1))
            self._typical_size += _SIZE_WEIGHT * (size - self._typical_size)
        return math.log2(max(entry.build_seconds, 1e-9)) - size + math.log2(max(density, 1e-300))

    def prospect(self, entry: CachedInstance) -> tuple[float, float]:
        """
        Return what approximately determines the worth of an instance later, without uses.

        Args:
            entry: An instance that is being removed, before `left` is called for it.

        Returns:
            The build seconds per byte, and the mean gap between uses; below 0 if there was none,
            so that only the idle time counts.
        """
        size = 2.0**self._typical_size if entry.bytes < 0 else max(entry.bytes, 1)
        gap = self._reuse.mean_gap(entry.name)
        return max(entry.build_seconds, 1e-9) / size, -1.0 if gap is None else gap

    def expected_rate(self, gap: float, idle: float) -> float:
        """
        Return the uses per second to be expected of an instance that was removed.

        Args:
            gap: Its mean gap in seconds, as `prospect` returned it.
            idle: The seconds since its last use.
        """
        return self._reuse.rate(gap, idle)

    def passes(self, entry: CachedInstance, now: float) -> bool:
        """Return True: the worth of a new instance counts a burst, so it decides alone."""
        return True

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        Record the residence of a removed instance.

        Args:
            name: The class name.
            uses: The number of uses, including the build.
            built_at: The time of the build.
            last_used: The time of the last use.
        """
        self._reuse.left(name, uses, built_at, last_used)


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
