"""
``warmset plan``: what each bound would cost, from a recorded profile or a trace.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from warmset.memory.forecasting import forecast_trace, trace_of
from warmset.memory.profiles import Profile, ProfileError
from warmset.planning.traces import TraceError, load_trace

from .byte_size import ByteSize
from .command_error import CommandError
from .exit_codes import BAD_INPUT, PASSED, exit_status_help
from .output import echo, echo_json, echo_own
from .plan_text import forecast_lines, forecast_rows
from .tables import new_table, render_table

if TYPE_CHECKING:
    from warmset.planning.forecast import Forecast
    from warmset.planning.traces import Trace

__all__ = ["plan"]

_EPILOG = f"""
{exit_status_help(PASSED, BAD_INPUT)}

PROFILE is a profile of `warmset run --record-profile`, or a .csv file with the columns seconds and
class_name, and optionally build_seconds and bytes, one line for each use. For lru the forecast is
exact for the replayed uses; for cost each bound is replayed. docs/planning.md explains how to
choose a bound. MB is 10^6 bytes.
"""


@click.command(epilog=_EPILOG, short_help="Predict what each bound would cost, from a profile.")
@click.argument("profile", metavar="PROFILE", type=click.Path(path_type=Path))
@click.option(
    "--memory",
    type=ByteSize(),
    metavar="SIZE",
    help="Judge a budget of bytes, such as 2GiB: a value of max_cache_bytes.",
)
@click.option(
    "--size", type=click.IntRange(min=1), metavar="N", help="Judge a value of max_cache_size."
)
@click.option(
    "--policy",
    type=click.Choice(["lru", "cost"]),
    default="lru",
    show_default=True,
    help="The eviction policy.",
)
@click.option(
    "--ttl",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="The idle TTL, cache_ttl_seconds; by default none.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Also write a page with a chart.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def plan(
    profile: Path,
    memory: int | None,
    size: int | None,
    policy: str,
    ttl: float,
    report_file: Path | None,
    as_json: bool,
) -> int:
    """
    Predict builds, build seconds and peak bytes for each bound, and recommend one.

    Without --memory, the forecast is for values of max_cache_size.
    """
    if memory is not None and size is not None:
        raise click.UsageError("only one of --memory and --size can be given")
    trace = _read(profile)
    if not trace.requests:
        raise CommandError(
            f"{str(profile)!r} has no order of uses: expected a profile that this version recorded"
            " and in which a class was used"
        )
    forecast = forecast_trace(
        trace, max_size=size, max_bytes=memory, policy=policy, ttl_seconds=ttl
    )
    if memory is not None and not forecast.roster_bytes:
        raise CommandError(
            f"{str(profile)!r} has no sizes, which --memory needs: expected a profile of a registry"
            " with a sizer, or a trace with the column bytes"
        )
    if report_file is not None:
        _write_page(report_file, profile.name, forecast)
    if as_json:
        echo_json({"file": str(profile), **forecast.as_dict()})
        return PASSED
    _print_table(forecast)
    for line in forecast_lines(forecast):
        echo(line)
    return PASSED


def _read(path: Path) -> Trace:
    try:
        if path.suffix.lower() == ".csv":
            return load_trace(path)
        return trace_of(Profile.load(path))
    except (ProfileError, TraceError) as error:
        raise CommandError(str(error)) from error


def _write_page(target: Path, name: str, forecast: Forecast) -> None:
    from .plan_page import make_plan_page

    try:
        target.write_text(make_plan_page(name, forecast), encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"--report: cannot write {str(target)!r}: {error.strerror or error}"
        ) from error


def _print_table(forecast: Forecast) -> None:
    headings, rows = forecast_rows(forecast)
    table = new_table(gap=2)
    for position, heading in enumerate(headings):
        is_last = position == len(headings) - 1
        table.add_column(heading, justify="left" if is_last else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    echo_own(render_table(table, sys.stdout))
