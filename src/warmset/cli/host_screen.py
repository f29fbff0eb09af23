"""The screen of ``warmset top --host``, a Textual application."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from .command_error import CommandError
from .host_view import HEADINGS, RIGHT_ALIGNED, read_host
from .output import text_cell

if TYPE_CHECKING:
    from typing import Literal

    from .host_view import HostView


class HostApp(App[None]):
    """
    Shows the processes of a budget until the user quits.

    Args:
        budget: The name of the budget.
        interval_seconds: Seconds between two updates.

    Raises:
        CommandError: There is no budget of this name.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: 2; padding: 0 1; }
    #summary.evicting { color: $warning; }
    #summary.error { color: $error; }
    DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("space", "pause", "Pause", key_display="spc"),
    ]

    def __init__(self, budget: str, *, interval_seconds: float) -> None:
        super().__init__()
        self._budget = budget
        self._interval = interval_seconds
        self._paused = False
        self._view: HostView = read_host(budget)  # an error must be raised before the screen opens

    def compose(self) -> ComposeResult:
        yield Static(id="summary")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for heading in HEADINGS:
            justify: Literal["left", "right"] = "right" if heading in RIGHT_ALIGNED else "left"
            table.add_column(text_cell(heading, justify=justify))
        self._show()
        self.set_interval(self._interval, self._update)

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._show()

    def _update(self) -> None:
        # The table is a file of a few kilobytes, so no thread is needed to read it.
        if self._paused:
            return
        try:
            self._view = read_host(self._budget)
        except CommandError as error:
            summary = self.query_one("#summary", Static)
            summary.set_class(True, "error")
            summary.update(text_cell(str(error)))
            return
        self._show()

    def _show(self) -> None:
        summary = self.query_one("#summary", Static)
        summary.set_class(False, "error")
        summary.set_class(self._view.relieving, "evicting")
        summary.update(text_cell(self._view.text + ("   paused" if self._paused else "")))
        table = self.query_one(DataTable)
        row = table.cursor_row
        table.clear()
        for line in self._view.lines():
            cells = zip(HEADINGS, line, strict=True)
            table.add_row(
                *(
                    text_cell(cell, justify="right" if heading in RIGHT_ALIGNED else "left")
                    for heading, cell in cells
                )
            )
        if table.row_count:
            table.move_cursor(row=min(row, table.row_count - 1))
