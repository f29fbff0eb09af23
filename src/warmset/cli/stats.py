"""``warmset stats``: what `top` shows, once, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from warmset.observe.asking import GoneError
from warmset.observe.protocol import LiveViewError

from .exit_codes import BAD_FILE, NOT_FOUND, PASSED, exit_status_help
from .host import host_option, one_way, print_host
from .live import (
    COLUMNS,
    filter_option,
    in_order,
    process_line,
    registry_line,
    serving,
    sort_option,
    target_argument,
)
from .refused import Refused

if TYPE_CHECKING:
    from typing import Any, Literal

_EPILOG = f"""
{exit_status_help(PASSED, BAD_FILE, NOT_FOUND)}

The JSON is {{"processes": [...]}}: for each process its pid, program, rss_bytes and registries; for
each registry its figures, settings, and a list of classes. Seconds are floats, sizes are bytes, and
null is what is not known, as the bytes of an instance that nothing has measured. With --host it is
{{"budget": ..., "processes": [...]}}, with the memory of each process, and what it would let go.
"""


@click.command(epilog=_EPILOG, short_help="Print what registries of running processes hold.")
@target_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@sort_option
@filter_option
@host_option
def stats(
    target: str | None, as_json: bool, sort: str | None, matching: str | None, host: str | None
) -> int:
    """
    Print what registries of running processes hold.

    PID is a process, NAME what a registry is served as; without either, all that are served. With
    --host it prints all processes that share a budget.
    """
    if host is not None:
        one_way(target, host)
        return print_host(host, as_json=as_json)
    answers = []
    for process in serving(target):
        name = None if target is None or target.isdigit() else target
        try:
            with process.connect() as connection:
                answer = connection.ask("stats", registry=name, filter=matching or None)
        except GoneError:
            click.echo(f"warmset: process {process.pid} ended meanwhile", err=True)
            continue
        except LiveViewError as error:
            raise Refused(f"process {process.pid}: {error}", NOT_FOUND) from error
        del answer["ok"]
        for registry in answer["registries"]:
            registry["classes"] = in_order(registry["classes"], sort)
        answers.append(answer)
    if not answers:
        raise Refused("every process that served has ended meanwhile", NOT_FOUND)
    if as_json:
        click.echo(json.dumps({"processes": answers}, indent=2))
        return PASSED
    for at, answer in enumerate(answers):
        if at:
            click.echo()
        click.echo(process_line(answer))
        for registry in answer["registries"]:
            click.echo(registry_line(registry))
            _print_classes(registry)
    return PASSED


def _print_classes(registry: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in COLUMNS:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.heading, justify=justify, no_wrap=True)
    for row in registry["classes"]:
        table.add_row(*(column.text(row).replace("\n", " ") for column in COLUMNS))
    console = Console(file=sys.stdout, highlight=False, markup=False)
    # Wider than the terminal is better than cut off: this is also read in a log.
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    # Not by rich itself, which would end the process if the reader has gone.
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)
    if registry["classes_left_out"]:
        click.echo(f"and {registry['classes_left_out']} more classes")
