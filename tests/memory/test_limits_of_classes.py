"""When instances leave: a TTL for each class, a maximum age; and who stays: pins."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest


def left(registry: Any) -> dict[str, int]:
    """The removals, by cause, that happened."""
    removals = registry.stats().as_dict()["removals"]
    return {cause: count for cause, count in removals.items() if count}


# -- maximum age ---------------------------------------------------------------------------------


def test_an_instance_leaves_at_its_maximum_age(make: Any, timer: Any) -> None:
    """However often it is used."""
    registry = make(max_age_seconds=10)
    first = registry.get_instance("Alpha")
    for _ in range(10):
        timer.advance(1)
        assert registry.get_instance("Alpha") is first
    timer.advance(0.5)
    assert registry.get_instance("Alpha") is not first
    assert left(registry) == {"aged": 1}
    assert registry.stats().evictions == 1


def test_what_is_past_its_age_is_swept(make: Any, timer: Any) -> None:
    """By `evict_expired` and `sweep`, whatever the order of use."""
    registry = make(max_age_seconds=10, cache_ttl_seconds=0)
    registry.get_instance("Alpha")
    timer.advance(5)
    registry.get_instance("Beta")
    registry.get_instance("Alpha")  # newest by use, oldest by age
    timer.advance(6)
    assert registry.evict_expired() == 1
    assert registry._ring() == ["Beta"]
    timer.advance(5)
    assert registry.sweep() == 1
    assert registry._ring() == []


def test_a_held_instance_ages_too(make: Any, timer: Any, samples: Any) -> None:
    """It is handed out no more, is not revived, and is closed at its last release."""
    registry = make(max_age_seconds=10)
    with registry.use("Alpha") as old:
        timer.advance(11)
        new = registry.get_instance("Alpha")
        assert new is not old
        assert samples.closed == []
        assert registry.get_instance("Alpha") is new
    assert samples.closed == ["Alpha"]
    assert registry.get_instance("Alpha") is new


def test_what_left_for_another_reason_is_not_revived_past_its_age(make: Any, timer: Any) -> None:
    registry = make(max_age_seconds=10)
    with registry.use("Alpha") as old:
        registry.clear_cache()
        timer.advance(11)
        assert registry.get_instance("Alpha") is not old


def test_a_revived_instance_keeps_its_age(make: Any, timer: Any) -> None:
    registry = make(max_age_seconds=10)
    with registry.use("Alpha") as old:
        timer.advance(6)
        registry.clear_cache()
        assert registry.get_instance("Alpha") is old
        timer.advance(6)
        assert registry.get_instance("Alpha") is not old


# -- limits of one class -------------------------------------------------------------------------


def test_a_class_has_a_ttl_of_its_own(make: Any, timer: Any) -> None:
    """Shorter, longer, or none."""
    registry = make({}, cache_ttl_seconds=10)
    registry.register_class("Alpha", "samples.Alpha", cache_ttl_seconds=2)
    registry.register_class("Beta", "samples.Beta", cache_ttl_seconds=100)
    registry.register_class("Gamma", "samples.Gamma", cache_ttl_seconds=0)
    registry.register_class("Delta", "samples.Delta")
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    timer.advance(3)
    assert registry.evict_expired() == 1
    timer.advance(8)
    assert registry.evict_expired() == 1
    assert sorted(registry._ring()) == ["Beta", "Gamma"]
    timer.advance(10_000)
    assert registry.evict_expired() == 1
    assert registry._ring() == ["Gamma"]


def test_a_class_has_an_age_of_its_own(make: Any, timer: Any) -> None:
    registry = make({}, cache_ttl_seconds=0, max_age_seconds=10)
    registry.register_class("Alpha", "samples.Alpha", max_age_seconds=2)
    registry.register_class("Beta", "samples.Beta", max_age_seconds=0)
    registry.register_class("Gamma", "samples.Gamma")
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    timer.advance(3)
    assert registry.evict_expired() == 1
    timer.advance(8)
    assert registry.evict_expired() == 1
    assert registry._ring() == ["Beta"]


def test_registering_again_without_options_takes_them_back(make: Any, timer: Any) -> None:
    registry = make({}, cache_ttl_seconds=10)
    registry.register_class("Alpha", "samples.Alpha", cache_ttl_seconds=2, pin=True)
    registry.register_class("Alpha", "samples.Alpha")
    kept = registry.get_instance("Alpha")
    timer.advance(3)
    assert registry.get_instance("Alpha") is kept
    timer.advance(11)
    assert registry.evict_expired() == 1


def test_a_look_up_expires_by_the_limit_of_the_class(make: Any, timer: Any) -> None:
    """Without any sweep."""
    registry = make({}, cache_ttl_seconds=0)
    registry.register_class("Alpha", "samples.Alpha", cache_ttl_seconds=2)
    first = registry.get_instance("Alpha")
    timer.advance(2)
    assert registry.get_instance("Alpha") is first
    timer.advance(2.5)
    assert registry.get_instance("Alpha") is not first
    assert left(registry) == {"idle": 1}


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"cache_ttl_seconds": -1}, ValueError, "cache_ttl_seconds of 'Alpha' must be a finite"),
        ({"max_age_seconds": "1"}, TypeError, "max_age_seconds of 'Alpha' must be a finite"),
        ({"priority": 1.5}, TypeError, "priority of 'Alpha' must be a whole number"),
        ({"pin": 1}, TypeError, "pin of 'Alpha' must be a bool"),
        ({"sizer": "guess"}, ValueError, "sizer of 'Alpha' must be None, 'measured'"),
        ({"recycle_after_uses": -1}, ValueError, "recycle_after_uses of 'Alpha' must be a whole"),
        ({"recycle_after_seconds": -1}, ValueError, "recycle_after_seconds of 'Alpha' must be a"),
        ({"recycle_after_growth_bytes": 0.5}, TypeError, "recycle_after_growth_bytes of 'Alpha'"),
    ],
)
def test_a_wrong_option_is_refused(make: Any, options: Any, kind: Any, text: str) -> None:
    """With its name, the class's, the value and what was expected; nothing is registered."""
    registry = make({})
    with pytest.raises(kind, match=text):
        registry.register_class("Alpha", "samples.Alpha", **options)
    assert "Alpha" not in registry


# -- pins ----------------------------------------------------------------------------------------


def test_a_pinned_instance_leaves_for_no_want_of_use_or_room(make: Any, timer: Any) -> None:
    registry = make(max_cache_size=2, cache_ttl_seconds=10)
    registry.pin("Alpha")
    assert registry.pinned() == ["Alpha"]
    kept = registry.get_instance("Alpha")
    for name in ("Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    timer.advance(100)
    assert registry.evict_expired() == 1
    assert registry._ring() == ["Alpha"]
    assert registry.get_instance("Alpha") is kept
    assert registry.stats().hits == 1


def test_pinned_instances_may_exceed_the_bound_and_leave_when_unpinned(make: Any) -> None:
    registry = make(max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.pin(name)
        registry.get_instance(name)
    assert registry.stats().cached == 3
    registry.get_instance("Delta")  # the only one that may leave, but its caller has it
    assert registry.stats().cached == 4
    registry.unpin("Alpha")
    registry.sweep()
    assert sorted(registry._ring()) == ["Beta", "Gamma"]
    registry.unpin("Beta")
    registry.sweep()
    assert sorted(registry._ring()) == ["Beta", "Gamma"]


def test_a_pin_does_not_keep_what_is_removed_or_too_old(make: Any, timer: Any) -> None:
    """It stays with the name."""
    registry = make({}, max_age_seconds=10)
    registry.register_class("Alpha", "samples.Alpha", pin=True)
    first = registry.get_instance("Alpha")
    registry.clear_cache()
    second = registry.get_instance("Alpha")
    timer.advance(11)
    third = registry.get_instance("Alpha")
    assert registry.discard("Alpha")
    assert len({id(one) for one in (first, second, third)}) == 3
    assert registry.pinned() == ["Alpha"]
    assert registry.unregister_class("Alpha")
    assert registry.pinned() == []


def test_an_unknown_name_is_not_pinned(ws: Any, make: Any) -> None:
    with pytest.raises(ws.errors.UnknownClassError, match=r"Alpah.*Alpha"):
        make().pin("Alpah")
    with pytest.raises(TypeError):
        make().unpin(1)


def test_a_build_waits_for_room_while_all_is_pinned(ws: Any, make: Any) -> None:
    """As while all is held."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=0.01)
    registry.pin("Alpha")
    registry.get_instance("Alpha")
    with pytest.raises(ws.errors.CapacityError):
        registry.get_instance("Beta")
    registry.unpin("Alpha")
    registry.get_instance("Beta")


# -- under threads -------------------------------------------------------------------------------


def test_limits_and_pins_change_under_traffic(make: Any, timer: Any) -> None:
    """Nothing is lost; the structural check after the test has the last word."""
    registry = make(max_cache_size=2, cache_ttl_seconds=5, max_age_seconds=50)
    names = ("Alpha", "Beta", "Gamma", "Delta")
    stop = threading.Event()
    errors: list[BaseException] = []

    def serve(offset: int) -> None:
        try:
            for turn in itertools.count(offset):
                if stop.is_set():
                    return
                with registry.use(names[turn % 4]) as instance:
                    instance.echo("x")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(300):
        name = names[turn % 4]
        registry.pin(name)
        registry.register_class(name, f"samples.{name}", cache_ttl_seconds=turn % 7)
        timer.advance(1)
        registry.sweep()
        registry.unpin(name)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    registry.sweep()
    assert registry.stats().cached <= 2
