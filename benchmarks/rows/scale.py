"""Sizes: up to a million registered names, and up to a million keys of one family."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import time
from typing import TYPE_CHECKING, Any

from ..results import COMPILED, PURE, Absent, Figure, Row
from ..workload import Shared, Tagger, numbered, work
from .memory import fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..timing import Scale

CHILD = "import sys; from benchmarks.rows.scale import main; main(*sys.argv[1:])"
SWITCHES = {COMPILED: {"WARMSET_REQUIRE_COMPILED": "1"}, PURE: {"WARMSET_PURE": "1"}}
BOUND = 10  # of the family
WARM = 1_000
HITS = 100_000
TITLES = {
    "names": (
        ("register", "ns", "register one of {} names"),
        ("bytes", "bytes", "bytes of one of {} names, by RSS"),
        ("hit", "ns", "hit, {} names registered"),
    ),
    "keys": (
        ("miss", "ns", "miss in a family of ten, {} keys"),
        ("growth", "bytes", "bytes that {} keys leave behind, by RSS, each"),
    ),
}


def sizes(scale: Scale) -> list[Row]:
    """
    Time and bytes of one, by how many there are, each size in an interpreter of its own.

    What is flat costs the same however many there are. One run of each: a million takes a minute.
    """
    rows = []
    for kind, titles in TITLES.items():
        for count in scale.sizes:
            samples: dict[str, list[float]] = {}
            cells: dict[str, Figure | Absent] = {}
            for subject in SWITCHES:
                try:
                    samples[subject] = _measured(subject, kind, count)
                except subprocess.CalledProcessError as error:
                    cells[subject] = Absent(error.stderr.strip().rpartition("\n")[2])
            size = f"10^{round(math.log10(count))}"
            for number, (name, unit, title) in enumerate(titles):
                figures = {subject: Figure(each[number]) for subject, each in samples.items()}
                row_name = f"scale-{name}-{count}"
                rows.append(Row(row_name, title.format(size), unit, None, {**figures, **cells}))
    return rows


def _measured(subject: str, kind: str, count: int) -> list[float]:
    found: list[float] = json.loads(fresh("-c", CHILD, kind, str(count), **SWITCHES[subject]))
    return found


def main(kind: str, count: str) -> None:
    """Print the figures of one kind and one size."""
    print(json.dumps({"names": _names, "keys": _keys}[kind](int(count))))


def _names(count: int) -> list[float]:
    import warmset

    given = work(numbered(count), Shared)
    warmset.MethodRegistry(work().paths).get_instance("Tagger")  # what is made once
    before = _resident()
    began = time.perf_counter()
    registry = warmset.MethodRegistry(given.paths, max_cache_size=count)
    seconds = time.perf_counter() - began
    grown = _resident() - before
    warm = list(given.paths)[:: max(1, count // WARM)][:WARM]
    for name in warm:
        registry.get_instance(name)
    sequence = warm * (HITS // len(warm))
    return [
        seconds * 1e9 / count,
        grown / count,
        _each(registry.get_instance, sequence),
    ]


def _keys(count: int) -> list[float]:
    import warmset

    registry = warmset.MethodRegistry({})
    family = registry.family("Tagger", _made, max_cache_size=BOUND)
    _each(family.get, range(-WARM, 0))
    before = _resident()
    nanoseconds = _each(family.get, range(count))
    assert registry.stats().cached == BOUND
    return [nanoseconds, (_resident() - before) / count]


def _made(key: int) -> Tagger:
    return Tagger()


def _each(call: Callable[[Any], Any], sequence: Sequence[Any]) -> float:
    began = time.perf_counter()
    for each in sequence:
        call(each)
    return (time.perf_counter() - began) * 1e9 / len(sequence)


def _resident() -> int:
    import psutil

    gc.collect()
    return int(psutil.Process().memory_info().rss)
