"""Tests of policies, priorities and admission, and of adaptive limits in a registry."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from fake_entries import FakeEntry

from warmset.memory.policies import CostPolicy, LruPolicy, policy_of
from warmset.testing.structure import eviction_order

# -- cost ----------------------------------------------------------------------------------------


def test_the_worth_by_cost_depends_on_build_seconds_bytes_and_uses() -> None:
    cost = CostPolicy()
    base = FakeEntry("A", uses=10, last_used=90.0)

    def worth(**other: Any) -> float:
        return cost.worth(FakeEntry("A", **{"uses": 10, "last_used": 90.0, **other}), 100.0)

    same = cost.worth(base, 100.0)
    assert worth(build_seconds=2.0) == pytest.approx(same + 1.0)  # twice as much
    assert worth(bytes=200) == pytest.approx(same - 1.0)
    assert worth(uses=20) > same
    assert cost.worth(base, 1000.0) < same
    assert math.isfinite(worth(build_seconds=0.0, bytes=-1, uses=0, last_used=-5.0))


def test_earlier_residences_have_less_and_less_weight() -> None:
    """Of two with equal current values, the one that was used more often before is worth more."""
    cost = CostPolicy()
    cost.left("often", 100, 0.0, 100.0)
    cost.left("seldom", 2, 0.0, 100.0)
    now = {"built_at": 110.0, "last_used": 110.0}
    assert cost.worth(FakeEntry("often", **now), 115.0) > cost.worth(
        FakeEntry("seldom", **now), 115.0
    )
    for turn in range(20):  # its usage has changed
        cost.left("often", 1, 1000.0 * turn + 200.0, 1000.0 * turn + 200.0)
    _, gap = cost.prospect(FakeEntry("often"))
    assert gap > 700.0


def test_policies_by_name() -> None:
    own = LruPolicy()
    assert isinstance(policy_of("lru"), LruPolicy)
    assert isinstance(policy_of("cost"), CostPolicy)
    assert policy_of(own) is own


# -- in a registry -------------------------------------------------------------------------------


def removed(registry: Any) -> dict[str, int]:
    removals = registry.stats().as_dict()["removals"]
    return {cause: count for cause, count in removals.items() if count}


def test_instances_of_a_lower_priority_are_evicted_first(make: Any) -> None:
    """Whatever the order of use."""
    registry = make({}, max_cache_size=2)
    registry.register("Alpha", "samples.Alpha", priority=1)
    for name in ("Beta", "Gamma", "Delta"):
        registry.register(name, f"samples.{name}")
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    assert eviction_order(registry) == ["Alpha", "Delta"]
    assert removed(registry) == {"size": 2}


def test_a_priority_applies_to_instances_that_are_cached_already(make: Any) -> None:
    registry = make(max_cache_size=3)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    registry.register("Gamma", "samples.Gamma", priority=-1)
    registry.get_instance("Delta")
    assert sorted(eviction_order(registry)) == ["Alpha", "Beta", "Delta"]


def test_expensive_instances_stay(make: Any, samples: Any, timer: Any) -> None:
    """A cheap one is not admitted in their place."""
    registry = make(policy="cost", max_cache_size=2)
    for name, seconds in (("Alpha", 9.0), ("Beta", 5.0), ("Gamma", 0.001)):
        samples.script[name] = lambda _, seconds=seconds: timer.advance(seconds)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
        timer.advance(1)
        registry.get_instance(name)
    with registry.use("Gamma"):
        assert eviction_order(registry) == ["Alpha", "Beta"]
    assert eviction_order(registry) == ["Alpha", "Beta"]
    assert removed(registry) == {"size": 1}


# -- admission -----------------------------------------------------------------------------------


@pytest.fixture
def full(make: Any, samples: Any, timer: Any) -> Any:
    """Make a registry that holds one expensive instance, so that no cheap one is admitted."""

    def fill(**options: Any) -> Any:
        registry = make(policy="cost", **options)
        samples.script["Alpha"] = lambda _: timer.advance(9.0)
        registry.get_instance("Alpha")
        return registry

    return fill


@pytest.mark.parametrize(
    ("cause", "options"),
    [
        ("SIZE", {"max_cache_size": 1}),
        ("MEMORY", {"max_cache_bytes": 100, "sizer": lambda instance: 60}),
    ],
)
def test_an_instance_that_is_not_admitted_is_removed_although_it_is_held(
    full: Any, samples: Any, cause: str, options: Any
) -> None:
    """It is closed at its last release, and not handed out again."""
    registry = full(**options)
    events: list[Any] = []
    registry.add_listener(events.append)
    with registry.use("Beta") as held:
        assert eviction_order(registry) == ["Alpha"]
        assert [(e.class_name, e.cause.name, e.held) for e in events] == [("Beta", cause, True)]
        assert [holder.class_name for holder in registry.holders()] == ["Beta"]
        with registry.use("Beta") as again:
            assert again is not held
        assert samples.closed == ["Beta"]
        assert held.echo("x") == "x"
    assert samples.closed == ["Beta", "Beta"]
    assert removed(registry) == {cause.lower(): 2}


def test_waiters_share_an_instance_that_is_not_admitted(full: Any, samples: Any) -> None:
    """It is closed when the last of them has released it."""
    registry = full(max_cache_size=1)
    ready = threading.Barrier(4, timeout=30.0)
    instances: list[Any] = []

    def script(_: Any) -> None:
        for thread in threads:
            thread.start()
        while registry.stats().waits < 3:
            pass

    def work() -> None:
        with registry.use("Beta") as instance:
            instances.append(instance)
            ready.wait()
            assert not instance.is_closed
            ready.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    samples.script["Beta"] = script
    work()
    for thread in threads:
        thread.join(30.0)
    assert len(set(map(id, instances))) == 1
    assert samples.built.count("Beta") == 1
    assert samples.closed == ["Beta"]


def test_an_instance_that_is_not_admitted_stays_open_for_another_holder(
    full: Any, samples: Any
) -> None:
    """Another thread may look it up before it is removed."""
    leases: list[Any] = []

    def sizer(instance: Any) -> int:
        if type(instance).__name__ == "Beta":
            lease = registry.use("Beta")
            assert lease.__enter__() is instance
            leases.append(lease)
        return 1

    registry = full(max_cache_size=1, sizer=sizer)
    with registry.use("Beta"):
        assert eviction_order(registry) == ["Alpha"]
    assert samples.closed == []
    leases.pop().__exit__(None, None, None)
    assert samples.closed == ["Beta"]


def test_an_instance_that_is_not_admitted_serves_a_caller_without_a_lease(full: Any) -> None:
    registry = full(max_cache_size=1)
    assert registry.get_instance("Beta").echo("x") == "x"
    mine = registry.get_instance("Beta")
    assert mine.echo("y") == "y"
    assert eviction_order(registry) == ["Alpha"]
    assert removed(registry) == {"size": 2}


def test_a_pinned_instance_is_admitted(full: Any) -> None:
    registry = full(max_cache_size=1)
    registry.pin("Beta")
    registry.get_instance("Beta")
    assert eviction_order(registry) == ["Beta"]


# -- policies of one's own -------------------------------------------------------------------------


def test_a_custom_policy(make: Any) -> None:
    class Alphabetical:
        def worth(self, entry: Any, now: float) -> float:
            return -float(ord(entry.name[0]))

    registry = make(policy=Alphabetical(), max_cache_size=2)
    for name in ("Gamma", "Alpha", "Delta", "Beta"):
        registry.get_instance(name)
    assert sorted(eviction_order(registry)) == ["Alpha", "Beta"]


@pytest.mark.parametrize("worth", [math.nan, math.inf, "much", None, KeyError("x")])
def test_the_last_use_counts_if_a_policy_fails(make: Any, caplog: Any, worth: Any) -> None:
    """That is logged once."""

    class Failing:
        def worth(self, entry: Any, now: float) -> Any:
            if isinstance(worth, Exception):
                raise worth
            return worth

    registry = make(policy=Failing(), max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    assert len(eviction_order(registry)) == 2
    (message,) = [r.getMessage() for r in caplog.records if r.name == "warmset.memory"]
    assert "Failing' failed: where it does, only the last use counts" in message


def test_a_policy_may_use_the_registry(make: Any) -> None:
    class Asking:
        def worth(self, entry: Any, now: float) -> float:
            registry.stats()
            registry.has_method(entry.name, "echo")
            return float(entry.last_used)

    registry = make(policy=Asking(), max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    assert len(eviction_order(registry)) == 2


@pytest.mark.parametrize("policy", ["cost", "lru"])
def test_the_bound_holds_under_threads(make: Any, policy: str, samples: Any) -> None:
    """When all is released; no closed instance is handed out."""
    registry = make({}, policy=policy, max_cache_size=2)
    names = ("Alpha", "Beta", "Gamma", "Delta")
    for at, name in enumerate(names):
        registry.register(name, f"samples.{name}", priority=at % 2)
    errors: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for turn in range(400):
                with registry.use(names[(turn * 7 + offset) % 4]) as instance:
                    instance.echo()
                registry.get_instance(names[turn % 4])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    registry.sweep()
    assert registry.stats().cached <= 2


# -- adaptive TTL --------------------------------------------------------------------------------


def test_the_idle_limit_is_derived_from_use(make: Any, timer: Any) -> None:
    """The explanation has the numbers."""
    registry = make(adaptive_ttl=True, adaptive_ttl_min_seconds=5, adaptive_ttl_max_seconds=1000)
    assert "its usage is not known yet" in str(_built(registry, "Alpha"))
    for _ in range(20):
        timer.advance(10)
        registry.get_instance("Alpha")
    registry.discard("Alpha")
    timer.advance(10)
    explanation = _built(registry, "Alpha")
    assert explanation.idle_limit_seconds == pytest.approx(30.0, rel=0.2)
    assert "(adaptive): 3 x its usual gap of 10 s is 30 s" in str(explanation)
    timer.advance(50)
    assert registry.evict_expired() == 1


def test_the_ttl_of_a_class_is_not_adapted(make: Any, timer: Any) -> None:
    registry = make({}, adaptive_ttl=True)
    registry.register("Alpha", "samples.Alpha", cache_ttl_seconds=7)
    for _ in range(3):
        registry.get_instance("Alpha")
        timer.advance(6)
        registry.discard("Alpha")
    assert _built(registry, "Alpha").idle_limit_seconds == 7.0


def test_the_idle_limit_increases_with_the_build_time(make: Any, samples: Any, timer: Any) -> None:
    registry = make(adaptive_ttl=True)
    samples.script["Alpha"] = lambda _: timer.advance(20)
    for _ in range(3):
        registry.get_instance("Alpha")
        timer.advance(1)
        registry.get_instance("Alpha")
        registry.discard("Alpha")
    assert _built(registry, "Alpha").idle_limit_seconds == 1200.0


def _built(registry: Any, name: str) -> Any:
    registry.get_instance(name)
    return registry.explain(name)
