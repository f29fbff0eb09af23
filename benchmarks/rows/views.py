"""Statistics of a registry."""

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
    from collections.abc import Callable

    from ..results import Figure
    from ..timing import Scale

ENTRIES = 1_000


def snapshots(scale: Scale) -> list[Row]:
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
    floor = "a list of 5-tuples"
    calls[floor] = lambda: [
        (name, built, used, uses, 0) for name, (_, built, used, uses) in table.items()
    ]
    cases = {subject: functools.partial(_seconds, call) for subject, call in calls.items()}
    samples = turns(cases, scale.rounds)
    figures = {name: figure(values, 1e6) for name, values in samples.items()}
    return [Row("stats", "`get_stats()` of 10^3 entries", "us", floor, {**figures, **cells})]


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
