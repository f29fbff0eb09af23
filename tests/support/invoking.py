"""Runs a command of `warmset` in this process, through `main`, as the script does."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from warmset.cli import main


def invoke(*words: str) -> tuple[int, str]:
    """Return the exit status, and stdout and stderr together."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        status = main(words)
    return status, output.getvalue()


def invoke_apart(*words: str) -> tuple[int, str, str]:
    """Return the exit status, stdout and stderr."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = main(words)
    return status, output.getvalue(), errors.getvalue()
