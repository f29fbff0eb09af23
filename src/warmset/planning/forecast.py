"""
Forecasts: what each bound would cost, from a replay of a trace.

For LRU the builds of all bounds are exact, from the stack distances of one pass. Other policies are
replayed once for each bound.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .simulation import Displacement, LruCache, simulate
from .stack_distances import COLD, distances, sampled_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .simulation import Simulated, SimulatedCache
    from .traces import Trace

    MakeCache = Callable[[float, float], SimulatedCache]
    """Takes the most instances and the most bytes; returns an empty cache."""

__all__ = ["BoundForecast", "Forecast", "LruCurve", "forecast"]

WITHIN = 0.05
"""The share by which the recommended bound may exceed the build seconds of the best one."""
_INFINITE = float("inf")
_EXACT_USES = 400_000  # a longer trace of many classes is sampled
_SAMPLED_CLASSES = 8192  # the error of SHARDS is small from this number on
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
_MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_STEPS = 20  # candidates for the recommended byte budget


@dataclass(frozen=True)
class BoundForecast:
    """
    What one bound would cost.

    Args:
        bound: Instances or bytes, by the setting of the forecast.
        builds: The predicted number of builds.
        build_seconds: Their predicted duration.
        peak_bytes: The most bytes of the cached instances, without those of unknown size.
    """

    bound: int
    builds: int
    build_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Forecast:
    """
    The forecast for one setting.

    Args:
        setting: "max_cache_size" or "max_cache_bytes".
        policy: The eviction policy.
        uses: The number of replayed uses.
        classes: The number of classes among them, the roster.
        first_builds: The builds that no bound avoids: one for each class.
        first_build_seconds: Their duration.
        roster_bytes: The bytes of all classes together.
        unknown_sizes: The classes whose size is unknown; they count as 0 bytes.
        given: The bound that was asked about; None if none was.
        missing: By how many instances or bytes the roster exceeds it; 0 if it fits.
        recommended: The smallest bound within 5 % of the build seconds of the best one: of the
            given budget of bytes, or of a bound that holds the whole roster.
        rows: The forecast for each bound, ascending.
        displacements: The pairs of classes that evict each other most often, at the given bound or
            the recommended one.
        represented: How many uses each replayed one stands for.
        relative_error: The estimated standard error of the builds, as a share, if only a sample of
            the classes was followed; 0.0 if the counts are exact.
    """

    setting: str
    policy: str
    uses: int
    classes: int
    first_builds: int
    first_build_seconds: float
    roster_bytes: int
    unknown_sizes: tuple[str, ...]
    given: int | None
    missing: int
    recommended: BoundForecast
    rows: tuple[BoundForecast, ...]
    displacements: tuple[Displacement, ...]
    represented: float
    relative_error: float

    def as_dict(self) -> dict[str, Any]:
        """
        Return the forecast as plain data.

        Returns:
            A new dict, for JSON.
        """
        plain = asdict(self)
        return {**plain, "displacements": [pair._asdict() for pair in self.displacements]}


class LruCurve:
    """
    The builds under LRU for any bound.

    Args:
        trace: The trace.
        by_bytes: Whether bounds are bytes and not instances.
        ttl_seconds: The idle TTL.
        sample: The classes that are followed; None follows all.

    A query takes O(log n), for bytes after one pass for each set of classes that exceed the bound
    alone: those are never kept, and displace no other.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        by_bytes: bool,
        ttl_seconds: float = _INFINITE,
        sample: set[int] | None = None,
    ) -> None:
        self._trace, self._ttl, self._sample = trace, ttl_seconds, sample
        self._sizes = trace.known_sizes if by_bytes else None
        used = {number for _, number in trace.requests}
        self._rate = 1.0 if sample is None else max(1, len(sample & used)) / max(1, len(used))
        self._steps = sorted({self._sizes[number] for number in used}) if self._sizes else []
        self._passes: dict[int, tuple[list[int], list[int], list[float], int, float]] = {}
        self.first_builds = len(used)
        self.first_build_seconds = sum(trace.build_seconds[number] for number in used)

    def at(self, bound: float) -> tuple[float, float]:
        """
        Return the builds for a bound.

        Args:
            bound: Instances or bytes.

        Returns:
            Their number and seconds, for the whole recording if the trace represents more uses.
        """
        kept = bisect_right(self._steps, bound)
        if kept not in self._passes:
            self._passes[kept] = self._pass(_INFINITE if self._sizes is None else bound)
        ordered, counts, seconds, later, later_seconds = self._passes[kept]
        # What lies within the bound is a hit; the rest of the later uses are builds.
        place = bisect_right(ordered, bound * self._rate)
        missed, missed_seconds = later - counts[place], later_seconds - seconds[place]
        # Not scaled by the sampled share of uses: whether the few most used classes, which are hits
        # within any bound, are in the sample changes that share, but hardly the builds.
        times = self._trace.represented / self._rate
        return (
            self.first_builds + times * missed,
            self.first_build_seconds + times * max(0.0, missed_seconds),
        )

    def bounds(self) -> list[int]:
        """Return the bounds at which the number of builds changes, ascending."""
        kept = bisect_right(self._steps, _INFINITE)
        self.at(_INFINITE)
        return sorted({max(1, round(each / self._rate)) for each in self._passes[kept][0]})

    def _pass(self, largest: float) -> tuple[list[int], list[int], list[float], int, float]:
        trace, sizes, sample = self._trace, self._sizes, self._sample
        numbers: list[int] = []
        gaps: list[float] = []
        latest: dict[int, float] = {}
        later, later_seconds = 0, 0.0
        for now, number in trace.requests:
            if sample is not None and number not in sample:
                continue
            before = latest.get(number)
            latest[number] = now
            if before is not None:
                later += 1
                later_seconds += trace.build_seconds[number]
            if sizes is None or sizes[number] <= largest:
                numbers.append(number)
                gaps.append(0.0 if before is None else now - before)
        found: dict[int, tuple[int, float]] = {}
        for number, gap, distance in zip(numbers, gaps, distances(numbers, sizes), strict=True):
            if distance != COLD and gap <= self._ttl:
                count, total = found.get(distance, (0, 0.0))
                found[distance] = count + 1, total + trace.build_seconds[number]
        ordered = sorted(found)
        counts = list(accumulate((found[each][0] for each in ordered), initial=0))
        seconds = list(accumulate((found[each][1] for each in ordered), initial=0.0))
        return ordered, counts, seconds, later, later_seconds


def forecast(
    trace: Trace,
    *,
    max_size: int | None = None,
    max_bytes: int | None = None,
    policy: str = "lru",
    ttl_seconds: float = _INFINITE,
    make_cache: MakeCache | None = None,
) -> Forecast:
    """
    Forecast the costs of bounds.

    Args:
        trace: At least one use.
        max_size: A number of instances to judge.
        max_bytes: A budget of bytes to judge; the forecast is for budgets then.
        policy: The name of the eviction policy.
        ttl_seconds: The idle TTL.
        make_cache: Makes caches with the policy; None for LRU.

    Returns:
        The forecast.

    Raises:
        ValueError: The trace has no use, or both bounds are given.

    For LRU O(n log n), and O(n) for the peak bytes of each row; else one replay for each row.
    """
    if not trace.requests:
        raise ValueError("the trace has no use")
    if max_size is not None and max_bytes is not None:
        raise ValueError("expected one of max_size and max_bytes, got both")
    by_bytes = max_bytes is not None
    given = max_bytes if by_bytes else max_size
    sizes = trace.known_sizes
    used = sorted({number for _, number in trace.requests})
    roster = sum(sizes[number] for number in used)
    whole = max(1, roster) if by_bytes else len(used)
    replays = _Replays(trace, by_bytes, ttl_seconds, make_cache)
    if make_cache is None:
        rate = _rate(trace)
        sample = None if rate == 1.0 else sampled_numbers(trace.names, rate)
        curve = LruCurve(trace, by_bytes=by_bytes, ttl_seconds=ttl_seconds, sample=sample)
        at = curve.at
        halves = [] if sample is None else [
            LruCurve(trace, by_bytes=by_bytes, ttl_seconds=ttl_seconds, sample=half)
            for half in (sampled_numbers(trace.names, rate, part=part) for part in (0, 1))
        ]  # fmt: skip
    else:
        at, halves = replays.costs, []
    best = given if by_bytes and given is not None else whole
    candidates = _candidates(by_bytes, best, make_cache is None)
    recommended = _smallest(at, candidates, best)
    bounds = {best, whole, recommended, *_grid(by_bytes, given, whole)}
    if given is not None:
        bounds.add(given)
    rows = tuple(
        BoundForecast(bound, round(builds), seconds, replays.at(bound).peak_bytes)
        for bound in sorted(bounds)
        for builds, seconds in [at(bound)]
    )
    judged = recommended if given is None else given
    first_seconds = sum(trace.build_seconds[number] for number in used)
    error = max((_error(halves, at, row.bound) for row in rows), default=0.0) if halves else 0.0
    return Forecast(
        setting="max_cache_bytes" if by_bytes else "max_cache_size",
        policy=policy,
        uses=len(trace.requests),
        classes=len(used),
        first_builds=len(used),
        first_build_seconds=first_seconds,
        roster_bytes=roster,
        unknown_sizes=tuple(trace.names[number] for number in used if trace.sizes[number] < 0),
        given=given,
        missing=0 if given is None else max(0, (roster if by_bytes else len(used)) - given),
        recommended=next(row for row in rows if row.bound == recommended),
        rows=rows,
        displacements=replays.at(judged).displacements,
        represented=trace.represented,
        relative_error=error,
    )


class _Replays:
    """Replays for single bounds, each made once."""

    def __init__(
        self, trace: Trace, by_bytes: bool, ttl_seconds: float, make_cache: MakeCache | None
    ) -> None:
        self._trace, self._by_bytes = trace, by_bytes
        sizes = trace.known_sizes
        self._make: MakeCache = make_cache or (
            lambda most, most_bytes: LruCache(
                sizes, max_size=most, max_bytes=most_bytes, ttl_seconds=ttl_seconds
            )
        )
        self._known: dict[float, Simulated] = {}

    def at(self, bound: float) -> Simulated:
        if bound not in self._known:
            limits = (_INFINITE, bound) if self._by_bytes else (bound, _INFINITE)
            self._known[bound] = simulate(self._trace, self._make(*limits))
        return self._known[bound]

    def costs(self, bound: float) -> tuple[float, float]:
        result = self.at(bound)
        used = {number for _, number in self._trace.requests}
        first = sum(self._trace.build_seconds[number] for number in used)
        times = self._trace.represented
        return (
            len(used) + times * (result.builds - len(used)),
            first + times * max(0.0, result.build_seconds - first),
        )


def _rate(trace: Trace) -> float:
    """Return the share of classes that are followed."""
    if len(trace.requests) <= _EXACT_USES:
        return 1.0
    wanted = max(_SAMPLED_CLASSES / len(trace.names), _EXACT_USES / len(trace.requests))
    return min(1.0, wanted)


def _error(
    halves: Sequence[LruCurve], at: Callable[[float], tuple[float, float]], bound: float
) -> float:
    """Estimate the relative standard error from the difference of two disjoint half samples."""
    one, other = (half.at(bound)[0] for half in halves)
    return abs(one - other) / 2.0 / max(1.0, at(bound)[0])


def _grid(by_bytes: bool, given: int | None, whole: int) -> Iterable[int]:
    if by_bytes and given is not None:
        return {max(1, int(given * each)) for each in _MULTIPLES if given * each <= 1.5 * whole}
    return {max(1, round(whole * each)) for each in _SHARES}


def _candidates(by_bytes: bool, best: int, exact: bool) -> list[int]:
    if not by_bytes and (exact or best <= _STEPS):
        return list(range(1, best + 1))
    return sorted({max(1, round(best * step / _STEPS)) for step in range(1, _STEPS + 1)})


def _smallest(
    at: Callable[[float], tuple[float, float]], candidates: Sequence[int], best: int
) -> int:
    """Return the smallest candidate within 5 % of the best one; `best` is the largest."""
    # A search by halves would not do: by bytes, or by a policy, a larger bound may need more.
    costs = {each: at(each)[1] for each in {*candidates, best}}
    enough = (1.0 + WITHIN) * min(costs.values())
    return next(each for each in sorted(costs) if costs[each] <= enough)
