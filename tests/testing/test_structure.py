"""The structural check finds damage, on both cores."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_sound_registry_passes(make: Any) -> None:
    from warmset.testing import check_structure

    registry = make(enable_weakref=False)
    check_structure(registry)
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        check_structure(registry)
    registry.close()
    check_structure(registry)


def test_a_slot_in_the_wrong_place_is_found(make: Any) -> None:
    from warmset.testing import check_structure

    registry = make()
    slots = registry._slots
    slots["Alpha"], slots["Beta"] = slots["Beta"], slots["Alpha"]
    with pytest.raises(AssertionError, match="a slot's name and its place: 'Beta', expected"):
        check_structure(registry)
    slots["Alpha"], slots["Beta"] = slots["Beta"], slots["Alpha"]


def test_a_slot_that_is_gone_but_linked_is_found(make: Any) -> None:
    from warmset.testing import check_structure

    registry = make()
    registry.get_instance("Alpha")
    slot = registry._slots.pop("Alpha")
    with pytest.raises(AssertionError, match="names in the ring and slots with a strong instance"):
        check_structure(registry)
    registry._slots["Alpha"] = slot


def test_a_build_that_is_running_is_found(make: Any, samples: Any) -> None:
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
    assert found == ["builds under way: ['Alpha'], expected []"]
