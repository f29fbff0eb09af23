"""Evictions one at a time, on both cores."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def step(ws: Any, timer: Any) -> Any:
    """Make a stepper; imported late, so that it is of the registry's own copy of the package."""
    from warmset.testing import EvictionStepper

    return lambda registry, timer=timer: EvictionStepper(registry, timer)


def causes(events: Any) -> list[tuple[str, str]]:
    return [(event.class_name, event.cause.name) for event in events]


@pytest.mark.counts
def test_size_evictions_go_by_last_use(make: Any, step: Any, samples: Any) -> None:
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


def test_what_it_says_next_is_what_the_bound_evicts(make: Any, step: Any) -> None:
    """The order is that of the registry's own evictions."""
    registry = make(max_cache_size=3)
    for name in ("Alpha", "Beta", "Gamma", "Alpha"):
        registry.get_instance(name)
    told: list[Any] = []
    registry.add_listener(told.append)
    expected = step(registry).order()[:1]
    registry.get_instance("Delta")
    assert causes(told) == [(expected[0], "SIZE")]


def test_a_held_instance_stays(make: Any, step: Any, timer: Any) -> None:
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


@pytest.mark.parametrize("ttl", [10.0, 0.1, 1 / 3, 12345.678])
def test_time_passes_to_the_next_expiry(make: Any, step: Any, timer: Any, ttl: float) -> None:
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
    # Used last at one moment, they expire at one moment.
    assert causes(stepper.expire_next()) == [("Beta", "IDLE"), ("Gamma", "IDLE")]
    assert timer() == pytest.approx(begun + ttl)
    assert stepper.expire_next() == ()


def test_what_has_expired_already_leaves_at_once(make: Any, step: Any, timer: Any) -> None:
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


def test_the_timer_must_be_the_registrys(make: Any, step: Any) -> None:
    from warmset.testing import FakeTimer

    registry = make(cache_ttl_seconds=10.0)
    registry.get_instance("Alpha")
    with pytest.raises(ValueError, match="give the registry's timer"):
        step(registry, None).expire_next()
    with pytest.raises(ValueError, match="made with another timer"):
        step(registry, FakeTimer()).expire_next()


def test_weak_instances_are_collected(make: Any, step: Any) -> None:
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
def test_what_a_closer_removes_is_of_the_same_step(make: Any, step: Any) -> None:
    registry = make({"Beta": "samples.Beta"})
    registry.register_class("Alpha", "samples.Alpha", closer=lambda _: registry.discard("Beta"))
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    told: list[Any] = []
    registry.add_listener(told.append)
    events = step(registry).evict_next()
    assert causes(events) == [("Alpha", "SIZE"), ("Beta", "DISCARDED")]
    assert causes(told) == causes(events)


def test_nothing_stays_behind_after_a_step(make: Any, step: Any) -> None:
    registry = make()
    stepper = step(registry)
    registry.get_instance("Alpha")
    events = stepper.evict_next()
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    assert len(events) == 1
    assert registry._listeners._listeners == ()
