"""``warmset top``: finds the process that is meant, and shows it until it is left."""

from __future__ import annotations

import sys

import click

from .exit_codes import BAD_FILE, NOT_FOUND, PASSED, exit_status_help
from .host import host_option, one_way
from .live import filter_option, serving, sort_option, target_argument
from .refused import Refused

_EPILOG = f"""
\b
Keys:
  arrows  go to a class            s  sort by the next column
  /       filter by name           r  the other way round
  space   stop and go on           n  the next registry of the process
  e       evict the class          c  clear the registry
  q       leave, as does Ctrl-C

e and c are there where the process allows changes: serve(..., allow_changes=True), or
observe_changes = true in its [registry].

{exit_status_help(PASSED, BAD_FILE, NOT_FOUND)}
"""


@click.command(epilog=_EPILOG, short_help="Look into a running process, again and again.")
@target_argument
@click.option(
    "--interval",
    "interval_seconds",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@sort_option
@filter_option
@host_option
def top(
    target: str | None,
    interval_seconds: float,
    sort: str | None,
    matching: str | None,
    host: str | None,
) -> int:
    """
    Look into a running process: what is warm, who holds it, when it will leave.

    PID is a process, NAME what a registry is served as; without either, and where there are
    several, there is a choice. With --host it shows all processes that share a budget.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("top needs a terminal; `warmset stats` prints the same once")
    found = serving(target) if host is None else []
    try:
        if host is not None:
            return _top_host(target, host, interval_seconds)
        from .top_screen import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise Refused(
            "top needs the 'cli' extra: pip install \"warmset[cli]\" (not installed: textual)"
        ) from error
    name = None if target is None or target.isdigit() else target
    screen = Top(found, name, interval_seconds=interval_seconds, sort=sort, matching=matching or "")
    screen.run()
    return screen.return_code or PASSED


def _top_host(target: str | None, host: str, interval_seconds: float) -> int:
    from .host_screen import HostTop

    one_way(target, host)
    screen = HostTop(host, interval_seconds=interval_seconds)
    screen.run()
    return screen.return_code or PASSED
