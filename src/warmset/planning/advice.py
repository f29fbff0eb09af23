"""
Advice on bounds: what a plan says about a bound that is too small or too large, in one sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .curves import make_plan, unused
from .ghosts import Ghosts

if TYPE_CHECKING:
    from ..registry import BaseRegistry
    from .plan import Plan

__all__ = [
    "MAX_THRASHING",
    "MAX_UNUSED",
    "MIN_BUILDS",
    "UNUSED_AFTER_SECONDS",
    "Advice",
    "current_advice",
    "oversized",
    "thrashing",
]

MAX_THRASHING = 0.3
"""The share of builds that twice a bound would have avoided, above which it is too small."""
MAX_UNUSED = 0.5
"""The share of places with an instance that was not used, above which the bound is too large."""
UNUSED_AFTER_SECONDS = 3600.0
MIN_BUILDS = 10
_WINDOW_SECONDS = 300.0


class Advice(NamedTuple):
    """A figure, and what to change."""

    figure: float
    text: str


def thrashing(plan: Plan) -> Advice | None:
    """
    Judge whether instances are evicted for a bound that is too small, and soon built again.

    Args:
        plan: A plan.

    Returns:
        The share of builds that at most twice the bound would have avoided, and the setting to
        change; None if there were none.
    """
    found = plan.thrashing
    if found is None or not plan.builds:
        return None
    by_size = found.setting == "max_cache_size"
    within = f"at most {found.bound:,} places ago" if by_size else "that twice that budget keeps"
    evicted = "size" if by_size else "memory"
    extra = "" if found.bytes is None else f", for {_megabytes(found.bytes)}"
    return Advice(
        found.builds / plan.builds,
        f"in {_span(plan.window_seconds)}, {found.builds:,} of {plan.builds:,} builds, "
        f"{found.seconds:,.3g} s, were of instances evicted for {evicted} {within}; "
        f"{found.setting}={found.better} instead of {found.bound} would have avoided "
        f"{found.builds_avoided:,} of them, {found.seconds_avoided:,.3g} s{extra}",
    )


def oversized(registry: BaseRegistry, seconds: float = UNUSED_AFTER_SECONDS) -> Advice | None:
    """
    Judge whether the bound keeps instances that nobody uses.

    Args:
        registry: The registry.
        seconds: The time without use.

    Returns:
        The share of places with an instance that was not used for that time, and the setting to
        change; None if all were used. O(cached).
    """
    found = unused(registry, seconds)
    if not found.instances:
        return None
    size = f" and {_megabytes(found.bytes)}" if found.bytes else ""
    enough = max(1, registry.cached - found.instances)
    return Advice(
        found.instances / registry.max_size,
        f"{found.instances:,} of {registry.max_size:,} places{size} have not been used for "
        f"{_span(seconds)}: max_cache_size={enough} would do, or a cache_ttl_seconds below "
        f"{seconds:.0f}",
    )


def current_advice(registry: BaseRegistry) -> dict[str, str | None]:
    """
    Return the advice that the default thresholds of a health check would give now.

    Args:
        registry: The registry.

    Returns:
        "thrashing" and "oversized" -> text; None if there is none. The former is not known unless
        evicted instances are remembered; reading it changes nothing.
    """
    text = None
    if registry.extension(Ghosts) is not None:
        plan = make_plan(registry, _WINDOW_SECONDS)
        found = thrashing(plan)
        if found is not None and found.figure > MAX_THRASHING and plan.builds >= MIN_BUILDS:
            text = found.text
    large = oversized(registry)
    is_large = large is not None and large.figure > MAX_UNUSED
    return {"thrashing": text, "oversized": large.text if large is not None and is_large else None}


def _span(seconds: float) -> str:
    for size, one, many in ((3600.0, "an hour", "hours"), (60.0, "a minute", "min")):
        if seconds >= size:
            return one if seconds == size else f"{seconds / size:.3g} {many}"
    return f"{seconds:.3g} s"


def _megabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1_000_000_000 else f"{size / 1e6:,.1f} MB"
