"""
Policies: what an instance is worth keeping for. Whose worth is least leaves first.

A policy is an object with one method, ``worth(slot, now) -> float``. It is asked when an instance
was built, and again when that comes up for eviction and was used since; never at a hit. So a worth
may rise by uses, and must not fall by time alone: let the worth of what is used now grow with the
time, as `CostPolicy` does, rather than that of all others shrink.

What it is given, and may read: ``name``, ``uses``, ``built_at``, ``last_used`` (seconds of the
registry's clock), ``build_seconds``, ``bytes`` (-1: not known), ``holds``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any

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
    Rebuild seconds, times how often it is used, per byte.

    Args:
        half_life_seconds: A use counts half after so many seconds.

    The frequency is a sum over uses that fades exponentially. Faded to one moment, the sums of all
    instances shrink alike, so their order does not change by time alone; this gives the logarithm
    of the sum as it will be at any one moment (forward decay: Cormode et al., 2009). Only the
    number of the uses and the times of the first and the last are known; the uses are taken as
    spread evenly between the two.
    """

    def __init__(self, *, half_life_seconds: float = 600.0) -> None:
        if not 0.0 < half_life_seconds < math.inf:
            raise ValueError(
                f"half_life_seconds must be a finite number above 0, got {half_life_seconds!r}"
            )
        self._half_life = half_life_seconds

    def worth(self, slot: Warm, now: float) -> float:
        """Give the logarithm, base 2, of seconds saved by keeping a byte of it."""
        span = (slot.last_used - slot.built_at) / self._half_life
        uses = float(max(slot.uses, 1))
        if span > 1e-9:
            # The mean of 2 ** -x for x from 0 to the span.
            uses *= -math.expm1(-span * math.log(2.0)) / (span * math.log(2.0))
        cost = max(slot.build_seconds, 1e-9)
        size = max(slot.bytes, 1)
        return slot.last_used / self._half_life + math.log2(uses * cost / size)


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
