"""
The structural check of a registry: ring and slots agree, and nothing is left of builds.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..registry import Registry

__all__ = ["check_structure"]

_EMPTY, _STRONG, _WEAK = 0, 1, 2  # kinds of slots


def check_structure(registry: Registry) -> None:
    """
    Fail if ring, slots and counts of a registry do not agree, or a build of it is under way.

    Args:
        registry: A registry that no other thread is using.

    Raises:
        AssertionError: It says what does not agree with what.

    O(names). A failure is a fault of warmset, or a build that is still running.
    """
    newest_first, oldest_first = registry._ring(), registry._ring(from_oldest=True)
    _agree("the ring, walked both ways", newest_first, oldest_first[::-1])
    _agree("names in the ring, each once", sorted(newest_first), sorted(set(newest_first)))
    slots = dict(registry._slots)
    kinds = {name: slot.kind for name, slot in slots.items()}
    strong = {name for name, kind in kinds.items() if kind == _STRONG}
    _agree("names in the ring and slots with a strong instance", set(newest_first), strong)
    _agree("the count of cached instances and the ring", registry._cached, len(newest_first))
    weak = sum(kind == _WEAK for kind in kinds.values())
    _agree("the count of weak instances and the slots", registry._weak, weak)
    known = sum(max(0, slots[name].bytes) for name in strong)
    _agree("the bytes known to be cached and the slots", registry._bytes, known)
    last_used = [slots[name].last_used for name in newest_first]
    _agree("the ring and the order of last use", last_used, sorted(last_used, reverse=True))
    for name, slot in slots.items():
        _agree("a slot's name and its place", slot.name, name)
        if slot.kind == _EMPTY:
            _agree(f"what the empty slot of {name!r} holds", slot.instance, None)
            _agree(f"how often the empty slot of {name!r} is held", slot.holds, 0)
    builder = registry._builder
    _agree("builds under way", sorted(map(str, builder._flights)), [])
    _agree("threads that build", len(builder._innermost), 0)
    _agree("threads that wait for a build", len(builder._waiting), 0)


def _agree(what: str, found: object, expected: object) -> None:
    # Not `assert`: it has to hold under `python -O`, too.
    if found != expected:
        raise AssertionError(f"{what}: {found!r}, expected {expected!r}")
