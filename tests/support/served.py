"""A process that serves a registry and executes lines of Python, one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# The script of the process; lines may use `registry`, `observe`, `hold` and `fail`.
_CODE = """
import sys
import warmset
from warmset import observe
names = ("Alpha", "Beta", "Gamma", "Delta", "Broken")
registry = warmset.MethodRegistry({name: f"samples.{name}" for name in names}, max_cache_size=3)
held = []
def hold(name):
    held.append(registry.use(name))
    held[-1].__enter__()
def fail(name):
    try:
        registry.get_instance(name)
    except warmset.BuildError:
        pass
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Served:
    """
    Start the process; the variables of this one tell where its socket goes.

    Args:
        pure: Whether it runs on the pure core.
        name: What it serves its registry as; None: nothing yet.
        allow_changes: Whether clients may evict and clear.
    """

    def __init__(
        self, *, pure: bool = False, name: str | None = "main", allow_changes: bool = False
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
            env={**os.environ, "WARMSET_PURE": "1" if pure else ""},
        )
        self.pid = self.process.pid
        self._answer("ready")
        if name is not None:
            self.do(
                f"served = observe.serve(registry, name={name!r}, allow_changes={allow_changes})"
            )

    def do(self, line: str) -> None:
        """Have it run a line, and wait until that is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self._answer("done")

    def _answer(self, expected: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{expected}\n"

    def kill(self) -> None:
        """End it without giving it time to clean up."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.communicate(timeout=30)  # it ends when there are no more lines
