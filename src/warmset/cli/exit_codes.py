"""The exit statuses of all commands, in one table for ``--help`` and for docs/cli.md."""

from __future__ import annotations

PASSED = 0
NOT_PASSED = 1
BAD_INPUT = 2
FAILED = 3
NOT_FOUND = 4
INTERRUPTED = 130
CLOSED_PIPE = 141

EXIT_CODES = {
    PASSED: "success: the verdict is PASS, or there was no second run to compare",
    NOT_PASSED: "the verdict is FAIL: failed calls, survivors, or growth (run, demo)",
    BAD_INPUT: "a file, an option or the installation is invalid, or check found errors",
    FAILED: "--strict or every call failed (run, demo); a class failed or all were skipped"
    " (warm-up)",
    NOT_FOUND: "no running process serves the requested registry or budget (top, stats)",
    INTERRUPTED: "interrupted by Ctrl-C; the table contains the completed runs (run, demo)",
    CLOSED_PIPE: "the reader closed the pipe, as in `warmset stats | head -1`",
}


def exit_status_help(*codes: int) -> str:
    """
    Format exit statuses for click's help, without wrapping.

    Args:
        codes: The statuses of a command; without any, all statuses.

    Returns:
        The heading and one line for each status.
    """
    chosen = codes or tuple(EXIT_CODES)
    lines = [f"  {code:<3}  {text}" for code, text in EXIT_CODES.items() if code in chosen]
    return "\n".join(["\b", "Exit status:", *lines])
