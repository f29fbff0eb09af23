"""The table of classes in `warmset top` and `warmset stats`: columns, order, and lines above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from warmset.observe.rows import STATES, span

from .formatting import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Row = dict[str, Any]


class Column(NamedTuple):
    """
    A column of the table of classes.

    Args:
        key: The key of the row to sort by.
        heading: The heading.
        width: Characters; 0 for a column as wide as its contents.
        text: Returns the text of a row's cell.
        largest_first: Whether the largest value comes first by default.
    """

    key: str
    heading: str
    width: int
    text: Callable[[Row], str]
    largest_first: bool = True

    @property
    def is_number(self) -> bool:
        """Whether the column is aligned to the right."""
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
    Column("uses", "uses", 5, lambda row: format_count(row["uses"])),
    Column("build_seconds", "build", 5, _seconds("build_seconds")),
    Column("bytes", "bytes", 5, lambda row: format_bytes(row["bytes"])),
    Column("holders", "held", 6, _held),
    Column(
        "expires_in_seconds",
        "removal",
        0,
        lambda row: str(row["expires"] or row["detail"] or ""),
        largest_first=False,
    ),
)
SORTS = {column.heading: column for column in COLUMNS}


def sort_rows(rows: Sequence[Row], sort: str | None, reverse: bool = False) -> list[Row]:
    """
    Sort rows by a column.

    Args:
        rows: The rows in the order of the response, that of last use.
        sort: The heading of the column; None keeps the order of last use.
        reverse: Whether to reverse the order. Unknown values come last either way.

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


def process_line(response: dict[str, Any]) -> str:
    """Describe a process in one line: PID, program, RSS, version and core."""
    rss = "" if response["rss_bytes"] is None else f"   RSS {response['rss_bytes'] / 1e6:.1f} MB"
    return (
        f"process {response['pid']} {response['program']}{rss}"
        f"   warmset {response['warmset']} ({response['implementation']})"
    )


def registry_line(registry: dict[str, Any]) -> str:
    """Describe a registry in one line: cached and held instances, hit rate, builds, evictions."""
    weak = f", {registry['weakly_kept']} weak" if registry["weakly_kept"] else ""
    rate = f"{registry['hit_rate']:.1%}" if registry["lookups"] else "-"
    builds, evictions = format_count(registry["builds"]), format_count(registry["evictions"])
    return (
        f"{registry['name']}: {registry['cached']} of at most {registry['max_cache_size']} warm"
        f"{weak}, {registry['held']} held   hit rate {rate}"
        f"   {builds} builds, {evictions} evictions"
    )


def advice_lines(registry: dict[str, Any]) -> list[str]:
    """Describe what is wrong with the bounds of a registry, if anything, in one line each."""
    # A process of an earlier version gives no advice.
    return [f"{kind}: {text}" for kind, text in registry.get("advice", {}).items() if text]


sort_option = click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    help="Sort the classes by a column; by default the most recently used come first.",
)
filter_option = click.option(
    "--filter",
    "matching",
    metavar="TEXT",
    help="Show only classes whose name contains TEXT, ignoring case.",
)
