"""
Metrics and traces for OpenTelemetry, over its API alone; ``warmset[otel]`` installs it.

The instruments are observable ones: they are read when a reader asks, and nothing is added to the
way of a hit. Builds are the exception: each is recorded, and given its span, when it has ended.
"""

from __future__ import annotations

import inspect
from time import time_ns
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode

from .. import __version__, _logs
from .builds import BUCKETS
from .health import HealthThresholds
from .leaving import watch_leaving
from .process import resident_bytes
from .registries import ClassLabels, Registries, check_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..events import BuildEvent
    from ..registry import Registry
    from ..stats import RegistryStats

__all__ = ["Instrumentation", "TracedExecutor", "instrument", "trace_execute"]

REGISTRY, CLASS, METHOD = "warmset.registry.name", "warmset.class.name", "warmset.method.name"

_Reading = tuple["dict[str, Any]", float]


class Instrumentation:
    """
    The instruments of one meter provider, and the registries that they observe; see `instrument`.
    """

    def __init__(
        self,
        meter_provider: metrics.MeterProvider,
        tracer_provider: trace.TracerProvider | None,
        max_classes: int,
    ) -> None:
        self._max_classes = max_classes
        self._tracer_provider = tracer_provider
        meter = meter_provider.get_meter("warmset", __version__)
        self._durations = meter.create_histogram(
            "warmset.build.duration",
            unit="s",
            description="Seconds of builds; failed ones have an error.type.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._failing: set[tuple[str, str]] = set()
        self._registries = Registries()
        counter = meter.create_observable_counter
        level = meter.create_observable_up_down_counter
        for create, name, unit, description, read in (
            (counter, "warmset.lookups", "{lookup}", "Look-ups, by result.", _lookups),
            (counter, "warmset.builds", "{build}", "Builds, by result.", _builds),
            (counter, "warmset.removals", "{instance}", "Removals, by cause.", _removals),
            (
                counter,
                "warmset.evictions",
                "{instance}",
                "Removals that the registry decided.",
                lambda stats: [({}, stats.evictions)],
            ),
            (
                counter,
                "warmset.waits",
                "{lookup}",
                "Look-ups that waited for a build of another thread.",
                lambda stats: [({}, stats.waits)],
            ),
            (counter, "warmset.closes", "{instance}", "Removed instances, by result.", _closes),
            (
                counter,
                "warmset.listener.failures",
                "{call}",
                "Listeners that raised.",
                lambda stats: [({}, stats.listener_failures)],
            ),
            (level, "warmset.instances", "{instance}", "Instances, by state.", _instances),
            (
                level,
                "warmset.instances.limit",
                "{instance}",
                "How many instances may be cached.",
                lambda stats: [({}, stats.max_cache_size)],
            ),
            (level, "warmset.classes", "{class}", "Classes, by state.", _classes),
            (
                level,
                "warmset.memory.usage",
                "By",
                "Bytes of what is cached, where they are measured.",
                lambda stats: [] if stats.bytes is None else [({}, stats.bytes)],
            ),
        ):
            create(name, [self._callback(name, read)], unit=unit, description=description)
        level(
            "warmset.threads.waiting",
            [self._callback("warmset.threads.waiting", None, _waiting)],
            unit="{thread}",
            description="Threads that wait for a build or for room.",
        )
        level(
            "warmset.instances.leaked",
            [self._callback("warmset.instances.leaked", None, _leaked)],
            unit="{instance}",
            description="Instances that left a while ago and live on, although nobody holds them.",
        )
        for name, unit, description, field in (
            ("warmset.class.instances", "{instance}", "Cached instances of a class.", "instances"),
            ("warmset.class.uses", "{use}", "Uses of the cached instance.", "uses"),
            ("warmset.class.holders", "{hold}", "Holds on the cached instance.", "holders"),
        ):
            level(
                name,
                [self._callback(name, None, _per_class(field))],
                unit=unit,
                description=description,
            )
        level(
            "process.memory.usage",
            [_rss],
            unit="By",
            description="Resident set size of the process.",
        )

    def add(self, name: str, registry: Registry) -> None:
        """
        Observe one more registry.

        Args:
            name: A value of the attribute ``warmset.registry.name`` that no other has.
            registry: The registry; it is kept weakly.

        Raises:
            TypeError: The name is not a string, or the registry is none.
            ValueError: Another registry has the name.
        """
        self._registries.add(
            name, registry, self._listener_maker(self._tracer_provider, self._max_classes)
        )

    def uninstrument(self) -> None:
        """Observe nothing any more; the instruments stay, and give nothing."""
        self._registries.clear()

    # -- metrics ---------------------------------------------------------------------------------

    def _callback(
        self,
        instrument: str,
        read: Callable[[RegistryStats], Iterable[_Reading]] | None,
        look: Callable[[Registry, ClassLabels], Iterable[_Reading]] | None = None,
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> list[Observation]:
            observations = []
            for name, registry, listener in self._registries.alive():
                try:
                    # All of a registry, or nothing.
                    readings = (
                        list(read(registry.stats()))
                        if read is not None
                        else list(look(registry, listener.labels))  # type: ignore[misc]
                    )
                except Exception as error:
                    self._failed(name, instrument, error)
                    continue
                self._failing.discard((name, instrument))
                observations += [
                    Observation(value, {REGISTRY: name, **attributes})
                    for attributes, value in readings
                ]
            return observations

        return observe

    def _failed(self, name: str, instrument: str, error: Exception) -> None:
        if (name, instrument) not in self._failing:  # once, not at every reading
            self._failing.add((name, instrument))
            _logs.warning(
                "metrics",
                "%s of registry %r could not be read",
                instrument,
                name,
                fields={"registry": name, "error_type": type(error).__qualname__},
                error=error,
            )

    # -- builds ----------------------------------------------------------------------------------

    def _listener_maker(
        self, tracer_provider: trace.TracerProvider | None, max_classes: int
    ) -> Callable[[str], _BuildListener]:
        tracer = trace.get_tracer("warmset", __version__, tracer_provider)
        return lambda name: _BuildListener(name, ClassLabels(max_classes), self._durations, tracer)


class _BuildListener:
    """Records the builds of one registry, and gives each its span."""

    def __init__(
        self, name: str, labels: ClassLabels, durations: metrics.Histogram, tracer: trace.Tracer
    ) -> None:
        self._name = name
        self.labels = labels
        self._durations = durations
        self._tracer = tracer

    def __call__(self, event: BuildEvent) -> None:
        attributes = {REGISTRY: self._name, CLASS: self.labels.of(event.class_name)}
        if event.error_type is not None:
            attributes["error.type"] = event.error_type
        self._durations.record(event.seconds, attributes)
        end = time_ns()
        span = self._tracer.start_span(
            f"build {event.class_name}",
            kind=SpanKind.INTERNAL,
            attributes={REGISTRY: self._name, CLASS: event.class_name},
            start_time=end - int(event.seconds * 1e9),
        )
        if not event.succeeded:
            span.set_attribute("error.type", event.error_type or "")
            span.set_attribute("warmset.build.stage", event.stage or "")
            span.set_status(Status(StatusCode.ERROR, event.error))
        span.end(end)


def _lookups(stats: RegistryStats) -> Iterable[_Reading]:
    yield {"warmset.lookup.result": "hit"}, stats.hits
    yield {"warmset.lookup.result": "miss"}, stats.misses


def _builds(stats: RegistryStats) -> Iterable[_Reading]:
    yield {"warmset.build.result": "success"}, stats.builds
    yield {"warmset.build.result": "failure"}, stats.failed_builds


def _removals(stats: RegistryStats) -> Iterable[_Reading]:
    for cause, count in stats.removals.items():
        yield {"warmset.removal.cause": cause.name.lower()}, count


def _closes(stats: RegistryStats) -> Iterable[_Reading]:
    yield {"warmset.close.result": "success"}, stats.closed
    yield {"warmset.close.result": "failure"}, stats.close_failures
    yield {"warmset.close.result": "left_open"}, stats.left_open


def _instances(stats: RegistryStats) -> Iterable[_Reading]:
    yield {"warmset.instance.state": "free"}, stats.cached - stats.held
    yield {"warmset.instance.state": "held"}, stats.held
    yield {"warmset.instance.state": "weak"}, stats.weakly_kept


def _classes(stats: RegistryStats) -> Iterable[_Reading]:
    failed = len(stats.failed_class_names)
    yield {"warmset.class.state": "failed"}, failed
    yield {"warmset.class.state": "sound"}, max(0, stats.classes_registered - failed)


def _waiting(registry: Registry, labels: ClassLabels) -> Iterable[_Reading]:
    yield {}, registry._waiting_threads()


def _leaked(registry: Registry, labels: ClassLabels) -> Iterable[_Reading]:
    leaked = watch_leaving(registry).leaked(registry, HealthThresholds.leaked_after_seconds)
    yield {}, sum(leaked.values())


def _per_class(field: str) -> Callable[[Registry, ClassLabels], Iterable[_Reading]]:
    def read(registry: Registry, labels: ClassLabels) -> Iterable[_Reading]:
        for label, use in labels.rank(registry.stats().entries).items():
            yield {CLASS: label}, getattr(use, field)

    return read


def _rss(options: CallbackOptions) -> list[Observation]:
    rss = resident_bytes()
    return [] if rss is None else [Observation(rss)]


# A provider gives the same instrument again for the same name, with the callbacks of the first one
# only: whoever instruments a second registry must come to the first one's instruments.
_made: WeakKeyDictionary[Any, Instrumentation] = WeakKeyDictionary()


def instrument(
    registries: Registry | Mapping[str, Registry],
    *,
    meter_provider: metrics.MeterProvider | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    max_classes: int = 50,
) -> Instrumentation:
    """
    Export the metrics of registries, and a span for each build.

    Args:
        registries: One registry, which is called "default", or a mapping of names to registries.
            They are kept weakly; one that is closed or dropped is observed no more.
        meter_provider: Where the instruments are made; None takes the global one, which should be
            set by then.
        tracer_provider: Where the spans go; None takes the global one.
        max_classes: How many classes of each registry have a ``warmset.class.name`` of their own,
            the most used ones; the others are summed up as "other".

    Returns:
        What can `add` further registries, and `uninstrument`; one for each meter provider.

    Raises:
        TypeError: What is given is none of these.
        ValueError: `max_classes` is negative, or another registry has the name.

    A span's parent is the one that is current in the thread that built. Reading takes no lock that
    a hit needs on the compiled core, and never raises.
    """
    max_classes = check_limit(max_classes)
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    made = _made.get(provider)
    if made is None:
        made = _made[provider] = Instrumentation(provider, tracer_provider, max_classes)
    made._registries.add_all(registries, made._listener_maker(tracer_provider, max_classes))
    return made


class TracedExecutor:
    """
    An executor whose `execute` runs in a span; all else is the executor's own. See `trace_execute`.
    """

    def __init__(self, executor: Any, tracer: trace.Tracer) -> None:
        self._executor = executor
        self._tracer = tracer

    def execute(self, class_name: str = "", method_name: str = "", /, **arguments: Any) -> Any:
        """Call a method by name, in a span; as the executor's own `execute`."""
        with self._span(class_name, method_name, arguments) as span:
            try:
                return self._executor.execute(class_name, method_name, **arguments)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    def _span(self, class_name: str, method_name: str, arguments: dict[str, Any]) -> Any:
        # Either name may come by keyword.
        class_name = str(class_name or arguments.get("class_name", ""))
        method_name = str(method_name or arguments.get("method_name", ""))
        return self._tracer.start_as_current_span(
            f"execute {class_name}.{method_name}",
            kind=SpanKind.INTERNAL,
            attributes={CLASS: class_name, METHOD: method_name},
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def __repr__(self) -> str:
        return f"<traced {self._executor!r}>"


class _TracedAsyncExecutor(TracedExecutor):
    async def execute(
        self, class_name: str = "", method_name: str = "", /, **arguments: Any
    ) -> Any:
        """Await a method by name, in a span; as the executor's own `execute`."""
        with self._span(class_name, method_name, arguments) as span:
            try:
                return await self._executor.execute(class_name, method_name, **arguments)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    async def __aenter__(self) -> _TracedAsyncExecutor:
        await self._executor.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> Any:
        return await self._executor.__aexit__(*exception)


def trace_execute(
    executor: Any, *, tracer_provider: trace.TracerProvider | None = None
) -> TracedExecutor:
    """
    Give each call of `execute` a span, by wrapping an executor.

    Args:
        executor: A `MethodExecutor` or an `AsyncMethodExecutor`; it is not changed.
        tracer_provider: Where the spans go; None takes the global one.

    Returns:
        What is used in the executor's place. Its `execute` costs a span; a build inside it is a
        child of that. The span of a method that returns a generator ends when that is returned.
    """
    asynchronous = inspect.iscoroutinefunction(executor.execute)
    kind = _TracedAsyncExecutor if asynchronous else TracedExecutor
    return kind(executor, trace.get_tracer("warmset", __version__, tracer_provider))
