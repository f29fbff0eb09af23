"""Health checks: findings over a window, with figure, threshold and advice, logged once."""

from __future__ import annotations

import contextlib
import gc
import importlib
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
    """The kinds of some findings."""
    return [finding.kind.value for finding in findings]


def look_up(registry: Any, hits: int, misses: int) -> None:
    """Cause a number of hits and misses."""
    registry.get_instance("Alpha")
    for _ in range(misses):
        registry.discard("Alpha")
        registry.get_instance("Alpha")
    for _ in range(hits):
        registry.get_instance("Alpha")


@pytest.mark.counts
def test_no_findings(make: Any, rss: Any) -> None:
    """The first call has no earlier observation and checks no rates."""
    registry = make()
    look_up(registry, hits=0, misses=500)
    assert registry.health() == ()
    look_up(registry, hits=900, misses=100)
    assert registry.health() == ()


@pytest.mark.counts
def test_a_low_hit_rate(make: Any, timer: Any, health: Any, rss: Any) -> None:
    """It covers the window only, and needs enough look-ups."""
    registry = make()
    look_up(registry, hits=100_000, misses=0)
    registry.health()
    look_up(registry, hits=30, misses=60)
    assert registry.health() == (), "fewer than a hundred look-ups"
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
    """Look-ups before the window do not count; those in it do."""
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
    assert kinds(found) == ["hit_rate_low"], "no check in between"
    timer.advance(100)
    assert registry.health(window_seconds=100) == ()


def test_observations_are_bounded(make: Any, timer: Any, health: Any, rss: Any) -> None:
    """However often the check runs."""
    registry = make()
    for _ in range(5000):
        timer.advance(0.1)
        registry.health(window_seconds=60)
    assert 50 <= len(registry.extension(health.HealthMonitor)._observations) <= 70


@pytest.mark.counts
def test_a_high_eviction_rate(make: Any, rss: Any) -> None:
    """The working set exceeds the bound."""
    registry = make(max_cache_size=2)
    registry.health()
    for _ in range(10):
        for name in ("Alpha", "Beta", "Gamma"):
            registry.get_instance(name)
    found = {finding.kind.value: finding for finding in registry.health()}
    assert set(found) == {"eviction_rate_high", "nearly_full", "thrashing"}
    assert found["eviction_rate_high"].figure == 28 / 30
    assert found["nearly_full"].figure == 1.0
    assert found["nearly_full"].threshold == 0.9


@pytest.mark.counts
def test_a_growing_process(make: Any, timer: Any, rss: Any) -> None:
    """Growth is a finding unless more instances are cached than at the start of the window."""
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
    """Per class: removed some time ago, without a holder, and still alive."""
    registry = make()
    for name in ("Alpha", "Beta"):
        registry.register(name, f"samples.{name}", closer=None)
    registry.health()
    kept = [registry.get_instance("Alpha")]
    registry.clear_cache()
    kept.append(registry.get_instance("Alpha"))
    registry.get_instance("Beta").me = kept  # not a cycle: it dies with its removal
    registry.clear_cache()
    assert registry.health() == (), "removed only just now"
    timer.advance(61)
    (finding,) = registry.health()
    assert finding.kind is health.FindingKind.INSTANCES_LEAKED
    assert (finding.class_name, finding.figure, finding.threshold) == ("Alpha", 2, 0)
    assert registry.health(thresholds=health.HealthThresholds(max_leaked=2)) == ()
    kept.clear()
    assert registry.health() == ()


def test_a_cycle_is_leaked_until_it_is_collected(make: Any, timer: Any, rss: Any) -> None:
    """An instance in a reference cycle counts as leaked."""
    registry = make()
    registry.register("Alpha", "samples.Alpha", closer=None)
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
def test_a_held_instance_is_not_a_leak(make: Any, timer: Any, samples: Any, rss: Any) -> None:
    """A removed instance may be leased for any time; it is closed when the lease ends."""
    registry = make(cache_ttl_seconds=0)
    registry.health()
    with registry.use("Alpha"):
        registry.clear_cache()
        timer.advance(100)
        assert registry.health() == ()
    assert samples.closed == ["Alpha"]
    timer.advance(100)
    assert registry.health() == ()


def test_weakly_referenced_instances_are_not_leaked(make: Any, timer: Any, rss: Any) -> None:
    """They belong to their users."""
    registry = make(enable_weakref=True)
    registry.health()
    alpha = registry.get_instance("Alpha")
    registry.clear_cache()
    timer.advance(100)
    assert registry.health() == ()
    assert alpha.echo("x") == "x"


@pytest.mark.counts
def test_instances_that_were_not_closed(make: Any, timer: Any, rss: Any, monkeypatch: Any) -> None:
    """Instances left open and closers that raised are counted within the window."""

    def fail(instance: Any) -> None:
        raise OSError("stuck")

    # pytest keeps records, whose tracebacks would keep instances alive.
    monkeypatch.setattr(logging.getLogger("warmset.removals"), "disabled", True)
    registry = make()
    registry.health()
    alpha = registry.get_instance("Alpha")
    registry.discard("Alpha")
    (finding,) = registry.health()
    assert (finding.kind.value, finding.figure) == ("instances_left_open", 1)
    registry.register("Beta", "samples.Beta", closer=fail)
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
    """A finding while the failure is remembered, with the class names."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=30)
    with pytest.raises(RuntimeError):
        registry.get_instance("Broken")
    (finding,) = registry.health()
    assert (finding.kind.value, finding.figure) == ("builds_failing", 1)
    assert finding.advice.endswith(": Broken")
    timer.advance(31)
    assert registry.health() == ()


@pytest.mark.counts
def test_each_finding_is_logged_once(make: Any, timer: Any, rss: Any, records: Any) -> None:
    """A finding that returns is logged again."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    for _ in range(3):
        registry.health()
    (record,) = records.of("health")
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("nearly full: 1 (threshold 0.9); the next")
    assert (record.finding, record.figure, record.threshold) == ("nearly_full", 1.0, 0.9)
    assert (record.severity, record.window_seconds) == ("warning", 300.0)
    registry.clear_cache()
    registry.health()
    registry.get_instance("Alpha")
    registry.health()
    assert len(records.of("health")) == 2


def test_thresholds_can_be_disabled(make: Any, health: Any, rss: Any) -> None:
    """With 0 or infinity; invalid thresholds raise."""
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
    """Their fields cannot be assigned."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    (finding,) = registry.health()
    with pytest.raises(AttributeError):
        finding.figure = 0


def test_counters_that_are_reset_cause_no_finding(make: Any, rss: Any) -> None:
    """The pipeline's code may assign counters."""
    registry = make()
    look_up(registry, hits=0, misses=300)
    registry.health()
    registry._cache_hits = registry._cache_misses = 0
    registry._evictions = registry._total_instantiations = 0
    assert registry.health() == ()


def test_checks_under_threads(make: Any, rss: Any, records: Any) -> None:
    """While other threads use the registry, each finding is logged once."""
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


def test_failures_of_service_threads(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the process, by thread."""
    sweeper = importlib.import_module("warmset.lifecycle.sweeper").sweeper
    monkeypatch.setattr(sweeper.service, "_start", lambda: None)  # no thread sweeps in between
    registry = make()
    registry.health()
    broken = make()
    broken.evict_expired = None  # not callable
    sweeper.add(broken, 1000.0, now=0.0)
    sweeper.sweep(1000.0)
    (finding,) = registry.health()
    assert (finding.kind.value, finding.figure) == ("services_failing", 1)
    assert "warmset-sweeper" in finding.advice
    broken.close()
    sweeper.remove(broken)


@pytest.mark.referrers
def test_health_while_the_collector_runs_in_it(make: Any, samples: Any) -> None:
    """At each allocation; finalisers fail to build, and remove, while that is being reported."""
    registry = make(retry_after_seconds=1000.0)
    for number in range(10):
        registry.register(f"failed {number}", "samples.Broken")
        with contextlib.suppress(Exception):
            registry.get_instance(f"failed {number}")
    registry.health()
    runs: list[int] = []

    class Finalised:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            runs.append(1)
            gc.disable()  # what it does itself is not in question here
            name = f"failed {len(runs) % 20}"
            registry.register(name, "samples.Broken")
            if not registry.builder.failures.forget(name):
                with contextlib.suppress(Exception):
                    registry.get_instance(name)
            registry.get_instance("Alpha").itself = registry
            registry.discard("Alpha")
            if len(runs) < 300:
                Finalised()
            gc.enable()

    threshold = gc.get_threshold()
    Finalised()
    gc.set_threshold(1)
    try:
        while len(runs) < 300:
            registry.health()
    finally:
        gc.set_threshold(*threshold)
