"""
Forecasts from a recorded profile, and with any eviction policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..planning.forecast import Forecast, forecast
from ..planning.traces import Trace
from .policies import policy_of
from .policy_cache import PolicyCache

if TYPE_CHECKING:
    from ..planning.simulation import SimulatedCache
    from .profiles import Profile

__all__ = ["forecast_trace", "trace_of"]

_MOST_IN_A_ROW = 64  # uses of one class in a row; more change no eviction order noticeably


def trace_of(profile: Profile) -> Trace:
    """
    Convert the recorded order of uses into a trace.

    Args:
        profile: A profile.

    Returns:
        The trace; it has no requests if the profile has no order of uses. A build costs what it
        took on average without the builds of other classes, which are uses of their own.
    """
    if profile.uses is None:
        return Trace((), [], [], [])
    numbers: dict[str, int] = {}
    requests: list[tuple[float, int]] = []
    for stretch in profile.uses.stretches:
        for at, name, count in stretch:
            number = numbers.setdefault(name, len(numbers))
            requests += [(at / 1000.0, number)] * min(count, _MOST_IN_A_ROW)
    known = [profile.classes.get(name) for name in numbers]
    kept = profile.uses.kept
    return Trace(
        tuple(numbers),
        requests,
        [0.0 if each is None else each.mean_own_build_seconds for each in known],
        [-1 if each is None or each.bytes is None else each.bytes for each in known],
        max(1.0, profile.uses.total / kept) if kept else 1.0,
    )


def forecast_trace(
    trace: Trace,
    *,
    max_size: int | None = None,
    max_bytes: int | None = None,
    policy: str = "lru",
    ttl_seconds: float = 0.0,
) -> Forecast:
    """
    Forecast the costs of bounds with one of the policies of a registry.

    Args:
        trace: At least one use.
        max_size: A value of `max_cache_size` to judge.
        max_bytes: A value of `max_cache_bytes` to judge; the forecast is for budgets then.
        policy: "lru" or "cost".
        ttl_seconds: The value of `cache_ttl_seconds`; 0: none.

    Returns:
        The forecast.

    Raises:
        ValueError: The trace has no use, or both bounds are given.
    """
    ttl = ttl_seconds or float("inf")

    def make_cache(most: float, most_bytes: float) -> SimulatedCache:
        return PolicyCache(
            trace, policy_of(policy), max_size=most, max_bytes=most_bytes, ttl_seconds=ttl
        )

    return forecast(
        trace,
        max_size=max_size,
        max_bytes=max_bytes,
        policy=policy,
        ttl_seconds=ttl,
        make_cache=None if policy == "lru" else make_cache,
    )
