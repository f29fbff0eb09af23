"""A command that cannot do what it was asked: one line on stderr, and an exit status."""

from __future__ import annotations

from typing import Any

import click

from .exit_codes import BAD_FILE


class Refused(click.ClickException):
    """
    Ends a command with one line, without click's "Error:" in front.

    Args:
        message: The line.
        exit_code: The exit status.
    """

    def __init__(self, message: str, exit_code: int = BAD_FILE) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click's own kinds set it on the class

    def show(self, file: Any = None) -> None:
        """Print it."""
        click.echo(f"warmset: {self.format_message()}", file=file, err=file is None)
