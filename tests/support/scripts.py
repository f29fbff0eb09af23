"""Runs a script in an interpreter of its own, to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_script(code: str, core: str) -> subprocess.CompletedProcess[str]:
    """
    Run a script.

    Args:
        code: The script; common indentation is removed.
        core: "compiled" or "pure".

    Returns:
        Its exit status and what it printed; it has a minute.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment["WARMSET_PURE"] = "1" if core == "pure" else ""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
