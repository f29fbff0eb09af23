"""
Autosize: a registry with `max_cache_size="auto"` chooses its own bound within a budget of bytes.

The rule:

- The *price* of the bound is the total duration of the builds that it caused: of instances that
  were evicted for it and that the budget of bytes would have kept. The *share* is the price by the
  seconds of all other builds. Both are sums that lose half their weight every 300 builds.
- The bound is judged after as many builds as a quarter of the cached instances, at least 8. If the
  share is above 7 %, it is raised to 1.25 times the cached instances; if it is below 4 % and an
  instance was evicted for a bound since, it is lowered to 0.9 times. Between the two it stays, so
  that it does not swing.
- It begins at its upper limit and stays within both limits. It is not raised while the process has
  more memory than `low_rss_bytes`. `max_cache_bytes` is enforced in any case.

Under LRU the price is exact, so build seconds stay within about 7 % of those of the best fixed
bound within the same budget. Without builds nothing changes: what is idle is a matter of the TTL.
"""

from __future__ import annotations

from _thread import RLock
from typing import TYPE_CHECKING

from .. import _logs
from .._event_accumulator import EventAccumulator
from .._locks import call_if_free
from ..codes import MEMORY, SIZE
from ..events import BoundChange
from ..extension import Extension
from ..planning.ghosts import ghosts_of
from .manager import MemoryManager

if TYPE_CHECKING:
    from .._core import Entry
    from ..builder import Build
    from ..planning.miss_log import Miss
    from ..registry import BaseRegistry

__all__ = ["Autosize", "Steering"]

RAISE_ABOVE, LOWER_BELOW = 0.07, 0.04
_RAISED, _LOWERED = 1.25, 0.9
_HALF_LIFE_BUILDS = 300
_LEAST_BUILDS, _BUILDS_PER_CACHED = 8, 0.25
_MOST_CHANGES = 32


class Steering:
    """
    The rule, without a registry: takes builds, and tells which bound should apply.

    Args:
        least: The lower limit of the bound.
        most: The upper limit.

    Not thread-safe.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most
        self._keep = 0.5 ** (1.0 / _HALF_LIFE_BUILDS)
        self._price = self._other = 0.0
        self._builds = 0  # since the bound was changed
        self._evicted = False

    @property
    def share(self) -> float:
        """The price of the bound, by the seconds of all other builds."""
        if self._other > 0.0:
            return self._price / self._other
        return 1.0 if self._price > 0.0 else 0.0

    def built(self, seconds: float, *, caused: bool) -> None:
        """
        Count a build.

        Args:
            seconds: Its duration.
            caused: Whether the bound caused it, and the budget of bytes would have avoided it.
        """
        self._price *= self._keep
        self._other *= self._keep
        if caused:
            self._price += seconds
        else:
            self._other += seconds
        self._builds += 1

    def evicted(self) -> None:
        """Report that an instance was evicted for a bound, so that not everything fits."""
        self._evicted = True

    def wanted(self, bound: int, cached: int) -> int:
        """
        Judge the bound.

        Args:
            bound: The present bound.
            cached: The number of cached instances.

        Returns:
            The bound that should apply from now on.
        """
        if self._builds < max(_LEAST_BUILDS, _BUILDS_PER_CACHED * cached):
            return bound
        share, reached = self.share, min(bound, cached)
        if share > RAISE_ABOVE:
            wanted = max(bound + 1, int(reached * _RAISED))
        elif share < LOWER_BELOW and self._evicted:
            wanted = min(bound - 1, int(reached * _LOWERED))
        else:
            return bound
        self._builds, self._evicted = 0, False
        return min(self._most, max(self._least, wanted))


class _Count(EventAccumulator["tuple[float, bool]"]):
    """Counts builds, one after another."""

    def __init__(self, steering: Steering) -> None:
        super().__init__()
        self._steering = steering

    def _add(self, event: tuple[float, bool]) -> None:
        seconds, caused = event
        self._steering.built(seconds, caused=caused)


class Autosize(Extension):
    """
    Applies the rule to one registry.

    Args:
        registry: Its evicted instances are remembered from now on.
    """

    def __init__(self, registry: BaseRegistry) -> None:
        settings = registry.settings
        self.limits = settings.autosize_min, settings.autosize_max
        self.steering = Steering(*self.limits)
        self.bound_changes: tuple[BoundChange, ...] = ()  # replaced as a whole, for its readers
        self._count = _Count(self.steering)
        self._judging = RLock()
        ghosts_of(registry).memory.on_miss = self._missed

    def after_fork(self, registry: BaseRegistry) -> None:
        self._judging = RLock()

    def _missed(self, miss: Miss, affordable: bool) -> None:
        self._count((miss.seconds, affordable))

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        if any(entry.cause in (SIZE, MEMORY) for entry in entries):
            self.steering.evicted()

    def built(self, registry: BaseRegistry, build: Build) -> None:
        if build.error is not None or registry.settings.max_cache_size != "auto":
            return
        # Unless another thread judges, or a finaliser came in between.
        changed = call_if_free(self._judging, self._judge, registry, registry.now())
        if changed is None:
            return
        (_, before, bound, why), share = changed
        _logs.info(
            "memory",
            "max_cache_size %s from %d to %d: %s",
            "raised" if bound > before else "lowered",
            before,
            bound,
            why,
            fields={"max_cache_size": bound, "max_cache_size_before": before, "share": share},
        )
        if registry.watched and bound > before:
            registry.capacity_freed()
        if registry.cached > bound:
            registry.make_capacity(build.entry if build.published else None)

    def _judge(self, registry: BaseRegistry, now: float) -> tuple[BoundChange, float] | None:
        """Change the bound; return the change, and the share that was the reason."""
        before = registry.max_size
        bound = self.steering.wanted(before, registry.cached)
        if bound == before or (bound > before and _is_short(registry)):
            return None
        registry.max_size = bound
        share = self.steering.share
        why = f"builds that the bound caused take {share:.1%} of the other build seconds, " + (
            f"above {RAISE_ABOVE:.0%}" if bound > before else f"below {LOWER_BELOW:.0%}"
        )
        change = BoundChange(now, before, bound, why)
        self.bound_changes = (*self.bound_changes, change)[-_MOST_CHANGES:]
        return change, share


def _is_short(registry: BaseRegistry) -> bool:
    """Return whether the process has too much memory for a larger bound."""
    memory = registry.extension(MemoryManager)
    return memory is not None and memory.budgets is not None and memory.budgets.above_low_mark()
