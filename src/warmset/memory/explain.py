"""
Explanations of the state of one class: whether it is cached, until when, and at what cost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..codes import (
    AGED,
    CLEARED,
    COLLECTED,
    DISCARDED,
    HELD,
    IDLE,
    INVALID,
    MEMORY,
    NO_CAUSE,
    RECYCLED,
    REPLACED,
    SHUTDOWN,
    SIZE,
)
from ..stats import holder_threads
from .autosize import Autosize
from .manager import MemoryManager

if TYPE_CHECKING:
    from typing import Any, Protocol

    from .._core import Entry, Slot
    from ..registry import BaseRegistry

    class Bounded(Protocol):
        """A family."""

        max_cache_size: int | None


__all__ = ["Explanation", "explain"]


class Explanation(NamedTuple):
    """
    The state of one class at one moment.

    Seconds are relative to that moment. Values that are unknown or do not apply are None.
    """

    class_name: str
    state: str
    """"warm", "weak" (weakly referenced), "building", "failed", "cold" or "unknown"."""
    age_seconds: float | None
    """The time since the build."""
    idle_seconds: float | None
    """The time since the last use."""
    uses: int
    holders: int
    """The number of leases, running calls, and unfinished generators and coroutines."""
    build_seconds: float | None
    """The duration of the build, which is incurred again after an eviction."""
    bytes: int | None
    expires_in_seconds: float | None
    """The time until the idle limit or maximum age is reached, if it is not used before."""
    idle_limit_seconds: float | None
    age_limit_seconds: float | None
    priority: int
    pinned: bool
    eviction_rank: int | None
    """Its position in the eviction order, from 1; None if it cannot be evicted for capacity."""
    reasons: tuple[str, ...]
    """The explanation in sentences."""

    def __str__(self) -> str:
        return "\n".join((f"{self.class_name}: {self.state}", *("  " + s for s in self.reasons)))


def explain(registry: BaseRegistry, class_name: Any) -> Explanation:
    """
    Explain one class.

    Args:
        registry: The registry.
        class_name: A class name, which need not be registered, or a key of a family.

    Returns:
        The explanation. O(cached), because of the position in the eviction order.
    """
    slot = registry.slots.get(class_name)
    entry = None if slot is None else slot.entry
    if slot is None or entry is None:
        return _absent(registry, class_name, slot)
    now = registry.now()
    options = slot.options
    priority = 0 if options is None else options.priority
    age, idle = max(0.0, now - entry.built_at), max(0.0, now - entry.last_used)
    size = None if entry.bytes < 0 else entry.bytes
    reasons = [
        f"built {_span(age)} ago in {_span(entry.build_seconds)},"
        f" {_size_text(registry, entry, size)}",
        f"used {_times(entry.uses)}, last {_span(idle)} ago",
    ]
    reasons += _holders_text(registry, entry)
    if entry.weak:
        reasons.append("weakly referenced: it lives as long as other references to it exist")
        return _explanation(entry, "weak", now, size, priority, None, None, reasons)
    expires_in = _expiry(registry, entry, age, idle, reasons)
    rank = _rank(registry, entry, reasons)
    if slot.pinned:
        reasons.append("pinned: not evicted for idle time, capacity or memory")
    if priority:
        reasons.append(f"priority {priority}: classes with a lower priority are evicted first")
    if options is not None and options.recycles:
        reasons.append(_recycling_text(registry, entry))
    return _explanation(entry, "warm", now, size, priority, expires_in, rank, reasons)


def _explanation(
    entry: Entry,
    state: str,
    now: float,
    size: int | None,
    priority: int,
    expires_in: float | None,
    rank: int | None,
    reasons: list[str],
) -> Explanation:
    slot = entry.slot
    return Explanation(
        class_name=entry.name,
        state=state,
        age_seconds=max(0.0, now - entry.built_at),
        idle_seconds=max(0.0, now - entry.last_used),
        uses=entry.uses,
        holders=entry.holds,
        build_seconds=entry.build_seconds,
        bytes=size,
        expires_in_seconds=expires_in,
        idle_limit_seconds=None if math.isinf(slot.idle_limit) else slot.idle_limit,
        age_limit_seconds=None if math.isinf(slot.age_limit) else slot.age_limit,
        priority=priority,
        pinned=slot.pinned,
        eviction_rank=rank,
        reasons=tuple(reasons),
    )


def _size_text(registry: BaseRegistry, entry: Entry, size: int | None) -> str:
    """Return the size, the method by which it was determined, and when."""
    if size is None:
        return "of unknown size"
    memory = registry.extension(MemoryManager)
    last = None if memory is None else memory.sizing.last(entry)
    if last is None:
        return _bytes(size)
    ago = max(0.0, registry.now() - last.measured_at)
    qualifier = "at least " if last.at_least else "about " if last.estimate else ""
    return f"{qualifier}{_bytes(size)} ({last.method}, {_span(ago)} ago)"


def _holders_text(registry: BaseRegistry, entry: Entry) -> list[str]:
    holds = entry.holds
    if not holds:
        return []
    threads = holder_threads(registry).get(entry.serial)
    by = f" by {', '.join(sorted(set(threads)))}" if threads else ""
    return [f"held {_times(holds)}{by}: its idle clock is stopped, and it is not closed"]


def _expiry(
    registry: BaseRegistry, entry: Entry, age: float, idle: float, reasons: list[str]
) -> float | None:
    """Explain the idle limit and maximum age, and return the seconds until the earlier expiry."""
    slot = entry.slot
    options = slot.options
    own_idle = options is not None and options.cache_ttl_seconds is not None
    own_age = options is not None and options.max_age_seconds is not None
    expires_in = math.inf
    if math.isinf(slot.idle_limit):
        reasons.append("no idle TTL")
    else:
        memory = registry.extension(MemoryManager)
        whose = "its own" if own_idle else "the registry's"
        adaptive = ""
        if not own_idle and memory is not None and memory.adaptive is not None:
            whose, adaptive = "adaptive", f": {memory.adaptive.limit(slot.key).reason}"
        reasons.append(f"idle TTL {_span(slot.idle_limit)} ({whose}){adaptive}")
        if not entry.holds and not slot.pinned:
            expires_in = slot.idle_limit - idle
    if not math.isinf(slot.age_limit):
        whose = "its own" if own_age else "the registry's"
        reasons.append(f"maximum age {_span(slot.age_limit)} ({whose})")
        expires_in = min(expires_in, slot.age_limit - age)
    if math.isinf(expires_in):
        return None
    expires_in = max(0.0, expires_in)
    reasons.append(f"expires in {_span(expires_in)} if it is not used" if expires_in else "expired")
    return expires_in


def _rank(registry: BaseRegistry, entry: Entry, reasons: list[str]) -> int | None:
    """Explain and return the position in the eviction order, from 1."""
    if entry.holds or entry.slot.pinned:
        return None
    memory = registry.extension(MemoryManager)
    if memory is not None and memory.chooser is not None:
        order = [each for each, _ in memory.chooser.order(registry, registry.now())]
        by = "the policy"
    else:
        oldest_first = reversed(registry.warm_entries())
        order = [each for each in oldest_first if not each.holds and not each.slot.pinned]
        by = "last use"
    if entry not in order:  # used or removed meanwhile
        return None
    rank = order.index(entry) + 1
    reasons.append(
        f"{_ordinal(rank)} of {len(order)} in the eviction order, by {by}; "
        f"{registry.cached} of at most {registry.max_size} cached"
    )
    if registry.settings.max_cache_size == "auto":
        reasons.append(_bound_text(registry))
    return rank


def _bound_text(registry: BaseRegistry) -> str:
    """Explain the bound that the registry has chosen."""
    settings = registry.settings
    text = (
        f"the bound of {registry.max_size} is chosen by the registry, from {settings.autosize_min}"
        f" to {settings.autosize_max}"
    )
    autosize = registry.extension(Autosize)
    if autosize is None or not autosize.bound_changes:
        return f"{text}; not changed yet"
    last = autosize.bound_changes[-1]
    ago = _span(max(0.0, registry.now() - last.at))
    how = "raised" if last.after > last.before else "lowered"
    return f"{text}; {how} from {last.before} {ago} ago: {last.reason}"


def _recycling_text(registry: BaseRegistry, entry: Entry) -> str:
    memory = registry.extension(MemoryManager)
    options = entry.slot.options
    if memory is None or memory.recycling is None or options is None:
        return "is recycled"
    reason = memory.recycling.reason(registry, entry)
    if reason is not None:
        return f"due to be recycled: {reason}"
    bounds = []
    if options.recycle_after_uses:
        bounds.append(f"{options.recycle_after_uses} uses")
    if options.recycle_after_seconds:
        bounds.append(_span(options.recycle_after_seconds))
    if options.recycle_after_growth_bytes:
        bounds.append(f"growth by {_bytes(options.recycle_after_growth_bytes)}")
    return f"recycled after {' or '.join(bounds)}"


def _absent(registry: BaseRegistry, class_name: Any, slot: Slot | None) -> Explanation:
    builds = {
        name: (seconds, waiting) for name, _, seconds, waiting in registry.builder.in_progress()
    }
    # The slot of a key is forgotten with its instance.
    family = registry.families[class_name.family] if registry.is_of_family(class_name) else None
    options = None if slot is None else slot.options
    if family is not None:
        options = family.options
    reasons = []
    if class_name in builds:
        seconds, waiting = builds[class_name]
        state = "building"
        reasons.append(
            f"build in progress for {_span(seconds)}; {_times(waiting, 'thread')} waiting"
        )
    elif family is None and (slot is None or slot.path is None):
        state = "unknown"
        reasons.append("no class of that name is registered")
    else:
        state = "cold"
        cause = registry.causes_of_forgotten.get(class_name, NO_CAUSE)
        if slot is not None:
            cause = slot.last_cause
        if cause == NO_CAUSE:
            reasons.append("not built yet, as far as is known: the next look-up builds it")
        else:
            reasons.append(f"removed: {_cause_text(registry, slot, cause, family)}")
            reasons.append("the next look-up builds it")
        for name, error, left in registry.builder.failures.rows():
            if name == class_name:
                state = "failed"
                retry = "not retried" if math.isinf(left) else f"retried in {_span(left)}"
                reasons[:] = [f"its build failed: {error}", retry]
    reasons += _removed_text(registry, class_name)
    return Explanation(
        str(class_name), state, None, None, 0, 0, None, None, None, None, None,
        0 if options is None else options.priority,
        slot is not None and slot.pinned, None, tuple(reasons),
    )  # fmt: skip


def _cause_text(
    registry: BaseRegistry, slot: Slot | None, cause: int, family: Bounded | None
) -> str:
    """Explain why the last instance of a class was removed."""
    settings = registry.settings
    idle = "its idle TTL" if slot is None else _span(slot.idle_limit)
    age = "its maximum age" if slot is None else _span(slot.age_limit)
    own = "" if family is None else f", or max_cache_size={family.max_cache_size} of its family"
    reasons = {
        IDLE: f"it was idle for longer than {idle}",
        SIZE: f"evicted because more than max_cache_size={registry.max_size}{own} were cached",
        MEMORY: "evicted because a memory budget was exceeded",
        AGED: f"it was older than {age}",
        RECYCLED: "replaced by a new one, which has been removed since",
        INVALID: "it was found invalid",
        COLLECTED: "it was kept weakly, and nobody referred to it any more",
        CLEARED: "the cache was cleared",
        DISCARDED: "it was discarded",
        REPLACED: "its class was registered anew, or another instance was written",
        SHUTDOWN: "the registry was closed",
    }
    if cause == MEMORY:
        budgets = ("max_cache_bytes", "max_rss_bytes", "host_budget")
        limits = [
            f"{name}={getattr(settings, name)}" for name in budgets if getattr(settings, name)
        ]
        return f"{reasons[MEMORY]} ({', '.join(limits)})" if limits else reasons[MEMORY]
    return reasons.get(cause, "for an unknown reason")


def _removed_text(registry: BaseRegistry, class_name: Any) -> list[str]:
    """Explain that removed instances of a class are still held."""
    removed = {
        entry.serial
        for entry, _, _ in registry.holds()
        if entry.state == HELD and entry.slot.key == class_name
    }
    threads = [name for serial, names in holder_threads(registry).items() if serial in removed
               for name in names]  # fmt: skip
    if not threads:
        return []
    by = ", ".join(sorted(set(threads)))
    return [f"a removed instance is still held {_times(len(threads))} by {by}"]


def _times(count: int, of: str = "") -> str:
    if of:
        return f"{count} {of}{'' if count == 1 else 's'}"
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _ordinal(rank: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{'th' if rank % 100 in (11, 12, 13) else ending}"


def _span(seconds: float) -> str:
    if math.isinf(seconds):
        return "any time"
    if seconds < 1.0:
        return f"{seconds * 1000.0:.3g} ms"
    if seconds < 120.0:
        return f"{seconds:.1f} s"
    if seconds < 7200.0:
        return f"{seconds / 60.0:.1f} min"
    return f"{seconds / 3600.0:.1f} h"


def _bytes(size: int) -> str:
    return f"{size} bytes" if size < 100_000 else f"{size / 1e6:,.1f} MB"
