"""The screen of ``warmset top --host``, made with Textual."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from .host import HEADINGS, RIGHT, look
from .refused import Refused

if TYPE_CHECKING:
    from .host import HostView


class HostTop(App[None]):
    """
    Shows the processes of a budget until it is left.

    Args:
        budget: Its name.
        interval_seconds: How often to look.

    Raises:
        Refused: There is no budget of this name.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #figures { height: 2; padding: 0 1; }
    #figures.giving { color: $warning; }
    #figures.fault { color: $error; }
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
        self._view: HostView = look(budget)  # fails before there is a screen

    def compose(self) -> ComposeResult:
        yield Static(id="figures")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for heading in HEADINGS:
            table.add_column(Text(heading, justify="right" if heading in RIGHT else "left"))
        self._show()
        self.set_interval(self._interval, self._look)

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._show()

    def _look(self) -> None:
        # A file of some kilobytes: no thread is needed for that.
        if self._paused:
            return
        try:
            self._view = look(self._budget)
        except Refused as error:
            figures = self.query_one("#figures", Static)
            figures.set_class(True, "fault")
            figures.update(Text(str(error)))
            return
        self._show()

    def _show(self) -> None:
        figures = self.query_one("#figures", Static)
        figures.set_class(False, "fault")
        figures.set_class(self._view.relieving, "giving")
        figures.update(Text(self._view.text + ("   paused" if self._paused else "")))
        table = self.query_one(DataTable)
        row = table.cursor_row
        table.clear()
        for line in self._view.lines():
            cells = zip(HEADINGS, line, strict=True)
            table.add_row(
                *(Text(cell, justify="right" if h in RIGHT else "left") for h, cell in cells)
            )
        if table.row_count:
            table.move_cursor(row=min(row, table.row_count - 1))
