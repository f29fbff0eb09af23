"""Tests of the TTL and the maximum age of each class, and of pins."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from warmset.testing.structure import eviction_order


def removed(registry: Any) -> dict[str, int]:
    """Count the removals by cause."""
    removals = registry.stats().as_dict()["removals"]
    return {cause: count for cause, count in removals.items() if count}


# -- maximum age ---------------------------------------------------------------------------------


def test_an_instance_is_evicted_at_its_maximum_age(make: Any, timer: Any) -> None:
    """However often it is used."""
    registry = make(max_age_seconds=10)
    first = registry.get_instance("Alpha")
    for _ in range(10):
        timer.advance(1)
        assert registry.get_instance("Alpha") is first
    timer.advance(0.5)
    assert registry.get_instance("Alpha") is not first
    assert removed(registry) == {"aged": 1}
    assert registry.stats().evictions == 1


def test_aged_instances_are_evicted_by_a_sweep(make: Any, timer: Any) -> None:
    """By `evict_expired` and `sweep`, whatever the order of use."""
    registry = make(max_age_seconds=10, cache_ttl_seconds=0)
    registry.get_instance("Alpha")
    timer.advance(5)
    registry.get_instance("Beta")
    registry.get_instance("Alpha")  # newest by use, oldest by age
    timer.advance(6)
    assert registry.evict_expired() == 1
    assert eviction_order(registry) == ["Beta"]
    timer.advance(5)
    assert registry.sweep() == 1
    assert eviction_order(registry) == []


def test_a_held_instance_is_evicted_at_its_maximum_age(make: Any, timer: Any, samples: Any) -> None:
    """It is no longer handed out, and is closed when its last lease ends."""
    registry = make(max_age_seconds=10)
    with registry.use("Alpha") as old:
        timer.advance(11)
        new = registry.get_instance("Alpha")
        assert new is not old
        assert samples.closed == []
        assert registry.get_instance("Alpha") is new
    assert samples.closed == ["Alpha"]
    assert registry.get_instance("Alpha") is new


# -- limits of one class -------------------------------------------------------------------------


def test_a_class_can_have_its_own_ttl(make: Any, timer: Any) -> None:
    """Shorter, longer, or none."""
    registry = make({}, cache_ttl_seconds=10)
    registry.register("Alpha", "samples.Alpha", cache_ttl_seconds=2)
    registry.register("Beta", "samples.Beta", cache_ttl_seconds=100)
    registry.register("Gamma", "samples.Gamma", cache_ttl_seconds=0)
    registry.register("Delta", "samples.Delta")
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    timer.advance(3)
    assert registry.evict_expired() == 1
    timer.advance(8)
    assert registry.evict_expired() == 1
    assert sorted(eviction_order(registry)) == ["Beta", "Gamma"]
    timer.advance(10_000)
    assert registry.evict_expired() == 1
    assert eviction_order(registry) == ["Gamma"]


def test_a_class_can_have_its_own_maximum_age(make: Any, timer: Any) -> None:
    registry = make({}, cache_ttl_seconds=0, max_age_seconds=10)
    registry.register("Alpha", "samples.Alpha", max_age_seconds=2)
    registry.register("Beta", "samples.Beta", max_age_seconds=0)
    registry.register("Gamma", "samples.Gamma")
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    timer.advance(3)
    assert registry.evict_expired() == 1
    timer.advance(8)
    assert registry.evict_expired() == 1
    assert eviction_order(registry) == ["Beta"]


def test_registering_again_without_options_resets_them(make: Any, timer: Any) -> None:
    registry = make({}, cache_ttl_seconds=10)
    registry.register("Alpha", "samples.Alpha", cache_ttl_seconds=2, pin=True)
    registry.register("Alpha", "samples.Alpha")
    kept = registry.get_instance("Alpha")
    timer.advance(3)
    assert registry.get_instance("Alpha") is kept
    timer.advance(11)
    assert registry.evict_expired() == 1


def test_a_look_up_applies_the_limit_of_the_class(make: Any, timer: Any) -> None:
    """Without a sweep."""
    registry = make({}, cache_ttl_seconds=0)
    registry.register("Alpha", "samples.Alpha", cache_ttl_seconds=2)
    first = registry.get_instance("Alpha")
    timer.advance(2)
    assert registry.get_instance("Alpha") is first
    timer.advance(2.5)
    assert registry.get_instance("Alpha") is not first
    assert removed(registry) == {"idle": 1}


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
def test_an_invalid_option_raises(make: Any, options: Any, kind: Any, text: str) -> None:
    """The error names option, class, value and what was expected; nothing is registered."""
    registry = make({})
    with pytest.raises(kind, match=text):
        registry.register("Alpha", "samples.Alpha", **options)
    assert "Alpha" not in registry


# -- pins ----------------------------------------------------------------------------------------


def test_a_pinned_instance_is_not_evicted_for_idle_time_or_capacity(make: Any, timer: Any) -> None:
    registry = make(max_cache_size=2, cache_ttl_seconds=10)
    registry.pin("Alpha")
    assert registry.pinned() == ["Alpha"]
    kept = registry.get_instance("Alpha")
    for name in ("Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    timer.advance(100)
    assert registry.evict_expired() == 1
    assert eviction_order(registry) == ["Alpha"]
    assert registry.get_instance("Alpha") is kept
    assert registry.stats().hits == 1


def test_pinned_instances_may_exceed_the_bound_until_unpinned(make: Any) -> None:
    registry = make(max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.pin(name)
        registry.get_instance(name)
    assert registry.stats().cached == 3
    registry.get_instance("Delta")  # the only one that may be evicted, but its caller holds it
    assert registry.stats().cached == 4
    registry.unpin("Alpha")
    registry.sweep()
    assert sorted(eviction_order(registry)) == ["Beta", "Gamma"]
    registry.unpin("Beta")
    registry.sweep()
    assert sorted(eviction_order(registry)) == ["Beta", "Gamma"]


def test_a_pinned_instance_can_be_removed_and_ages(make: Any, timer: Any) -> None:
    """The name stays pinned."""
    registry = make({}, max_age_seconds=10)
    registry.register("Alpha", "samples.Alpha", pin=True)
    first = registry.get_instance("Alpha")
    registry.clear_cache()
    second = registry.get_instance("Alpha")
    timer.advance(11)
    third = registry.get_instance("Alpha")
    assert registry.discard("Alpha")
    assert len({id(one) for one in (first, second, third)}) == 3
    assert registry.pinned() == ["Alpha"]
    assert registry.unregister("Alpha")
    assert registry.pinned() == []


def test_pinning_an_unknown_name_raises(ws: Any, make: Any) -> None:
    with pytest.raises(ws.errors.UnknownClassError, match=r"Alpah.*Alpha"):
        make().pin("Alpah")
    with pytest.raises(TypeError):
        make().unpin(1)


def test_a_build_waits_for_capacity_while_all_is_pinned(ws: Any, make: Any) -> None:
    """As while all instances are held."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=0.01)
    registry.pin("Alpha")
    registry.get_instance("Alpha")
    with pytest.raises(ws.errors.CapacityError):
        registry.get_instance("Beta")
    registry.unpin("Alpha")
    registry.get_instance("Beta")


# -- under threads -------------------------------------------------------------------------------


def test_limits_and_pins_change_under_traffic(make: Any, timer: Any) -> None:
    """The structure of the registry is checked after the test."""
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
        registry.register(name, f"samples.{name}", cache_ttl_seconds=turn % 7)
        timer.advance(1)
        registry.sweep()
        registry.unpin(name)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    registry.sweep()
    assert registry.stats().cached <= 2
