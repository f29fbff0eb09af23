"""Judge a file of pytest-benchmark: is the compiled core so many times as fast as the pure one?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def ratios(report: Mapping[str, Any]) -> dict[str, float]:
    """
    Compare the medians of the two cores.

    Args:
        report: What ``--benchmark-json`` wrote.

    Returns:
        Hit -> how many times as fast as the pure core the compiled one is.

    Raises:
        ValueError: There is no hit that was measured on both cores.
    """
    medians: dict[str, dict[str, float]] = {}
    for benchmark in report["benchmarks"]:
        facts = benchmark["extra_info"]
        medians.setdefault(facts["hit"], {})[facts["subject"]] = benchmark["stats"]["median"]
    found = {
        name: cores["pure"] / cores["compiled"]
        for name, cores in medians.items()
        if {"pure", "compiled"} <= cores.keys()
    }
    if not found:
        raise ValueError("no hit was measured on both cores")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each ratio; the status is 1 if one is too small."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check_ratio", description=__doc__)
    parser.add_argument("file", type=Path, help="what pytest wrote by --benchmark-json")
    parser.add_argument("least", type=float, help="the ratio that is required")
    options = parser.parse_args(arguments)
    found = ratios(json.loads(options.file.read_text(encoding="utf-8")))
    for name, ratio in found.items():
        print(f"{name:14} compiled is {ratio:.1f} times as fast as pure")
    return 0 if min(found.values()) >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
