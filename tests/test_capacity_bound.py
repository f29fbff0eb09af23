"""`block_when_full` keeps its bound for any number of builds; what frees a place wakes one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from threads import PATIENCE, in_thread, outcomes, until

NAMES = ("Alpha", "Beta", "Gamma", "Delta")


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_rules_that_meet(make: Any, samples: Any, policy: str) -> None:
    """Four builds pass the first check at once; at no moment are two of them cached."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=30, policy=policy)
    barrier = threading.Barrier(len(NAMES))
    most: list[int] = []
    for name in NAMES:
        samples.script[name] = lambda _: barrier.wait(PATIENCE)

    def use(name: str) -> None:
        with registry.use(name):
            most.append(registry.cached)
            if len(most) == 1:
                until(lambda: registry.watched == len(NAMES) - 1)
            most.append(registry.cached)

    assert outcomes([in_thread(use, name) for name in NAMES]) == [None] * len(NAMES)
    assert set(most) == {1}
    assert sorted(samples.built) == sorted(NAMES)
    assert registry.watched == 0


def test_no_place_for_what_was_built(ws: Any, make: Any, samples: Any) -> None:
    """Its caller, and whoever waits for it, gets the error; the instance is closed."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=0.0)
    samples.script["Beta"] = lambda _: lease.__enter__()
    lease = registry.use("Alpha")
    with pytest.raises(ws.CapacityError, match="no capacity for 'Beta'"):
        registry.get_instance("Beta")
    assert samples.closed == ["Beta"]
    assert registry.cached == 1
    lease.__exit__(None, None, None)
    samples.script.clear()
    assert type(registry.get_instance("Beta")) is samples.Beta, "the failure is not remembered"


FREED = {
    "release": lambda registry, lease: lease.__exit__(None, None, None),
    "discard": lambda registry, lease: registry.discard("Alpha"),
    "clear": lambda registry, lease: registry.clear_cache(),
    "unregister": lambda registry, lease: registry.unregister("Alpha"),
    "other path": lambda registry, lease: registry.register("Alpha", "samples.Gamma"),
    "limit": lambda registry, lease: setattr(registry, "_max_cache_size", 2),
}


@pytest.mark.parametrize("way", FREED)
def test_a_held_instance_makes_way(make: Any, samples: Any, way: str) -> None:
    """Whatever frees a place wakes a build that waits for one."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=1e9)
    lease = registry.use("Alpha")
    lease.__enter__()
    waiting = in_thread(registry.get_instance, "Beta")
    until(lambda: registry.watched)
    FREED[way](registry, lease)
    assert type(waiting.result()) is samples.Beta
    lease.__exit__(None, None, None)


def test_a_pinned_instance_makes_way(make: Any, samples: Any) -> None:
    """As soon as it is not pinned any more."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=1e9)
    registry.register("Alpha", "samples.Alpha", pin=True)
    registry.get_instance("Alpha")
    waiting = in_thread(registry.get_instance, "Beta")
    until(lambda: registry.watched)
    registry.unpin("Alpha")
    assert type(waiting.result()) is samples.Beta


def test_a_pinned_instance_expires(make: Any, samples: Any, timer: Any) -> None:
    """By its age; whoever waits finds out by itself."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=1e9)
    registry.register("Alpha", "samples.Alpha", pin=True, max_age_seconds=10)
    registry.get_instance("Alpha")
    waiting = in_thread(registry.get_instance, "Beta")
    until(lambda: registry.watched)
    timer.advance(11)
    registry.evict_expired()
    assert type(waiting.result()) is samples.Beta


def test_close_wakes_a_build_that_waits(make: Any) -> None:
    """Its result is not cached."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=1e9)
    lease = registry.use("Alpha")
    lease.__enter__()
    waiting = in_thread(registry.get_instance, "Beta")
    until(lambda: registry.watched)
    registry.close()
    waiting.outcome()
    assert registry.cached == 0
    lease.__exit__(None, None, None)
