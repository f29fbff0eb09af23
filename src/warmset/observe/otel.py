"""
Metrics and traces for OpenTelemetry, through its API only; ``warmset[otel]`` installs it.

The instruments are observable ones, which are read on collection, so a hit costs nothing extra.
Builds are the exception: each is recorded, with a span, when it ends.
"""

from __future__ import annotations

import inspect
from time import time_ns
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode

from .. import _logs
from .._text import printable
from .._version import __version__
from ..foreign import is_interrupt
from ..planning.curves import rebuild_totals, unused
from ..stats import snapshot
from .builds import BUCKETS
from .health import HealthThresholds
from .leaks import track_leaks
from .process import resident_bytes
from .registries import ClassLabels, Registries, check_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..events import BuildEvent
    from ..registry import BaseRegistry
    from ..stats import RegistryStats

__all__ = ["Instrumentation", "TracedExecutor", "instrument", "trace_execute"]

REGISTRY, CLASS, METHOD = "warmset.registry.name", "warmset.class.name", "warmset.method.name"

_Reading = tuple["dict[str, Any]", float]


class Instrumentation:
    """
    The instruments of one meter provider and the registries they observe; see `instrument`.
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
            description="Seconds of builds; failed builds have an error.type.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._failing: set[tuple[str, str]] = set()
        self._registries = Registries()
        counter = meter.create_observable_counter
        level = meter.create_observable_up_down_counter
        # Read in this order, so that no part is larger than the whole that is read after it.
        for create, name, unit, description, read_registry in (
            (
                counter,
                "warmset.builds.avoidable",
                "{build}",
                "Builds that at most twice a bound would have avoided.",
                _avoidable("avoidable_builds"),
            ),
            (
                counter,
                "warmset.builds.avoidable.duration",
                "s",
                "Seconds of the builds that at most twice a bound would have avoided.",
                _avoidable("avoidable_seconds"),
            ),
            (
                counter,
                "warmset.rebuilds",
                "{build}",
                "Builds of instances that had been evicted, by the cause of the eviction.",
                _rebuilds,
            ),
            (
                counter,
                "warmset.rebuild.duration",
                "s",
                "Seconds of builds of instances that had been evicted.",
                _rebuild_seconds,
            ),
            (
                level,
                "warmset.instances.unused",
                "{instance}",
                "Cached instances that have not been used for an hour.",
                _unused("instances"),
            ),
            (
                level,
                "warmset.memory.unused",
                "By",
                "Bytes of the cached instances that have not been used for an hour.",
                _unused("bytes"),
            ),
        ):
            create(
                name,
                [self._callback(name, None, read_registry)],
                unit=unit,
                description=description,
            )
        for create, name, unit, description, read in (
            (counter, "warmset.lookups", "{lookup}", "Look-ups, by result.", _lookups),
            (counter, "warmset.builds", "{build}", "Builds, by result.", _builds),
            (counter, "warmset.removals", "{instance}", "Removals, by cause.", _removals),
            (
                counter,
                "warmset.evictions",
                "{instance}",
                "Removals that the registry decided on.",
                lambda stats: [({}, stats.evictions)],
            ),
            (
                counter,
                "warmset.waits",
                "{lookup}",
                "Look-ups that waited for a build in another thread.",
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
                "The most instances that may be cached.",
                lambda stats: [({}, stats.max_cache_size)],
            ),
            (level, "warmset.classes", "{class}", "Classes, by state.", _classes),
            (
                level,
                "warmset.memory.usage",
                "By",
                "Bytes of the cached instances, where they are measured.",
                lambda stats: [] if stats.bytes is None else [({}, stats.bytes)],
            ),
        ):
            create(name, [self._callback(name, read)], unit=unit, description=description)
        level(
            "warmset.threads.waiting",
            [self._callback("warmset.threads.waiting", None, _waiting)],
            unit="{thread}",
            description="Threads that wait for a build or for capacity.",
        )
        level(
            "warmset.instances.leaked",
            [self._callback("warmset.instances.leaked", None, _leaked)],
            unit="{instance}",
            description="Instances that stay alive without a holder some time after their removal.",
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

    def add(self, name: str, registry: BaseRegistry) -> None:
        """
        Observe one more registry.

        Args:
            name: Its value of the attribute ``warmset.registry.name``.
            registry: The registry; it is weakly referenced.

        Raises:
            TypeError: The name is not a string, or `registry` is not a registry.
            ValueError: Another registry has the name.
        """
        self._registries.add(
            name, registry, self._listener_maker(self._tracer_provider, self._max_classes)
        )

    def add_all(
        self,
        registries: BaseRegistry | Mapping[str, BaseRegistry],
        tracer_provider: trace.TracerProvider | None,
        max_classes: int,
    ) -> None:
        """Observe further registries, with a tracer provider and limit of their own."""
        self._registries.add_all(registries, self._listener_maker(tracer_provider, max_classes))

    def uninstrument(self) -> None:
        """Stop observing; the instruments remain registered and report nothing."""
        self._registries.clear()

    # -- metrics -----------------------------------------------------------------------------------

    def _callback(
        self,
        instrument: str,
        read: Callable[[RegistryStats], Iterable[_Reading]] | None,
        read_registry: Callable[[BaseRegistry, ClassLabels], Iterable[_Reading]] | None = None,
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> list[Observation]:
            observations = []
            for name, registry, listener in self._registries.alive():
                try:
                    # A registry is observed completely or not at all.
                    readings = (
                        list(read(snapshot(registry)))
                        if read is not None
                        else list(read_registry(registry, listener.labels))  # type: ignore[misc]
                    )
                except BaseException as error:  # foreign code, as the timer, may raise anything
                    if is_interrupt(error):
                        raise
                    self._failed(name, instrument, error)
                    continue
                self._failing.discard((name, instrument))
                observations += [
                    Observation(value, {REGISTRY: printable(name), **attributes})
                    for attributes, value in readings
                ]
            return observations

        return observe

    def _failed(self, name: str, instrument: str, error: BaseException) -> None:
        if (name, instrument) not in self._failing:  # logged once, not at every collection
            self._failing.add((name, instrument))
            _logs.warning(
                "metrics",
                "%s of registry %r could not be read",
                instrument,
                name,
                fields={"registry": name, "error_type": type(error).__qualname__},
                error=error,
            )

    # -- builds ------------------------------------------------------------------------------------

    def _listener_maker(
        self, tracer_provider: trace.TracerProvider | None, max_classes: int
    ) -> Callable[[str], _BuildListener]:
        tracer = trace.get_tracer("warmset", __version__, tracer_provider)
        return lambda name: _BuildListener(name, ClassLabels(max_classes), self._durations, tracer)


class _BuildListener:
    """Records the builds of one registry, each with a span."""

    def __init__(
        self, name: str, labels: ClassLabels, durations: metrics.Histogram, tracer: trace.Tracer
    ) -> None:
        self._name = printable(name)
        self.labels = labels
        self._durations = durations
        self._tracer = tracer

    def __call__(self, event: BuildEvent) -> None:
        attributes = {REGISTRY: self._name, CLASS: self.labels.of(event.class_name)}
        if event.error_type is not None:
            attributes["error.type"] = printable(event.error_type)
        self._durations.record(event.seconds, attributes)
        end = time_ns()
        class_name = printable(event.class_name)
        span = self._tracer.start_span(
            f"build {class_name}",
            kind=SpanKind.INTERNAL,
            attributes={REGISTRY: self._name, CLASS: class_name},
            start_time=end - int(event.seconds * 1e9),
        )
        if not event.succeeded:
            span.set_attribute("error.type", printable(event.error_type or ""))
            span.set_attribute("warmset.build.stage", event.stage or "")
            span.set_status(Status(StatusCode.ERROR, printable(event.error or "")))
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


def _waiting(registry: BaseRegistry, labels: ClassLabels) -> Iterable[_Reading]:
    yield {}, registry.waiting_threads()


def _leaked(registry: BaseRegistry, labels: ClassLabels) -> Iterable[_Reading]:
    leaked = track_leaks(registry).leaked(registry, HealthThresholds.leaked_after_seconds)
    yield {}, sum(leaked.values())


def _rebuilds(registry: BaseRegistry, labels: ClassLabels) -> Iterable[_Reading]:
    for cause, builds, _ in rebuild_totals(registry).causes:
        yield {"warmset.removal.cause": cause}, builds


def _rebuild_seconds(registry: BaseRegistry, labels: ClassLabels) -> Iterable[_Reading]:
    for cause, _, seconds in rebuild_totals(registry).causes:
        yield {"warmset.removal.cause": cause}, seconds


def _avoidable(field: str) -> Callable[[BaseRegistry, ClassLabels], Iterable[_Reading]]:
    return lambda registry, labels: [({}, getattr(rebuild_totals(registry), field))]


def _unused(field: str) -> Callable[[BaseRegistry, ClassLabels], Iterable[_Reading]]:
    seconds = HealthThresholds.unused_after_seconds
    return lambda registry, labels: [({}, getattr(unused(registry, seconds), field))]


def _per_class(field: str) -> Callable[[BaseRegistry, ClassLabels], Iterable[_Reading]]:
    def read(registry: BaseRegistry, labels: ClassLabels) -> Iterable[_Reading]:
        for label, use in labels.rank(snapshot(registry).entries).items():
            yield {CLASS: label}, getattr(use, field)

    return read


def _rss(options: CallbackOptions) -> list[Observation]:
    rss = resident_bytes()
    return [] if rss is None else [Observation(rss)]


# A provider returns an existing instrument for a known name and ignores the new callbacks. Further
# registries must therefore join the instruments of the first one.
_instrumentations: WeakKeyDictionary[Any, Instrumentation] = WeakKeyDictionary()


def instrument(
    registries: BaseRegistry | Mapping[str, BaseRegistry],
    *,
    meter_provider: metrics.MeterProvider | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    max_classes: int = 50,
) -> Instrumentation:
    """
    Export the metrics of registries, and a span for each build.

    Args:
        registries: One registry, which gets the name "default", or a mapping of names to
            registries. They are weakly referenced and observed until they are closed or collected.
        meter_provider: The provider of the instruments; None selects the global one, which should
            be set before.
        tracer_provider: The provider of the spans; None selects the global one.
        max_classes: The most classes of each registry with a ``warmset.class.name`` of their own;
            the most used ones get it, and all others are summed up as "other".

    Returns:
        The instrumentation of the meter provider, with methods to `add` further registries and to
        `uninstrument`; there is one for each meter provider.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `max_classes` is negative, or another registry has the name.

    The parent of a build's span is the current span of the building thread. On the compiled core,
    collection takes no lock that a hit needs. It never raises.
    """
    max_classes = check_limit(max_classes)
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    instrumentation = _instrumentations.get(provider)
    if instrumentation is None:
        instrumentation = Instrumentation(provider, tracer_provider, max_classes)
        _instrumentations[provider] = instrumentation
    instrumentation.add_all(registries, tracer_provider, max_classes)
    return instrumentation


class TracedExecutor:
    """
    An executor whose `execute` runs in a span; it delegates all else. See `trace_execute`.
    """

    def __init__(self, executor: Any, tracer: trace.Tracer) -> None:
        self._executor = executor
        self._tracer = tracer

    def execute(self, class_name: str = "", method_name: str = "", /, **arguments: Any) -> Any:
        """Call a method by name in a span; see `MethodExecutor.execute`."""
        with self._span(class_name, method_name, arguments) as span:
            try:
                return self._executor.execute(class_name, method_name, **arguments)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    def _span(self, class_name: str, method_name: str, arguments: dict[str, Any]) -> Any:
        # Either name may be a keyword argument.
        class_name = printable(class_name or arguments.get("class_name", ""))
        method_name = printable(method_name or arguments.get("method_name", ""))
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
        """Await a method by name in a span; see `AsyncMethodExecutor.execute`."""
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
    Wrap an executor so that each call of `execute` has a span.

    Args:
        executor: A `MethodExecutor` or an `AsyncMethodExecutor`; it is not modified.
        tracer_provider: The provider of the spans; None selects the global one.

    Returns:
        The wrapper, to be used in place of the executor. The span of a build within a call is a
        child of the call's span. The span of a method that returns a generator ends when the
        generator is returned.
    """
    asynchronous = inspect.iscoroutinefunction(executor.execute)
    kind = _TracedAsyncExecutor if asynchronous else TracedExecutor
    return kind(executor, trace.get_tracer("warmset", __version__, tracer_provider))
