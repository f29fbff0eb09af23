"""
The live view's description of a registry: its figures, and one row per class.

The result is plain data, ready for JSON. Seconds are floats, sizes are bytes, and None stands for
an unknown value.
"""

from __future__ import annotations

from functools import partial
from math import inf, isfinite
from threading import enumerate as threads

from ..codes import WEAK
from ..planning.advice import current_advice
from ..resolver import error_text
from ..stats import snapshot
from .protocol import MAX_CLASSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from .._core import Slot
    from ..family_keys import SlotKey
    from ..registry import BaseRegistry
    from ..stats import EntryStats, RegistryStats

    Row = dict[str, Any]

__all__ = ["STATES", "describe", "find_shown", "shown_name"]

STATES = ("held", "warm", "weak", "removed", "building", "failed", "cold")
"""
The states of a class: leased or being called; cached; only weakly referenced; removed, but still
held, and closed at its release; being built; failed, and not retried yet; none of these.
"""


def describe(
    registry: BaseRegistry, name: str, *, matching: str = "", limit: int = MAX_CLASSES
) -> dict[str, Any]:
    """
    Describe a registry, without side effects.

    Args:
        registry: The registry.
        name: The name by which it is served.
        matching: Describe only classes whose names contain this text, ignoring case.
        limit: The most classes to describe; cached ones come first.

    Returns:
        The figures of `Registry.stats`, the settings, ``classes``, which is a list of rows, and
        ``classes_left_out``, the number of classes above the limit.

    O(registered names), of which those above the limit are only counted.
    """
    stats = snapshot(registry)
    rows: list[Row] = []
    left_out = 0
    pattern = matching.casefold()
    for key, make in _rows(registry, stats):
        if pattern and pattern not in shown_name(registry, key).casefold():
            continue
        if len(rows) < limit:
            rows.append(make())
        else:
            left_out += 1
    figures = stats._asdict()
    del figures["entries"]
    figures["removals"] = {cause.name.lower(): count for cause, count in stats.removals.items()}
    figures["states"] = dict(stats.states)
    settings = registry.settings.as_options()
    return {
        "name": name,
        "settings": {key: _finite(value) for key, value in settings.items()},
        **figures,
        "lookups": stats.lookups,
        "hit_rate": stats.hit_rate,
        "utilisation": stats.utilisation,
        "advice": current_advice(registry),
        "classes": rows,
        "classes_left_out": left_out,
    }


def _rows(
    registry: BaseRegistry, stats: RegistryStats
) -> Iterator[tuple[SlotKey, Callable[[], Row]]]:
    """
    Yield the key of each class, and what makes its row.

    Cached ones come first, the newest first, then the others.
    """
    described: set[SlotKey] = set()
    cached, removed = _oldest_holds(registry)
    names = {thread.ident: thread.name for thread in threads()}
    slots = {slot.key: slot for slot in list(registry.slots.values())}

    def row(key: SlotKey, state: str, **known: Any) -> tuple[SlotKey, Callable[[], Row]]:
        described.add(key)
        return key, lambda: make(key, state, **known)

    def make(key: SlotKey, state: str, **known: Any) -> Row:
        holds = removed if state == "removed" else cached
        count, held_seconds = holds.get(key, (0, None))
        return {
            "class_name": shown_name(registry, key),
            "class_path": slots[key].path if key in slots else None,
            "state": state,
            "age_seconds": None,
            "idle_seconds": None,
            "uses": None,
            "build_seconds": None,
            "bytes": None,
            "holders": count,
            "held_seconds": held_seconds,
            "expires": None,
            "expires_in_seconds": None,
            "detail": None,
            **known,
        }

    def cached_row(figures: EntryStats, before: int | None) -> Row:
        held = figures.holders > 0
        expires, seconds = _next_removal(
            registry, stats, figures, slots.get(figures.slot_key), before
        )
        return make(
            figures.slot_key,
            "held" if held else "warm",
            age_seconds=figures.age_seconds,
            # The idle clock is stopped while the instance is held.
            idle_seconds=None if held else figures.idle_seconds,
            uses=figures.uses,
            build_seconds=figures.build_seconds,
            bytes=figures.bytes,
            holders=figures.holders,
            expires=expires,
            expires_in_seconds=seconds,
        )

    for figures, before in _eviction_order(stats, slots):
        described.add(figures.slot_key)
        yield figures.slot_key, partial(cached_row, figures, before)
    now = registry.now()
    for slot in slots.values():
        entry = slot.entry
        if entry is None or entry.state != WEAK or slot.key in described:
            continue
        if entry.instance is not None:
            yield row(
                slot.key,
                "weak",
                age_seconds=max(0.0, now - entry.built_at),
                idle_seconds=None if entry.holds else max(0.0, now - entry.last_used),
                uses=entry.uses,
                build_seconds=entry.build_seconds,
                holders=entry.holds,
                expires="when unreferenced",
            )
    for key, thread, seconds, waiting in registry.builder.in_progress():
        if key not in described:
            builder = names.get(thread, f"thread {thread}")
            others = f", {waiting} waiting" if waiting else ""
            yield row(
                key,
                "building",
                build_seconds=seconds,
                detail=f"for {span(seconds)} in {builder}{others}",
            )
    for key, error, seconds in registry.builder.failures.rows():
        if key not in described:
            retry = "no retry" if seconds == inf else f"retry in {span(seconds)}"
            cause = str(error) if error.__cause__ is None else error_text(error.__cause__)
            yield row(key, "failed", detail=f"{retry}: {cause}")
    for key in removed:
        if key not in described:
            yield row(key, "removed", expires="still held, closed at its release")
    for key, slot in slots.items():
        if slot.path is not None and key not in described:
            yield row(key, "cold")


def shown_name(registry: BaseRegistry, key: SlotKey) -> str:
    """
    Return the text by which clients know a class or a key of a family.

    Args:
        registry: The registry.
        key: A class name, or a key of a family.

    Returns:
        A text that no other row has, also where a class is named like a key.
    """
    name = str(key)
    return f"{name} (family)" if type(key) is not str and name in registry.slots else name


def find_shown(registry: BaseRegistry, name: str) -> Slot | None:
    """
    Find a slot by the text by which clients know it.

    Args:
        registry: The registry.
        name: A result of `shown_name`.

    Returns:
        The slot of a registered class, or of a key of a family; None if there is none. O(slots)
        for a key.
    """
    slot = registry.slots.get(name)
    if slot is not None:
        return slot if slot.target is not None else None
    for each in list(registry.slots.values()):
        if type(each.key) is not str and shown_name(registry, each.key) == name:
            return each
    return None


def _eviction_order(
    stats: RegistryStats, slots: Mapping[SlotKey, Slot]
) -> Iterator[tuple[EntryStats, int | None]]:
    """
    Yield each cached instance, the newest first, with how many are evicted before it.

    Those are the ones used less recently, neither held nor pinned; None: it is not evicted.
    """

    def may_be_evicted(entry: EntryStats) -> bool:
        slot = slots.get(entry.slot_key)
        return not entry.holders and (slot is None or not slot.pinned)

    before = sum(map(may_be_evicted, stats.entries))
    for entry in stats.entries:
        if may_be_evicted(entry):
            before -= 1
            yield entry, before
        else:
            yield entry, None


def _next_removal(
    registry: BaseRegistry,
    stats: RegistryStats,
    entry: EntryStats,
    slot: Slot | None,
    before: int | None,
) -> tuple[str, float | None]:
    """Return what removes a cached instance next, and the seconds to it; see `_eviction_order`."""
    causes = []
    idle_left = age_left = inf
    if slot is not None:
        age_left = slot.age_limit - entry.age_seconds
        idle_left = slot.idle_limit - entry.idle_seconds
    if before is None:
        idle_left = inf
        if not entry.holders:
            causes.append("pinned")
        elif age_left == inf:
            causes.append("not while held")
    left = min(idle_left, age_left)
    if left <= 0.0:
        causes.append("expired: next look-up")
    elif left != inf:
        causes.append(f"{'idle' if idle_left <= age_left else 'aged'} in {span(left)}")
    if len(registry) > stats.max_cache_size and before is not None:
        builds = max(0, stats.max_cache_size - stats.cached) + before + 1
        if registry.by_policy:
            causes.append("by policy")
        elif builds == 1:
            causes.append("LRU: next")
        elif not causes:
            causes.append(f"LRU: after {builds} builds")
    return ", ".join(causes) or "no limit", None if left == inf else max(0.0, left)


def _oldest_holds(
    registry: BaseRegistry,
) -> tuple[dict[SlotKey, tuple[int, float]], dict[SlotKey, tuple[int, float]]]:
    """Key -> holders and seconds of the oldest hold; of cached and of removed instances."""
    cached: dict[SlotKey, tuple[int, float]] = {}
    removed: dict[SlotKey, tuple[int, float]] = {}
    now = registry.now()
    for entry, _, since in registry.holds():  # the oldest first
        found = cached if entry.in_cache else removed
        count, seconds = found.get(entry.slot.key, (0, max(0.0, now - since)))
        found[entry.slot.key] = count + 1, seconds
    return cached, removed


def span(seconds: float) -> str:
    """Format a number of seconds below a thousand days in at most four characters."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for size, unit, most in ((1, "s", 99.5), (60, "m", 99.5), (3600, "h", 47.5)):
        if seconds < most * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def _finite(value: Any) -> Any:
    # JSON has no infinity, which `retry_after_seconds` may be; a policy or sizer may be any object.
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else "inf"
    return getattr(value, "__qualname__", type(value).__qualname__)
