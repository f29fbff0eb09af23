"""Tests of `check_structure`, on both cores."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_consistent_registry_passes(make: Any) -> None:
    from warmset.testing import check_structure

    registry = make(enable_weakref=False)
    check_structure(registry)
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        check_structure(registry)
    registry.close()
    check_structure(registry)


class Damaged:
    """A registry some of whose attributes are wrong, as after a fault of the core."""

    def __init__(self, registry: Any, **wrong: Any) -> None:
        self._registry = registry
        self.__dict__.update(wrong)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


def test_a_slot_under_the_wrong_key_fails(make: Any) -> None:
    from warmset.testing import check_structure

    registry = make()
    slots = dict(registry.slots)
    slots["Alpha"], slots["Beta"] = slots["Beta"], slots["Alpha"]
    with pytest.raises(
        AssertionError, match="a slot's key and where it is found: 'Beta', expected"
    ):
        check_structure(Damaged(registry, slots=slots))  # type: ignore[arg-type]


def test_a_linked_entry_without_slot_fails(make: Any) -> None:
    from warmset.testing import check_structure

    registry = make()
    registry.get_instance("Alpha")
    slots = {name: slot for name, slot in registry.slots.items() if name != "Alpha"}
    with pytest.raises(AssertionError, match="names in the ring and slots with a cached entry"):
        check_structure(Damaged(registry, slots=slots))  # type: ignore[arg-type]


def test_an_entry_without_a_state_fails(make: Any) -> None:
    """Built and adopted entries are the sum over the states."""
    from warmset.testing.structure import check_accounts

    registry = make()
    registry.get_instance("Alpha")
    counters = list(registry.counters())
    counters[3] += 1  # built
    with pytest.raises(AssertionError, match="built \\+ adopted, and the entries in all states"):
        check_accounts(Damaged(registry, counters=lambda: tuple(counters)))  # type: ignore[arg-type]


def test_a_build_in_progress_fails(make: Any, samples: Any) -> None:
    from warmset.testing import check_structure

    registry = make()
    found: list[str] = []

    def look(_: Any) -> None:
        try:
            check_structure(registry)
        except AssertionError as error:
            found.append(str(error))

    samples.script["Alpha"] = look
    registry.get_instance("Alpha")
    assert found == ["builds in progress: ['Alpha'], expected []"]
