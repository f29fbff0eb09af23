"""``warmset stats``: prints the live view once, as a table or as JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from warmset.observe.client import GoneError
from warmset.observe.protocol import LiveViewError

from .class_table import (
    COLUMNS,
    advice_lines,
    filter_option,
    process_line,
    registry_line,
    sort_option,
    sort_rows,
)
from .command_error import CommandError
from .exit_codes import BAD_INPUT, NOT_FOUND, PASSED, exit_status_help
from .host_view import host_option, print_host, refuse_process_with_host
from .live_processes import find_processes, process_argument, registry_name
from .output import echo, echo_json, echo_own
from .tables import new_table, render_table

if TYPE_CHECKING:
    from typing import Any, Literal

_EPILOG = f"""
{exit_status_help(PASSED, BAD_INPUT, NOT_FOUND)}

The JSON is {{"processes": [...]}}: for each process its pid, program, rss_bytes and registries; for
each registry its counters, settings, and a list of classes. Times are floats in seconds, sizes are
bytes, and null means unknown, for example the size of an instance that was never measured. With
--host it is {{"budget": ..., "processes": [...]}}, with the memory of each process and the instance
that it would evict next.
"""


@click.command(epilog=_EPILOG, short_help="Print the state of the registries of running processes.")
@process_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@sort_option
@filter_option
@host_option
def stats(
    pid_or_name: str | None,
    as_json: bool,
    sort: str | None,
    matching: str | None,
    host: str | None,
) -> int:
    """
    Print the state of the registries of running processes.

    PID selects a process, NAME a registry by the name under which it is served; without either, all
    served registries are printed. With --host, the processes that share a budget are printed.
    """
    if host is not None:
        refuse_process_with_host(pid_or_name)
        return print_host(host, as_json=as_json)
    responses = []
    for process in find_processes(pid_or_name):
        try:
            with process.connect() as connection:
                response = connection.ask(
                    "stats", registry=registry_name(pid_or_name), filter=matching or None
                )
        except GoneError:
            echo(f"warmset: process {process.pid} has just ended", err=True)
            continue
        except LiveViewError as error:
            raise CommandError(f"process {process.pid}: {error}", NOT_FOUND) from error
        del response["ok"]
        for registry in response["registries"]:
            registry["classes"] = sort_rows(registry["classes"], sort)
        responses.append(response)
    if not responses:
        raise CommandError("every process that served a registry has just ended", NOT_FOUND)
    if as_json:
        echo_json({"processes": responses})
        return PASSED
    for index, response in enumerate(responses):
        if index:
            echo()
        echo(process_line(response))
        if response["registries_malformed"]:
            echo(f"skipped {response['registries_malformed']} malformed registries")
        for registry in response["registries"]:
            echo(registry_line(registry))
            for line in advice_lines(registry):
                echo(line)
            _print_classes(registry)
    return PASSED


def _print_classes(registry: dict[str, Any]) -> None:
    table = new_table(gap=1)
    for column in COLUMNS:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.heading, justify=justify, no_wrap=True)
    for row in registry["classes"]:
        table.add_row(*(column.text(row).replace("\n", " ") for column in COLUMNS))
    echo_own(render_table(table, sys.stdout))
    if registry["classes_left_out"]:
        echo(f"and {registry['classes_left_out']} more classes")
    if registry["classes_malformed"]:
        echo(f"skipped {registry['classes_malformed']} malformed classes")
