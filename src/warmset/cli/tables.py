"""Tables of the text output: their style, and rendering without truncation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from .output import text_cell

if TYPE_CHECKING:
    from rich.console import RenderableType


class _Table(Table):
    """A table that escapes the texts of its cells."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row; see `rich.table.Table`."""
        super().add_row(
            *(text_cell(cell) if isinstance(cell, str) else cell for cell in cells), **options
        )


def new_table(gap: int) -> Table:
    """
    Make an empty table without lines.

    Args:
        gap: Spaces between two columns.

    Returns:
        The table, which escapes the texts of its cells.
    """
    return _Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")


def render_table(table: Table, stream: TextIO) -> str:
    """
    Render a table in its full width.

    A table wider than the terminal is better than a truncated one: logs keep it, too.

    Args:
        table: The table.
        stream: Where the text will be written; colours are used only if it is a terminal.

    Returns:
        The text. The caller writes it, because rich would end the process when the reader has
        closed the pipe.
    """
    console = Console(file=stream, highlight=False, markup=False)
    console.width = max(console.width, Console(file=stream, width=10_000).measure(table).maximum)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
