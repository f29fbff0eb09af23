"""
Counts the instructions of hits, with and without metrics attached, by valgrind's callgrind.

Inside the compiled core the count is exact. Around it, the interpreter's allocator takes a few more
or less, by where its free blocks happen to lie.

Run as ``python -m benchmarks.observing``; it needs valgrind, prometheus-client and
opentelemetry-sdk. Each figure is the difference between two runs that differ only in the number of
hits, so that start-up and the loop's own first steps drop out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FEW, MANY = 2_000, 12_000

CHILD = """
import gc, sys, types
from itertools import repeat

gc.disable()  # how often it runs, and how long, depends on all that was ever imported

attached, hits = sys.argv[1] == "observed", int(sys.argv[2])


class Tagger:
    def tag(self, text, limit):
        return text


module = types.ModuleType("subject")
module.Tagger = Tagger
sys.modules["subject"] = module

# Loaded in both cases, so that nothing but being attached differs.
import logging
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, generate_latest
from warmset import MethodExecutor, MethodRegistry
from warmset.observe.otel import instrument
from warmset.observe.prometheus import WarmsetCollector

registry = MethodRegistry({"Tagger": "subject.Tagger"})
executor = MethodExecutor(method_registry=registry)
if attached:
    logging.basicConfig(level=logging.INFO, filename="log")
    target = CollectorRegistry()
    target.register(WarmsetCollector(registry))
    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader])
    instrument(registry, meter_provider=meters, tracer_provider=TracerProvider())
    registry.health()
    registry.get_instance("Tagger")
    generate_latest(target)
    reader.get_metrics_data()
registry.get_instance("Tagger")


def get_instance(times, call):
    for _ in repeat(None, times):
        call("Tagger")


def execute(times, call):
    for _ in repeat(None, times):
        call("Tagger", "tag", text="x", limit=1)


def handle(times, call):
    for _ in repeat(None, times):
        call("x", 1)


call = {
    "get_instance": registry.get_instance,
    "execute": executor.execute,
    "handle": registry.bind("Tagger", "tag"),
}[sys.argv[3]]
run = {"get_instance": get_instance, "execute": execute, "handle": handle}[sys.argv[3]]
run(100, call)
run(hits, call)
sys.stdout.flush()
import os
os._exit(0)  # what happens at the end is not counted
"""


def instructions(mode: str, kind: str, hits: int) -> tuple[int, int]:
    """
    Run the child under callgrind.

    Args:
        mode: "plain" or "observed".
        kind: "get_instance", "execute" or "handle".
        hits: How often it is called.

    Returns:
        The instructions inside the compiled core, and those of the whole process.

    Raises:
        RuntimeError: It failed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment |= {"WARMSET_REQUIRE_COMPILED": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable]
        result = subprocess.run(
            [*command, "-c", CHILD, mode, str(hits), kind],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        total = re.search(r"Collected : (\d+)", result.stderr)
        if result.returncode or total is None:
            raise RuntimeError(f"the child failed:\n{result.stderr}")
        functions = subprocess.run(
            ["callgrind_annotate", "--threshold=100", "--auto=no", "--show-percs=no", str(out)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    own = re.findall(r"^ *([\d,]+) .*\[[^\]]*/_core_c\.[^\]]*\]$", functions, re.MULTILINE)
    if not own:
        raise RuntimeError("the compiled core does not show in the profile")
    return sum(int(count.replace(",", "")) for count in own), int(total[1])


def per_hit(mode: str, kind: str) -> tuple[float, float]:
    """Instructions of one hit: inside the core, and in all, with the loop and the interpreter."""
    many, few = instructions(mode, kind, MANY), instructions(mode, kind, FEW)
    return (many[0] - few[0]) / (MANY - FEW), (many[1] - few[1]) / (MANY - FEW)


def main() -> int:
    """Measure and print; status 1 if being observed costs a hit anything."""
    argparse.ArgumentParser(prog="python -m benchmarks.observing", description=__doc__).parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    print(f"{'instructions of a hit':24}{'in the core':>24}{'in all':>24}")
    print(f"{'':24}{'plain':>12}{'observed':>12}{'plain':>12}{'observed':>12}")
    status = 0
    for kind in ("get_instance", "execute", "handle"):
        plain, observed = per_hit("plain", kind), per_hit("observed", kind)
        print(f"{kind:24}{plain[0]:12.2f}{observed[0]:12.2f}{plain[1]:12.1f}{observed[1]:12.1f}")
        # The interpreter's allocator takes a few more or less, by where its free blocks lie.
        same = abs(observed[0] - plain[0]) < 0.01 and observed[1] < 1.02 * plain[1]
        status |= not same
    return status


if __name__ == "__main__":
    sys.exit(main())
