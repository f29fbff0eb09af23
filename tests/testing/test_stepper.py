"""Tests of `EvictionStepper`, on both cores."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def step(ws: Any, timer: Any) -> Any:
    """Create a stepper; imported here, so that it belongs to the copy of the package under test."""
    from warmset.testing import EvictionStepper

    return lambda registry, timer=timer: EvictionStepper(registry, timer)


def causes(events: Any) -> list[tuple[str, str]]:
    return [(event.class_name, event.cause.name) for event in events]


@pytest.mark.counts
def test_evict_next_evicts_the_least_recently_used(make: Any, step: Any, samples: Any) -> None:
    registry = make()
    stepper = step(registry)
    for name in ("Alpha", "Beta", "Gamma", "Alpha"):
        registry.get_method(name, "echo")
    assert stepper.order() == ["Beta", "Gamma", "Alpha"]
    for name, left in (("Beta", 2), ("Gamma", 1), ("Alpha", 0)):
        assert causes(stepper.evict_next()) == [(name, "SIZE")]
        assert registry.stats().cached == left
    assert stepper.evict_next() == ()
    assert samples.closed == ["Beta", "Gamma", "Alpha"]
    stats = registry.stats()
    assert (stats.evictions, stats.removals[0], stats.removals[1]) == (3, 0, 3)


def test_order_is_the_eviction_order_of_the_registry(make: Any, step: Any) -> None:
    registry = make(max_cache_size=3)
    for name in ("Alpha", "Beta", "Gamma", "Alpha"):
        registry.get_instance(name)
    events: list[Any] = []
    registry.add_listener(events.append)
    expected = step(registry).order()[:1]
    registry.get_instance("Delta")
    assert causes(events) == [(expected[0], "SIZE")]


def test_a_held_instance_is_not_evicted(make: Any, step: Any, timer: Any) -> None:
    registry = make(cache_ttl_seconds=10.0)
    stepper = step(registry)
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        assert stepper.order() == ["Beta"]
        assert causes(stepper.evict_next()) == [("Beta", "SIZE")]
        now = timer()
        assert stepper.evict_next() == stepper.expire_next() == ()
        assert timer() == now
    assert causes(stepper.evict_next()) == [("Alpha", "SIZE")]


def test_limits_of_classes_apply(make: Any, step: Any, timer: Any) -> None:
    registry = make(cache_ttl_seconds=10.0)
    registry.register("Beta", "samples.Beta", cache_ttl_seconds=3.0)
    registry.register("Gamma", "samples.Gamma", pin=True)
    stepper = step(registry)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    assert stepper.order() == ["Alpha", "Beta"]
    begun = timer()
    assert causes(stepper.expire_next()) == [("Beta", "IDLE")]
    assert timer() == pytest.approx(begun + 3.0)
    assert causes(stepper.expire_next()) == [("Alpha", "IDLE")]
    assert stepper.expire_next() == stepper.evict_next() == ()


@pytest.mark.parametrize("ttl", [10.0, 0.1, 1 / 3, 12345.678])
def test_expire_next_advances_the_timer_to_the_next_expiry(
    make: Any, step: Any, timer: Any, ttl: float
) -> None:
    registry = make(cache_ttl_seconds=ttl)
    stepper = step(registry)
    registry.get_instance("Alpha")
    timer.advance(ttl / 7)
    begun = timer()
    registry.get_instance("Beta")
    registry.get_instance("Gamma")
    assert causes(stepper.expire_next()) == [("Alpha", "IDLE")]
    assert timer() == pytest.approx(begun - ttl / 7 + ttl)
    assert registry.stats().cached == 2
    # Instances with the same time of last use expire together.
    assert causes(stepper.expire_next()) == [("Beta", "IDLE"), ("Gamma", "IDLE")]
    assert timer() == pytest.approx(begun + ttl)
    assert stepper.expire_next() == ()


def test_an_expired_instance_is_evicted_without_advancing_the_timer(
    make: Any, step: Any, timer: Any
) -> None:
    registry = make(cache_ttl_seconds=10.0)
    registry.get_instance("Alpha")
    timer.advance(50.0)
    assert causes(step(registry).expire_next()) == [("Alpha", "IDLE")]
    assert timer() == 1050.0


def test_without_a_ttl_nothing_expires(make: Any, step: Any, timer: Any) -> None:
    registry = make(cache_ttl_seconds=0.0)
    registry.get_instance("Alpha")
    assert step(registry).expire_next() == ()
    assert timer() == 1000.0


def test_expire_next_requires_the_timer_of_the_registry(make: Any, step: Any) -> None:
    from warmset.testing import FakeTimer

    registry = make(cache_ttl_seconds=10.0)
    registry.get_instance("Alpha")
    with pytest.raises(ValueError, match="needs the timer of the registry"):
        step(registry, None).expire_next()
    with pytest.raises(ValueError, match="the registry uses another timer"):
        step(registry, FakeTimer()).expire_next()


def test_collect_evicts_unreferenced_weak_instances(make: Any, step: Any) -> None:
    registry = make(enable_weakref=True)
    stepper = step(registry)
    alpha, beta = registry.get_instance("Alpha"), registry.get_instance("Beta")
    alpha.itself_again = alpha  # a cycle, which only the collector ends
    assert stepper.collect() == ()
    del alpha
    before = registry.stats()
    assert causes(stepper.collect()) == [("Alpha", "COLLECTED")]
    after = registry.stats()
    assert (after.misses, after.hits) == (before.misses, before.hits)
    assert after.evictions == before.evictions + 1
    assert registry.get_instance("Beta") is beta
    assert stepper.order() == []
    assert stepper.evict_next() == ()


@pytest.mark.counts
def test_removals_made_by_a_closer_belong_to_the_same_step(make: Any, step: Any) -> None:
    registry = make({"Beta": "samples.Beta"})
    registry.register("Alpha", "samples.Alpha", closer=lambda _: registry.discard("Beta"))
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    heard: list[Any] = []
    registry.add_listener(heard.append)
    events = step(registry).evict_next()
    assert causes(events) == [("Alpha", "SIZE"), ("Beta", "DISCARDED")]
    assert causes(heard) == causes(events)


def test_a_step_leaves_no_listener_behind(make: Any, step: Any) -> None:
    registry = make()
    stepper = step(registry)
    registry.get_instance("Alpha")
    events = stepper.evict_next()
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    assert len(events) == 1
    (listeners,) = registry.extensions
    assert listeners._listeners.all() == []
