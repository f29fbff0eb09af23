"""
What the live view tells of a registry: its figures, and a row for each class.

Plain data, ready for JSON. Seconds are floats, sizes are bytes, and None is what is not known.
"""

from __future__ import annotations

from math import inf, isfinite
from threading import enumerate as threads

from ..resolver import told
from .protocol import MAX_CLASSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..registry import Registry
    from ..stats import EntryStats, RegistryStats

    Row = dict[str, Any]

__all__ = ["STATES", "describe"]

STATES = ("held", "warm", "weak", "leaving", "building", "failed", "cold")
"""
What a class can be: leased or being called; cached; kept by weak reference; removed, and closed at
its last release; being built; failed, and not tried again yet; none of these.
"""

_WEAK = 2  # a slot's kind


def describe(
    registry: Registry, name: str, *, matching: str = "", limit: int = MAX_CLASSES
) -> dict[str, Any]:
    """
    Describe a registry; reading it changes nothing.

    Args:
        registry: The registry.
        name: What it is served as.
        matching: Only classes whose name contains this, in upper or lower case.
        limit: The most classes to tell of: those that are warm before those that are not.

    Returns:
        The figures of `Registry.stats` and its settings; ``classes``, a list of rows; and
        ``classes_left_out``.

    O(registered names).
    """
    stats = registry.stats()
    rows: list[Row] = []
    left_out = 0
    wanted = matching.casefold()
    for row in _rows(registry, stats):
        if wanted and wanted not in row["class_name"].casefold():
            continue
        if len(rows) < limit:
            rows.append(row)
        else:
            left_out += 1
    figures = stats._asdict()
    del figures["entries"]
    figures["removals"] = {cause.name.lower(): count for cause, count in stats.removals.items()}
    settings = registry.settings.as_options()
    return {
        "name": name,
        "settings": {key: _finite(value) for key, value in settings.items()},
        **figures,
        "lookups": stats.lookups,
        "hit_rate": stats.hit_rate,
        "utilisation": stats.utilisation,
        "classes": rows,
        "classes_left_out": left_out,
    }


def _rows(registry: Registry, stats: RegistryStats) -> Iterator[Row]:
    """One row for each class: the cached ones, the newest first, then the others."""
    told_of: set[str] = set()
    holds = _oldest_holds(registry)
    building = {build[0]: build[1:] for build in registry._builder.under_way()}
    failed = {failure[0]: failure[1:] for failure in registry._builder.failures()}
    names = {thread.ident: thread.name for thread in threads()}
    paths = {slot.name: slot.path for slot in list(registry._slots.values())}

    def row(class_name: str, state: str, **known: Any) -> Row:
        told_of.add(class_name)
        count, held_seconds = holds.get(class_name, (0, None))
        return {
            "class_name": class_name,
            "class_path": paths.get(class_name),
            "state": state,
            "age_seconds": None,
            "idle_seconds": None,
            "uses": None,
            "build_seconds": None,
            "bytes": None,
            "holders": count,
            "held_seconds": held_seconds,
            "leaves": None,
            "leaves_in_seconds": None,
            "detail": None,
            **known,
        }

    for entry, leaves, seconds in _departures(registry, stats):
        held = entry.holders > 0
        yield row(
            entry.class_name,
            "held" if held else "warm",
            age_seconds=entry.age_seconds,
            # Its idle clock stands still while it is held.
            idle_seconds=None if held else entry.idle_seconds,
            uses=entry.uses,
            build_seconds=entry.build_seconds,
            bytes=entry.bytes,
            holders=entry.holders,
            leaves=leaves,
            leaves_in_seconds=seconds,
        )
    now = registry._now()
    for slot in list(registry._slots.values()):
        if (
            slot.kind == _WEAK
            and slot.name not in told_of
            and registry._instance_in(slot) is not None
        ):
            yield row(
                slot.name,
                "weak",
                age_seconds=max(0.0, now - slot.built_at),
                idle_seconds=None if slot.holds else max(0.0, now - slot.last_used),
                uses=slot.uses,
                build_seconds=slot.build_seconds,
                holders=slot.holds,
                leaves="when let go",
            )
    for class_name, (thread, seconds, waiting) in building.items():
        if class_name not in told_of:
            who = names.get(thread, f"thread {thread}")
            others = f", {waiting} waiting" if waiting else ""
            yield row(
                class_name,
                "building",
                build_seconds=seconds,
                detail=f"for {span(seconds)} in {who}{others}",
            )
    for class_name, (error, seconds) in failed.items():
        if class_name not in told_of:
            again = "never again" if seconds == inf else f"again in {span(seconds)}"
            cause = str(error) if error.__cause__ is None else told(error.__cause__)
            yield row(class_name, "failed", detail=f"{again}: {cause}")
    for class_name in holds:
        if class_name not in told_of:
            yield row(class_name, "leaving", leaves="at its release")
    for class_name, path in paths.items():
        if path is not None and class_name not in told_of:
            yield row(class_name, "cold")


def _departures(
    registry: Registry, stats: RegistryStats
) -> Iterator[tuple[EntryStats, str, float | None]]:
    """Each cached instance, the newest first, with why it will leave, and in how many seconds."""
    spare = stats.max_cache_size - stats.cached
    # How many go before it when room is needed: those used less recently, held and pinned excepted.
    slots = {entry.class_name: registry._slots.get(entry.class_name) for entry in stats.entries}
    pinned = {name for name, slot in slots.items() if slot is not None and slot.pinned}
    before = sum(not e.holders and e.class_name not in pinned for e in stats.entries)
    for entry in stats.entries:
        if entry.holders:
            yield entry, "at its release", None
            continue
        slot = slots[entry.class_name]
        causes = []
        idle_left = age_left = inf
        if slot is not None:
            age_left = slot.age_limit - entry.age_seconds
            idle_left = slot.idle_limit - entry.idle_seconds
        if entry.class_name in pinned:
            causes.append("pinned")
            idle_left = inf
        else:
            before -= 1
        left = min(idle_left, age_left)
        if left <= 0.0:
            causes.append("expired: next look-up")
        elif left != inf:
            causes.append(f"{'idle' if idle_left <= age_left else 'aged'} in {span(left)}")
        if len(registry) > stats.max_cache_size and entry.class_name not in pinned:
            builds = max(0, spare) + before + 1
            if registry._by_policy:
                causes.append("by policy")
            elif builds == 1:
                causes.append("LRU: next")
            elif not causes:
                causes.append(f"LRU: after {builds} builds")
        yield entry, ", ".join(causes) or "no limit", None if left == inf else max(0.0, left)


def _oldest_holds(registry: Registry) -> dict[str, tuple[int, float]]:
    """Class name -> how many hold it, and for how long the first of them."""
    found: dict[str, tuple[int, float]] = {}
    for holder in registry.holders():  # the oldest first
        count, seconds = found.get(holder.class_name, (0, holder.held_seconds))
        found[holder.class_name] = count + 1, seconds
    return found


def span(seconds: float) -> str:
    """Write a number of seconds in at most four characters, below a thousand days."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for size, unit, most in ((1, "s", 99.5), (60, "m", 99.5), (3600, "h", 47.5)):
        if seconds < most * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def _finite(value: Any) -> Any:
    # JSON has no infinity; `retry_after_seconds` may be one. A policy or a sizer may be any object.
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else "inf"
    return getattr(value, "__qualname__", type(value).__qualname__)
