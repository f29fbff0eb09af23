"""Bounds that are too small or too large: in health checks, metrics, the live view, and reports."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

SIZES = {"Alpha": 1_000_000, "Beta": 2_000_000, "Gamma": 3_000_000}


class Built:
    def __init__(self, size: int) -> None:
        self.size = size


@pytest.fixture
def registry(ws: Any, timer: Any) -> Any:
    """Three classes, each built in 2 s, within two places."""
    made = ws.MethodRegistry(
        {}, timer=timer, max_cache_size=2, cache_ttl_seconds=0, plan=True,
        sizer=lambda instance: instance.size,
    )  # fmt: skip
    for name, size in SIZES.items():

        def build(size: int = size) -> Built:
            timer.advance(2.0)
            return Built(size)

        made.register(name, build)
    return made


def thrash(registry: Any, rounds: int = 10) -> None:
    for _ in range(rounds):
        for name in SIZES:
            registry.get_instance(name)


def test_thrashing_is_a_finding(registry: Any) -> None:
    """With the figure, the threshold, what to change, what that saves, and what it takes."""
    registry.health()
    thrash(registry)
    found = {finding.kind.value: finding for finding in registry.health()}
    finding = found["thrashing"]
    assert (finding.figure, finding.threshold) == (27 / 30, 0.3)
    assert finding.advice == (
        "in a minute, 27 of 30 builds, 54 s, were of instances evicted for size at most 2 places "
        "ago; max_cache_size=3 instead of 2 would have avoided 27 of them, 54 s, for 1.0 MB"
    )


def test_few_builds_and_high_thresholds_are_no_thrashing(registry: Any) -> None:
    thresholds = importlib.import_module("warmset.observe.health").HealthThresholds
    registry.health()
    thrash(registry, 3)
    assert "thrashing" not in {finding.kind.value for finding in registry.health()}
    thrash(registry)
    assert "thrashing" not in {
        finding.kind.value for finding in registry.health(thresholds=thresholds(max_thrashing=1))
    }


def test_a_budget_of_bytes_can_thrash(ws: Any, timer: Any) -> None:
    made = ws.MethodRegistry(
        dict.fromkeys(SIZES, Built), timer=timer, max_cache_bytes=4_000_000, plan=True,
        sizer=lambda instance: instance.size,
    )  # fmt: skip
    for name, size in SIZES.items():
        made.register_instantiation_rule(name, lambda cls, size=size: cls(size))
    thrash(made)
    finding = next(each for each in made.health() if each.kind.value == "thrashing")
    assert "evicted for memory that twice that budget keeps; max_cache_bytes=6000000" in (
        finding.advice
    )


def test_oversized_is_a_finding(ws: Any, timer: Any) -> None:
    made = ws.MethodRegistry(
        dict.fromkeys(SIZES, Built), timer=timer, max_cache_size=3, cache_ttl_seconds=0,
        sizer=lambda instance: instance.size,
    )  # fmt: skip
    for name, size in SIZES.items():
        made.register_instantiation_rule(name, lambda cls, size=size: cls(size))
        made.get_instance(name)
    made.health()
    timer.advance(3_700.0)
    made.get_instance("Alpha")
    finding = next(each for each in made.health() if each.kind.value == "oversized")
    assert (finding.figure, finding.threshold) == (2 / 3, 0.5)
    assert finding.advice == (
        "2 of 3 places and 5.0 MB have not been used for an hour: max_cache_size=1 would do, or a "
        "cache_ttl_seconds below 3600"
    )
    made.pin("Beta")
    assert "oversized" not in {each.kind.value for each in made.health()}


# -- the same elsewhere --------------------------------------------------------------------------


def test_prometheus(registry: Any) -> None:
    pytest.importorskip("prometheus_client")
    collector = importlib.import_module("warmset.observe.prometheus").WarmsetCollector(registry)
    thrash(registry)
    values = {
        (sample.name, sample.labels.get("cause")): sample.value
        for family in collector.collect()
        for sample in family.samples
    }
    assert values["warmset_rebuilds_total", "size"] == 27
    assert values["warmset_rebuilds_total", "idle"] == 0
    assert values["warmset_rebuild_seconds_total", "size"] == 54.0
    assert values["warmset_avoidable_builds_total", None] == 27
    assert values["warmset_avoidable_build_seconds_total", None] == 54.0
    assert values["warmset_unused_instances", None] == values["warmset_unused_bytes", None] == 0
    collector.close()


def test_unused_instances_are_a_metric(registry: Any, timer: Any) -> None:
    pytest.importorskip("prometheus_client")
    collector = importlib.import_module("warmset.observe.prometheus").WarmsetCollector(registry)
    registry.get_instance("Beta")
    timer.advance(3_601.0)
    values = {s.name: s.value for family in collector.collect() for s in family.samples}
    assert values["warmset_unused_instances"] == 1
    assert values["warmset_unused_bytes"] == 2_000_000


def test_opentelemetry(registry: Any) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    otel = importlib.import_module("warmset.observe.otel")
    otel.instrument(registry, meter_provider=MeterProvider(metric_readers=[reader]))
    thrash(registry)
    values = {
        (metric.name, point.attributes.get("warmset.removal.cause")): point.value
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if hasattr(point, "value")
    }
    assert values["warmset.rebuilds", "size"] == 27
    assert values["warmset.rebuild.duration", "size"] == 54.0
    assert values["warmset.builds.avoidable", None] == 27
    assert values["warmset.builds.avoidable.duration", None] == 54.0
    assert values["warmset.instances.unused", None] == 0
    assert values["warmset.memory.unused", None] == 0


def test_the_live_view(registry: Any) -> None:
    """`top` and `stats` show one line for each."""
    pytest.importorskip("click")
    rows = importlib.import_module("warmset.observe.rows")
    table = importlib.import_module("warmset.cli.class_table")
    assert rows.describe(registry, "main")["advice"] == {"thrashing": None, "oversized": None}
    thrash(registry)
    described = rows.describe(registry, "main")
    (line,) = table.advice_lines(described)
    assert line.startswith("thrashing: in a minute, 27 of 30 builds, 54 s, were of instances")
    assert table.advice_lines({}) == []


def test_describing_a_registry_attaches_nothing(make: Any) -> None:
    rows = importlib.import_module("warmset.observe.rows")
    made = make()
    rows.describe(made, "main")
    assert made.extensions == ()


def test_the_page_of_a_run(registry: Any) -> None:
    """One sentence for a bound that is too small."""
    pytest.importorskip("click")
    recorder = importlib.import_module("warmset.cli.html_report.recorder").Recorder(list(SIZES))
    recorder.watch(registry)
    recorder.on_run(1)
    thrash(registry)
    registry.close()
    (line,) = recorder.advice()
    assert line.startswith("Thrashing: in a minute, 27 of 30 builds")


def test_the_page_of_a_run_with_a_large_bound(registry: Any, timer: Any) -> None:
    pytest.importorskip("click")
    recorder = importlib.import_module("warmset.cli.html_report.recorder").Recorder(list(SIZES))
    recorder.watch(registry)
    recorder.on_run(1)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    timer.advance(4_000.0)
    registry.clear_cache()
    (line,) = recorder.advice()
    assert line.startswith("Oversized: 2 of 2 places had not been used for an hour")
