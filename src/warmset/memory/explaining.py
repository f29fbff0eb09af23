"""
Why an instance is here, until when, and what it costs; or why it is not here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .._core import Slot
    from ..registry import Registry

__all__ = ["Explanation", "explain"]

_EMPTY, _STRONG, _WEAK = 0, 1, 2  # kinds of slots


class Explanation(NamedTuple):
    """
    One class at one moment.

    Seconds are counted from that moment. What is not known, or is not the case, is None.
    """

    class_name: str
    state: str
    """"warm", "weak" (kept by weak reference), "building", "failed", "cold" or "unknown"."""
    age_seconds: float | None
    """Since its build."""
    idle_seconds: float | None
    """Since its last use."""
    uses: int
    holders: int
    """Leases, running calls, unfinished generators and coroutines."""
    build_seconds: float | None
    """What it cost to build; so much is to be paid again when it has left."""
    bytes: int | None
    leaves_in_seconds: float | None
    """When its idle limit or its maximum age takes it, if nobody uses it until then."""
    idle_limit_seconds: float | None
    age_limit_seconds: float | None
    priority: int
    pinned: bool
    leaves_as: int | None
    """How many leave before it when room is wanted, plus one; None: it does not leave for that."""
    because: tuple[str, ...]
    """The same in sentences."""

    def __str__(self) -> str:
        return "\n".join((f"{self.class_name}: {self.state}", *("  " + s for s in self.because)))


def explain(registry: Registry, class_name: str) -> Explanation:
    """
    Explain one class.

    Args:
        registry: The registry.
        class_name: A name, registered or not.

    Returns:
        The explanation.
    """
    slot = registry._slots.get(class_name)
    if slot is None or slot.kind == _EMPTY:
        return _absent(registry, class_name, slot)
    now = registry._now()
    options = registry._options.get(class_name)
    priority = 0 if options is None else options.priority
    age, idle = max(0.0, now - slot.built_at), max(0.0, now - slot.last_used)
    size = None if slot.bytes < 0 else slot.bytes
    said = [
        f"built {_span(age)} ago in {_span(slot.build_seconds)}, {_sized(registry, slot, size)}",
        f"used {_times(slot.uses)}, the last time {_span(idle)} ago",
    ]
    said += _holding(registry, slot)
    if slot.kind == _WEAK:
        said.append("kept by weak reference: it lives as long as somebody else refers to it")
        return _said(slot, "weak", now, size, priority, None, None, said)
    leaves_in = _limits(registry, slot, age, idle, said)
    rank = _rank(registry, slot, said)
    if slot.pinned:
        said.append("pinned: it leaves for no want of use, room or memory")
    if priority:
        said.append(f"priority {priority}: who has less leaves before it")
    if options is not None and options.recycles:
        said.append(_recycling(registry, slot))
    return _said(slot, "warm", now, size, priority, leaves_in, rank, said)


def _said(
    slot: Slot,
    state: str,
    now: float,
    size: int | None,
    priority: int,
    leaves_in: float | None,
    rank: int | None,
    said: list[str],
) -> Explanation:
    return Explanation(
        class_name=slot.name,
        state=state,
        age_seconds=max(0.0, now - slot.built_at),
        idle_seconds=max(0.0, now - slot.last_used),
        uses=slot.uses,
        holders=slot.holds,
        build_seconds=slot.build_seconds,
        bytes=size,
        leaves_in_seconds=leaves_in,
        idle_limit_seconds=None if math.isinf(slot.idle_limit) else slot.idle_limit,
        age_limit_seconds=None if math.isinf(slot.age_limit) else slot.age_limit,
        priority=priority,
        pinned=slot.pinned,
        leaves_as=rank,
        because=tuple(said),
    )


def _sized(registry: Registry, slot: Slot, size: int | None) -> str:
    """How big it is, by what method, and since when that is known."""
    if size is None:
        return "of unknown size"
    memory = registry._memory
    told = None if memory is None else memory.sizing.last(slot.name, slot.epoch)
    if told is None:
        return _bytes(size)
    ago = max(0.0, registry._now() - told.measured_at)
    least = "at least " if told.at_least else "about " if told.estimate else ""
    return f"{least}{_bytes(size)} ({told.method}, {_span(ago)} ago)"


def _holding(registry: Registry, slot: Slot) -> list[str]:
    if not slot.holds:
        return []
    threads = [h.thread for h in registry.holders() if h.class_name == slot.name]
    by = f" by {', '.join(sorted(set(threads)))}" if threads else ""
    return [f"held {_times(slot.holds)}{by}: its idle clock stands still, and it is not closed"]


def _limits(
    registry: Registry, slot: Slot, age: float, idle: float, said: list[str]
) -> float | None:
    """Tell of idle limit and maximum age; the seconds until the first of them takes it."""
    options = registry._options.get(slot.name)
    own_idle = options is not None and options.cache_ttl_seconds is not None
    own_age = options is not None and options.max_age_seconds is not None
    leaves_in = math.inf
    if math.isinf(slot.idle_limit):
        said.append("no idle TTL")
    else:
        memory = registry._memory
        whose = "its own" if own_idle else "the registry's"
        adaptive = ""
        if not own_idle and memory is not None and memory.adaptive is not None:
            whose, adaptive = "adaptive", f": {memory.adaptive.limit(slot.name).reason}"
        said.append(f"idle TTL {_span(slot.idle_limit)} ({whose}){adaptive}")
        if not slot.holds and not slot.pinned:
            leaves_in = slot.idle_limit - idle
    if not math.isinf(slot.age_limit):
        whose = "its own" if own_age else "the registry's"
        said.append(f"maximum age {_span(slot.age_limit)} ({whose})")
        leaves_in = min(leaves_in, slot.age_limit - age)
    if math.isinf(leaves_in):
        return None
    leaves_in = max(0.0, leaves_in)
    said.append(f"leaves in {_span(leaves_in)}, unless it is used" if leaves_in else "expired")
    return leaves_in


def _rank(registry: Registry, slot: Slot, said: list[str]) -> int | None:
    """How many leave before it when room is wanted, plus one."""
    most = registry.settings.max_cache_size
    cached = registry._cached
    if slot.holds or slot.pinned:
        return None
    memory = registry._memory
    if memory is not None and memory.chooser is not None:
        order = [name for name, _ in memory.chooser.order(registry, registry._now())]
        by = "the policy"
    else:
        order = [s.name for s in reversed(registry._warm_slots()) if not s.holds and not s.pinned]
        by = "last use"
    if slot.name not in order:  # it was used or left meanwhile
        return None
    rank = order.index(slot.name) + 1
    said.append(
        f"{_ordinal(rank)} of {len(order)} to leave for room, by {by}; "
        f"{cached} of at most {most} cached"
    )
    return rank


def _recycling(registry: Registry, slot: Slot) -> str:
    memory = registry._memory
    options = registry._options.get(slot.name)
    if memory is None or memory.recycling is None or options is None:
        return "is recycled"
    reason = memory.recycling.reason(registry, slot, options)
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


def _absent(registry: Registry, class_name: str, slot: Slot | None) -> Explanation:
    flights = {name: (seconds, waiting) for name, _, seconds, waiting in
               registry._builder.under_way()}  # fmt: skip
    options = registry._options.get(class_name)
    said = []
    if class_name in flights:
        seconds, waiting = flights[class_name]
        state = "building"
        said.append(f"being built for {_span(seconds)} now; {_times(waiting, 'thread')} waiting")
    elif slot is None or slot.path is None:
        state = "unknown"
        said.append("no class of that name is registered")
    else:
        state = "cold"
        said.append("not built, or it has left: the next look-up builds it")
        for name, error, left in registry._builder.failures():
            if name == class_name:
                state = "failed"
                again = "never" if math.isinf(left) else f"in {_span(left)}"
                said[:] = [f"its build failed: {error}", f"tried again {again}"]
    if slot is not None and slot.leaving:
        holds = sum(departure.holds for departure in list(slot.leaving))
        said.append(f"one that has left is still held {_times(holds)}")
    return Explanation(
        class_name, state, None, None, 0, 0, None, None, None, None, None,
        0 if options is None else options.priority,
        slot is not None and slot.pinned, None, tuple(said),
    )  # fmt: skip


def _times(count: int, of: str = "") -> str:
    if of:
        return f"{count} {of}{'' if count == 1 else 's'}"
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _ordinal(rank: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{'th' if rank % 100 in (11, 12, 13) else ending}"


def _span(seconds: float) -> str:
    if seconds < 1.0:
        return f"{seconds * 1000.0:.3g} ms"
    if seconds < 120.0:
        return f"{seconds:.1f} s"
    if seconds < 7200.0:
        return f"{seconds / 60.0:.1f} min"
    return f"{seconds / 3600.0:.1f} h"


def _bytes(size: int) -> str:
    return f"{size} bytes" if size < 100_000 else f"{size / 1e6:,.1f} MB"
