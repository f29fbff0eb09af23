"""
The structural check of a registry: ring and slots agree, and the accounts of its entries balance.
"""

from __future__ import annotations

from ..codes import CACHED, HELD, STATE_NAMES, WAITING, WEAK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..registry import BaseRegistry

__all__ = ["check_accounts", "check_structure", "eviction_order"]


def eviction_order(registry: BaseRegistry) -> list[str]:
    """
    Return the class names in the recency ring, the least recently used first.

    Args:
        registry: The registry.

    Returns:
        A new list, held and pinned ones included. O(cached).
    """
    return [entry.name for entry in registry.ring(from_oldest=True)]


def check_accounts(registry: BaseRegistry) -> None:
    """
    Fail unless every instance of a registry is in exactly one state.

    Args:
        registry: The registry; other threads may use it meanwhile.

    Raises:
        AssertionError: built + adopted is not the sum over the states of entries.

    O(1). A failure is a fault of warmset.
    """
    _, _, _, built, adopted, _, _, states, _ = registry.counters()
    _agree("built + adopted, and the entries in all states", built + adopted, sum(states))
    names = [name for name, count in zip(STATE_NAMES, states, strict=True) if count < 0]
    _agree("states with a negative count", names, [])


def check_structure(registry: BaseRegistry) -> None:
    """
    Fail if ring, slots, counts and accounts of a registry do not agree, or it is still building.

    Args:
        registry: A registry that no other thread is using.

    Raises:
        AssertionError: It says what does not agree with what.

    O(names). A failure is a fault of warmset, or a build that is still running.
    """
    check_accounts(registry)
    newest_first, oldest_first = registry.ring(), registry.ring(from_oldest=True)
    names = [entry.slot.key for entry in newest_first]
    _agree("the ring in both directions", names, [entry.slot.key for entry in oldest_first[::-1]])
    _agree("names in the ring, each once", len(names), len(set(names)))
    slots = dict(registry.slots)
    entries = {name: slot.entry for name, slot in slots.items() if slot.entry is not None}
    strong = {name for name, entry in entries.items() if entry.state == CACHED}
    weak = {name for name, entry in entries.items() if entry.state == WEAK}
    _agree("names in the ring and slots with a cached entry", set(names), strong)
    others = set(entries) - strong - weak
    _agree("entries in a slot that are neither cached nor weak", others, set())
    for name, slot in slots.items():
        _agree("a slot's key and where it is found", slot.key, name)
        _agree("a slot's name and its key", slot.name, str(name))
        if slot.entry is not None:
            _agree(f"the slot of the entry of {name!r}", slot.entry.slot is slot, True)
    targets = sum(slot.target is not None and type(key) is str for key, slot in slots.items())
    _agree("the count of registered names and the slots", registry.registered, targets)
    dropped = [name for name, slot in slots.items() if not slot.alive]
    _agree("slots of a name that were dropped", dropped, [])
    states = registry.counters()[7]
    _agree("the count of cached instances and the ring", registry.cached, len(names))
    _agree("the count of cached entries and the ring", states[CACHED], len(names))
    _agree("the count of weak instances and the slots", registry.weakly_kept, len(weak))
    _agree("the count of weak entries and the slots", states[WEAK], len(weak))
    known = sum(max(0, entry.bytes) for entry in newest_first)
    _agree("the bytes known to be cached and the entries", registry.known_bytes, known)
    used = [entry.last_used for entry in newest_first]
    _agree("the ring and the order of last use", used, sorted(used, reverse=True))
    held = {entry.serial for entry, _, _ in registry.holds() if entry.state == HELD}
    _agree("removed entries that are held, and their holders", states[HELD], len(held))
    _agree("entries that wait to be closed", states[WAITING], 0)
    _agree("builds in progress", sorted(str(row[0]) for row in registry.builder.in_progress()), [])
    _agree("threads that wait for a build", registry.builder.waiting(), 0)


def _agree(what: str, found: object, expected: object) -> None:
    # Not `assert`: it has to hold under `python -O`, too.
    if found != expected:
        raise AssertionError(f"{what}: {found!r}, expected {expected!r}")
