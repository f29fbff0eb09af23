"""`max_cache_size="auto"`: the rule, its limits, its reports, and that the budget holds."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest

from warmset.memory.autosize import Steering


class Built:
    def __init__(self, size: int) -> None:
        self.size = size


def make_auto(ws: Any, timer: Any, **options: Any) -> Any:
    """Forty classes of one megabyte, each built in a second on another clock."""
    from warmset.testing import FakeTimer

    settings = {"max_cache_bytes": 30_000_000, "cache_ttl_seconds": 0, **options}
    registry = ws.MethodRegistry(
        {}, max_cache_size="auto", timer=timer, sizer=lambda instance: instance.size, **settings
    )
    registry.builder.stopwatch = stopwatch = FakeTimer()
    for number in range(40):

        def build() -> Built:
            stopwatch.advance(1.0)
            return Built(1_000_000)

        registry.register(f"C{number}", build)
    return registry


def use(registry: Any, timer: Any, numbers: Any) -> None:
    for number in numbers:
        timer.advance(1.0)
        registry.get_instance(f"C{number}")


# -- the rule ------------------------------------------------------------------------------------


def steer(steering: Steering, builds: int, *, caused: bool) -> None:
    for _ in range(builds):
        steering.built(1.0, caused=caused)


def test_a_bound_that_costs_nothing_is_lowered() -> None:
    steering = Steering(4, 1000)
    steer(steering, 7, caused=False)
    steering.evicted()
    assert steering.wanted(1000, 20) == 1000, "too few builds to judge it"
    steer(steering, 1, caused=False)
    assert steering.wanted(1000, 20) == 18
    assert steering.wanted(18, 18) == 18, "it is not judged again by the same builds"


def test_while_everything_fits_it_is_not_lowered() -> None:
    steering = Steering(4, 1000)
    steer(steering, 100, caused=False)
    assert steering.wanted(1000, 20) == 1000
    steering.evicted()
    assert steering.wanted(1000, 20) == 18


def test_a_bound_that_costs_much_is_raised() -> None:
    steering = Steering(4, 24)
    steer(steering, 8, caused=False)
    steer(steering, 2, caused=True)
    assert 0.2 < steering.share < 0.3
    assert steering.wanted(20, 20) == 24, "within the limit"
    assert Steering(4, 24).wanted(20, 20) == 20


def test_between_the_two_it_stays() -> None:
    steering = Steering(4, 1000)
    steer(steering, 95, caused=False)
    steer(steering, 5, caused=True)
    assert 0.04 < steering.share < 0.07
    assert steering.wanted(20, 20) == 20


def test_it_changes_by_one_at_least_and_stays_within_its_limits() -> None:
    steering = Steering(4, 1000)
    steer(steering, 8, caused=False)
    steering.evicted()
    assert steering.wanted(5, 5) == 4
    steer(steering, 8, caused=False)
    steering.evicted()
    assert steering.wanted(4, 4) == 4
    steer(steering, 8, caused=True)
    assert steering.wanted(4, 2) == 5


def test_earlier_builds_count_less() -> None:
    steering = Steering(4, 1000)
    steer(steering, 300, caused=True)
    steer(steering, 600, caused=False)
    assert steering.share == pytest.approx(1.0 / 6.0, rel=0.01)


# -- a registry ----------------------------------------------------------------------------------


def test_it_begins_at_its_limit_and_the_budget_holds(ws: Any, timer: Any) -> None:
    registry = make_auto(ws, timer, autosize_max=35)
    assert registry.max_size == registry.stats().max_cache_size == 35
    assert "of at most 35" in repr(registry)
    choose = random.Random(2)
    for _ in range(2_000):
        use(registry, timer, [min(39, int(choose.expovariate(0.1)))])
        assert registry.known_bytes <= 30_000_000
        assert registry.cached <= registry.max_size <= 35


def test_a_loop_that_does_not_fit_keeps_little(ws: Any, timer: Any) -> None:
    """LRU within the budget would build each time, too; so the memory is given up."""
    registry = make_auto(ws, timer)
    use(registry, timer, list(range(40)) * 20)
    assert registry.max_size == 4
    builds = registry.stats().builds
    assert builds == 800


def test_it_is_raised_when_the_bound_costs_builds(ws: Any, timer: Any) -> None:
    registry = make_auto(ws, timer)
    use(registry, timer, list(range(40)) * 20)
    use(registry, timer, list(range(20)) * 60)
    assert registry.max_size >= 20
    before = registry.stats().builds
    use(registry, timer, range(20))
    assert registry.stats().builds == before


def test_builds_stay_close_to_those_of_the_budget_alone(ws: Any, timer: Any) -> None:
    choose = random.Random(4)
    numbers = [min(39, int(choose.expovariate(0.08))) for _ in range(4_000)]
    auto = make_auto(ws, timer)
    use(auto, timer, numbers)
    fixed = make_auto(ws, timer, autosize_min=1000)
    use(fixed, timer, numbers)
    assert fixed.max_size == 1000
    assert auto.stats().builds <= 1.1 * fixed.stats().builds
    assert auto.plan(window_seconds=1e9).bound_changes


def test_the_policy_cost_can_be_used(ws: Any, timer: Any) -> None:
    registry = make_auto(ws, timer, policy="cost")
    use(registry, timer, list(range(40)) * 20)
    assert registry.cached <= registry.max_size


def test_it_is_not_raised_while_the_process_is_short_of_memory(
    ws: Any, timer: Any, monkeypatch: Any
) -> None:
    from warmset.memory.manager import MemoryManager

    registry = make_auto(ws, timer, max_rss_bytes=10_000_000_000)
    use(registry, timer, list(range(40)) * 20)
    budgets = registry.extension(MemoryManager).budgets
    monkeypatch.setattr(budgets, "_probe", lambda: 9_500_000_000)
    use(registry, timer, list(range(20)) * 20)
    assert registry.max_size == 4
    monkeypatch.setattr(budgets, "_probe", lambda: 1_000_000_000)
    use(registry, timer, list(range(20)) * 60)
    assert registry.max_size >= 20


# -- reports -------------------------------------------------------------------------------------


def test_explain_the_plan_and_the_log_report_changes(ws: Any, timer: Any, caplog: Any) -> None:
    caplog.set_level("INFO", logger="warmset.memory")
    registry = make_auto(ws, timer)
    registry.get_instance("C0")
    assert "the bound of 1000 is chosen by the registry, from 4 to 1000; not changed yet" in str(
        registry.explain("C0")
    )
    use(registry, timer, [*range(1, 40), 0])
    text = str(registry.explain("C0"))
    assert "; lowered from " in text
    assert "builds that the bound caused take 0.0% of the other build seconds, below 4%" in text
    plan = registry.plan()
    assert plan.bound_changes[0][1:3] == (1000, 27)
    assert plan.as_dict()["bound_changes"][0]["before"] == 1000
    assert "max_cache_size last changed from" in repr(plan)
    records = [each for each in caplog.records if hasattr(each, "max_cache_size_before")]
    assert records[0].getMessage().startswith("max_cache_size lowered from 1000 to 27: builds")
    assert records[0].max_cache_size == 27


def test_a_number_assigned_later_is_kept(ws: Any, timer: Any) -> None:
    registry = make_auto(ws, timer)
    registry._max_cache_size = 30
    use(registry, timer, list(range(40)) * 5)
    assert registry.max_size == 30


# -- settings ------------------------------------------------------------------------------------


def test_settings(ws: Any) -> None:
    with pytest.raises(ValueError, match="max_cache_size must be a number unless max_cache_bytes"):
        ws.MethodRegistry({}, max_cache_size="auto")
    with pytest.raises(TypeError, match="max_cache_size must be a whole number, 1 or more, or 'a"):
        ws.MethodRegistry({}, max_cache_size="large")
    with pytest.raises(ValueError, match="autosize_min must be at most autosize_max, 3, got 4"):
        ws.MethodRegistry({}, max_cache_size="auto", max_cache_bytes=10, autosize_max=3)
    settings = ws.RegistrySettings(max_cache_size="auto", max_cache_bytes=10)
    assert (settings.max_cache_size, settings.first_size) == ("auto", 1000)
    assert settings.replace(max_cache_size=5).first_size == 5


def test_a_settings_file(ws: Any, tmp_path: Any) -> None:
    path = tmp_path / "warmset.toml"
    path.write_text(
        '[registry]\nmax_cache_size = "auto"\nmax_cache_bytes = 1000000\nautosize_max = 50\n'
    )
    registry = ws.MethodRegistry.from_file(path)
    assert registry.max_size == 50
    assert registry.extension(importlib.import_module("warmset.memory.autosize").Autosize)
