"""Prints how fast hits are: both cores, and what they are made of, interleaved in one process."""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import sys
import time
import types
from typing import TYPE_CHECKING, Any

from .cores import load

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "Tagger"


class Tagger:
    """What is looked up and called."""

    def tag(self, text: str) -> str:
        """The cheapest method there is."""
        return text

    def score(self, text: str, limit: int) -> str:
        """Two arguments to route and check."""
        return text


def timed(expression: str, **names: Any) -> Callable[[int], float]:
    """
    Compile a loop over an expression.

    The names are local variables of the loop, and the expression stands in it ten times, so that
    next to nothing but the expression is timed.

    Args:
        expression: What to time; "None" gives the empty loop.
        names: What it refers to.

    Returns:
        A function from a number of repetitions to seconds for one.
    """
    source = f"def run({', '.join(['times', 'clock', *names])}):\n"
    source += "    began = clock()\n    for _ in range(times // 10):\n"
    source += f"        {expression}\n" * 10
    source += "    return (clock() - began) / times\n"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return functools.partial(_run, namespace["run"], names)


def _run(run: Callable[..., float], names: dict[str, Any], times: int) -> float:
    return run(times, time.perf_counter, **names)


def subjects() -> dict[str, dict[str, Callable[[int], float]]]:
    """Row -> column -> a timed loop."""
    module = types.ModuleType("warmset_benchmark_subject")
    module.Tagger = Tagger  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    tagger = Tagger()
    table = {NAME: tagger}
    cached = functools.lru_cache(maxsize=100)(table.__getitem__)
    calls = {
        "get_instance": "call('Tagger')",
        "get_method": "call('Tagger', 'tag')",
        "handle": "call('x')",
        "execute": "call('Tagger', 'score', text='x', limit=3)",
    }
    rows: dict[str, dict[str, Callable[[int], float]]] = {
        "get_instance": {
            "floor": timed(calls["get_instance"], call=table.get),
            "lru_cache": timed(calls["get_instance"], call=cached),
        },
        "get_method": {"floor": timed("getattr(tagger, 'tag')", tagger=tagger)},
        "handle": {"floor": timed("tagger.tag('x')", tagger=tagger)},
        "execute": {"floor": timed("tagger.score(text='x', limit=3)", tagger=tagger)},
    }
    for core in ("compiled", "pure"):
        warmset = load(core)
        registry = warmset.MethodRegistry({NAME: "warmset_benchmark_subject.Tagger"})
        executor = warmset.MethodExecutor(method_registry=registry)
        for row, call in {
            "get_instance": registry.get_instance,
            "get_method": registry.get_method,
            "handle": registry.bind(NAME, "tag"),
            "execute": executor.execute,
        }.items():
            rows[row][core] = timed(calls[row], call=call)
    return rows


def measure(
    rows: dict[str, dict[str, Callable[[int], float]]], rounds: int, times: int
) -> dict[str, dict[str, float]]:
    """Median nanoseconds, net of the loop; the columns take turns, so that noise hits all."""
    empty = timed("None")
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        loop = empty(times)
        for row, columns in rows.items():
            for column, run in columns.items():
                seconds = run(times if column != "pure" else times // 10) - loop
                samples.setdefault(row, {}).setdefault(column, []).append(seconds)
    return {
        row: {column: statistics.median(values) * 1e9 for column, values in columns.items()}
        for row, columns in samples.items()
    }


def main() -> int:
    """Measure, print, and judge the one ratio that is required."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--require-ratio",
        type=float,
        default=0.0,
        metavar="X",
        help="exit with status 1 unless the compiled core is X times as fast on every hit",
    )
    options = parser.parse_args()
    rounds, times = (7, 100_000) if options.quick else (21, 300_000)
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}")
    result = measure(subjects(), rounds, times)
    print(f"nanoseconds, net of the loop; medians of {rounds} rounds in turns")
    print(f"{'hit':14}{'floor':>8}{'lru_cache':>11}{'compiled':>10}{'pure':>8}"
          f"{'compiled/floor':>16}{'pure/compiled':>15}")  # fmt: skip
    worst = float("inf")
    for row, columns in result.items():
        ratio = columns["pure"] / columns["compiled"]
        worst = min(worst, ratio)
        lru = f"{columns['lru_cache']:.0f}" if "lru_cache" in columns else ""
        print(f"{row:14}{columns['floor']:8.0f}{lru:>11}{columns['compiled']:10.0f}"
              f"{columns['pure']:8.0f}{columns['compiled'] / columns['floor']:16.2f}"
              f"{ratio:15.1f}")  # fmt: skip
    if worst < options.require_ratio:
        print(f"the compiled core is only {worst:.1f} times as fast as the pure one on a hit")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
