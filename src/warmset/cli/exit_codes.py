"""The exit statuses of all commands, in one table; ``--help`` and the docs are made from it."""

from __future__ import annotations

PASSED = 0
GREW = 1
BAD_FILE = 2
FAILED = 3
NOT_FOUND = 4
INTERRUPTED = 130
CLOSED_PIPE = 141

EXIT_CODES = {
    PASSED: "all is well; the growth stayed within its bound, or there was only one run to look at",
    GREW: "the growth went past --max-growth-mb (run, demo)",
    BAD_FILE: "a file, an option or the installation is wrong; or check found faults",
    FAILED: "--strict stopped at a failure, or no call succeeded (run, demo); a class failed"
    " (warm-up)",
    NOT_FOUND: "no running process serves what was asked for (top, stats)",
    INTERRUPTED: "Ctrl-C; the runs that had ended are in the table (run, demo)",
    CLOSED_PIPE: "the reader of the output went away, as in `warmset stats | head -1`",
}


def exit_status_help(*codes: int) -> str:
    """
    Write the table as click shows it, without wrapping.

    Args:
        codes: The ones that a command can end with; none for all.

    Returns:
        Some lines.
    """
    chosen = codes or tuple(EXIT_CODES)
    lines = [f"  {code:<3}  {text}" for code, text in EXIT_CODES.items() if code in chosen]
    return "\n".join(["\b", "Exit status:", *lines])
