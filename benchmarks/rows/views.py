"""What reads a registry: statistics, holders, a frame of the live view, a scrape of metrics."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from ..cores import load
from ..results import COMPILED, PURE, Absent, Row, figure
from ..subjects import PIPELINE
from ..subjects.pipeline import PipelineRegistry
from ..timing import turns
from ..workload import Tagger, numbered, work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..results import Figure
    from ..timing import Scale

ENTRIES = 1_000
MANY = 10_000
LEASES = 100
FRAME = 500  # the rows that `warmset top` asks for
FLOOR = "a list of 5-tuples"


def statistics(scale: Scale) -> list[Row]:
    """The statistics of 1,000 entries: counters, and age, idle time and uses of each."""
    names = numbered(ENTRIES)
    given = work(names)
    cells: dict[str, Figure | Absent] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for subject, core in ((COMPILED, "compiled"), (PURE, "pure")):
        try:
            registry = load(core).MethodRegistry(given.paths, max_cache_size=ENTRIES)
        except ImportError as error:
            cells[subject] = Absent(f"not installed: {error}")
            continue
        for name in names:
            registry.get_instance(name)
        assert len(registry.get_stats()["cache_entries"]) == ENTRIES
        calls[subject] = registry.get_stats
    former = PipelineRegistry(given.paths, max_cache_size=ENTRIES)
    for name in names:
        former.get_instance(name)
    assert len(former.get_stats()["cache_entries"]) == ENTRIES
    calls[PIPELINE.name] = former.get_stats
    table = {name: (Tagger(), 1.0, 1.0, 1) for name in names}
    calls[FLOOR] = lambda: [
        (name, built, used, uses, 0) for name, (_, built, used, uses) in table.items()
    ]
    return [_row("stats", "`get_stats()` of 10^3 entries", FLOOR, calls, scale.rounds, cells)]


def views(scale: Scale) -> list[Row]:
    """What shows 10^4 warm names, a hundred of which are held."""
    given = work(numbered(MANY))
    calls: dict[str, dict[str, Callable[[], Any]]] = {}
    cells: dict[str, Figure | Absent] = {}
    kept = []
    for subject, core in ((COMPILED, "compiled"), (PURE, "pure")):
        try:
            package = load(core)
        except ImportError as error:
            cells[subject] = Absent(f"not installed: {error}")
            continue
        registry = package.MethodRegistry(given.paths, max_cache_size=MANY)
        for name in given.paths:
            registry.get_instance(name)
        leases = [registry.use(name) for name in list(given.paths)[:LEASES]]
        for lease in leases:
            lease.__enter__()
        kept.append(leases)
        for view, call in _views_of(package, registry).items():
            calls.setdefault(view, {})[subject] = call
    titles = {
        "view-stats": "`stats()` of 10^4 entries",
        "view-holders": f"`holders()`, {LEASES} leases",
        "view-frame": f"a frame of the live view, {FRAME} of 10^4 rows",
        "view-scrape": "a Prometheus scrape of 10^4 entries",
    }
    return [
        _row(view, titles[view], None, each, scale.few_rounds, cells)
        for view, each in calls.items()
    ]


def _views_of(package: Any, registry: Any) -> dict[str, Callable[[], Any]]:
    frame = functools.partial(package.observe.rows.describe, registry, "benchmark", limit=FRAME)
    assert len(registry.holders()) == LEASES
    assert len(frame()["classes"]) == FRAME
    found = {
        "view-stats": registry.stats,
        "view-holders": registry.holders,
        "view-frame": frame,
    }
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        return found
    target = CollectorRegistry()
    target.register(package.observe.prometheus.WarmsetCollector(registry))
    assert b"warmset" in generate_latest(target)
    return found | {"view-scrape": functools.partial(generate_latest, target)}


def _row(
    name: str,
    title: str,
    floor: str | None,
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    cells: Mapping[str, Figure | Absent],
) -> Row:
    cases = {subject: functools.partial(_seconds, call) for subject, call in calls.items()}
    samples = turns(cases, rounds)
    figures = {subject: figure(values, 1e6) for subject, values in samples.items()}
    return Row(name, title, "us", floor, {**figures, **cells})


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
