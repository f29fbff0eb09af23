"""The error that ends a command: one line on stderr, and an exit status."""

from __future__ import annotations

from typing import Any

import click

from warmset._text import printable

from .exit_codes import BAD_INPUT
from .output import echo


class CommandError(click.ClickException):
    """
    Ends a command with a one-line message, without click's prefix "Error:".

    Args:
        message: The message.
        exit_code: The exit status.
    """

    def __init__(self, message: str, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable in click

    def show(self, file: Any = None) -> None:
        """Print the message, to stderr by default."""
        line = f"warmset: {self.format_message()}"
        if file is None:
            echo(line, err=True)
        else:
            print(printable(line), file=file)
