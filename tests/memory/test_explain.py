"""Tests of `explain`."""

from __future__ import annotations

import threading
from typing import Any

import pytest


def test_a_warm_instance(make: Any, samples: Any, timer: Any) -> None:
    registry = make(cache_ttl_seconds=60, max_age_seconds=100, max_cache_size=5, sizer=len_of)
    samples.script["Alpha"] = lambda _: timer.advance(2)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    timer.advance(10)
    registry.get_instance("Alpha")
    timer.advance(5)
    told = registry.explain("Alpha")
    assert (told.class_name, told.state, told.uses, told.holders) == ("Alpha", "warm", 2, 0)
    assert (told.age_seconds, told.idle_seconds, told.build_seconds) == (15.0, 5.0, 2.0)
    assert (told.bytes, told.priority, told.pinned) == (7_000_000, 0, False)
    assert (told.idle_limit_seconds, told.age_limit_seconds) == (60.0, 100.0)
    assert told.expires_in_seconds == 55.0
    assert told.eviction_rank == 2
    assert str(told).splitlines() == [
        "Alpha: warm",
        "  built 15.0 s ago in 2.0 s, 7.0 MB (len_of, 15.0 s ago)",
        "  used twice, last 5.0 s ago",
        "  idle TTL 60.0 s (the registry's)",
        "  maximum age 100.0 s (the registry's)",
        "  expires in 55.0 s if it is not used",
        "  2nd of 2 in the eviction order, by last use; 2 of at most 5 cached",
    ]
    assert registry.stats().hits == 1  # an explanation does not count as a use


def len_of(instance: Any) -> int:
    return 7_000_000


def test_the_earlier_limit_determines_the_expiry(make: Any, timer: Any) -> None:
    registry = make(cache_ttl_seconds=60, max_age_seconds=100)
    registry.get_instance("Alpha")
    timer.advance(80)
    assert registry.explain("Alpha").expires_in_seconds == 0.0
    assert "expired" in str(registry.explain("Alpha"))
    registry.get_instance("Alpha")
    timer.advance(50)
    registry.get_instance("Alpha")
    timer.advance(20)
    assert registry.explain("Alpha").expires_in_seconds == 30.0


def test_a_held_instance(make: Any) -> None:
    registry = make(cache_ttl_seconds=60)
    with registry.use("Alpha"):
        told = registry.explain("Alpha")
    assert (told.holders, told.expires_in_seconds, told.eviction_rank) == (1, None, None)
    assert "held once by MainThread: its idle clock is stopped" in str(told)


def test_pins_priorities_and_recycling(make: Any) -> None:
    registry = make({}, cache_ttl_seconds=0)
    registry.register(
        "Alpha", "samples.Alpha", pin=True, priority=3, recycle_after_uses=2,
        recycle_after_seconds=60,
    )  # fmt: skip
    registry.get_instance("Alpha")
    text = str(registry.explain("Alpha"))
    assert "no idle TTL" in text
    assert "pinned: not evicted for idle time, capacity or memory" in text
    assert "priority 3: classes with a lower priority are evicted first" in text
    assert "recycled after 2 uses or 60.0 s" in text
    registry.get_instance("Alpha")
    assert "due to be recycled: used 2 times" in str(registry.explain("Alpha"))


def test_the_rank_with_a_policy(make: Any) -> None:
    registry = make(policy="cost")
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    ranks = {name: registry.explain(name).eviction_rank for name in ("Alpha", "Beta")}
    assert sorted(ranks.values()) == [1, 2]
    assert "in the eviction order, by the policy" in str(registry.explain("Alpha"))


def test_a_weakly_referenced_instance(make: Any) -> None:
    registry = make(enable_weakref=True)
    kept = registry.get_instance("Alpha")
    told = registry.explain("Alpha")
    assert (told.state, told.expires_in_seconds) == ("weak", None)
    assert "as long as other references to it exist" in str(told)
    assert kept is not None


def test_unknown_cold_and_failed_classes(make: Any, samples: Any) -> None:
    registry = make()
    assert registry.explain("Nobody").state == "unknown"
    assert registry.explain("Alpha").state == "cold"

    def fail(_: Any) -> None:
        raise OSError("no weights")

    samples.script["Beta"] = fail
    with pytest.raises(Exception, match="no weights"):
        registry.get_instance("Beta")
    told = registry.explain("Beta")
    assert told.state == "failed"
    assert "no weights" in str(told)
    assert "retried in 30.0 s" in str(told)
    with pytest.raises(TypeError):
        registry.explain(1)


def test_a_build_in_progress(make: Any, samples: Any) -> None:
    registry = make()
    told: list[Any] = []

    def script(_: Any) -> None:
        thread = threading.Thread(target=lambda: told.append(registry.explain("Alpha")))
        thread.start()
        thread.join()

    samples.script["Alpha"] = script
    registry.get_instance("Alpha")
    assert told[0].state == "building"
    assert "0 threads waiting" in str(told[0])


def test_a_held_instance_after_its_removal(make: Any) -> None:
    registry = make()
    with registry.use("Alpha"):
        registry.clear_cache()
        assert "a removed instance is still held once" in str(registry.explain("Alpha"))


def test_why_an_instance_was_removed(make: Any, timer: Any, samples: Any) -> None:
    """The last cause is named, until the class is warm again."""
    registry = make(max_cache_size=2, cache_ttl_seconds=300, max_age_seconds=1000)

    def reasons(name: str) -> str:
        return "; ".join(registry.explain(name).reasons)

    assert "not built yet" in reasons("Alpha")
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
        timer.advance(1)
    assert "evicted because more than max_cache_size=2 were cached" in reasons("Alpha")
    assert "removed" not in reasons("Beta")
    timer.advance(301)
    registry.evict_expired()
    assert "idle for longer than 5.0 min" in reasons("Beta")
    with registry.use("Beta"):
        timer.advance(1001)
    registry.evict_expired()
    assert "older than 16.7 min" in reasons("Beta")
    registry.get_instance("Beta")
    assert "removed" not in reasons("Beta")
    registry.discard("Beta")
    assert "it was discarded" in reasons("Beta")
    registry.get_instance("Beta")
    registry.clear_cache()
    assert "the cache was cleared" in reasons("Beta")
    registry.get_instance("Beta")
    registry.close()
    assert "the registry was closed" in reasons("Beta")


def test_causes_of_many_keys_are_forgotten(make: Any, samples: Any) -> None:
    """A slot has its own; of keys of families the oldest go first, so that memory is bounded."""
    registry = make({}, max_cache_size=1)
    family = registry.family("Model", lambda key: samples.Alpha())
    for number in range(1100):
        with family.use(number):
            pass
    assert len(registry.causes_of_forgotten) == 1000
    assert "not built yet" in registry.explain(family.key(5)).reasons[0]
    assert "max_cache_size" in registry.explain(family.key(1098)).reasons[0]
