"""The screen of ``warmset top``, made with Textual."""

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

from warmset.observe.asking import GoneError
from warmset.observe.protocol import LiveViewError

from .live import COLUMNS, SORTS, Column, in_order, process_line, registry_line
from .looking import Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Resize

    from warmset.observe.asking import Process

_CLASSES_SHOWN = 500
_STYLES = {
    "held": "bold yellow",
    "warm": "green",
    "weak": "cyan",
    "leaving": "magenta",
    "building": "bold blue",
    "failed": "bold red",
    "cold": "dim",
}


class _Choice(ModalScreen["Process | None"]):
    """Which process?"""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "leave", "Leave")]

    def __init__(self, processes: Sequence[Process]) -> None:
        super().__init__()
        self._processes = processes

    def compose(self) -> ComposeResult:
        lines = [
            f"{process.pid:>8}  {process.program}: {', '.join(process.registries)}"
            for process in self._processes
        ]
        with Vertical(classes="box"):
            yield Label("Several processes serve. Enter chooses, q leaves.")
            yield OptionList(*(Option(Text(line, no_wrap=True)) for line in lines))

    def on_option_list_option_selected(self, chosen: OptionList.OptionSelected) -> None:
        self.dismiss(self._processes[chosen.option_index])

    def action_leave(self) -> None:
        self.dismiss(None)


class Answered(Message):
    """What a thread has come back with."""

    def __init__(self, *, changed: bool) -> None:
        super().__init__()
        self.changed = changed
        self.figures: dict[str, Any] | None = None
        self.said = ""
        self.fault = ""
        self.gone = False


class _Question(ModalScreen[bool]):
    """Yes or no?"""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "dismiss(True)", "Yes"),
        ("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Label(Text(self._text))
            yield Label("y  yes    n  no")


class Top(App[None]):
    """
    Shows one process until it is left.

    Args:
        processes: At least one; where there are more, the user chooses.
        registry: The name of the only registry to show; None for all of the process, one at a
            time.
        interval_seconds: How often to look.
        sort: The heading of the column to sort by; None: the last used first.
        matching: The filter.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #figures { height: 3; padding: 0 1; }
    #figures.gone { color: $error; }
    #filter { display: none; height: 3; }
    DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    _Choice, _Question { align: center middle; }
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
        self._only = registry
        self._interval = interval_seconds
        self._sort = sort
        self._reversed = False
        self._matching = matching
        self._paused = False
        self._look: Look | None = None
        self._asking = False
        self._answer: dict[str, Any] | None = None
        self._shown: str | None = registry
        self._said = ""
        self._fault = ""
        self._over = False

    def compose(self) -> ComposeResult:
        yield Static(id="figures")
        yield Input(placeholder="part of a class name", id="filter")
        yield DataTable(cursor_type="row", cell_padding=0, id="classes")
        yield Footer()

    def on_mount(self) -> None:
        self.title = "warmset top"
        if len(self._processes) == 1:
            self._begin(self._processes[0])
        else:
            self.push_screen(_Choice(self._processes), self._begin)

    @property
    def _base(self) -> Screen[Any]:
        """The screen with the table, whatever question lies over it."""
        return self.screen_stack[0]

    def _begin(self, process: Process | None) -> None:
        if process is None:
            self.exit()
            return
        self._look = Look(process)
        self._base.query_one(DataTable).focus()
        self.set_interval(self._interval, self._tick)
        self._tick()

    def on_unmount(self) -> None:
        if self._look is not None:
            self._look.close()

    # -- asking ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._paused:
            self._refresh()

    def _refresh(self) -> None:
        if not self._asking and not self._over and self._look is not None:
            self._asking = True
            self._ask_in_thread(self._look, None)

    @work(thread=True)
    def _ask_in_thread(self, look: Look, change: dict[str, Any] | None) -> None:
        """Ask for figures, after a change where one is wanted."""
        answered = Answered(changed=change is not None)
        try:
            if change is not None:
                done = look.ask(**change)
                answered.said = f"{change['command']}: done"
                if "removed" in done:
                    answered.said = f"{change['command']}: {done['removed']} removed"
        except LiveViewError as error:
            answered.said = str(error)
        try:
            answered.figures = look.ask(
                "stats",
                registry=self._only,
                filter=self._matching or None,
                limit=_CLASSES_SHOWN,
            )
        except GoneError:
            answered.gone = True
        except LiveViewError as error:
            answered.fault = str(error)
        self.post_message(answered)

    def on_answered(self, answered: Answered) -> None:
        if not answered.changed:
            self._asking = False
        self._fault = answered.fault
        self._said = answered.said or self._said
        if answered.figures is not None:
            self._answer = answered.figures
        if answered.gone and self._look is not None:
            self._over = True
            pid = self._look.process.pid
            self._fault = f"process {pid} has ended, or serves no more: this is what it showed last"
        self._show()
        self.refresh_bindings()

    def _change(self, command: str, class_name: str | None = None) -> None:
        registry = self._current()
        if self._look is None or registry is None or self._over:
            return
        change: dict[str, Any] = {"command": command, "registry": registry["name"]}
        if class_name is not None:
            change["class"] = class_name
        self._said = ""
        self._ask_in_thread(self._look, change)

    # -- showing ---------------------------------------------------------------------------------

    def _registries(self) -> list[dict[str, Any]]:
        return [] if self._answer is None else self._answer["registries"]

    def _current(self) -> dict[str, Any] | None:
        found = self._registries()
        for registry in found:
            if registry["name"] == self._shown:
                return registry
        return found[0] if found else None

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        figures, table = self._base.query_one("#figures", Static), self._base.query_one(DataTable)
        figures.set_class(bool(self._fault), "gone")
        registry = self._current()
        if self._answer is None or registry is None:
            figures.update(Text(self._fault or self._said or "nothing is served"))
            return
        at = self._registries().index(registry) + 1
        number = f"[{at}/{len(self._registries())}] " if len(self._registries()) > 1 else ""
        lines = [process_line(self._answer), number + registry_line(registry), self._state_line()]
        figures.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"))
        selected = self._selected()
        rows = in_order(registry["classes"], self._sort, self._reversed)
        table.clear(columns=True)
        widths = self._widths(rows)
        for column, width in zip(COLUMNS, widths, strict=True):
            mark = " " if column.heading != self._sort else ("↑" if self._reversed else "↓")
            heading = _fitted(column, column.heading, width, mark)
            table.add_column(heading, width=width + 1, key=column.key)
        for row in rows:
            dim = "dim" if self._over else ""
            cells = [
                Text(
                    _fitted(column, column.text(row), width),
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
        """Fixed but for the class and why it leaves, which share what is left of the screen."""
        fixed = sum(column.width + 1 for column in COLUMNS)
        bar = 2 if len(rows) > self.size.height - 5 else 0
        spare = max(24, self.size.width - fixed - bar)
        longest = max((len(row["class_name"]) for row in rows), default=0)
        name = max(8, min(longest, spare - 20))
        return [
            name if column.key == "class_name" else column.width or spare - name
            for column in COLUMNS
        ]

    def _state_line(self) -> str:
        if self._fault or self._said:
            return self._fault or self._said
        registry = self._current()
        parts = [f"sorted by {self._sort or 'last use'}{', reversed' if self._reversed else ''}"]
        if self._matching:
            parts.append(f"filter: {self._matching}")
        if registry is not None and registry["classes_left_out"]:
            parts.append(f"{registry['classes_left_out']} more classes: filter with /")
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
        """Tell which keys are there: those that would do something."""
        if action in ("evict", "clear", "pin", "unpin"):
            registry = self._current()
            return registry is not None and action in registry["offers"] and not self._over
        if action == "next_registry":
            return len(self._registries()) > 1
        return True

    def action_sort(self) -> None:
        headings = [None, *SORTS]
        self._sort = headings[(headings.index(self._sort) + 1) % len(headings)]
        self._said = ""
        self._show()

    def action_reverse(self) -> None:
        self._reversed = not self._reversed
        self._said = ""
        self._show()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._said = ""
        self._tick()
        self._show()

    def action_next_registry(self) -> None:
        registry, found = self._current(), self._registries()
        if registry is not None:
            self._shown = found[(found.index(registry) + 1) % len(found)]["name"]
            self._said = ""
            self._show()
            self.refresh_bindings()

    def action_filter(self) -> None:
        line = self._base.query_one("#filter", Input)
        line.value = self._matching
        line.display = True
        line.focus()

    def action_end_filter(self) -> None:
        """Escape takes the filter away."""
        if self._matching or self._base.query_one("#filter", Input).display:
            self._filter_by("")

    def on_input_submitted(self, line: Input.Submitted) -> None:
        self._filter_by(line.value.strip())

    def _filter_by(self, text: str) -> None:
        self._matching = text
        self._base.query_one("#filter", Input).display = False
        self._base.query_one(DataTable).focus()
        self._said = ""
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
        def answered(yes: bool | None) -> None:
            if yes:
                self._change(command, class_name)

        self.push_screen(_Question(text), answered)


def _fitted(column: Column, text: str, width: int, mark: str = " ") -> str:
    """A text at its side of a cell, with a mark, or a gap, behind it."""
    text = text.replace("\n", " ")
    if len(text) > width:
        text = f"{text[: width - 1]}…"
    if column.is_number:
        return text.rjust(width) + mark
    return (text + mark).ljust(width + 1)
