"""
The curves of a running registry: from its latest builds to what other bounds would have changed.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from ..codes import AGED, IDLE, MEMORY, SIZE
from .ghosts import MOST_GHOSTS, ghosts_of, prospects_of
from .miss_log import FIRST, LEVELS, level_bounds
from .plan import CauseShare, Plan, PlanCurve, PlanPoint, Rebuilt, Thrashing, Unused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._core import Entry
    from ..registry import BaseRegistry
    from .ghosts import Recalled
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
    recalled = ghosts.memory.recall(max(registry.now() - window_seconds, ghosts.began))
    now = max(registry.now(), recalled.start)
    start, misses = recalled.start, recalled.misses
    entries = registry.warm_entries()
    curves = [_size_curve(registry, recalled, entries)]
    if registry.settings.max_cache_bytes:
        curves.append(_byte_curve(registry, recalled, entries))
    ttl = registry.settings.cache_ttl_seconds
    if ttl:
        curves.append(_ttl_curve(registry, ttl, misses))
    return Plan(
        window_seconds=now - start,
        builds=len(misses),
        build_seconds=sum(miss.seconds for miss in misses),
        causes=_shares(misses),
        curves=tuple(curves),
        unused=unused(registry, now - start),
        thrashing=_thrashing(registry, recalled, entries),
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
    totals = memory.totals
    causes = [
        (name, *totals.causes.get(cause, (0, 0.0)))
        for cause, name in _CAUSE_NAMES.items()
        if cause != FIRST
    ]
    return RebuildTotals(causes, totals.avoidable_builds, totals.avoidable_seconds)


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


def _size_curve(registry: BaseRegistry, recalled: Recalled, entries: Sequence[Entry]) -> PlanCurve:
    bound = registry.max_size
    points = _smaller_points(
        [max(1, int(bound * each)) for each in _SMALLER], bound, entries, recalled.start,
        lambda _: 1,
    )  # fmt: skip
    sums = _sums(recalled, entries)
    estimated = prospects_of(registry) is not None
    for larger in sorted(set(level_bounds(bound))):  # multiples of a small bound are equal
        if larger - bound > MOST_GHOSTS:
            break  # more than is remembered
        avoided = [miss for miss in recalled.misses if bound < miss.places <= larger]
        points.append(_avoided(larger, avoided, _first_bytes(sums, larger - bound), estimated))
    return PlanCurve("max_cache_size", bound, tuple(points))


def _byte_curve(registry: BaseRegistry, recalled: Recalled, entries: Sequence[Entry]) -> PlanCurve:
    bound = registry.settings.max_cache_bytes
    points = _smaller_points(
        [max(1, int(bound * each)) for each in _SMALLER], bound, entries, recalled.start,
        lambda entry: max(0, entry.bytes),
    )  # fmt: skip
    estimated = prospects_of(registry) is not None
    for level, larger in enumerate(level_bounds(bound)):
        avoided = [miss for miss in recalled.misses if miss.avoided_by_bytes(bound, level)]
        points.append(_avoided(larger, avoided, larger - bound, estimated))
    return PlanCurve("max_cache_bytes", bound, tuple(points))


def _ttl_curve(registry: BaseRegistry, ttl: float, misses: Sequence[Miss]) -> PlanCurve:
    # By the present idle TTL of its class, which may have one of its own.
    ratios = [
        (miss.idle_seconds / _idle_limit(registry, miss.class_name, ttl), miss)
        for miss in misses
        if miss.idle_seconds > 0.0
    ]
    return PlanCurve(
        "cache_ttl_seconds",
        ttl,
        tuple(
            _avoided(
                ttl * each, [miss for ratio, miss in ratios if 1.0 < ratio <= each], None, False
            )
            for each in _TTL_MULTIPLES
        ),
    )


def _idle_limit(registry: BaseRegistry, class_name: str, ttl: float) -> float:
    slot = registry.slots.get(class_name)
    limit = ttl if slot is None else slot.idle_limit
    return limit if limit > 0.0 else inf


def _avoided(bound: float, misses: Sequence[Miss], size: int | None, estimated: bool) -> PlanPoint:
    seconds = sum(miss.seconds for miss in misses)
    return PlanPoint(bound, -len(misses), -seconds, size, estimated=estimated)


def _sums(recalled: Recalled, entries: Iterable[Entry]) -> list[int] | None:
    """Return the sums of the bytes of the newest ghosts; None if they are not known."""
    if recalled.sizes is None or not _sizes_known(entries):
        return None
    return list(accumulate(recalled.sizes, initial=0))


def _first_bytes(sums: list[int] | None, count: int) -> int | None:
    return None if sums is None else sums[min(count, len(sums) - 1)]


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


def _thrashing(
    registry: BaseRegistry, recalled: Recalled, entries: Sequence[Entry]
) -> Thrashing | None:
    places, budget = registry.max_size, registry.settings.max_cache_bytes
    misses = recalled.misses
    by_size = [miss for miss in misses if places < miss.places <= level_bounds(places)[_TWICE]]
    by_bytes = [miss for miss in misses if miss.avoided_by_bytes(budget, _TWICE)]
    if not by_size and not by_bytes:
        return None
    if sum(m.seconds for m in by_size) >= sum(m.seconds for m in by_bytes) and by_size:
        setting, bound = "max_cache_size", places
        needs = [(miss.places, miss.seconds) for miss in by_size]
    else:
        setting, bound = "max_cache_bytes", budget
        needs = [(miss.bytes, miss.seconds) for miss in by_bytes]
    needs.sort()
    better = needs[min(len(needs) - 1, int(_NEARLY_ALL * len(needs)))][0]
    avoided = [seconds for need, seconds in needs if need <= better]
    size: int | None = better - bound
    if setting == "max_cache_size":
        size = _first_bytes(_sums(recalled, entries), better - bound)
    return Thrashing(
        setting,
        bound,
        len(needs),
        sum(seconds for _, seconds in needs),
        better,
        len(avoided),
        sum(avoided),
        size,
    )
