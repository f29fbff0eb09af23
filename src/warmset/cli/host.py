"""What `--host` shows: the processes of one budget, what they have, and who is to give next."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from warmset.observe.rows import span
from warmset.resolver import near_names

from .exit_codes import NOT_FOUND, PASSED
from .live import size
from .refused import Refused

if TYPE_CHECKING:
    from warmset.share.host_table import ProcessRow

host_option = click.option(
    "--host",
    is_flag=False,
    flag_value="default",
    metavar="[BUDGET]",
    help="All processes that share a budget (host_budget), by default the one named default.",
)

HEADINGS = (
    "process",
    "program",
    "memory",
    "cached",
    "bytes",
    "would let go",
    "of",
    "heard of",
    "",
)
RIGHT = ("process", "memory", "cached", "bytes", "of", "heard of")


class HostView(NamedTuple):
    """All processes of a budget at one moment."""

    budget: str
    rows: list[ProcessRow]
    relieving: bool
    now: float

    @property
    def total(self) -> int:
        """Bytes of all together."""
        return sum(row.bytes for row in self.rows)

    @property
    def text(self) -> str:
        """One line that says how the budget does."""
        if not self.rows:
            return f"budget {self.budget!r}: no process takes part just now"
        most = min(row.max_bytes for row in self.rows)
        state = "memory is being given" if self.relieving else "all is well"
        return (
            f"budget {self.budget!r}: {len(self.rows)} processes have {self.total / 1e6:.1f} MB of"
            f" at most {most / 1e6:.1f} MB; {state}"
        )

    def first(self) -> tuple[int, str] | None:
        """Who is to give next: process and registry."""
        able = [
            (row.value(member, self.now), row.pid, name)
            for row in self.rows
            if not row.is_late(self.now)
            for name, member in row.members.items()
            if member.least is not None
        ]
        return min(able)[1:] if able else None

    def lines(self) -> list[tuple[str, ...]]:
        """One line for each registry, in the order of `HEADINGS`."""
        lines: list[tuple[str, ...]] = []
        first = self.first()
        for row in self.rows:
            ago = max(0.0, self.now - row.updated)
            for at, (name, member) in enumerate(row.members.items()):
                own = (str(row.pid), row.program, size(row.bytes)) if not at else ("", "", "")
                note = "next" if first == (row.pid, name) else ""
                if row.is_late(self.now):
                    note = "late"
                lines.append(
                    (
                        *own,
                        str(member.cached),
                        size(member.cached_bytes),
                        member.least or "-",
                        size(member.least_bytes) if member.least else "-",
                        span(ago),
                        note,
                    )
                )
        return lines

    def as_data(self) -> dict[str, Any]:
        """Give it as plain data."""
        first = self.first()
        return {
            "budget": self.budget,
            "bytes": self.total,
            "giving": self.relieving,
            "processes": [
                {
                    "pid": row.pid,
                    "program": row.program,
                    "bytes": row.bytes,
                    "max_bytes": row.max_bytes,
                    "low_bytes": row.low_bytes,
                    "seconds_ago": max(0.0, self.now - row.updated),
                    "late": row.is_late(self.now),
                    "registries": [
                        {
                            "cached": member.cached,
                            "cached_bytes": member.cached_bytes,
                            "would_let_go": member.least,
                            "would_let_go_bytes": member.least_bytes,
                            "next": first == (row.pid, name),
                        }
                        for name, member in row.members.items()
                    ],
                }
                for row in self.rows
            ],
        }


def look(budget: str) -> HostView:
    """
    Look at a budget.

    Args:
        budget: Its name.

    Returns:
        What there is just now; no rows, if no process takes part.

    Raises:
        Refused: There is no budget of this name, or its table cannot be read.
    """
    from warmset.share.host_table import HostError, HostTable, tables

    known = tables()
    if budget not in known:
        near = near_names(budget, known)
        hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
        there = f"; there is {', '.join(map(repr, known))}" if known else ""
        raise Refused(
            f"no budget {budget!r} is in use by processes of this user{hint}{there}; a process"
            " takes part by host_budget, see docs/scaling.md",
            NOT_FOUND,
        )
    try:
        table = HostTable(budget, directory=known[budget])
        rows = table.read()
    except HostError as error:
        raise Refused(str(error), NOT_FOUND) from error
    return HostView(budget, rows, table.relieving, table.now())


def one_way(target: str | None, host: str) -> None:
    """Refuse PID or NAME together with ``--host``."""
    if target is not None:
        raise click.UsageError(
            f"--host shows all processes of a budget: {target!r} does not go with it (for a budget"
            f" of that name: --host={target})"
        )
    assert host


def print_host(budget: str, *, as_json: bool) -> int:
    """
    Print a budget once.

    Args:
        budget: Its name.
        as_json: Whether as JSON.

    Returns:
        The exit status.
    """
    from rich.console import Console
    from rich.table import Table

    view = look(budget)
    if as_json:
        click.echo(json.dumps(view.as_data(), indent=2))
        return PASSED
    click.echo(view.text)
    if not view.rows:
        return PASSED
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in RIGHT else "left", no_wrap=True)
    for line in view.lines():
        table.add_row(*line)
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    # Not by rich itself, which would end the process if the reader has gone.
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)
    return PASSED
