"""``warmset top``: finds a process that serves a live view and shows it until the user quits."""

from __future__ import annotations

import sys

import click

from .class_table import filter_option, sort_option
from .command_error import CommandError
from .exit_codes import BAD_INPUT, NOT_FOUND, PASSED, exit_status_help
from .host_view import host_option, refuse_process_with_host
from .live_processes import find_processes, process_argument, registry_name

_EPILOG = f"""
\b
Keys:
  arrows  select a class           s  sort by the next column
  /       filter by name           r  reverse the order
  space   pause and resume         n  show the next registry of the process
  e       evict the class          c  clear the registry
  p       pin the class            u  unpin the class
  q       quit, as does Ctrl-C

e, c, p and u are available if the process allows changes: serve(..., allow_changes=True), or
observe_changes = true in its [registry].

{exit_status_help(PASSED, BAD_INPUT, NOT_FOUND)}
"""


@click.command(epilog=_EPILOG, short_help="Show a live view of a running process.")
@process_argument
@click.option(
    "--interval",
    "interval_seconds",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two updates.",
)
@sort_option
@filter_option
@host_option
def top(
    pid_or_name: str | None,
    interval_seconds: float,
    sort: str | None,
    matching: str | None,
    host: str | None,
) -> int:
    """
    Show a live view of a running process: warm instances, their holders, and their next removal.

    PID selects a process, NAME a registry by the name under which it is served. If several
    processes match, a list of them is shown first. With --host, the processes that share a budget
    are shown.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("top needs a terminal; `warmset stats` prints the same once")
    processes = find_processes(pid_or_name) if host is None else []
    try:
        if host is not None:
            return _top_host(pid_or_name, host, interval_seconds)
        from .top_screen import TopApp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise CommandError(
            "top needs the 'cli' extra: pip install \"warmset[cli]\" (not installed: textual)"
        ) from error
    app = TopApp(
        processes,
        registry_name(pid_or_name),
        interval_seconds=interval_seconds,
        sort=sort,
        matching=matching or "",
    )
    app.run()
    return app.return_code or PASSED


def _top_host(pid_or_name: str | None, host: str, interval_seconds: float) -> int:
    from .host_screen import HostApp

    refuse_process_with_host(pid_or_name)
    app = HostApp(host, interval_seconds=interval_seconds)
    app.run()
    return app.return_code or PASSED
