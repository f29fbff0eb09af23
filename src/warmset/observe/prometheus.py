"""
Metrics for Prometheus: a collector for `prometheus_client`, installed by ``warmset[prometheus]``.

Everything is read at the scrape; nothing is added to the way of a hit. Builds are the exception:
their seconds are added up as they end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .. import _logs
from .builds import BUCKETS, BuildTally
from .health import HealthThresholds
from .leaving import watch_leaving
from .process import resident_bytes
from .registries import Registries, check_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..registry import Registry

__all__ = ["WarmsetCollector"]

_FAMILIES: dict[str, tuple[type[Metric], str, tuple[str, ...]]] = {
    "lookups": (CounterMetricFamily, "Look-ups, by result.", ("result",)),
    "builds": (CounterMetricFamily, "Builds, by result.", ("result",)),
    "build_duration_seconds": (HistogramMetricFamily, "Seconds of successful builds.", ()),
    "removals": (CounterMetricFamily, "Instances that left the cache, by cause.", ("cause",)),
    "evictions": (CounterMetricFamily, "Removals that the registry decided.", ()),
    "waits": (CounterMetricFamily, "Look-ups that waited for a build of another thread.", ()),
    "closed": (CounterMetricFamily, "Removed instances that were closed.", ()),
    "close_failures": (CounterMetricFamily, "Closers that raised.", ()),
    "left_open": (
        CounterMetricFamily,
        "Removed instances that were not closed, because somebody still referred to them.",
        (),
    ),
    "listener_failures": (CounterMetricFamily, "Listeners that raised.", ()),
    "cached_instances": (GaugeMetricFamily, "Instances that are cached.", ()),
    "max_cached_instances": (GaugeMetricFamily, "How many may be cached.", ()),
    "weak_instances": (GaugeMetricFamily, "Instances that are kept weakly and alive.", ()),
    "held_instances": (GaugeMetricFamily, "Cached instances that somebody holds.", ()),
    "leaked_instances": (
        GaugeMetricFamily,
        "Instances that left a while ago and live on, although nobody holds them.",
        (),
    ),
    "waiting_threads": (GaugeMetricFamily, "Threads that wait for a build or for room.", ()),
    "registered_classes": (GaugeMetricFamily, "Classes that may be asked for.", ()),
    "failed_classes": (GaugeMetricFamily, "Classes whose failed build is remembered.", ()),
    "cached_bytes": (GaugeMetricFamily, "Bytes of what is cached, where they are measured.", ()),
    "class_instances": (GaugeMetricFamily, "Cached instances of a class.", ("class_name",)),
    "class_uses": (GaugeMetricFamily, "Uses of the cached instance.", ("class_name",)),
    "class_holders": (GaugeMetricFamily, "Holds on the cached instance.", ("class_name",)),
    "class_builds": (CounterMetricFamily, "Builds of a class.", ("class_name", "result")),
    "class_build_seconds": (
        CounterMetricFamily,
        "Seconds of the successful builds of a class.",
        ("class_name",),
    ),
}
_RSS = "process_resident_memory_bytes"
_ERRORS = "collection_errors"

_Sample = tuple[str, tuple[str, ...], float]


class WarmsetCollector(Collector):
    """
    Exports registries to Prometheus; ``REGISTRY.register(WarmsetCollector(registry))``.

    Args:
        registries: One registry, which is labelled ``registry="default"``, or a mapping of names
            to registries. They are kept weakly; one that is closed or dropped is exported no more.
        max_classes: How many classes of each registry have a ``class_name`` of their own, the most
            used ones; the others are summed up as "other".
        buckets: Upper bounds of the histogram of build seconds, rising.

    Raises:
        TypeError: What is given is none of these.
        ValueError: `max_classes` is negative, the buckets do not rise, or there are none.

    A scrape takes no lock that a hit needs on the compiled core; on the pure one it takes the
    registry's for the time of reading its entries. It never raises: a registry that cannot be read
    is left out, logged and counted in ``warmset_collection_errors_total``. O(cached).
    """

    def __init__(
        self,
        registries: Registry | Mapping[str, Registry],
        *,
        max_classes: int = 50,
        buckets: Sequence[float] = BUCKETS,
    ) -> None:
        self._max_classes = check_limit(max_classes)
        self._buckets = tuple(float(bound) for bound in buckets)
        rising = all(one < other for one, other in zip(self._buckets, self._buckets[1:]))  # noqa: B905
        if not self._buckets or not rising or self._buckets[-1] == float("inf"):
            raise ValueError(f"buckets must be finite and rise, got {buckets!r}")
        self._errors: dict[str, int] = {}
        self._failing: set[str] = set()
        self._registries = Registries()
        self._registries.add_all(registries, self._tally)

    def _tally(self, name: str) -> BuildTally:
        return BuildTally(self._max_classes, self._buckets)

    def add(self, name: str, registry: Registry) -> None:
        """
        Export one more registry.

        Args:
            name: A value of the label ``registry`` that no other has.
            registry: The registry.

        Raises:
            TypeError: The name is not a string, or the registry is none.
            ValueError: Another registry has the name.
        """
        self._registries.add(name, registry, self._tally)

    def close(self) -> None:
        """Export nothing any more, and listen to no registry."""
        self._registries.clear()

    def describe(self) -> Iterable[Metric]:
        """
        Tell which metrics there may be, without reading any.

        Returns:
            Families without samples.
        """
        return self._families().values()

    def collect(self) -> Iterator[Metric]:
        """
        Read the registries.

        Returns:
            The families of metrics.
        """
        families = self._families()
        for name, registry, tally in self._registries.alive():
            try:
                # All of a registry, or nothing.
                samples = list(_samples(registry, tally))
                buckets, seconds, _ = tally.read()
            except Exception as error:
                self._failed(name, error)
                continue
            self._failing.discard(name)
            for key, labels, value in samples:
                families[key].add_metric((name, *labels), value)  # type: ignore[attr-defined]
            families["build_duration_seconds"].add_metric(  # type: ignore[attr-defined]
                (name,), [(_bound(bound), count) for bound, count in buckets], seconds
            )
        rss = resident_bytes()
        if rss is not None:
            families[_RSS].add_metric((), rss)  # type: ignore[attr-defined]
        for name, count in list(self._errors.items()):
            families[_ERRORS].add_metric((name,), count)  # type: ignore[attr-defined]
        yield from families.values()

    def _failed(self, name: str, error: Exception) -> None:
        self._errors[name] = self._errors.get(name, 0) + 1
        if name not in self._failing:  # once, not at every scrape
            self._failing.add(name)
            _logs.warning(
                "metrics",
                "the metrics of registry %r could not be read",
                name,
                fields={"registry": name, "error_type": type(error).__qualname__},
                error=error,
            )

    @staticmethod
    def _families() -> dict[str, Metric]:
        families: dict[str, Metric] = {
            key: kind(f"warmset_{key}", text, labels=("registry", *labels))  # type: ignore[call-arg]
            for key, (kind, text, labels) in _FAMILIES.items()
        }
        families[_RSS] = GaugeMetricFamily(
            f"warmset_{_RSS}", "Resident set size of the process.", labels=()
        )
        families[_ERRORS] = CounterMetricFamily(
            f"warmset_{_ERRORS}",
            "Scrapes at which a registry could not be read.",
            labels=("registry",),
        )
        return families


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else str(seconds)


def _samples(registry: Registry, tally: BuildTally) -> Iterator[_Sample]:
    stats = registry.stats()
    yield "lookups", ("hit",), stats.hits
    yield "lookups", ("miss",), stats.misses
    yield "builds", ("success",), stats.builds
    yield "builds", ("failure",), stats.failed_builds
    for cause, count in stats.removals.items():
        yield "removals", (cause.name.lower(),), count
    leaked = watch_leaving(registry).leaked(registry, HealthThresholds.leaked_after_seconds)
    for key, value in {
        "evictions": stats.evictions,
        "waits": stats.waits,
        "closed": stats.closed,
        "close_failures": stats.close_failures,
        "left_open": stats.left_open,
        "listener_failures": stats.listener_failures,
        "cached_instances": stats.cached,
        "max_cached_instances": stats.max_cache_size,
        "weak_instances": stats.weakly_kept,
        "held_instances": stats.held,
        "leaked_instances": sum(leaked.values()),
        "waiting_threads": registry._waiting_threads(),
        "registered_classes": stats.classes_registered,
        "failed_classes": len(stats.failed_class_names),
    }.items():
        yield key, (), value
    if stats.bytes is not None:
        yield "cached_bytes", (), stats.bytes
    for label, use in tally.labels.rank(stats.entries).items():
        yield "class_instances", (label,), use.instances
        yield "class_uses", (label,), use.uses
        yield "class_holders", (label,), use.holders
    for label, sums in tally.read()[2].items():
        yield "class_builds", (label, "success"), sums.succeeded
        yield "class_builds", (label, "failure"), sums.failed
        yield "class_build_seconds", (label,), sums.seconds
