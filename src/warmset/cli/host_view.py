"""The option ``--host``: the processes that share a budget, and which of them evicts next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from warmset.observe.rows import span
from warmset.resolver import near_names

from .command_error import CommandError
from .exit_codes import NOT_FOUND, PASSED
from .formatting import format_bytes
from .output import echo, echo_json, echo_own
from .tables import new_table, render_table

if TYPE_CHECKING:
    from warmset.share.host_table import ProcessRow

host_option = click.option(
    "--host",
    is_flag=False,
    flag_value="default",
    metavar="[BUDGET]",
    help="Show the processes that share a budget (host_budget); by default the budget named"
    " 'default'.",
)

HEADINGS = (
    "process",
    "program",
    "memory",
    "cached",
    "bytes",
    "evicts next",
    "frees",
    "updated",
    "",
)
RIGHT_ALIGNED = ("process", "memory", "cached", "bytes", "frees", "updated")


class HostView(NamedTuple):
    """A snapshot of all processes that share a budget."""

    budget: str
    rows: list[ProcessRow]
    relieving: bool
    now: float

    @property
    def total(self) -> int:
        """Bytes used by all processes together."""
        return sum(row.bytes for row in self.rows)

    @property
    def text(self) -> str:
        """One line with the state of the budget."""
        if not self.rows:
            return f"budget {self.budget!r}: no process uses it at the moment"
        limit = min(row.max_bytes for row in self.rows)
        state = "evicting to free memory" if self.relieving else "within the budget"
        return (
            f"budget {self.budget!r}: {len(self.rows)} processes use {self.total / 1e6:.1f} MB of"
            f" at most {limit / 1e6:.1f} MB; {state}"
        )

    def next_to_evict(self) -> tuple[int, str] | None:
        """The process and the registry that evict next; None if none has a victim."""
        candidates = [
            (row.value(member, self.now), row.pid, name)
            for row in self.rows
            if not row.is_late(self.now)
            for name, member in row.members.items()
            if member.least is not None
        ]
        return min(candidates)[1:] if candidates else None

    def lines(self) -> list[tuple[str, ...]]:
        """The cells of one row for each registry, in the order of `HEADINGS`."""
        lines: list[tuple[str, ...]] = []
        next_to_evict = self.next_to_evict()
        for row in self.rows:
            ago = max(0.0, self.now - row.updated)
            for index, (name, member) in enumerate(row.members.items()):
                process = (
                    (str(row.pid), row.program, format_bytes(row.bytes))
                    if not index
                    else ("", "", "")
                )
                note = "next" if next_to_evict == (row.pid, name) else ""
                if row.is_late(self.now):
                    note = "late"
                lines.append(
                    (
                        *process,
                        str(member.cached),
                        format_bytes(member.cached_bytes),
                        member.least or "-",
                        format_bytes(member.least_bytes) if member.least else "-",
                        span(ago),
                        note,
                    )
                )
        return lines

    def as_data(self) -> dict[str, Any]:
        """Return the snapshot as plain data for JSON."""
        next_to_evict = self.next_to_evict()
        return {
            "budget": self.budget,
            "bytes": self.total,
            "evicting": self.relieving,
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
                            "evicts_next": member.least,
                            "evicts_next_bytes": member.least_bytes,
                            "next": next_to_evict == (row.pid, name),
                        }
                        for name, member in row.members.items()
                    ],
                }
                for row in self.rows
            ],
        }


def read_host(budget: str) -> HostView:
    """
    Read the shared table of a budget.

    Args:
        budget: The name of the budget.

    Returns:
        A snapshot; without rows if no process uses the budget.

    Raises:
        CommandError: There is no budget of this name, or its table cannot be read.
    """
    from warmset.share.host_table import HostError, HostTable, tables

    known = tables()
    if budget not in known:
        near = near_names(budget, known)
        hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
        others = f"; in use: {', '.join(map(repr, known))}" if known else ""
        raise CommandError(
            f"no budget {budget!r} is in use by processes of this user{hint}{others}; a process"
            " uses one if it sets host_budget, see docs/scaling.md",
            NOT_FOUND,
        )
    try:
        table = HostTable(budget, directory=known[budget])
        rows = table.read()
    except HostError as error:
        raise CommandError(str(error), NOT_FOUND) from error
    return HostView(budget, rows, table.relieving, table.now())


def refuse_process_with_host(pid_or_name: str | None) -> None:
    """
    Refuse PID or NAME together with ``--host``.

    Args:
        pid_or_name: The argument of the command.

    Raises:
        UsageError: It was given.
    """
    if pid_or_name is not None:
        raise click.UsageError(
            f"--host shows all processes of a budget and cannot be combined with {pid_or_name!r}"
            f" (for a budget of that name: --host={pid_or_name})"
        )


def print_host(budget: str, *, as_json: bool) -> int:
    """
    Print the processes of a budget once.

    Args:
        budget: The name of the budget.
        as_json: Whether to print JSON instead of a table.

    Returns:
        The exit status.
    """
    view = read_host(budget)
    if as_json:
        echo_json(view.as_data())
        return PASSED
    echo(view.text)
    if not view.rows:
        return PASSED
    table = new_table(gap=1)
    for heading in HEADINGS:
        table.add_column(
            heading, justify="right" if heading in RIGHT_ALIGNED else "left", no_wrap=True
        )
    for line in view.lines():
        table.add_row(*line)
    echo_own(render_table(table, sys.stdout))
    return PASSED
