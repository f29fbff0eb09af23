"""The screen of ``warmset top``, a Textual application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from warmset._text import printable
from warmset.observe.client import GoneError
from warmset.observe.protocol import LiveViewError

from .class_table import (
    COLUMNS,
    SORTS,
    Column,
    advice_lines,
    process_line,
    registry_line,
    sort_rows,
)
from .live_connection import LiveConnection
from .output import text_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Resize

    from warmset.observe.client import Process

_MAX_CLASSES = 500
_STYLES = {
    "held": "bold yellow",
    "warm": "green",
    "weak": "cyan",
    "removed": "magenta",
    "building": "bold blue",
    "failed": "bold red",
    "cold": "dim",
}


class _ProcessChoice(ModalScreen["Process | None"]):
    """A list of processes to choose from."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "cancel", "Cancel")]

    def __init__(self, processes: Sequence[Process]) -> None:
        super().__init__()
        self._processes = processes

    def compose(self) -> ComposeResult:
        lines = [
            f"{process.pid:>8}  {process.program}: {', '.join(process.registries)}"
            for process in self._processes
        ]
        with Vertical(classes="box"):
            yield Label("Several processes serve a registry. Enter selects, q quits.")
            yield OptionList(*(Option(text_cell(line, no_wrap=True)) for line in lines))

    def on_option_list_option_selected(self, chosen: OptionList.OptionSelected) -> None:
        self.dismiss(self._processes[chosen.option_index])

    def action_cancel(self) -> None:
        self.dismiss(None)


class Response(Message):
    """The result of a request that a worker thread has sent to the process."""

    def __init__(self, *, changed: bool) -> None:
        super().__init__()
        self.changed = changed
        self.stats: dict[str, Any] | None = None
        self.notice = ""
        self.error = ""
        self.ended = False


class _Confirmation(ModalScreen[bool]):
    """A question to confirm with y or n."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "dismiss(True)", "Yes"),
        ("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Label(text_cell(self._text))
            yield Label("y  yes    n  no")


class TopApp(App[None]):
    """
    Shows one process until the user quits.

    Args:
        processes: At least one process; if there are several, the user chooses one.
        registry: The name of the only registry to show; None for all registries of the process,
            one at a time.
        interval_seconds: Seconds between two updates.
        sort: The heading of the column to sort by; None for most recently used first.
        matching: The text that a class name must contain.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: auto; max-height: 5; padding: 0 1; }
    #summary.error { color: $error; }
    #filter { display: none; height: 3; }
    DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    _ProcessChoice, _Confirmation { align: center middle; }
    .box { width: 76; height: auto; max-height: 80%; border: round $primary; padding: 1 2;
        background: $surface; }
    .box OptionList { height: auto; max-height: 12; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("space", "pause", "Pause", key_display="spc"),
        Binding("n", "next_registry", "Next"),
        Binding("e", "evict", "Evict"),
        Binding("c", "clear", "Clear"),
        Binding("p", "pin", "Pin"),
        Binding("u", "unpin", "Unpin"),
        Binding("escape", "end_filter", "End filter", show=False),
    ]

    def __init__(
        self,
        processes: Sequence[Process],
        registry: str | None = None,
        *,
        interval_seconds: float = 1.0,
        sort: str | None = None,
        matching: str = "",
    ) -> None:
        super().__init__()
        self._processes = processes
        self._only_registry = registry
        self._interval = interval_seconds
        self._sort = sort
        self._reversed = False
        self._matching = matching
        self._paused = False
        self._connection: LiveConnection | None = None
        self._requesting = False
        self._stats: dict[str, Any] | None = None
        self._shown_registry: str | None = registry
        self._notice = ""
        self._error = ""
        self._ended = False

    def compose(self) -> ComposeResult:
        yield Static(id="summary")
        yield Input(placeholder="part of a class name", id="filter")
        yield DataTable(cursor_type="row", cell_padding=0, id="classes")
        yield Footer()

    def on_mount(self) -> None:
        self.title = "warmset top"
        if len(self._processes) == 1:
            self._connect(self._processes[0])
        else:
            self.push_screen(_ProcessChoice(self._processes), self._connect)

    @property
    def _base(self) -> Screen[Any]:
        """The screen with the table, below any dialog."""
        return self.screen_stack[0]

    def _connect(self, process: Process | None) -> None:
        if process is None:
            self.exit()
            return
        self._connection = LiveConnection(process)
        self._base.query_one(DataTable).focus()
        self.set_interval(self._interval, self._tick)
        self._tick()

    def on_unmount(self) -> None:
        if self._connection is not None:
            self._connection.close()

    # -- requests --------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._paused:
            self._refresh()

    def _refresh(self) -> None:
        if not self._requesting and not self._ended and self._connection is not None:
            self._requesting = True
            self._request_in_thread(self._connection, None)

    @work(thread=True)
    def _request_in_thread(self, connection: LiveConnection, change: dict[str, Any] | None) -> None:
        """Request the statistics, after a change if there is one."""
        response = Response(changed=change is not None)
        try:
            if change is not None:
                result = connection.request(**change)
                response.notice = f"{change['command']}: done"
                if "removed" in result:
                    response.notice = f"{change['command']}: {result['removed']} removed"
        except LiveViewError as error:
            response.notice = str(error)
        try:
            response.stats = connection.request(
                "stats",
                registry=self._only_registry,
                filter=self._matching or None,
                limit=_MAX_CLASSES,
            )
        except GoneError:
            response.ended = True
        except LiveViewError as error:
            response.error = str(error)
        self.post_message(response)

    def on_response(self, response: Response) -> None:
        if not response.changed:
            self._requesting = False
        self._error = response.error
        self._notice = response.notice or self._notice
        if response.stats is not None:
            self._stats = response.stats
        if response.ended and self._connection is not None:
            self._ended = True
            pid = self._connection.process.pid
            self._error = (
                f"process {pid} has ended or no longer serves: this is its last known state"
            )
        self._show()
        self.refresh_bindings()

    def _change(self, command: str, class_name: str | None = None) -> None:
        registry = self._current()
        if self._connection is None or registry is None or self._ended:
            return
        change: dict[str, Any] = {"command": command, "registry": registry["name"]}
        if class_name is not None:
            change["class"] = class_name
        self._notice = ""
        self._request_in_thread(self._connection, change)

    # -- display ---------------------------------------------------------------------------------

    def _registries(self) -> list[dict[str, Any]]:
        return [] if self._stats is None else self._stats["registries"]

    def _current(self) -> dict[str, Any] | None:
        registries = self._registries()
        for registry in registries:
            if registry["name"] == self._shown_registry:
                return registry
        return registries[0] if registries else None

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        summary, table = self._base.query_one("#summary", Static), self._base.query_one(DataTable)
        summary.set_class(bool(self._error), "error")
        registry = self._current()
        if self._stats is None or registry is None:
            summary.update(text_cell(self._error or self._notice or "no registry is served"))
            return
        position = self._registries().index(registry) + 1
        number = f"[{position}/{len(self._registries())}] " if len(self._registries()) > 1 else ""
        lines = [process_line(self._stats), number + registry_line(registry)]
        lines += [*advice_lines(registry), self._state_line()]
        summary.update(
            Text("\n", no_wrap=True, overflow="ellipsis").join(text_cell(line) for line in lines)
        )
        selected = self._selected()
        rows = sort_rows(registry["classes"], self._sort, self._reversed)
        table.clear(columns=True)
        widths = self._widths(rows)
        for column, width in zip(COLUMNS, widths, strict=True):
            mark = " " if column.heading != self._sort else ("↑" if self._reversed else "↓")
            heading = _fit(column, column.heading, width, mark)
            table.add_column(heading, width=width + 1, key=column.key)
        for row in rows:
            dim = "dim" if self._ended else ""
            cells = [
                text_cell(
                    _fit(column, column.text(row), width),
                    style=_STYLES.get(row["state"], "") if column.key == "state" else dim,
                    no_wrap=True,
                )
                for column, width in zip(COLUMNS, widths, strict=True)
            ]
            table.add_row(*cells, key=row["class_name"])
        names = [row["class_name"] for row in rows]
        if selected in names:
            table.move_cursor(row=names.index(selected), animate=False)

    def _widths(self, rows: list[dict[str, Any]]) -> list[int]:
        """Fixed widths, except for the class and its removal, which share the rest of the line."""
        fixed = sum(column.width + 1 for column in COLUMNS)
        scroll_bar = 2 if len(rows) > self.size.height - 5 else 0
        spare = max(24, self.size.width - fixed - scroll_bar)
        longest = max((len(printable(row["class_name"])) for row in rows), default=0)
        name = max(8, min(longest, spare - 20))
        return [
            name if column.key == "class_name" else column.width or spare - name
            for column in COLUMNS
        ]

    def _state_line(self) -> str:
        if self._error or self._notice:
            return self._error or self._notice
        registry = self._current()
        parts = [f"sorted by {self._sort or 'last use'}{', reversed' if self._reversed else ''}"]
        if self._matching:
            parts.append(f"filter: {self._matching}")
        if registry is not None and registry["classes_left_out"]:
            parts.append(f"{registry['classes_left_out']} more classes: filter with /")
        if registry is not None and registry["classes_malformed"]:
            parts.append(f"{registry['classes_malformed']} malformed classes skipped")
        if self._paused:
            parts.append("paused")
        return "   ".join(parts)

    def _selected(self) -> str | None:
        table = self._base.query_one(DataTable)
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key
        return key.value

    # -- keys ------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Show only the keys that have an effect at the moment."""
        if action in ("evict", "clear", "pin", "unpin"):
            registry = self._current()
            return registry is not None and action in registry["offers"] and not self._ended
        if action == "next_registry":
            return len(self._registries()) > 1
        return True

    def action_sort(self) -> None:
        headings = [None, *SORTS]
        self._sort = headings[(headings.index(self._sort) + 1) % len(headings)]
        self._notice = ""
        self._show()

    def action_reverse(self) -> None:
        self._reversed = not self._reversed
        self._notice = ""
        self._show()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._notice = ""
        self._tick()
        self._show()

    def action_next_registry(self) -> None:
        registry, registries = self._current(), self._registries()
        if registry is not None:
            self._shown_registry = registries[(registries.index(registry) + 1) % len(registries)][
                "name"
            ]
            self._notice = ""
            self._show()
            self.refresh_bindings()

    def action_filter(self) -> None:
        line = self._base.query_one("#filter", Input)
        line.value = self._matching
        line.display = True
        line.focus()

    def action_end_filter(self) -> None:
        """Remove the filter."""
        if self._matching or self._base.query_one("#filter", Input).display:
            self._filter_by("")

    def on_input_submitted(self, line: Input.Submitted) -> None:
        self._filter_by(line.value.strip())

    def _filter_by(self, text: str) -> None:
        self._matching = text
        self._base.query_one("#filter", Input).display = False
        self._base.query_one(DataTable).focus()
        self._notice = ""
        self._refresh()
        self._show()

    def action_evict(self) -> None:
        class_name = self._selected()
        if class_name is not None:
            self._confirm(f"Evict the instance of {class_name}?", "evict", class_name)

    def action_clear(self) -> None:
        registry = self._current()
        if registry is not None:
            warm = registry["cached"] + registry["weakly_kept"]
            self._confirm(f"Clear {registry['name']}: all {warm} instances?", "clear", None)

    def action_pin(self) -> None:
        self._change("pin", self._selected())

    def action_unpin(self) -> None:
        self._change("unpin", self._selected())

    def _confirm(self, text: str, command: str, class_name: str | None) -> None:
        def confirmed(yes: bool | None) -> None:
            if yes:
                self._change(command, class_name)

        self.push_screen(_Confirmation(text), confirmed)


def _fit(column: Column, text: str, width: int, mark: str = " ") -> str:
    """Align a text in a cell, followed by a mark or a gap."""
    text = printable(text.replace("\n", " "))
    if len(text) > width:
        text = f"{text[: width - 1]}…"
    if column.is_number:
        return text.rjust(width) + mark
    return (text + mark).ljust(width + 1)
