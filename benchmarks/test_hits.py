"""The hits by pytest-benchmark, which keeps runs and compares them: ``pytest benchmarks``."""

from __future__ import annotations

from typing import Any

import pytest

from .cores import CORES
from .tracked import HITS, hit

TIMES = 1000


@pytest.mark.parametrize("subject", ["floor", *CORES])
@pytest.mark.parametrize("name", HITS)
def test_hit(benchmark: Any, name: str, subject: str) -> None:
    """A thousand hits."""
    made = hit(name, subject)
    benchmark.group = name
    benchmark.extra_info.update(hit=name, subject=subject, times=TIMES)
    source = f"def run():\n    for _ in range({TIMES // 10}):\n"
    source += f"        {made.expression}\n" * 10
    namespace = dict(made.names)
    exec(source, namespace)
    benchmark(namespace["run"])
