"""
Health checks: the findings of `Registry.health`, their thresholds, and the window they cover.

Counters only grow, so a rate over the whole life of the process hides recent changes. A monitor
keeps some earlier observations of its registry, and judges the differences to the oldest one within
the window.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, NamedTuple

from .. import _logs
from ..events import RemovalCause
from ..extension import Extension
from ..lifecycle.services import failures
from ..planning import advice
from ..planning.curves import make_plan
from ..planning.ghosts import ghosts_of
from ..planning.windows import check_window
from ..stats import snapshot
from .leaks import track_leaks
from .process import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..registry import BaseRegistry
    from ..stats import RegistryStats

__all__ = [
    "Finding",
    "FindingKind",
    "HealthMonitor",
    "HealthThresholds",
    "Severity",
    "monitor_of",
]

_OBSERVATIONS = 60  # per window


class FindingKind(Enum):
    """The kinds of findings; the alert rules have the same names."""

    HIT_RATE_LOW = "hit_rate_low"
    EVICTION_RATE_HIGH = "eviction_rate_high"
    NEARLY_FULL = "nearly_full"
    RSS_GROWING = "rss_growing"
    INSTANCES_LEAKED = "instances_leaked"
    INSTANCES_LEFT_OPEN = "instances_left_open"
    CLOSES_FAILING = "closes_failing"
    BUILDS_FAILING = "builds_failing"
    SERVICES_FAILING = "services_failing"
    THRASHING = "thrashing"
    OVERSIZED = "oversized"
    RULES_UNMATCHED = "rules_unmatched"
    INSTANCES_INVALID = "instances_invalid"


class Severity(IntEnum):
    """The severity of a finding."""

    WARNING = 1
    """It costs time."""
    CRITICAL = 2
    """It continues until memory or other resources run out, or calls fail."""


class Finding(NamedTuple):
    """
    A figure that violates its threshold.

    Figure and threshold have the unit of the threshold in `HealthThresholds`.
    """

    kind: FindingKind
    severity: Severity
    figure: float
    threshold: float
    advice: str
    class_name: str | None = None


@dataclass(frozen=True)
class HealthThresholds:
    """
    The thresholds of health checks, which docs/observability.md lists; alert rules use the same.

    Args:
        min_hit_rate: Hits per look-up within the window; 0 disables the check.
        max_evictions_per_build: Evictions per build within the window; `math.inf` disables this
            check and each of those below.
        max_utilisation: Cached instances relative to `max_cache_size`, at present.
        max_rss_growth_bytes: Growth of the process within the window; checked only if no more
            instances are cached at its end than at its start.
        max_leaked: Removed instances of one class that stay alive without a holder.
        max_left_open: Removed instances that were not closed within the window, because callers
            still referenced them.
        max_close_failures: Closers that raised within the window.
        max_service_failures: Steps of service threads of the process (sweeper, recycling, closing,
            workers of event loops, live view) that failed within the window, and threads that died
            or could not be started.
        max_failed_classes: Classes whose failed build is remembered at present.
        max_unmatched_rules: Rules of names that are not registered at present.
        max_invalid: Instances that were found invalid within the window.
        max_thrashing: Builds within the window that at most twice a bound would have avoided,
            relative to all.
        max_unused: Cached instances that were not used for `unused_after_seconds`, relative to
            `max_cache_size`.
        min_lookups: The hit rate is checked from this many look-ups within the window on.
        min_builds: The eviction rate and thrashing are checked from this many builds within the
            window on.
        leaked_after_seconds: An instance counts as leaked from this time after its removal on.
        unused_after_seconds: An instance counts as unused from this time after its last use on.

    Raises:
        TypeError: A threshold is not a number.
        ValueError: A threshold is negative or NaN.
    """

    min_hit_rate: float = 0.5
    max_evictions_per_build: float = 0.3
    max_utilisation: float = 0.9
    max_rss_growth_bytes: float = 20_000_000
    max_leaked: float = 0
    max_left_open: float = 0
    max_close_failures: float = 0
    max_service_failures: float = 0
    max_failed_classes: float = 0
    max_unmatched_rules: float = 0
    max_invalid: float = 0
    max_thrashing: float = advice.MAX_THRASHING
    max_unused: float = advice.MAX_UNUSED
    min_lookups: float = 100
    min_builds: float = advice.MIN_BUILDS
    leaked_after_seconds: float = 60.0
    unused_after_seconds: float = advice.UNUSED_AFTER_SECONDS

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{field.name} must be a number, got {value!r}")
            if not value >= 0:
                raise ValueError(f"{field.name} must be 0 or more, got {value!r}")


class _Observation(NamedTuple):
    taken: float
    hits: int
    misses: int
    builds: int
    evictions: int
    close_failures: int
    invalid: int
    left_open: int
    cached: int
    service_failures: int
    rss: int | None


class HealthMonitor(Extension):
    """
    Checks one registry; the first call of `Registry.health` makes it.

    Args:
        registry: Its removed instances are tracked from now on.
    """

    def __init__(self, registry: BaseRegistry) -> None:
        self._leaks = track_leaks(registry)
        ghosts_of(registry)
        # Replaced, never modified: threads, finalisers and forks need no lock.
        self._observations: tuple[_Observation, ...] = ()
        self._known: dict[tuple[FindingKind, str | None], object] = {}

    def check(
        self,
        registry: BaseRegistry,
        *,
        window_seconds: float = 300.0,
        thresholds: HealthThresholds | None = None,
    ) -> tuple[Finding, ...]:
        """
        Check the registry; see `Registry.health`.

        Args:
            registry: The registry.
            window_seconds: The length of the window, which ends now.
            thresholds: None selects the defaults.

        Returns:
            The findings, the most severe first.
        """
        window_seconds = check_window(window_seconds)
        if thresholds is None:
            thresholds = HealthThresholds()
        elif not isinstance(thresholds, HealthThresholds):
            raise TypeError(f"thresholds must be HealthThresholds, got {thresholds!r}")
        stats = snapshot(registry)
        now = _Observation(
            taken=registry.now(),
            hits=stats.hits,
            misses=stats.misses,
            builds=stats.builds,
            evictions=stats.evictions,
            close_failures=stats.close_failures,
            invalid=stats.removals[RemovalCause.INVALID],
            left_open=stats.left_open,
            cached=stats.cached,
            service_failures=sum(failures().values()),
            rss=resident_bytes(),
        )
        before = self._since(now, window_seconds)
        leaked = self._leaks.leaked(registry, thresholds.leaked_after_seconds)
        found = [
            *_judge_rates(before, now, thresholds, stats.enable_weakref),
            *_judge_levels(stats, leaked, thresholds),
            *_judge_bounds(registry, window_seconds, thresholds),
        ]
        found.sort(key=lambda finding: -finding.severity)
        self._log(found, window_seconds)
        return tuple(found)

    def _since(self, now: _Observation, window_seconds: float) -> _Observation:
        """Get the observation to compare with, and record this one for later checks."""
        kept = self._observations
        start = now.taken - window_seconds
        while len(kept) > 1 and kept[1].taken <= start:
            kept = kept[1:]
        before = kept[0] if kept else now
        if not kept or now.taken - kept[-1].taken >= window_seconds / _OBSERVATIONS:
            kept = (*kept, now)
        self._observations = kept
        return before

    def _log(self, found: list[Finding], window_seconds: float) -> None:
        """Log each finding once, when it is new."""
        keys = {(finding.kind, finding.class_name) for finding in found}
        for resolved in [key for key in list(self._known) if key not in keys]:
            self._known.pop(resolved, None)
        for finding in found:
            mine = object()
            if self._known.setdefault((finding.kind, finding.class_name), mine) is not mine:
                continue
            name = finding.kind.value
            of = "" if finding.class_name is None else f" ({finding.class_name!r})"
            _logs.warning(
                "health",
                "%s%s: %.4g (threshold %.4g); %s",
                name.replace("_", " "),
                of,
                finding.figure,
                finding.threshold,
                finding.advice,
                fields={
                    "finding": name,
                    "severity": finding.severity.name.lower(),
                    "figure": finding.figure,
                    "threshold": finding.threshold,
                    "class_name": finding.class_name,
                    "window_seconds": window_seconds,
                },
            )


def monitor_of(registry: BaseRegistry) -> HealthMonitor:
    """Return the health monitor of a registry, attached at the first call."""
    return registry.extension(HealthMonitor) or registry.attach(HealthMonitor(registry))


def _judge_rates(
    before: _Observation, now: _Observation, thresholds: HealthThresholds, weak: bool
) -> Iterator[Finding]:
    hits = max(0, now.hits - before.hits)
    lookups = hits + max(0, now.misses - before.misses)
    builds = max(0, now.builds - before.builds)
    evictions = max(0, now.evictions - before.evictions)
    by_weak_reference = (
        "instances are kept by weak reference only, and built anew when nobody refers to them: "
        "hold them with leases, or set enable_weakref=False"
    )
    # By weak reference alone, nearly every look-up may build: some builds tell that.
    least = min(thresholds.min_builds, thresholds.min_lookups) if weak else thresholds.min_lookups
    if lookups and lookups >= least:
        hit_rate = hits / lookups
        if hit_rate < thresholds.min_hit_rate:
            yield Finding(
                FindingKind.HIT_RATE_LOW,
                Severity.WARNING,
                hit_rate,
                thresholds.min_hit_rate,
                by_weak_reference
                if weak
                else "raise cache_ttl_seconds or max_cache_size; stats().removals shows which",
            )
    if builds and builds >= thresholds.min_builds:
        per_build = evictions / builds
        if per_build > thresholds.max_evictions_per_build:
            yield Finding(
                FindingKind.EVICTION_RATE_HIGH,
                Severity.WARNING,
                per_build,
                thresholds.max_evictions_per_build,
                by_weak_reference
                if weak
                else "instances are evicted and built again: raise max_cache_size, or "
                "cache_ttl_seconds if most removals have the cause idle",
            )
    if before.rss is not None and now.rss is not None and now.cached <= before.cached:
        growth = now.rss - before.rss
        if growth > thresholds.max_rss_growth_bytes:
            yield Finding(
                FindingKind.RSS_GROWING,
                Severity.CRITICAL,
                growth,
                thresholds.max_rss_growth_bytes,
                "the process grows although no more instances are cached: check what the "
                "instances accumulate, and what references removed ones",
            )
    if now.left_open - before.left_open > thresholds.max_left_open:
        yield Finding(
            FindingKind.INSTANCES_LEFT_OPEN,
            Severity.WARNING,
            now.left_open - before.left_open,
            thresholds.max_left_open,
            "removed instances were not closed, because callers without a lease reference them: "
            "use `use`, `execute` or a handle, or set close_when_removed=True",
        )
    if now.invalid - before.invalid > thresholds.max_invalid:
        yield Finding(
            FindingKind.INSTANCES_INVALID,
            Severity.WARNING,
            now.invalid - before.invalid,
            thresholds.max_invalid,
            "`validate` found instances invalid, which were removed and are built anew: check what "
            "they depend on",
        )
    if now.close_failures - before.close_failures > thresholds.max_close_failures:
        yield Finding(
            FindingKind.CLOSES_FAILING,
            Severity.CRITICAL,
            now.close_failures - before.close_failures,
            thresholds.max_close_failures,
            "closers raise and may not free their resources: see the log of warmset.removals",
        )
    if now.service_failures - before.service_failures > thresholds.max_service_failures:
        yield Finding(
            FindingKind.SERVICES_FAILING,
            Severity.CRITICAL,
            now.service_failures - before.service_failures,
            thresholds.max_service_failures,
            "expiry, recycling, closing or the live view may be late: see the log of "
            f"warmset.services; by thread since the start of the process: {_by_thread()}",
        )


def _by_thread() -> str:
    return ", ".join(f"{name} {count}" for name, count in failures().items()) or "none"


def _judge_levels(
    stats: RegistryStats, leaked: dict[str, int], thresholds: HealthThresholds
) -> Iterator[Finding]:
    if stats.utilisation > thresholds.max_utilisation:
        yield Finding(
            FindingKind.NEARLY_FULL,
            Severity.WARNING,
            stats.utilisation,
            thresholds.max_utilisation,
            "the next build may evict a cached instance: raise max_cache_size to avoid that",
        )
    failed = stats.failed_class_names
    if len(failed) > thresholds.max_failed_classes:
        names = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        yield Finding(
            FindingKind.BUILDS_FAILING,
            Severity.CRITICAL,
            len(failed),
            thresholds.max_failed_classes,
            f"builds fail, and look-ups raise the same error for retry_after_seconds: {names}",
        )
    unmatched = stats.unmatched_rules
    if len(unmatched) > thresholds.max_unmatched_rules:
        names = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
        yield Finding(
            FindingKind.RULES_UNMATCHED,
            Severity.WARNING,
            len(unmatched),
            thresholds.max_unmatched_rules,
            f"rules of names that are not registered, or misspelt, build nothing: {names}",
        )
    for class_name, count in leaked.items():
        if count > thresholds.max_leaked:
            yield Finding(
                FindingKind.INSTANCES_LEAKED,
                Severity.CRITICAL,
                count,
                thresholds.max_leaked,
                "removed instances stay alive without a holder: gc.collect() frees those in "
                "cycles, and gc.get_referrers shows what references the others",
                class_name,
            )


def _judge_bounds(
    registry: BaseRegistry, window_seconds: float, thresholds: HealthThresholds
) -> Iterator[Finding]:
    plan = make_plan(registry, window_seconds)
    small = advice.thrashing(plan)
    enough = plan.builds >= thresholds.min_builds
    if small is not None and enough and small.figure > thresholds.max_thrashing:
        yield Finding(
            FindingKind.THRASHING,
            Severity.WARNING,
            small.figure,
            thresholds.max_thrashing,
            small.text,
        )
    large = advice.oversized(registry, thresholds.unused_after_seconds)
    if large is not None and large.figure > thresholds.max_unused:
        yield Finding(
            FindingKind.OVERSIZED,
            Severity.WARNING,
            large.figure,
            thresholds.max_unused,
            large.text,
        )
