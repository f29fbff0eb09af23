"""Bytes: of a slot and an entry alone, and of everything that a kept name takes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..cores import load
from ..results import COMPILED, PURE, Absent, Figure, Row, figure
from ..subjects import DICT, SUBJECTS
from ..timing import turns
from ..workload import NAME, Shared, numbered, work
from .common import TOO_SLOW, filled, present

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..timing import Scale

CHILD = "import sys; from benchmarks.rows.memory import main; main(sys.argv[1], int(sys.argv[2]))"
ROOT = Path(__file__).resolve().parents[2]


def bytes_kept(scale: Scale) -> list[Row]:
    """
    `sys.getsizeof` of a slot and an entry; and the growth of RSS over many names.

    That is measured in an interpreter of its own. The names and one instance for all of them are
    made before, so that they do not count.
    """
    slots: dict[str, Figure | Absent] = {}
    entries: dict[str, Figure | Absent] = {}
    for subject, core in ((COMPILED, "compiled"), (PURE, "pure")):
        try:
            registry = load(core).MethodRegistry(work().paths)
        except ImportError as error:
            slots[subject] = entries[subject] = Absent(f"not installed: {error}")
            continue
        registry.get_instance(NAME)
        # `getsizeof` adds the header of the garbage collector.
        slot = registry.slots[NAME]
        slots[subject] = Figure(float(sys.getsizeof(slot)))
        entries[subject] = Figure(float(sys.getsizeof(slot.entry)))
    there, cells = present()
    cases: dict[str, Callable[[], float]] = {}
    for subject in there:
        if _grown(subject.name, scale.names) is None:
            cells[subject.name] = Absent(TOO_SLOW)
        else:
            cases[subject.name] = functools.partial(_grown, subject.name, scale.names)  # type: ignore[arg-type]
    samples = turns(cases, scale.slow_rounds)
    grown = {name: figure(values, 1.0 / scale.names) for name, values in samples.items()}
    return [
        Row("bytes-slot", "bytes of a registered name, `sys.getsizeof`", "bytes", None, slots),
        Row("bytes-entry", "bytes of a cached instance beyond that", "bytes", None, entries),
        Row("bytes-rss", "bytes for a name, by RSS", "bytes", DICT.name, {**grown, **cells}),
    ]


def _grown(subject: str, names: int) -> float | None:
    grown = json.loads(fresh("-c", CHILD, subject, str(names)))
    return None if grown is None else float(grown)


def fresh(*arguments: str, **environment: str) -> str:
    """
    Run an interpreter of its own.

    Args:
        arguments: Its command line.
        environment: Variables to add.

    Returns:
        What it printed.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout


def main(subject_name: str, count: int) -> None:
    """Print by how many bytes RSS grew over so many names; null if they would take too long."""
    import gc

    import psutil

    (subject,) = [subject for subject in SUBJECTS if subject.name == subject_name]
    subject.make(work(), 10).fetch(NAME)  # imports, and what is made once
    given = work(numbered(count), Shared)
    names = list(given.classes)
    Shared()
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    kept = subject.make(given, count)
    done = filled(kept.fetch, names)
    gc.collect()
    print(json.dumps(process.memory_info().rss - before if done else None))
