"""What changes the cache: a miss, an eviction, and the expiry of many."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

from ..cores import load
from ..results import COMPILED, PURE, Absent, Row, figure
from ..subjects import DICT, PIPELINE, SUBJECTS
from ..subjects.pipeline import PipelineRegistry
from ..timing import turns, without_collector
from ..workload import Tagger, numbered, work
from .common import NANOSECONDS, TOO_SLOW, filled, present

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..results import Figure
    from ..subjects import Kept, Subject
    from ..timing import Scale
    from ..workload import Work

MISSES = 1000
EVICTIONS = 1000
EVICT_SECONDS = 0.3  # for one sample


def miss(scale: Scale) -> list[Row]:
    """The first look-up of a name: a build with the cheapest constructor, and nothing evicted."""
    there, cells = present()
    names = numbered(MISSES)
    given = work(names)

    def sample(subject: Subject) -> float:
        kept = subject.make(given, MISSES)
        seconds = _fetch_all(kept.fetch, names)
        assert type(kept.fetch(names[0])) is Tagger
        return seconds

    cases = {subject.name: functools.partial(sample, subject) for subject in there}
    samples = turns(cases, scale.rounds)
    figures = {name: figure(values, NANOSECONDS) for name, values in samples.items()}
    title = "miss with a trivial constructor"
    return [Row("miss", title, "ns", DICT.name, {**figures, **cells})]


def _fetch_all(fetch: Callable[[str], Any], names: Sequence[str]) -> float:
    began = time.perf_counter()
    for name in names:
        fetch(name)
    return (time.perf_counter() - began) / len(names)


def evict(scale: Scale) -> list[Row]:
    """
    A miss in a full cache: build, store, and evict one.

    The capacities of one subject take turns, and the subjects follow each other, because a million
    entries of each at once do not fit into memory.
    """
    there, absent = present([subject for subject in SUBJECTS if subject.bounded])
    cells: dict[int, dict[str, Figure | Absent]] = {capacity: {} for capacity in scale.capacities}
    extra = EVICTIONS * (scale.few_rounds + 1)
    given = {capacity: work(numbered(capacity + extra)) for capacity in scale.capacities}
    for subject in there:
        for capacity, cell in _evict_one(subject, given, scale.few_rounds).items():
            cells[capacity][subject.name] = cell
    rows = []
    for capacity, figures in cells.items():
        title = f"build and evict at 10^{round(math.log10(capacity))}"
        rows.append(Row(f"evict-{capacity}", title, "ns", None, {**figures, **absent}))
    return rows


def _evict_one(subject: Subject, given: dict[int, Work], rounds: int) -> dict[int, Figure | Absent]:
    cells: dict[int, Figure | Absent] = {}
    cases: dict[str, Callable[[], float]] = {}
    for capacity, names_given in given.items():
        names = list(names_given.classes)
        if any(isinstance(cell, Absent) for cell in cells.values()):
            cells[capacity] = Absent(TOO_SLOW)
            continue
        kept = subject.make(names_given, capacity)
        if not filled(kept.fetch, names[:capacity]):
            cells[capacity] = Absent(TOO_SLOW)
            continue
        fresh = iter(names[capacity:])
        # What exceeds its bound by one evicts from here on; and the cost of one is known.
        once = max(_fetch_all(kept.fetch, [next(fresh)]) for _ in range(3))
        count = max(1, min(EVICTIONS - 3, int(EVICT_SECONDS / once)))
        cases[str(capacity)] = functools.partial(_evict_some, kept, fresh, count)
    samples = turns(cases, rounds)
    cells.update({int(name): figure(values, NANOSECONDS) for name, values in samples.items()})
    return cells


def _evict_some(kept: Kept, fresh: Any, count: int) -> float:
    return _fetch_all(kept.fetch, [next(fresh) for _ in range(count)])


class Clock:
    """Seconds that are set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


TTL_SECONDS = 100.0


def expired(scale: Scale) -> list[Row]:
    """Evict the tenth of a big cache that has expired; the clock is injected."""
    expiring, total = scale.expiring
    names = numbered(total)
    given = work(names)
    rounds = max(2, min(scale.few_rounds, total // expiring - 1))
    makers: dict[str, Callable[[], tuple[Callable[[str], Any], Callable[[], Any], Clock]]] = {
        COMPILED: functools.partial(_our_expiry, "compiled", given),
        PURE: functools.partial(_our_expiry, "pure", given),
        PIPELINE.name: functools.partial(_former_expiry, given),
        "cachetools TTLCache": functools.partial(_cachetools_expiry, total),
        "`del` in a dict": _dict_expiry,
    }
    cells: dict[str, Figure | Absent] = {}
    for subject, make in makers.items():
        try:
            fetch, evict, clock = make()
        except ImportError as error:
            cells[subject] = Absent(f"not installed: {error}")
            continue
        with without_collector():
            for number, name in enumerate(names):
                if number % expiring == 0:
                    clock.now += 1.0  # each tenth of the names has one moment
                fetch(name)
        clock.now = 1001.0 + TTL_SECONDS + 0.5
        samples = []
        with without_collector():
            for _ in range(rounds):
                began = time.perf_counter()
                gone = evict()
                samples.append(time.perf_counter() - began)
                gone = gone if isinstance(gone, int) else len(gone)
                assert gone == expiring, f"{subject}: {gone} expired instead of {expiring}"
                clock.now += 1.0
        cells[subject] = figure(samples, NANOSECONDS / expiring)
        del fetch, evict
    for subject in SUBJECTS:
        if subject.distribution is not None and subject.name not in cells:
            cells[subject.name] = Absent(
                "the time to fill it is quadratic in its size"
                if subject.distribution == "cacheout"
                else "no clock can be injected, or nothing expires"
            )
    title = f"`evict_expired`, 10^{round(math.log10(expiring))} of 10^{round(math.log10(total))}"
    return [Row("expired", f"{title}, each", "ns", "`del` in a dict", cells)]


def _our_expiry(core: str, given: Work) -> Any:
    clock = Clock()
    registry = load(core).MethodRegistry(
        given.paths,
        cache_ttl_seconds=TTL_SECONDS,
        max_cache_size=len(given.paths),
        timer=clock,
    )
    return registry.get_instance, registry.evict_expired, clock


def _former_expiry(given: Work) -> Any:
    clock = Clock()
    registry = PipelineRegistry(given.paths, TTL_SECONDS, False, len(given.paths), clock)
    return registry.get_instance, registry.evict_expired, clock


def _cachetools_expiry(total: int) -> Any:
    from cachetools import TTLCache

    clock = Clock()
    cache: Any = TTLCache(total, TTL_SECONDS, timer=clock)

    def fetch(name: str) -> None:
        cache[name] = Tagger()

    def evict() -> Any:
        # Expired are those at or past the TTL; `expire` gives what left.
        return cache.expire(clock.now)

    return fetch, evict, clock


def _dict_expiry() -> Any:
    """The names are known and only have to be taken out: less cannot be done."""
    clock = Clock()
    table: dict[str, tuple[Any, float]] = {}
    moments: dict[float, list[str]] = {}

    def fetch(name: str) -> None:
        table[name] = (Tagger(), clock.now)
        moments.setdefault(clock.now, []).append(name)

    def evict() -> int:
        names = moments.pop(min(moments))
        for name in names:
            del table[name]
        return len(names)

    return fetch, evict, clock
