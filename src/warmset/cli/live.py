"""What `warmset top` and `warmset stats` share: the process that is meant, figures, columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click
from click.shell_completion import CompletionItem

from warmset.observe.asking import find, processes
from warmset.observe.rows import STATES, span
from warmset.resolver import near_names

from .exit_codes import NOT_FOUND
from .refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from warmset.observe.asking import Process

    Row = dict[str, Any]

_HOW = (
    "a process serves once it calls warmset.observe.serve(registry), or has observe_socket = true"
    " in its [registry]; of this user, on this machine"
)


class Column(NamedTuple):
    """
    A column of the table of classes.

    Args:
        key: What it is sorted by: a key of the row.
        heading: What stands above it.
        width: Characters, where it is not as wide as what is in it.
        text: Gives what stands in it for a row.
        largest_first: Whether that is how one wants to see it sorted.
    """

    key: str
    heading: str
    width: int
    text: Callable[[Row], str]
    largest_first: bool = True

    @property
    def is_number(self) -> bool:
        """Whether it is aligned to the right."""
        return self.width > 0 and self.key != "state"


def _seconds(key: str) -> Callable[[Row], str]:
    return lambda row: "-" if row[key] is None else span(row[key])


def _held(row: Row) -> str:
    if not row["holders"]:
        return "-"
    since = row["held_seconds"]
    return str(row["holders"]) + ("" if since is None else f" {span(since)}")


COLUMNS = (
    Column("class_name", "class", 0, lambda row: str(row["class_name"]), largest_first=False),
    Column("state", "state", 8, lambda row: str(row["state"]), largest_first=False),
    Column("age_seconds", "age", 4, _seconds("age_seconds")),
    Column("idle_seconds", "idle", 4, _seconds("idle_seconds")),
    Column("uses", "uses", 5, lambda row: count(row["uses"])),
    Column("build_seconds", "build", 5, _seconds("build_seconds")),
    Column("bytes", "bytes", 5, lambda row: size(row["bytes"])),
    Column("holders", "held", 6, _held),
    Column(
        "leaves_in_seconds",
        "leaves",
        0,
        lambda row: str(row["leaves"] or row["detail"] or ""),
        largest_first=False,
    ),
)
SORTS = {column.heading: column for column in COLUMNS}


def in_order(rows: Sequence[Row], sort: str | None, reverse: bool = False) -> list[Row]:
    """
    Sort rows by a column.

    Args:
        rows: In the order of the answer, which is that of last use.
        sort: The heading; None leaves them so.
        reverse: Whether the other way round. What is not known comes last in both.

    Returns:
        A new list.
    """
    if sort is None:
        return list(rows)[:: -1 if reverse else 1]
    column = SORTS[sort]
    known = [row for row in rows if row[column.key] is not None]
    if column.key == "state":
        known.sort(key=lambda row: STATES.index(row["state"]), reverse=reverse)
    elif column.key == "class_name":
        known.sort(key=lambda row: str(row["class_name"]).casefold(), reverse=reverse)
    else:
        known.sort(key=lambda row: row[column.key], reverse=column.largest_first is not reverse)
    return known + [row for row in rows if row[column.key] is None]


def process_line(answer: dict[str, Any]) -> str:
    """Say in a line which process answered."""
    rss = "" if answer["rss_bytes"] is None else f"   RSS {answer['rss_bytes'] / 1e6:.1f} MB"
    return (
        f"process {answer['pid']} {answer['program']}{rss}"
        f"   warmset {answer['warmset']} ({answer['implementation']})"
    )


def registry_line(registry: dict[str, Any]) -> str:
    """Say in a line how a registry does."""
    weak = f", {registry['weakly_kept']} weak" if registry["weakly_kept"] else ""
    rate = f"{registry['hit_rate']:.1%}" if registry["lookups"] else "-"
    return (
        f"{registry['name']}: {registry['cached']} of at most {registry['max_cache_size']} warm"
        f"{weak}, {registry['held']} held   hit rate {rate}"
        f"   {count(registry['builds'])} builds, {count(registry['evictions'])} evictions"
    )


def size(number: int | None) -> str:
    """Write bytes in at most five characters; M is 10^6."""
    if number is None:
        return "-"
    for scale, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= scale:
            return f"{number / scale:.{1 if number < 100 * scale else 0}f}{unit}"
    return str(number)


def count(number: int | None) -> str:
    """Write a count in at most five characters."""
    if number is None:
        return "-"
    return str(number) if number < 100_000 else size(number)


def serving(target: str | None) -> list[Process]:
    """
    Find the processes that a PID or a NAME means.

    Args:
        target: What was given on the command line.

    Returns:
        At least one.

    Raises:
        Refused: There is none; with what there is.
    """
    known, faults = processes()
    for fault in faults:
        click.echo(f"warmset: passed over: {fault}", err=True)
    found = find(target, known)
    if found:
        return found
    if not known:
        raise Refused(f"no running process serves a registry; {_HOW}", NOT_FOUND)
    names = sorted({name for process in known for name in process.registries})
    near = near_names(str(target), names)
    hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
    there = "; ".join(
        f"{process.pid} {process.program}: {', '.join(process.registries)}" for process in known
    )
    what = "process" if str(target).isdigit() else "registry"
    raise Refused(f"no {what} {target} is served{hint}; there is {there}", NOT_FOUND)


def complete_target(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete PID or NAME from what is served just now."""
    known, _ = processes(timeout_seconds=0.3)
    items: dict[str, str] = {}
    for process in known:
        names = ", ".join(process.registries)
        items[str(process.pid)] = f"{process.program}: {names}"
        for name in process.registries:
            items.setdefault(name, f"process {process.pid}")
    return [
        CompletionItem(value, help=text)
        for value, text in items.items()
        if value.startswith(incomplete)
    ]


target_argument = click.argument(
    "target", metavar="[PID|NAME]", required=False, shell_complete=complete_target
)
sort_option = click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    help="Sort the classes by a column; by default the last used come first.",
)
filter_option = click.option(
    "--filter",
    "matching",
    metavar="TEXT",
    help="Only classes whose name contains TEXT, in upper or lower case.",
)
