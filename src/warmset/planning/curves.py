"""
The curves of a running registry: from its latest builds to what other bounds would have changed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ..codes import AGED, IDLE, MEMORY, SIZE
from .ghosts import ghosts_of, level_bounds
from .miss_log import FIRST, LEVELS
from .plan import CauseShare, Plan, PlanCurve, PlanPoint, Rebuilt, Thrashing, Unused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._core import Entry
    from ..registry import BaseRegistry
    from .ghosts import Ghosts
    from .miss_log import Miss

__all__ = ["RebuildTotals", "make_plan", "rebuild_totals", "unused"]

_CAUSE_NAMES = {FIRST: "first", IDLE: "idle", SIZE: "size", MEMORY: "memory", AGED: "aged"}
_TTL_MULTIPLES = (1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
_SMALLER = (0.5, 0.75, 0.9)
_MOST_REBUILT = 5
_NEARLY_ALL = 0.9  # of the avoidable builds, for the recommended bound
_TWICE = LEVELS.index(2.0)


def make_plan(registry: BaseRegistry, window_seconds: float) -> Plan:
    """
    Judge the latest builds of a registry.

    Args:
        registry: The registry; its ghosts are remembered from now on.
        window_seconds: How far to look back.

    Returns:
        The plan. O(builds in the window + cached).
    """
    ghosts = ghosts_of(registry)
    memory = ghosts.memory
    memory.settle()
    now = registry.now()
    start = max(now - window_seconds, ghosts.began)
    forgotten = memory.log.forgotten_before
    if forgotten is not None:
        start = max(start, forgotten)
    misses = list(memory.log.since(start))
    entries = registry.warm_entries()
    curves = [_size_curve(registry, ghosts, misses, entries, start)]
    if registry.settings.max_cache_bytes:
        curves.append(_byte_curve(registry, misses, entries, start))
    ttl = registry.settings.cache_ttl_seconds
    if ttl:
        curves.append(_ttl_curve(ttl, misses))
    return Plan(
        window_seconds=now - start,
        builds=len(misses),
        build_seconds=sum(miss.seconds for miss in misses),
        causes=_shares(misses),
        curves=tuple(curves),
        unused=unused(registry, now - start),
        thrashing=_thrashing(registry, ghosts, misses),
        rebuilt=_rebuilt(misses),
        bound_changes=tuple(
            change
            for extension in registry.extensions
            for change in getattr(extension, "bound_changes", ())
            if change.at >= start
        ),
    )


class RebuildTotals(NamedTuple):
    """The builds of evicted instances since they are remembered."""

    causes: list[tuple[str, int, float]]
    """Cause of the eviction, builds, and their seconds."""
    avoidable_builds: int
    """Those that at most twice a bound would have avoided."""
    avoidable_seconds: float


def rebuild_totals(registry: BaseRegistry) -> RebuildTotals:
    """
    Count the builds of evicted instances; for metrics, since the counts only grow.

    Args:
        registry: The registry; its ghosts are remembered from now on.

    Returns:
        The counts.
    """
    memory = ghosts_of(registry).memory
    memory.settle()
    causes = [
        (name, *memory.totals.get(cause, (0, 0.0)))
        for cause, name in _CAUSE_NAMES.items()
        if cause != FIRST
    ]
    return RebuildTotals(causes, *memory.avoidable)


def unused(registry: BaseRegistry, seconds: float) -> Unused:
    """
    Count the cached instances that were not used for a time.

    Args:
        registry: The registry.
        seconds: The time.

    Returns:
        Their number and bytes; without held and pinned ones. O(cached).
    """
    start = registry.now() - seconds
    idle = [
        entry
        for entry in registry.warm_entries()
        if entry.last_used < start and not entry.holds and not entry.slot.pinned
    ]
    return Unused(len(idle), sum(max(0, entry.bytes) for entry in idle), seconds)


def _shares(misses: Iterable[Miss]) -> tuple[CauseShare, ...]:
    counts: Counter[int] = Counter()
    seconds: Counter[int] = Counter()
    for miss in misses:
        counts[miss.cause] += 1
        seconds[miss.cause] += miss.seconds  # type: ignore[assignment]
    return tuple(
        CauseShare(name, counts[cause], float(seconds[cause]))
        for cause, name in _CAUSE_NAMES.items()
        if counts[cause]
    )


def _rebuilt(misses: Iterable[Miss]) -> tuple[Rebuilt, ...]:
    found: dict[str, tuple[int, float]] = {}
    for miss in misses:
        if miss.cause in (SIZE, MEMORY):
            builds, seconds = found.get(miss.class_name, (0, 0.0))
            found[miss.class_name] = builds + 1, seconds + miss.seconds
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return tuple(Rebuilt(name, *costs) for name, costs in ordered[:_MOST_REBUILT])


# -- larger and smaller bounds -------------------------------------------------------------------


def _size_curve(
    registry: BaseRegistry,
    ghosts: Ghosts,
    misses: Sequence[Miss],
    entries: Sequence[Entry],
    start: float,
) -> PlanCurve:
    bound, table = registry.max_size, ghosts.memory.table
    sized = _sizes_known(entries)
    points = _smaller_points(
        [max(1, int(bound * each)) for each in _SMALLER], bound, entries, start, lambda _: 1
    )
    larger_bounds = level_bounds(bound)
    for level, larger in enumerate(larger_bounds):
        if larger in larger_bounds[:level]:  # multiples of a small bound are equal
            continue
        if larger - bound > table.most:
            break  # more than is remembered
        points.append(
            _avoided(larger, (miss for miss in misses if miss.size_levels >> level & 1))._with(
                table.newest_bytes(larger - bound) if sized else None
            )
        )
    return PlanCurve("max_cache_size", bound, tuple(points))


def _byte_curve(
    registry: BaseRegistry, misses: Sequence[Miss], entries: Sequence[Entry], start: float
) -> PlanCurve:
    bound = registry.settings.max_cache_bytes
    points = _smaller_points(
        [max(1, int(bound * each)) for each in _SMALLER], bound, entries, start,
        lambda entry: max(0, entry.bytes),
    )  # fmt: skip
    for level, larger in enumerate(level_bounds(bound)):
        found = _avoided(larger, (miss for miss in misses if miss.byte_levels >> level & 1))
        points.append(found._with(larger - bound))
    return PlanCurve("max_cache_bytes", bound, tuple(points))


def _ttl_curve(ttl: float, misses: Sequence[Miss]) -> PlanCurve:
    return PlanCurve(
        "cache_ttl_seconds",
        ttl,
        tuple(
            _avoided(ttl * each, (miss for miss in misses if 0.0 < miss.ttl_ratio <= each))._with(
                None
            )
            for each in _TTL_MULTIPLES
        ),
    )


class _Avoided(NamedTuple):
    bound: float
    builds: int
    seconds: float

    def _with(self, size: int | None) -> PlanPoint:
        return PlanPoint(self.bound, -self.builds, -self.seconds, size, estimated=False)


def _avoided(bound: float, misses: Iterable[Miss]) -> _Avoided:
    builds, seconds = 0, 0.0
    for miss in misses:
        builds += 1
        seconds += miss.seconds
    return _Avoided(bound, builds, seconds)


def _smaller_points(
    bounds: Sequence[int],
    bound: int,
    entries: Sequence[Entry],
    start: float,
    weigh: Callable[[Entry], int],
) -> list[PlanPoint]:
    """Estimate what smaller bounds would have built: at least what was used and lies beyond."""
    points = []
    for smaller in sorted(set(bounds)):
        if smaller >= bound:
            continue
        within = builds = size = 0
        seconds = 0.0
        for entry in entries:  # the most recently used first
            within += weigh(entry)
            if within <= smaller:
                continue
            size += max(0, entry.bytes)
            # Its build is there anyway if it was built within the window and not used again.
            if entry.last_used >= start and (entry.uses > 1 or entry.built_at < start):
                builds += 1
                seconds += entry.build_seconds
        known = -size if _sizes_known(entries) else None
        points.append(PlanPoint(smaller, builds, seconds, known, estimated=True))
    return points


def _sizes_known(entries: Iterable[Entry]) -> bool:
    return any(entry.bytes >= 0 for entry in entries)


# -- thrashing -----------------------------------------------------------------------------------


def _thrashing(registry: BaseRegistry, ghosts: Ghosts, misses: Sequence[Miss]) -> Thrashing | None:
    by_size = [miss for miss in misses if miss.size_levels >> _TWICE & 1]
    by_bytes = [miss for miss in misses if miss.byte_levels >> _TWICE & 1]
    if not by_size and not by_bytes:
        return None
    if sum(m.seconds for m in by_size) >= sum(m.seconds for m in by_bytes) and by_size:
        setting, bound, found = "max_cache_size", registry.max_size, by_size
        needs = sorted(miss.places for miss in found if miss.places)
        levels = [miss.size_levels for miss in found]
    else:
        setting, bound = "max_cache_bytes", registry.settings.max_cache_bytes
        found = by_bytes
        needs = sorted(miss.bytes for miss in found if miss.bytes)
        levels = [miss.byte_levels for miss in found]
    better = _better(bound, needs, levels)
    if needs:
        place = 0 if setting == "max_cache_size" else 1
        avoided = [m for m in found if 0 < (m.places, m.bytes)[place] <= better]
    else:
        level = level_bounds(bound).index(better)
        avoided = [
            m for m in found if (m.size_levels if setting == "max_cache_size" else m.byte_levels)
            >> level & 1
        ]  # fmt: skip
    size: int | None = better - bound
    if setting == "max_cache_size":
        known = _sizes_known(registry.warm_entries())
        size = ghosts.memory.table.newest_bytes(better - bound) if known else None
    return Thrashing(
        setting,
        bound,
        len(found),
        sum(miss.seconds for miss in found),
        better,
        len(avoided),
        sum(miss.seconds for miss in avoided),
        size,
    )


def _better(bound: int, needs: Sequence[int], levels: Sequence[int]) -> int:
    """Return the smallest followed bound that avoids nearly all of what twice the bound avoids."""
    if needs:
        return needs[min(len(needs) - 1, int(_NEARLY_ALL * len(needs)))]
    larger = level_bounds(bound)
    for level in range(_TWICE):
        if sum(each >> level & 1 for each in levels) >= _NEARLY_ALL * len(levels):
            return larger[level]
    return larger[_TWICE]
