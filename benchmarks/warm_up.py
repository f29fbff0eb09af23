"""
What a warm-up saves at the start: the demo's first run, cold and warmed up, in fresh processes.

``python -m benchmarks.warm_up`` records a profile by one run of ``warmset demo``, then starts the
demo anew, cold and with ``--warm-up``, and tries the profile with one worker and with two. Medians
of some repetitions; the processor is what it is, so compare the rows with one another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

REPETITIONS = 5


def warmset(*words: str) -> str:
    """Run a command in a fresh process; what it printed."""
    command = [sys.executable, "-m", "warmset.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def first_run(folder: Path, *options: str) -> dict[str, Any]:
    """The JSON report of one run of the demo in a fresh process."""
    report = folder / "report.json"
    warmset("demo", "--runs", "1", "--json", str(report), *options)
    data: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return data


def main() -> None:
    """Measure, and print a table in Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        profile = str(folder / "profile.json")
        first_run(folder, "--record-profile", profile)
        cold, warmed = [], []
        ahead: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
        # In turn, so that a change of the machine's pace falls on all alike.
        for _ in range(REPETITIONS):
            cold.append(first_run(folder)["runs"][0]["seconds"])
            warmed.append(first_run(folder, "--warm-up", profile)["runs"][0]["seconds"])
            for workers, reports in ahead.items():
                options = ("--demo", "--workers", str(workers), "--json")
                reports.append(json.loads(warmset("warm-up", profile, *options)))
    print("| | seconds |\n| --- | ---: |")
    print(f"| first run, cold | {median(cold):.2f} |")
    print(f"| first run, warmed up | {median(warmed):.2f} |")
    for workers, reports in ahead.items():
        seconds = median(report["seconds"] for report in reports)
        built = median(len(report["built"]) for report in reports)
        print(
            f"| warm-up of {built} classes, {workers} worker{'s'[: workers - 1]} | {seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
