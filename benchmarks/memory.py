"""
Fifty runs of a pipeline with instances of 20 to 200 MB, with and without each bound: real RSS.

Each run registers its classes anew, as pipelines do whose settings differ from run to run, so that
without a bound the process grows by 570 MB with each. It writes docs/memory.md, between its
markers, and docs/memory.png, and ends with 1 if a bounded process after its last run has more than
5 % more or less than after its second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- begin: figures -->", "<!-- end: figures -->"
MB = 1_000_000
SIZES = (20, 40, 60, 100, 150, 200)
"""MB of the instances of one run."""
RUNS = 50
MOST = 6_000 * MB
"""Where a process that grows is stopped."""
BOUND = 0.05


class Configuration(NamedTuple):
    """How a process is kept in bounds."""

    name: str
    options: dict[str, Any]
    release: bool = False
    above_base: bool = False
    """Whether its marks are to be counted from what the process has before the first run."""


CONFIGURATIONS = (
    Configuration("no bound", {"max_cache_size": 10_000, "cache_ttl_seconds": 0}),
    Configuration("max_cache_size=3", {"max_cache_size": 3}),
    Configuration("max_cache_bytes=400 MB", {"max_cache_bytes": 400 * MB, "sizer": "declared"}),
    Configuration(
        "max_rss_bytes=500 MB, low_rss_bytes=400 MB",
        {"max_rss_bytes": 500 * MB, "low_rss_bytes": 400 * MB},
        above_base=True,
    ),
    Configuration("clear_cache(release=True) after each run", {}, release=True),
)


# -- in the process that is measured -------------------------------------------------------------


class Load:
    """An instance of so many MB, all of them written to."""

    def __init__(self, megabytes: int) -> None:
        import numpy as np

        self.array = np.full(megabytes * MB, 7, dtype=np.uint8)
        self.nbytes = self.array.nbytes

    def total(self) -> int:
        """Look at it."""
        return int(self.array[:: 1 << 16].sum())


def run(number: int) -> dict[str, Any]:
    """All runs of one configuration, in this process."""
    import numpy as np
    import psutil

    import warmset

    process = psutil.Process()
    np.full(1, 7)
    chosen = CONFIGURATIONS[number]
    options = dict(chosen.options)
    base = process.memory_info().rss
    if chosen.above_base:
        options |= {name: base + size for name, size in options.items()}
    registry = warmset.MethodRegistry({}, **options)
    executor = warmset.MethodExecutor(method_registry=registry)
    after, peak, returned = [], base, []
    for turn in range(1, RUNS + 1):
        for megabytes in SIZES:
            name = f"Load{megabytes}@{turn}"
            registry.register(name, "benchmarks.memory.Load")
            registry.register_instantiation_rule(name, lambda cls, size=megabytes: cls(size))
        for _ in range(2):
            for megabytes in SIZES:
                executor.execute(f"Load{megabytes}@{turn}", "total")
                peak = max(peak, process.memory_info().rss)
        if chosen.release:
            report = registry.clear_cache(release=True)["release"]
            returned.append(report["returned_bytes"])
        after.append(process.memory_info().rss)
        if after[-1] > MOST:
            break
    stats = registry.stats()
    return {"base": base, "after": after, "peak": peak, "builds": stats.builds,
            "returned": returned}  # fmt: skip


# -- in the process that tells -------------------------------------------------------------------


def measure() -> list[dict[str, Any]]:
    """Each configuration in a process of its own."""
    results = []
    for number, configuration in enumerate(CONFIGURATIONS):
        print(f"{configuration.name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", "--process", str(number)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        results.append(json.loads(done.stdout))
    return results


def drift(result: dict[str, Any]) -> float:
    """What the process has after its last run, by what it had after its second, less one."""
    after = result["after"]
    return float(after[-1] / after[1] - 1.0)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The figures, as Markdown."""
    lines = [
        "| bound | runs | RSS after run 2 | after the last | change | most | builds |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for configuration, result in zip(CONFIGURATIONS, results, strict=True):
        after = result["after"]
        lines.append(
            f"| {configuration.name} | {len(after)} | {after[1] / MB:,.0f} MB | "
            f"{after[-1] / MB:,.0f} MB | {drift(result):+.1%} | {result['peak'] / MB:,.0f} MB | "
            f"{result['builds']:,} |"
        )
    released = results[-1]["returned"]
    lines += [
        "",
        f"Given back to the system between runs by `clear_cache(release=True)`, as measured: "
        f"{min(released) / MB:,.0f} to {max(released) / MB:,.0f} MB of {sum(SIZES)} MB.",
    ]
    if len(results[0]["after"]) < RUNS:
        lines.append(f"Without a bound the process was stopped at {MOST / MB:,.0f} MB.")
    return "\n".join(lines)


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """RSS by run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    colours = ("#94a3b8", "#0f766e", "#c2410c", "#7c3aed", "#2563eb")
    figure, axis = pyplot.subplots(figsize=(10, 5))
    for configuration, result, colour in zip(CONFIGURATIONS, results, colours, strict=True):
        runs = range(1, len(result["after"]) + 1)
        axis.plot(runs, [rss / MB for rss in result["after"]], color=colour, linewidth=2,
                  label=configuration.name)  # fmt: skip
    axis.set_yscale("log")
    axis.set_xlabel("run")
    axis.set_ylabel("resident set after the run, MB")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="center right")
    figure.suptitle("50 runs of a pipeline with instances of 20 to 200 MB", x=0.02, ha="left")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    chosen = parser.parse_args(arguments)
    if chosen.process is not None:
        print(json.dumps(run(chosen.process)))
        return 0
    results = measure()
    text = table(results)
    print(text)
    if not chosen.dry:
        facts = "; ".join(f"{label}: {fact}" for label, fact in machine.describe().items())
        page = DOCS / "memory.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{facts}\n\n{END}{after}", encoding="utf-8")
        draw(results, DOCS / "memory.png")
    return int(any(abs(drift(result)) > BOUND for result in results[1:]))


if __name__ == "__main__":
    sys.exit(main())
