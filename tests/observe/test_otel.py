"""OpenTelemetry: metrics through an in-memory reader, spans through an in-memory exporter."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from traffic import serve_known_traffic

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Telemetry:
    """Providers that keep metrics and spans in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider(metric_readers=[self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def providers(self) -> dict[str, Any]:
        """The providers as arguments of `instrument`."""
        return {"meter_provider": self.meter_provider, "tracer_provider": self.tracer_provider}

    def metrics(self) -> dict[str, Any]:
        """Collect the metrics, by name."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str, attribute: str) -> dict[Any, Any]:
        """The values of a metric by one attribute."""
        metric = self.metrics().get(name)
        points = [] if metric is None else metric.data.data_points
        return {point.attributes.get(attribute): point.value for point in points}

    def spans(self) -> list[Any]:
        """The finished spans, in the order of their ends."""
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def telemetry(rss: Any) -> Any:
    """Providers that keep metrics and spans in memory."""
    made = Telemetry()
    yield made
    made.meter_provider.shutdown()
    made.tracer_provider.shutdown()


@pytest.fixture
def otel(observe: Any) -> Any:
    """The module."""
    return observe("otel")


@pytest.mark.counts
def test_a_reader_collects_every_figure(
    make: Any, timer: Any, samples: Any, otel: Any, telemetry: Any
) -> None:
    """Of known traffic."""
    registry = make(max_cache_size=2, cache_ttl_seconds=0)
    otel.instrument(registry, **telemetry.providers())
    kept = serve_known_traffic(registry, timer, samples)
    points = telemetry.points
    assert points("warmset.lookups", "warmset.lookup.result") == {"hit": 4, "miss": 5}
    assert points("warmset.builds", "warmset.build.result") == {"success": 4, "failure": 1}
    removals = points("warmset.removals", "warmset.removal.cause")
    assert {cause: count for cause, count in removals.items() if count} == {
        "size": 1,
        "discarded": 1,
    }
    assert points("warmset.closes", "warmset.close.result") == {
        "success": 1,
        "failure": 0,
        "left_open": 1,
    }
    states = points("warmset.instances", "warmset.instance.state")
    assert states == {"free": 1, "held": 1, "weak": 0}
    assert points("warmset.classes", "warmset.class.state") == {"failed": 1, "sound": 3}
    assert points("warmset.class.holders", "warmset.class.name") == {"Alpha": 0, "Beta": 1}
    figures = {
        "warmset.evictions": 1,
        "warmset.waits": 0,
        "warmset.listener.failures": 0,
        "warmset.instances.limit": 2,
        "warmset.threads.waiting": 0,
        "warmset.instances.leaked": 0,
    }
    for name, figure in figures.items():
        assert points(name, "warmset.registry.name") == {"default": figure}, name
    assert points("process.memory.usage", "none") == {None: 100_000_000}
    assert "warmset.memory.usage" not in telemetry.metrics()
    timer.advance(61)
    assert points("warmset.instances.leaked", "warmset.registry.name") == {"default": 1}
    del kept


def test_builds_make_a_histogram(
    make: Any, timer: Any, samples: Any, otel: Any, telemetry: Any
) -> None:
    """In seconds, with suitable bounds; failures have an error.type."""
    registry = make(max_cache_size=2, cache_ttl_seconds=0)
    otel.instrument(registry, **telemetry.providers())
    kept = serve_known_traffic(registry, timer, samples)
    metric = telemetry.metrics()["warmset.build.duration"]
    assert metric.unit == "s"
    by_class = {point.attributes["warmset.class.name"]: point for point in metric.data.data_points}
    assert {name: (p.count, p.sum) for name, p in by_class.items()} == {
        "Alpha": (2, 4.0),
        "Beta": (1, 2.0),
        "Gamma": (1, 2.0),
        "Delta": (1, 0.0),
    }
    assert by_class["Delta"].attributes["error.type"] == "OSError"
    assert "error.type" not in by_class["Alpha"].attributes
    assert by_class["Alpha"].explicit_bounds[0] == 0.001
    del kept


def test_a_build_has_a_span(make: Any, timer: Any, samples: Any, otel: Any, telemetry: Any) -> None:
    """As long as the build, a child of the current span; a failed build has its error."""
    registry = make({"Alpha": "samples.Alpha", "Broken": "samples.Broken"})
    otel.instrument(registry, **telemetry.providers())
    samples.script["Alpha"] = lambda instance: timer.advance(2.5)
    tracer = telemetry.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("request") as request:
        registry.get_instance("Alpha")
        registry.get_instance("Alpha")
    with pytest.raises(RuntimeError):
        registry.get_instance("Broken")
    built, _, failed = telemetry.spans()
    assert built.name == "build Alpha"
    assert built.end_time - built.start_time == 2_500_000_000
    assert built.parent.span_id == request.get_span_context().span_id
    assert dict(built.attributes) == {
        "warmset.registry.name": "default",
        "warmset.class.name": "Alpha",
    }
    assert built.status.is_unset
    assert failed.name == "build Broken"
    assert failed.parent is None
    assert not failed.status.is_ok
    assert "no model file" in failed.status.description
    assert failed.attributes["error.type"] == "ValueError"
    assert failed.attributes["warmset.build.stage"] == "build"


def test_execute_has_a_span_if_traced(ws: Any, make: Any, otel: Any, telemetry: Any) -> None:
    """Tracing wraps the executor without changing it; builds are children of the call."""
    executor = ws.MethodExecutor(method_registry=make())
    otel.instrument(executor.registry, **telemetry.providers())
    executor.execute("Beta", "echo", text="x")
    telemetry.exporter.clear()
    traced = otel.trace_execute(executor, tracer_provider=telemetry.tracer_provider)
    assert traced.execute("Alpha", "echo", text="x") == "x"
    assert traced.execute(class_name="Alpha", method_name="echo", text="y") == "y"
    with pytest.raises(AttributeError):
        traced.execute("Alpha", "fail")
    build, execute, by_keyword, failed = telemetry.spans()
    assert (build.name, execute.name) == ("build Alpha", "execute Alpha.echo")
    assert build.parent.span_id == execute.context.span_id
    assert by_keyword.name == execute.name
    assert dict(execute.attributes) == {
        "warmset.class.name": "Alpha",
        "warmset.method.name": "echo",
    }
    assert failed.attributes["error.type"] == "AttributeError"
    assert [event.name for event in failed.events] == ["exception"]
    assert not failed.status.is_ok
    assert traced.get_registry_stats()["total_instantiations"] == 2
    assert "traced" in repr(traced)


def test_an_asynchronous_executor_is_traced_too(make: Any, otel: Any, telemetry: Any) -> None:
    """The span lasts until the method ends; the build in a worker thread is its child."""
    from importlib import import_module

    registry = make()
    otel.instrument(registry, **telemetry.providers())

    async def main() -> Any:
        executor = import_module("warmset.aio").AsyncMethodExecutor(method_registry=registry)
        traced = otel.trace_execute(executor, tracer_provider=telemetry.tracer_provider)
        async with traced:
            with pytest.raises(AttributeError):
                await traced.execute("Alpha", "fail")
            return await traced.execute("Alpha", "echo", text="x")

    assert asyncio.run(main()) == "x"
    build, failed, execute = telemetry.spans()
    assert (build.name, execute.name) == ("build Alpha", "execute Alpha.echo")
    assert build.parent.span_id == failed.context.span_id
    assert failed.attributes["error.type"] == "AttributeError"


def test_the_limit_of_class_names(make: Any, otel: Any, telemetry: Any) -> None:
    """Classes above the limit are "other", also in the histogram; spans name each class."""
    registry = make({f"C{number}": "collections.OrderedDict" for number in range(10)})
    otel.instrument(registry, max_classes=2, **telemetry.providers())
    for number in range(10):
        for _ in range(number + 1):
            registry.get_instance(f"C{number}")
    uses = telemetry.points("warmset.class.uses", "warmset.class.name")
    assert uses == {"C9": 10, "C8": 9, "other": 36}
    durations = telemetry.metrics()["warmset.build.duration"].data.data_points
    names = {point.attributes["warmset.class.name"] for point in durations}
    assert names == {"C0", "C1", "other"}
    assert len({span.name for span in telemetry.spans()}) == 10


def test_a_second_registry_joins_the_instruments(make: Any, otel: Any, telemetry: Any) -> None:
    """A provider returns existing instruments and ignores new callbacks."""
    one, other, third = make(), make(), make()
    instrumentation = otel.instrument({"one": one}, **telemetry.providers())
    assert otel.instrument({"other": other}, **telemetry.providers()) is instrumentation
    instrumentation.add("third", third)
    other.get_instance("Alpha")
    assert telemetry.points("warmset.evictions", "warmset.registry.name") == {
        "one": 0,
        "other": 0,
        "third": 0,
    }
    assert len(telemetry.spans()) == 1
    with pytest.raises(ValueError, match="'one'"):
        otel.instrument({"one": other}, **telemetry.providers())
    with pytest.raises(TypeError, match="registries must be"):
        otel.instrument(3, **telemetry.providers())
    one.close()
    del other
    gc.collect()
    assert set(telemetry.points("warmset.evictions", "warmset.registry.name")) == {"third"}
    instrumentation.uninstrument()
    third.get_instance("Alpha")
    assert telemetry.points("warmset.evictions", "warmset.registry.name") == {}
    assert len(telemetry.spans()) == 1


def test_an_error_in_one_registry_does_not_affect_the_others(
    make: Any, otel: Any, telemetry: Any, records: Any
) -> None:
    """The error is logged once for each instrument."""
    broken, sound = make(), make()
    otel.instrument({"broken": broken, "sound": sound}, **telemetry.providers())
    broken.families = None  # not a mapping
    for _ in range(2):
        names = telemetry.points("warmset.instances.limit", "warmset.registry.name")
        assert set(names) == {"sound"}
    messages = [record.getMessage() for record in records.of("metrics")]
    assert messages.count("warmset.lookups of registry 'broken' could not be read") == 1


def test_without_an_sdk_nothing_is_recorded(make: Any, otel: Any) -> None:
    """The API's own providers do nothing."""
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    registry = make()
    otel.instrument(
        registry, meter_provider=NoOpMeterProvider(), tracer_provider=NoOpTracerProvider()
    )
    registry.get_instance("Alpha")
    assert registry.stats().listener_failures == 0


def test_names_that_cannot_be_encoded(make: Any, samples: Any, telemetry: Any, otel: Any) -> None:
    """An exporter encodes them in UTF-8, and would lose everything else with them."""
    odd = "b\udcff\n"
    registry = make({odd: "samples.Alpha"})
    otel.instrument({odd: registry}, **telemetry.providers())
    registry.get_instance(odd)
    (span,) = telemetry.spans()
    assert span.name == r"build b\udcff\n"
    assert r"b\udcff\n" in span.attributes.values()
