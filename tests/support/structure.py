"""The structural check of a registry: ring and slots agree, and nothing is left of builds."""

from __future__ import annotations

from typing import Any

EMPTY, STRONG, WEAK = 0, 1, 2


def check(registry: Any) -> None:
    """Fail if ring, slots and counts of a registry do not agree."""
    newest_first, oldest_first = registry._ring(), registry._ring(from_oldest=True)
    assert newest_first == oldest_first[::-1]
    assert len(set(newest_first)) == len(newest_first)
    slots = registry._slots
    kinds = {name: slot.kind for name, slot in slots.items()}
    assert set(newest_first) == {name for name, kind in kinds.items() if kind == STRONG}
    assert registry._cached == len(newest_first)
    assert registry._weak == sum(kind == WEAK for kind in kinds.values())
    last_used = [slots[name].last_used for name in newest_first]
    assert last_used == sorted(last_used, reverse=True)
    for name, slot in slots.items():
        assert slot.name == name
        if slot.kind == EMPTY:
            assert slot.instance is None
            assert slot.holds == 0
    builder = registry._builder
    assert not builder._flights
    assert not builder._innermost
    assert not builder._waiting
