"""The error that ends a command: one line on stderr, and an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmset._text import printable

from .exit_codes import BAD_INPUT
from .output import echo

if TYPE_CHECKING:
    from collections.abc import Iterable


class CommandError(click.ClickException):
    """
    Ends a command with a one-line message, without click's prefix "Error:".

    Args:
        message: The message.
        exit_code: The exit status.
        hints: Further lines.
    """

    def __init__(
        self, message: str, exit_code: int = BAD_INPUT, *, hints: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.hints = list(hints)
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable in click

    def show(self, file: Any = None) -> None:
        """Print the message, to stderr by default."""
        for line in (
            f"warmset: {self.format_message()}",
            *(f"hint: {hint}" for hint in self.hints),
        ):
            if file is None:
                echo(line, err=True)
            else:
                print(printable(line), file=file)
