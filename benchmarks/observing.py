"""
Counts the instructions of hits, with and without metrics attached, by valgrind's callgrind.

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
import sys, types

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


def run(times, get, execute, tag):
    for _ in range(times):
        get("Tagger")
        execute("Tagger", "tag", text="x", limit=1)
        tag("x", 1)


run(100, registry.get_instance, executor.execute, registry.bind("Tagger", "tag"))
run(hits, registry.get_instance, executor.execute, registry.bind("Tagger", "tag"))
sys.stdout.flush()
import os
os._exit(0)  # what happens at the end is not counted
"""


def instructions(core: str, mode: str, hits: int) -> int:
    """
    Run the child under callgrind.

    Args:
        core: "compiled" or "pure".
        mode: "plain" or "observed".
        hits: How often it goes round.

    Returns:
        All instructions of the process.

    Raises:
        RuntimeError: It failed.
    """
    switch = {"compiled": "WARMSET_REQUIRE_COMPILED", "pure": "WARMSET_PURE"}[core]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment |= {switch: "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        result = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={out}",
                sys.executable,
                "-c",
                CHILD,
                mode,
                str(hits),
            ],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode or found is None:
        raise RuntimeError(f"the child failed:\n{result.stderr}")
    return int(found[1])


def per_round(core: str, mode: str) -> float:
    """Instructions of one `get_instance`, one `execute` and one handle's call, with their loop."""
    many, few = instructions(core, mode, MANY), instructions(core, mode, FEW)
    return (many - few) / (MANY - FEW)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; status 1 if being observed costs a hit anything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observing", description=__doc__)
    parser.add_argument("--core", choices=("compiled", "pure"), action="append")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    print(f"{'instructions of three hits':28}{'plain':>10}{'observed':>10}{'difference':>12}")
    worst = 0.0
    for core in options.core or ("compiled", "pure"):
        plain, observed = per_round(core, "plain"), per_round(core, "observed")
        worst = max(worst, abs(observed - plain))
        print(f"{core:28}{plain:10.1f}{observed:10.1f}{observed - plain:12.1f}")
    return int(worst >= 1.0)


if __name__ == "__main__":
    sys.exit(main())
