"""Runs the examples of the engines in docs/scaling.md as scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


@pytest.mark.cluster
@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_the_example_runs(engine: str, package: str, tmp_path: Path) -> None:
    if not find_spec(package):
        pytest.skip(f"no {package}")
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [text for text in blocks if f"warmset.engines import {engine}" in text]
    script = tmp_path / "example.py"
    script.write_text(block)
    process = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1].isdigit()
