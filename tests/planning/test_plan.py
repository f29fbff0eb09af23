"""`Registry.plan`: what other bounds would have changed, compared with such registries."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

uses = st.lists(st.integers(0, 9), min_size=1, max_size=80)
quiet = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIZES = (1, 2, 3, 1, 2, 3, 5, 1, 1, 4)


class Built:
    def __init__(self, size: int) -> None:
        self.size = size


def registry_of(ws: Any, **options: Any) -> Any:
    """A registry of ten factories, each of whose builds takes a second on another clock."""
    from warmset.testing import FakeTimer

    timer = FakeTimer()
    registry = ws.MethodRegistry({}, timer=timer, plan=True, **{"cache_ttl_seconds": 0, **options})
    registry.builder.stopwatch = stopwatch = FakeTimer()
    for number, size in enumerate(SIZES):

        def build(size: int = size) -> Built:
            stopwatch.advance(1.0)
            return Built(size)

        registry.register(f"C{number}", build)
    registry.clock = timer
    return registry


def replay(registry: Any, used: list[int]) -> int:
    for number in used:
        registry.clock.advance(1.0)
        registry.get_instance(f"C{number}")
    return registry.stats().builds  # type: ignore[no-any-return]


def check(ws: Any, used: list[int], setting: str, **options: Any) -> None:
    """Each larger bound of the curve has the builds of a registry with that bound."""
    registry = registry_of(ws, **options)
    builds = replay(registry, used)
    plan = registry.plan()
    assert plan.builds == builds
    assert sum(share.builds for share in plan.causes) == builds
    curve = plan.curve(setting)
    assert curve is not None
    for point in curve.points:
        if point.bound > curve.bound:
            changed = {**options, setting: point.bound}
            assert builds + point.builds == replay(registry_of(ws, **changed), used)
            assert point.seconds == point.builds


# -- larger bounds -------------------------------------------------------------------------------


@quiet
@given(uses, st.integers(1, 6))
def test_places(ws: Any, used: list[int], most: int) -> None:
    check(ws, used, "max_cache_size", max_cache_size=most)


@quiet
@given(uses, st.integers(5, 12))
def test_bytes(ws: Any, used: list[int], most: int) -> None:
    check(ws, used, "max_cache_bytes", max_cache_bytes=most, sizer=lambda instance: instance.size)


@quiet
@given(uses, st.integers(1, 6), st.sampled_from([2.0, 4.0, 8.0]))
def test_the_idle_ttl(ws: Any, used: list[int], most: int, ttl: float) -> None:
    """Within the places that there are."""
    check(ws, used, "cache_ttl_seconds", max_cache_size=most, cache_ttl_seconds=ttl)


@quiet
@given(uses, st.integers(1, 6), st.sampled_from([2.0, 4.0, 8.0]))
def test_places_within_a_ttl(ws: Any, used: list[int], most: int, ttl: float) -> None:
    """What would have expired anyway is not avoided by places."""
    check(ws, used, "max_cache_size", max_cache_size=most, cache_ttl_seconds=ttl)


@quiet
@given(uses, st.integers(1, 6), st.integers(5, 12))
def test_places_within_a_budget(ws: Any, used: list[int], most: int, budget: int) -> None:
    """A build that needs more places and more bytes is avoided by neither alone."""
    registry = registry_of(
        ws, max_cache_size=most, max_cache_bytes=budget, sizer=lambda instance: instance.size
    )
    builds = replay(registry, used)
    for curve in registry.plan().curves:
        for point in curve.points:
            if point.bound > curve.bound:
                options = {"max_cache_size": most, "max_cache_bytes": budget}
                options[curve.setting] = point.bound
                other = registry_of(ws, sizer=lambda instance: instance.size, **options)
                # What was evicted for one bound may have been next for the other one.
                assert builds + point.builds >= replay(other, used)


@pytest.mark.parametrize("budget", [3, 4])
def test_instances_that_exceed_the_budget_alone(ws: Any, budget: int) -> None:
    """Not exact: such an instance stays until the next build, and is evicted out of its turn."""
    used = [6, 0, 1, 6, 9, 0, 1, 6, 6, 9, 3, 0, 6, 1, 3]
    options = {"max_cache_bytes": budget, "sizer": lambda instance: instance.size}
    registry = registry_of(ws, **options)
    builds = replay(registry, used)
    for point in registry.plan().curve("max_cache_bytes").points:
        if point.bound > budget:
            other = replay(registry_of(ws, **{**options, "max_cache_bytes": point.bound}), used)
            assert abs(builds + point.builds - other) <= 2


def test_the_policy_cost(ws: Any) -> None:
    """An estimate: within 15 % of a registry with that bound."""
    import random

    choose = random.Random(5)
    used = [min(9, int(choose.expovariate(0.3))) for _ in range(600)]
    registry = registry_of(ws, max_cache_size=4, policy="cost")
    builds = replay(registry, used)
    for point in registry.plan().curve("max_cache_size").points:
        if point.bound > 4:
            other = replay(registry_of(ws, max_cache_size=int(point.bound), policy="cost"), used)
            assert builds + point.builds == pytest.approx(other, rel=0.15)


class Judging:
    """A policy that can judge what it evicted."""

    def worth(self, entry: Any, now: float) -> float:
        return float(entry.last_used)

    def prospect(self, entry: Any) -> tuple[float, float]:
        return 1.0, -1.0


class Failing(Judging):
    def expected_rate(self, gap: float, idle: float) -> float:
        raise ValueError("unknown")


def test_a_policy_whose_expected_rate_fails(ws: Any) -> None:
    """The idle time decides, as without that method."""
    used = [0, 1, 2, 0, 3, 1, 2, 0, 1, 3] * 5
    registry = registry_of(ws, max_cache_size=2, policy=Failing())
    other = registry_of(ws, max_cache_size=2, policy=Judging())
    assert replay(registry, used) == replay(other, used)
    points, expected = (each.plan().curve("max_cache_size").points for each in (registry, other))
    assert [point.builds for point in points] == [point.builds for point in expected]
    assert min(point.builds for point in points) < 0  # a larger bound avoids some


# -- causes and the window -----------------------------------------------------------------------


def test_the_causes_of_builds(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=2, cache_ttl_seconds=10.0)
    replay(registry, [0, 1, 2, 0])  # 0 was evicted for size
    registry.clock.advance(20.0)
    replay(registry, [0])  # idle
    registry.discard("C0")
    replay(registry, [0])  # removed by the caller
    plan = registry.plan()
    assert {share.cause: share.builds for share in plan.causes} == {
        "first": 4,
        "size": 1,
        "idle": 1,
    }
    assert plan.build_seconds == 6.0
    assert [(each.class_name, each.builds) for each in plan.rebuilt] == [("C0", 1)]


def test_what_is_cleared_would_be_cleared_within_any_bound(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=1)
    replay(registry, [0, 1])
    registry.clear_cache()
    replay(registry, [0, 1])
    assert {share.cause for share in registry.plan().causes} == {"first"}
    assert registry.plan().thrashing is None


def test_a_failed_build_changes_nothing(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=1, retry_after_seconds=0)
    replay(registry, [0, 1])

    def fail() -> None:
        raise OSError("no weights")

    registry.register_instantiation_rule("C0", lambda cls: fail())
    with pytest.raises(ws.MethodRegistryError):
        registry.get_instance("C0")
    plan = registry.plan()
    assert plan.builds == 2
    assert plan.causes[0].cause == "first"


def test_nested_builds_count_with_their_own_seconds(ws: Any) -> None:
    registry = registry_of(ws)

    def outer() -> Built:
        registry.get_instance("C0")
        return Built(1)

    registry.register("Outer", outer)
    registry.get_instance("Outer")
    plan = registry.plan()
    assert (plan.builds, plan.build_seconds) == (2, 1.0)


def test_recycling_is_no_miss(ws: Any) -> None:
    registry = registry_of(ws)
    replay(registry, [0])
    assert registry.recycle("C0")
    assert registry.plan().builds == 1


def test_only_the_window_counts(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=1)
    replay(registry, [0, 1, 0, 1])
    registry.clock.advance(1000.0)
    replay(registry, [0, 1])
    assert registry.plan(window_seconds=500.0).builds == 2
    assert registry.plan(window_seconds=500.0).window_seconds == 500.0
    assert registry.plan().builds == 6
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="window_seconds"):
            registry.plan(window_seconds=wrong)
    with pytest.raises(TypeError, match="window_seconds"):
        registry.plan(window_seconds="5")


def test_without_the_setting_the_first_call_begins(make: Any) -> None:
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    assert registry.plan().builds == 0
    registry.get_instance("Beta")
    assert registry.plan().builds == 1


# -- smaller bounds and the repr -----------------------------------------------------------------


def test_smaller_bounds_and_what_is_not_used(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=8, sizer=lambda instance: instance.size)
    replay(registry, list(range(8)))
    registry.clock.advance(1000.0)
    replay(registry, [0, 1, 2, 0, 1, 2])
    plan = registry.plan(window_seconds=100.0)
    assert (plan.unused.instances, plan.unused.bytes) == (5, sum(SIZES[3:8]))
    points = {point.bound: point for point in plan.curve("max_cache_size").points}
    assert (points[4].builds, points[4].bytes) == (0, -sum(SIZES[3:7]))
    assert points[4].estimated
    everything = registry.plan()
    points = {point.bound: point for point in everything.curve("max_cache_size").points}
    assert points[4].builds == 0  # built within the window, and not used again


def test_thrashing_names_a_better_bound(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=4, sizer=lambda instance: instance.size)
    replay(registry, [0, 1, 2, 3, 4] * 10)
    found = registry.plan().thrashing
    assert (found.setting, found.bound, found.better) == ("max_cache_size", 4, 5)
    assert (found.builds, found.builds_avoided, found.seconds_avoided) == (45, 45, 45.0)
    assert found.bytes == SIZES[0]


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_a_bound_that_was_raised_avoids_nothing_more(ws: Any, policy: str) -> None:
    """The builds that it would have avoided stay in the window, and no larger bound is advised."""
    registry = registry_of(ws, max_cache_size=4, policy=policy)
    builds = replay(registry, [0, 1, 2, 3, 4] * 10)
    assert registry.plan().thrashing.better == 5
    registry._max_cache_size = 20
    plan = registry.plan()
    assert (plan.builds, plan.thrashing) == (builds, None)
    assert all(point.builds == 0 for point in plan.curve("max_cache_size").points)


def test_a_bound_that_was_lowered_is_judged_by_what_it_is_now(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=4)
    replay(registry, [0, 1, 2, 3, 4] * 10)
    registry._max_cache_size = 3
    found = registry.plan().thrashing
    assert (found.bound, found.better, found.builds_avoided) == (3, 5, 45)


def test_an_idle_ttl_that_was_raised_avoids_nothing_more(ws: Any) -> None:
    registry = registry_of(ws, cache_ttl_seconds=2.0)
    replay(registry, [0, 1, 2] * 5)
    assert [point.builds for point in registry.plan().curve("cache_ttl_seconds").points][2] == -12
    registry._cache_ttl_seconds = 10.0
    assert {point.builds for point in registry.plan().curve("cache_ttl_seconds").points} == {0}


def test_a_policy_s_larger_bounds_are_estimates(ws: Any) -> None:
    for policy, note in (("lru", ""), ("cost", "about")):
        registry = registry_of(ws, max_cache_size=4, policy=policy)
        replay(registry, [0, 1, 2, 3, 4] * 10)
        plan = registry.plan()
        larger = [each for each in plan.curve("max_cache_size").points if each.bound > 4]
        assert {point.estimated for point in larger} == {policy == "cost"}
        assert repr(plan).rstrip(">").endswith(note)


def test_the_repr_is_a_table(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=2, cache_ttl_seconds=100.0)
    replay(registry, [0, 1, 2] * 5)
    plan = registry.plan()
    text = repr(plan)
    assert "<Plan: 15 builds in 15 s, 15.0 s of building" in text
    assert "12 builds        12.0 s  of instances evicted for max_cache_size" in text
    assert "max_cache_size, now 2" in text
    assert "cache_ttl_seconds, now 100 s" in text
    assert plan.as_dict()["curves"][0]["points"][1]["bound"] == 3
    with pytest.raises(AttributeError):
        plan.builds = 3


# -- threads -------------------------------------------------------------------------------------


def test_builds_of_many_threads_are_all_counted(ws: Any) -> None:
    registry = ws.MethodRegistry(
        {f"C{number}": Built for number in range(20)}, max_cache_size=5, plan=True
    )
    for number in range(20):
        registry.register(f"C{number}", lambda: Built(1))

    def work(offset: int) -> None:
        for turn in range(300):
            registry.get_instance(f"C{(turn * offset) % 20}")

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (1, 3, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plan = registry.plan()
    assert plan.builds == registry.stats().builds
    assert sum(share.builds for share in plan.causes) == plan.builds


def test_plans_can_be_made_while_others_build(ws: Any) -> None:
    registry = registry_of(ws, max_cache_size=3)
    done = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                plan = registry.plan(window_seconds=1e6)
                assert sum(share.builds for share in plan.causes) == plan.builds
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(1_000):
            registry.get_instance(f"C{turn * 7 % 10}")
            if turn % 300 == 0:
                registry.clear_cache()
    finally:
        done.set()
        reader.join()
    assert errors == []


def test_an_interrupt_leaves_a_valid_memory(ws: Any, monkeypatch: Any) -> None:
    """What was remembered is forgotten, and what was built stays accounted for."""
    from warmset.planning.ghost_table import GhostTable

    registry = registry_of(ws, max_cache_size=2)
    replay(registry, [0, 1, 2])
    add = GhostTable.add

    def interrupted(self: Any, ghost: Any, **options: Any) -> None:
        monkeypatch.setattr(GhostTable, "add", add)
        self._used += 1  # half a change
        raise KeyboardInterrupt

    monkeypatch.setattr(GhostTable, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay(registry, [3])
    builds = replay(registry, [3, 4, 5, 3])
    plan = registry.plan()
    assert 0 < plan.builds <= builds
    assert plan.causes[-1].cause == "size"


def test_ghosts_keep_neither_registry_nor_instances_alive(ws: Any) -> None:
    import gc
    import weakref

    registry = registry_of(ws, max_cache_size=1)
    kept = weakref.ref(registry.get_instance("C0"))
    replay(registry, [1, 2])
    gc.collect()
    assert kept() is None
