"""
Run the tests of the core (core_tests.txt) against the warmset that is installed.

    python ci/core_tests.py [--pure-only] [ARGUMENTS OF PYTEST]

Python, and not a shell, so that it runs wherever wheels are built.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SWITCHES = {"compiled": "WARMSET_REQUIRE_COMPILED", "pure": "WARMSET_PURE"}
# A builder of wheels may have set one of them for its build.
environment = {k: v for k, v in os.environ.items() if k not in SWITCHES.values()}
arguments = sys.argv[1:]
expected = "pure" if "--pure-only" in arguments else "compiled"

for core, changes in [
    (expected, {}),
    (expected, {SWITCHES[expected]: "1"}),
    ("pure", {SWITCHES["pure"]: "1"}),
]:
    code = f"import warmset as w; assert w.implementation == {core!r}, w.implementation"
    subprocess.run([sys.executable, "-c", code], env={**environment, **changes}, check=True)

lines = (HERE / "core_tests.txt").read_text(encoding="utf-8").splitlines()
files = [line for line in lines if not line.startswith("#")]
command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--examples", "20", "-m", "not cluster"]
sys.exit(subprocess.call([sys.executable, *command, *arguments, *files], env=environment))
