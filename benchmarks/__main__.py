"""
Measure warmset beside what it is made of and what others publish; print and write the table.

Without options it writes docs/performance.md and docs/performance.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine, report
from .budgets import judge, twin_ratio
from .rows import MEASUREMENTS
from .rows.threads import free_threaded
from .subjects import SUBJECTS
from .timing import FULL, QUICK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .results import Row
    from .timing import Scale

DOCS = Path(__file__).resolve().parents[1] / "docs"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="less of everything; writes nothing")
    made.add_argument(
        "--only",
        nargs="+",
        choices=tuple(MEASUREMENTS),
        metavar="ROW",
        help=f"measure only these, and write nothing: {', '.join(MEASUREMENTS)}",
    )
    made.add_argument(
        "--require-ratio",
        type=float,
        default=0.0,
        metavar="X",
        help="exit with status 1 unless the compiled core is X times as fast as the pure one on "
        "every hit that was measured",
    )
    made.add_argument(
        "--output", type=Path, metavar="DIR", help="write page and picture there, also of a part"
    )
    made.add_argument("--no-write", action="store_true", help="print only")
    return made


def ordered(names: Iterable[str], without_lock: bool) -> list[str]:
    """
    Put measurements into the order in which they are taken.

    Args:
        names: Of measurements.
        without_lock: Whether the interpreter runs without its lock.

    Returns:
        The names; without the lock, threads come first, because an extension of a peer may turn the
        lock on for the rest of the process.
    """
    return sorted(names, key=lambda name: name != "threads") if without_lock else list(names)


def measure(names: Iterable[str], scale: Scale) -> tuple[list[Row], bool]:
    """
    Measure, and tell on standard error how far it is.

    Args:
        names: Of measurements.
        scale: How much to do.

    Returns:
        All rows, and whether threads were measured without the interpreter lock.
    """
    rows: list[Row] = []
    without_lock = False
    for name in names:
        began = time.perf_counter()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        rows += MEASUREMENTS[name](scale)
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
        if name == "threads":
            without_lock = free_threaded()  # also at the end: our own core may turn it on
    return rows, without_lock


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write, and judge the one ratio that may be required."""
    command = parser()
    options = command.parse_args(arguments)
    partial = options.quick or options.only is not None
    directory = None if options.no_write else options.output or (None if partial else DOCS)
    if directory is not None and importlib.util.find_spec("matplotlib") is None:
        command.error("matplotlib is missing: pip install -e '.[bench]', or give --no-write")
    names = ordered(options.only or MEASUREMENTS, free_threaded())
    rows, without_lock = measure(names, QUICK if options.quick else FULL)
    verdicts = judge(rows, without_lock)
    facts = machine.describe()
    print(report.text(rows, verdicts, facts))
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        page = report.markdown(rows, verdicts, facts, SUBJECTS)
        (directory / "performance.md").write_text(page, encoding="utf-8")
        from .plot import draw

        draw(rows, directory / "performance.png")
        print(f"written: performance.md and performance.png in {directory}")
    return status(rows, options.require_ratio)


def status(rows: Sequence[Row], required: float) -> int:
    """
    Judge the ratio of the two cores.

    Args:
        rows: What was measured.
        required: How many times as fast as the pure core the compiled one must be; 0: anything.

    Returns:
        The exit status.
    """
    if required <= 0.0:
        return 0
    ratio = twin_ratio(rows)
    if ratio is None:
        print("the ratio of the two cores was not measured", file=sys.stderr)
        return 1
    if ratio < required:
        print(
            f"the compiled core is only {ratio:.1f} times as fast as the pure one on a hit",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
