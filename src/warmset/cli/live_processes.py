"""Finds the processes that serve a live view, by the PID or NAME on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from warmset._text import printable
from warmset.observe.client import find, processes
from warmset.resolver import near_names

from .command_error import CommandError
from .exit_codes import NOT_FOUND
from .output import echo

if TYPE_CHECKING:
    from warmset.observe.client import Process

_HOW_TO_SERVE = (
    "a process serves its registry after warmset.observe.serve(registry), or with"
    " observe_socket = true in its [registry]; only processes of this user on this machine are"
    " found"
)


def find_processes(pid_or_name: str | None) -> list[Process]:
    """
    Find the processes that a PID or NAME selects, and report on stderr those that were skipped.

    Args:
        pid_or_name: The argument of the command; None selects every process that serves.

    Returns:
        At least one process.

    Raises:
        CommandError: No process matches; the message lists those that serve.
    """
    known, errors = processes()
    for error in errors:
        echo(f"warmset: skipped: {error}", err=True)
    found = find(pid_or_name, known)
    if found:
        return found
    if not known:
        raise CommandError(f"no running process serves a registry; {_HOW_TO_SERVE}", NOT_FOUND)
    names = sorted({name for process in known for name in process.registries})
    near = near_names(str(pid_or_name), names)
    hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
    served = "; ".join(
        f"{process.pid} {process.program}: {', '.join(process.registries)}" for process in known
    )
    kind = "process" if str(pid_or_name).isdigit() else "registry"
    raise CommandError(f"no {kind} {pid_or_name} is served{hint}; served: {served}", NOT_FOUND)


def registry_name(pid_or_name: str | None) -> str | None:
    """Return the argument if it names a registry; None if it is a PID or was not given."""
    return None if pid_or_name is None or pid_or_name.isdigit() else pid_or_name


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    known, _ = processes(timeout_seconds=0.3)
    items: dict[str, str] = {}
    for process in known:
        names = ", ".join(process.registries)
        items[str(process.pid)] = f"{process.program}: {names}"
        for name in process.registries:
            items.setdefault(name, f"process {process.pid}")
    return [
        CompletionItem(value, help=printable(text))
        for value, text in items.items()
        if value.startswith(incomplete) and value.isprintable()  # a shell would interpret others
    ]


process_argument = click.argument(
    "pid_or_name", metavar="[PID|NAME]", required=False, shell_complete=_complete
)
