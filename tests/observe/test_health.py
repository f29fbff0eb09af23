"""Health: findings over a window, each with figure, threshold and advice; logged when they come."""

from __future__ import annotations

import gc
import logging
import math
import threading
from typing import Any

import pytest


@pytest.fixture
def health(observe: Any) -> Any:
    """The module."""
    return observe("health")


def kinds(findings: Any) -> list[str]:
    """Their kinds."""
    return [finding.kind.value for finding in findings]


def look_up(registry: Any, hits: int, misses: int) -> None:
    """So many of each."""
    registry.get_instance("Alpha")
    for _ in range(misses):
        registry.discard("Alpha")
        registry.get_instance("Alpha")
    for _ in range(hits):
        registry.get_instance("Alpha")


@pytest.mark.counts
def test_all_is_well(make: Any, rss: Any) -> None:
    """Nothing is found, and the first call can judge levels only."""
    registry = make()
    look_up(registry, hits=0, misses=500)
    assert registry.health() == ()
    look_up(registry, hits=900, misses=100)
    assert registry.health() == ()


@pytest.mark.counts
def test_a_low_hit_rate(make: Any, timer: Any, health: Any, rss: Any) -> None:
    """Of the window, whatever was before; and only of enough look-ups."""
    registry = make()
    look_up(registry, hits=100_000, misses=0)
    registry.health()
    look_up(registry, hits=30, misses=60)
    assert registry.health() == (), "fewer than a hundred"
    look_up(registry, hits=9, misses=40)
    (finding,) = registry.health()
    assert finding.kind is health.FindingKind.HIT_RATE_LOW
    assert finding.severity is health.Severity.WARNING
    assert finding.figure == 41 / 141
    assert finding.threshold == 0.5
    assert "cache_ttl_seconds" in finding.advice
    assert finding.class_name is None


@pytest.mark.counts
def test_the_window_moves_on(make: Any, timer: Any, rss: Any) -> None:
    """What was before it is forgotten; what is in it is not."""
    registry = make(cache_ttl_seconds=0)
    registry.health(window_seconds=100)
    look_up(registry, hits=0, misses=200)
    for _ in range(9):
        timer.advance(10)
        assert kinds(registry.health(window_seconds=100)) == ["hit_rate_low"]
    timer.advance(25)
    assert registry.health(window_seconds=100) == ()
    look_up(registry, hits=0, misses=200)
    timer.advance(10_000)
    found = registry.health(window_seconds=100)
    assert kinds(found) == ["hit_rate_low"], "nobody looked in between"
    timer.advance(100)
    assert registry.health(window_seconds=100) == ()


def test_the_window_is_bounded(make: Any, timer: Any, rss: Any) -> None:
    """However often it is asked."""
    registry = make()
    for _ in range(5000):
        timer.advance(0.1)
        registry.health(window_seconds=60)
    assert 50 <= len(registry._monitor._observations) <= 70


@pytest.mark.counts
def test_a_high_eviction_rate(make: Any, rss: Any) -> None:
    """The working set does not fit."""
    registry = make(max_cache_size=2)
    registry.health()
    for _ in range(10):
        for name in ("Alpha", "Beta", "Gamma"):
            registry.get_instance(name)
    found = {finding.kind.value: finding for finding in registry.health()}
    assert set(found) == {"eviction_rate_high", "nearly_full"}
    assert found["eviction_rate_high"].figure == 28 / 30
    assert found["nearly_full"].figure == 1.0
    assert found["nearly_full"].threshold == 0.9


@pytest.mark.counts
def test_a_growing_process(make: Any, timer: Any, rss: Any) -> None:
    """Unless more is cached than at the beginning of the window."""
    registry = make()
    registry.get_instance("Alpha")
    registry.health()
    timer.advance(60)
    rss.bytes += 20_000_000
    assert registry.health() == ()
    rss.bytes += 1
    (finding,) = registry.health()
    assert (finding.kind.value, finding.figure) == ("rss_growing", 20_000_001)
    assert finding.severity.name == "CRITICAL"
    registry.get_instance("Beta")
    assert registry.health() == ()
    rss.bytes = None
    registry.discard("Beta")
    assert registry.health() == ()


def test_leaked_instances(make: Any, timer: Any, health: Any, rss: Any) -> None:
    """Of each class: dropped a while ago, held by nobody, and still alive."""
    registry = make()
    for name in ("Alpha", "Beta"):
        registry.register_class(name, f"samples.{name}", closer=None)
    registry.health()
    kept = [registry.get_instance("Alpha")]
    registry.clear_cache()
    kept.append(registry.get_instance("Alpha"))
    registry.get_instance("Beta").me = kept  # no cycle: it dies with its removal
    registry.clear_cache()
    assert registry.health() == (), "it has only just left"
    timer.advance(61)
    (finding,) = registry.health()
    assert finding.kind is health.FindingKind.INSTANCES_LEAKED
    assert (finding.class_name, finding.figure, finding.threshold) == ("Alpha", 2, 0)
    assert registry.health(thresholds=health.HealthThresholds(max_leaked=2)) == ()
    kept.clear()
    assert registry.health() == ()


def test_a_cycle_is_leaked_until_it_is_collected(make: Any, timer: Any, rss: Any) -> None:
    """And a closer that is nobody's business sees no reference of ours."""
    registry = make()
    registry.register_class("Alpha", "samples.Alpha", closer=None)
    registry.health()
    gc.disable()
    try:
        alpha = registry.get_instance("Alpha")
        alpha.me = alpha
        del alpha
        registry.clear_cache()
        timer.advance(61)
        assert kinds(registry.health()) == ["instances_leaked"]
    finally:
        gc.enable()
    gc.collect()
    assert registry.health() == ()


@pytest.mark.counts
def test_what_is_held_or_back_is_not_leaked(make: Any, timer: Any, samples: Any, rss: Any) -> None:
    """A lease may last; and a revived instance is warm again."""
    registry = make(cache_ttl_seconds=0)
    registry.health()
    with registry.use("Alpha"):
        registry.clear_cache()
        timer.advance(100)
        assert registry.health() == ()
        registry.get_instance("Alpha")  # revived
    timer.advance(100)
    assert registry.stats().builds == 1
    assert registry.health() == ()
    registry.clear_cache()
    assert samples.closed == ["Alpha"], "nobody refers to it, this neither"


def test_what_is_kept_weakly_is_its_users_own(make: Any, timer: Any, rss: Any) -> None:
    """It leaves the registry, and not them."""
    registry = make(enable_weakref=True)
    registry.health()
    alpha = registry.get_instance("Alpha")
    registry.clear_cache()
    timer.advance(100)
    assert registry.health() == ()
    assert alpha.echo("x") == "x"


@pytest.mark.counts
def test_what_was_not_closed(make: Any, timer: Any, rss: Any, monkeypatch: Any) -> None:
    """Left open to its users, or its closer raised: counted within the window."""

    def fail(instance: Any) -> None:
        raise OSError("stuck")

    # Records are kept by pytest, and their tracebacks keep instances.
    monkeypatch.setattr(logging.getLogger("warmset.removals"), "disabled", True)
    registry = make()
    registry.health()
    alpha = registry.get_instance("Alpha")
    registry.discard("Alpha")
    (finding,) = registry.health()
    assert (finding.kind.value, finding.figure) == ("instances_left_open", 1)
    registry.register_class("Beta", "samples.Beta", closer=fail)
    registry.get_instance("Beta")
    registry.discard("Beta")
    assert kinds(registry.health()) == ["closes_failing", "instances_left_open"]
    assert alpha is not None
    del alpha
    for _ in range(2):
        timer.advance(301)
        found = registry.health()
    assert found == ()


def test_failing_builds(make: Any, timer: Any, rss: Any) -> None:
    """While the failure is remembered, with the names."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=30)
    with pytest.raises(RuntimeError):
        registry.get_instance("Broken")
    (finding,) = registry.health()
    assert (finding.kind.value, finding.figure) == ("builds_failing", 1)
    assert finding.advice.endswith(": Broken")
    timer.advance(31)
    assert registry.health() == ()


@pytest.mark.counts
def test_each_crossing_is_logged_once(make: Any, timer: Any, rss: Any, records: Any) -> None:
    """And again when it comes back."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    for _ in range(3):
        registry.health()
    (record,) = records.of("health")
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("nearly full: 1, where the threshold is 0.9; the next")
    assert (record.finding, record.figure, record.threshold) == ("nearly_full", 1.0, 0.9)
    assert (record.severity, record.window_seconds) == ("warning", 300.0)
    registry.clear_cache()
    registry.health()
    registry.get_instance("Alpha")
    registry.health()
    assert len(records.of("health")) == 2


def test_thresholds_can_be_switched_off(make: Any, health: Any, rss: Any) -> None:
    """With 0 and infinity; and what is none is refused."""
    registry = make(max_cache_size=1)
    off = health.HealthThresholds(min_hit_rate=0, max_utilisation=math.inf, max_left_open=math.inf)
    registry.health()
    look_up(registry, hits=0, misses=300)
    assert registry.health(thresholds=off) == ()
    with pytest.raises(ValueError, match="max_leaked must be 0 or more, got -1"):
        health.HealthThresholds(max_leaked=-1)
    with pytest.raises(ValueError, match="min_hit_rate must be 0 or more, got nan"):
        health.HealthThresholds(min_hit_rate=math.nan)
    with pytest.raises(TypeError, match="max_leaked must be a number, got '1'"):
        health.HealthThresholds(max_leaked="1")
    for window, error in ((0, ValueError), (math.nan, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="window_seconds must be"):
            registry.health(window_seconds=window)
    with pytest.raises(TypeError, match="thresholds must be HealthThresholds"):
        registry.health(thresholds=0.5)


def test_findings_are_immutable(make: Any, rss: Any) -> None:
    """They are values."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    (finding,) = registry.health()
    with pytest.raises(AttributeError):
        finding.figure = 0


def test_counters_that_are_set_back_make_no_finding(make: Any, rss: Any) -> None:
    """The pipeline's code may assign them."""
    registry = make()
    look_up(registry, hits=0, misses=300)
    registry.health()
    registry._cache_hits = registry._cache_misses = 0
    registry._evictions = registry._total_instantiations = 0
    assert registry.health() == ()


def test_asking_under_threads(make: Any, rss: Any, records: Any) -> None:
    """While instances come and go; what comes up is logged once."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(100):
                registry.health()
        except BaseException as error:
            errors.append(error)

    def work() -> None:
        for _ in range(100):
            registry.get_instance("Alpha")

    threads = [threading.Thread(target=target) for target in (ask, ask, ask, work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(records.of("health")) == 1
