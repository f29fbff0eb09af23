"""The options that the commands `run` and `demo` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .engine import engine_options
from .warm_up import profile_options

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def run_arguments(command: _Command) -> _Command:
    """Add the options that `run` and `demo` have in common."""
    options = [
        click.option(
            "--runs",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            help="Number of runs of the whole pipeline.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Number of threads that process documents; the steps of one document stay in"
            " order. The default is 1. With --engine: number of tasks that are sent at a time, by"
            " default two for each worker process.",
        ),
        click.option(
            "--clear/--no-clear",
            default=True,
            show_default=True,
            help="Clear the cache after each run.",
        ),
        click.option(
            "--per-run",
            is_flag=True,
            help="Register the classes under new names for each run, such as Name@2 in run 2, like"
            " a pipeline that keys its instances by run or by tenant.",
        ),
        click.option(
            "--trim/--no-trim",
            default=True,
            show_default=True,
            help="Return free memory of the C library to the system before RSS is measured; for"
            " this, all threads share one heap (glibc only).",
        ),
        click.option(
            "--max-growth-mb",
            type=click.FloatRange(min=0),
            help="The largest growth that passes, over the median RSS of the first half of the"
            " runs; in the second half, by its slope, a quarter of it. The default is 20, and with"
            " --engine 50 for each worker process.",
        ),
        click.option(
            "--max-failures",
            type=click.FloatRange(min=0, max=1),
            default=0.0,
            show_default=True,
            help="The largest share of failed calls that passes, such as 0.01: one in a hundred.",
        ),
        click.option(
            "--max-survivors",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="The largest number of removed instances that are still referenced after the last"
            " run and passes.",
        ),
        click.option(
            "--max-cache-size", type=int, help="Overrides the value in the file's [registry]."
        ),
        click.option(
            "--cache-ttl-seconds",
            type=float,
            help="Overrides the value in the file's [registry]; 0 disables expiry.",
        ),
        click.option("--strict", is_flag=True, help="Stop at the first step that fails."),
        click.option(
            "--json",
            "json_file",
            type=click.Path(dir_okay=False, writable=True, path_type=Path),
            metavar="FILE",
            help="Also write the report as JSON.",
        ),
        click.option(
            "--report",
            "report_file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.html",
            help="Also write the report as an HTML page with plots; needs the 'report' extra.",
        ),
        click.option(
            "--serve",
            is_flag=True,
            help="Serve a live view for `warmset top` and `warmset stats` during the runs.",
        ),
        click.option(
            "--allow-changes",
            is_flag=True,
            help="With --serve: let `warmset top` evict, clear, pin and unpin.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return engine_options(profile_options(command))
