"""
Metrics for Prometheus: a collector for `prometheus_client`, installed by ``warmset[prometheus]``.

All figures are read at the scrape, so a hit costs nothing extra. The seconds of builds are the
exception: a listener adds them up as builds end.
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
from .._text import printable
from ..foreign import is_interrupt
from ..lifecycle.services import failures
from ..planning.curves import rebuild_totals, unused
from ..stats import snapshot
from .builds import BUCKETS, BuildTally
from .health import HealthThresholds
from .leaks import track_leaks
from .process import resident_bytes
from .registries import Registries, check_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..registry import BaseRegistry

__all__ = ["WarmsetCollector"]

_FAMILIES: dict[str, tuple[type[Metric], str, tuple[str, ...]]] = {
    "lookups": (CounterMetricFamily, "Look-ups, by result.", ("result",)),
    "builds": (CounterMetricFamily, "Builds, by result.", ("result",)),
    "build_duration_seconds": (HistogramMetricFamily, "Seconds of successful builds.", ()),
    "removals": (CounterMetricFamily, "Removed instances, by cause.", ("cause",)),
    "evictions": (CounterMetricFamily, "Removals that the registry decided on.", ()),
    "waits": (CounterMetricFamily, "Look-ups that waited for a build in another thread.", ()),
    "closed": (CounterMetricFamily, "Removed instances that were closed.", ()),
    "close_failures": (CounterMetricFamily, "Closers that raised.", ()),
    "left_open": (
        CounterMetricFamily,
        "Removed instances that were not closed, because callers still referenced them.",
        (),
    ),
    "listener_failures": (CounterMetricFamily, "Listeners that raised.", ()),
    "cached_instances": (GaugeMetricFamily, "Cached instances.", ()),
    "max_cached_instances": (GaugeMetricFamily, "The most instances that may be cached.", ()),
    "weak_instances": (GaugeMetricFamily, "Live instances that are only weakly referenced.", ()),
    "held_instances": (GaugeMetricFamily, "Cached instances with a holder.", ()),
    "leaked_instances": (
        GaugeMetricFamily,
        "Instances that stay alive without a holder some time after their removal.",
        (),
    ),
    "service_failures": (
        CounterMetricFamily,
        "Failures of the service threads of the process.",
        (),
    ),
    "waiting_threads": (GaugeMetricFamily, "Threads that wait for a build or for capacity.", ()),
    "registered_classes": (GaugeMetricFamily, "Registered classes.", ()),
    "failed_classes": (GaugeMetricFamily, "Classes whose failed build is remembered.", ()),
    "unmatched_rules": (GaugeMetricFamily, "Rules of names that are not registered.", ()),
    "cached_bytes": (
        GaugeMetricFamily,
        "Bytes of the cached instances, where they are measured.",
        (),
    ),
    "rebuilds": (
        CounterMetricFamily,
        "Builds of instances that had been evicted, by the cause of the eviction.",
        ("cause",),
    ),
    "rebuild_seconds": (
        CounterMetricFamily,
        "Seconds of builds of instances that had been evicted, by the cause of the eviction.",
        ("cause",),
    ),
    "avoidable_builds": (
        CounterMetricFamily,
        "Builds that at most twice max_cache_size or max_cache_bytes would have avoided.",
        (),
    ),
    "avoidable_build_seconds": (
        CounterMetricFamily,
        "Seconds of the builds that at most twice a bound would have avoided.",
        (),
    ),
    "unused_instances": (
        GaugeMetricFamily,
        "Cached instances that have not been used for an hour.",
        (),
    ),
    "unused_bytes": (
        GaugeMetricFamily,
        "Bytes of the cached instances that have not been used for an hour.",
        (),
    ),
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
        registries: One registry, which gets the label ``registry="default"``, or a mapping of names
            to registries. They are weakly referenced and exported until they are closed or
            collected.
        max_classes: The most classes of each registry with a ``class_name`` of their own; the most
            used ones get it, and all others are summed up as "other".
        buckets: Upper bounds of the histogram of build seconds, in increasing order.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `max_classes` is negative, or the buckets are empty, infinite or not increasing.

    A scrape takes no lock that a hit needs; only on the pure core without an interpreter lock, it
    holds the registry's lock while it reads the entries. It never raises: a registry that cannot be
    read is omitted, logged and counted in ``warmset_collection_errors_total``. O(cached).
    """

    def __init__(
        self,
        registries: BaseRegistry | Mapping[str, BaseRegistry],
        *,
        max_classes: int = 50,
        buckets: Sequence[float] = BUCKETS,
    ) -> None:
        self._max_classes = check_limit(max_classes)
        self._buckets = tuple(float(bound) for bound in buckets)
        increasing = all(one < other for one, other in zip(self._buckets, self._buckets[1:]))  # noqa: B905
        if not self._buckets or not increasing or self._buckets[-1] == float("inf"):
            raise ValueError(f"buckets must be finite and increase, got {buckets!r}")
        self._errors: dict[str, int] = {}
        self._failing: set[str] = set()
        self._registries = Registries()
        self._registries.add_all(registries, self._tally)

    def _tally(self, name: str) -> BuildTally:
        return BuildTally(self._max_classes, self._buckets)

    def add(self, name: str, registry: BaseRegistry) -> None:
        """
        Export one more registry.

        Args:
            name: Its value of the label ``registry``.
            registry: The registry.

        Raises:
            TypeError: The name is not a string, or `registry` is not a registry.
            ValueError: Another registry has the name.
        """
        self._registries.add(name, registry, self._tally)

    def close(self) -> None:
        """Stop exporting, and remove the build listeners from all registries."""
        self._registries.clear()

    def describe(self) -> Iterable[Metric]:
        """
        List the metrics, without reading any figure.

        Returns:
            Families without samples.
        """
        return self._families().values()

    def collect(self) -> Iterator[Metric]:
        """
        Read the registries.

        Returns:
            The metric families.
        """
        families = self._families()
        for name, registry, tally in self._registries.alive():
            name = printable(name)
            try:
                # A registry is exported completely or not at all.
                samples = list(_samples(registry, tally))
                buckets, seconds, _ = tally.read()
            except BaseException as error:  # foreign code, as the timer, may raise anything
                if is_interrupt(error):
                    raise
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
        for name, count in self._errors.copy().items():
            families[_ERRORS].add_metric((printable(name),), count)  # type: ignore[attr-defined]
        yield from families.values()

    def _failed(self, name: str, error: BaseException) -> None:
        self._errors[name] = self._errors.get(name, 0) + 1
        if name not in self._failing:  # logged once, not at every scrape
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
            "Scrapes that failed to read a registry.",
            labels=("registry",),
        )
        return families


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else str(seconds)


def _samples(registry: BaseRegistry, tally: BuildTally) -> Iterator[_Sample]:
    totals = rebuild_totals(registry)  # before all builds are counted: never more than those
    stats = snapshot(registry)
    yield "lookups", ("hit",), stats.hits
    yield "lookups", ("miss",), stats.misses
    yield "builds", ("success",), stats.builds
    yield "builds", ("failure",), stats.failed_builds
    for cause, count in stats.removals.items():
        yield "removals", (cause.name.lower(),), count
    leaked = track_leaks(registry).leaked(registry, HealthThresholds.leaked_after_seconds)
    for key, value in {
        "evictions": stats.evictions,
        "waits": stats.waits,
        "closed": stats.closed,
        "close_failures": stats.close_failures,
        "left_open": stats.left_open,
        "listener_failures": stats.listener_failures,
        "service_failures": sum(failures().values()),
        "cached_instances": stats.cached,
        "max_cached_instances": stats.max_cache_size,
        "weak_instances": stats.weakly_kept,
        "held_instances": stats.held,
        "leaked_instances": sum(leaked.values()),
        "waiting_threads": registry.waiting_threads(),
        "registered_classes": stats.classes_registered,
        "failed_classes": len(stats.failed_class_names),
        "unmatched_rules": len(stats.unmatched_rules),
    }.items():
        yield key, (), value
    if stats.bytes is not None:
        yield "cached_bytes", (), stats.bytes
    for evicted_for, builds, seconds in totals.causes:
        yield "rebuilds", (evicted_for,), builds
        yield "rebuild_seconds", (evicted_for,), seconds
    yield "avoidable_builds", (), totals.avoidable_builds
    yield "avoidable_build_seconds", (), totals.avoidable_seconds
    idle = unused(registry, HealthThresholds.unused_after_seconds)
    yield "unused_instances", (), idle.instances
    yield "unused_bytes", (), idle.bytes
    for label, use in tally.labels.rank(stats.entries).items():
        yield "class_instances", (label,), use.instances
        yield "class_uses", (label,), use.uses
        yield "class_holders", (label,), use.holders
    for label, sums in tally.read()[2].items():
        yield "class_builds", (label, "success"), sums.succeeded
        yield "class_builds", (label, "failure"), sums.failed
        yield "class_build_seconds", (label,), sums.seconds
