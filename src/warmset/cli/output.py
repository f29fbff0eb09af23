"""
The only way from the commands to the terminal: all text is escaped unless this package wrote it.

Names, paths, programs and error texts come from elsewhere, and may contain terminal escapes, line
breaks that forge a line, characters that reverse the reading direction, or lone surrogates.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from warmset._text import printable

if TYPE_CHECKING:
    from typing import Literal

__all__ = ["echo", "echo_json", "echo_own", "text_cell"]


def echo(line: str = "", *, err: bool = False) -> None:
    """
    Print one line.

    Args:
        line: Any text; what is not printable is escaped, including line breaks.
        err: Whether to print to stderr.
    """
    echo_own(printable(line) + "\n", err=err)


def echo_json(data: Any) -> None:
    """Print data as JSON; it is ASCII, in which control characters are escaped."""
    echo_own(json.dumps(data, indent=2).replace("\x7f", "\\u007f") + "\n")


def echo_own(text: str, *, err: bool = False) -> None:
    """
    Print text of this package, or a table whose cells are escaped.

    Args:
        text: The text, which is printed as it is; characters that the stream cannot encode are
            escaped.
        err: Whether to print to stderr.
    """
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    encodable = text.encode(encoding, "backslashreplace").decode(encoding)
    click.echo(encodable, nl=False, err=err)


def text_cell(
    text: str,
    *,
    style: str = "",
    justify: Literal["left", "right"] = "left",
    no_wrap: bool = False,
) -> Text:
    """
    Make a text for a screen or a table.

    Args:
        text: Any text; what is not printable is escaped, including line breaks.
        style: The style.
        justify: The alignment.
        no_wrap: Whether it stays on one line, truncated with an ellipsis.

    Returns:
        A text without markup.
    """
    overflow: Literal["ellipsis"] | None = "ellipsis" if no_wrap else None
    return Text(printable(text), style, justify=justify, no_wrap=no_wrap, overflow=overflow)
