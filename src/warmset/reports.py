"""
The log records of builds and removals, if anybody wants them.

The module that makes them is imported then. A signal handler may look an instance up while its own
thread is in the middle of that import: its records are left out.
"""

from __future__ import annotations

from . import _logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._core import Entry
    from .builds import Build

__all__ = ["log_removals", "report_build", "report_clear"]


def report_build(build: Build) -> None:
    """Log a completed build: a failure in any case."""
    if build.error is not None or _logs.info_wanted("builds"):
        _log("log_build", build)


def log_removals(entries: list[Entry], now: float) -> None:
    """Log removals, as of a time by the registry's clock."""
    _log("log_removals", entries, now)


def report_clear(strong: int, weak: int) -> None:
    """Log that the cache was cleared."""
    if _logs.info_wanted("removals"):
        _log("log_clear", strong, weak)


def _log(function: str, *arguments: Any) -> None:
    try:
        from . import event_logs

        log = getattr(event_logs, function)
    except (ImportError, AttributeError):  # it is only partly initialised
        return
    log(*arguments)
