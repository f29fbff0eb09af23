"""``warmset stats``, and the parts that it shares with ``top``: table, order, process selection."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from invoking import invoke_apart

pytest.importorskip("pty")

from served import Served
from terminal import warmset

from warmset.cli import app, class_table
from warmset.cli.formatting import format_bytes
from warmset.observe.rows import span

if TYPE_CHECKING:
    from collections.abc import Iterator


HEADINGS = "class state age idle uses build bytes held removal"


@pytest.fixture
def served(twin: str, place: str) -> Iterator[Served]:
    """A process with a warm and a held instance, on each core."""
    with Served(pure=twin == "pure") as process:
        process.do("registry.get_instance('Alpha')")
        process.do("hold('Beta')")
        yield process


def test_json_for_scripts(served: Served, twin: str) -> None:
    """By PID, by name, or all processes; stdout contains only JSON."""
    for words in ([], [str(served.pid)], ["main"]):
        status, output, errors = invoke_apart("stats", "--json", *words)
        assert (status, errors) == (0, "")
        (process,) = json.loads(output)["processes"]
        assert (process["pid"], process["implementation"]) == (served.pid, twin)
        (registry,) = process["registries"]
        assert (registry["name"], registry["cached"], registry["held"]) == ("main", 2, 1)
        assert registry["lookups"] == registry["hits"] + registry["misses"] == 2
        rows = {row["class_name"]: row for row in registry["classes"]}
        assert rows["Alpha"]["state"] == "warm"
        assert 0.0 < rows["Alpha"]["expires_in_seconds"] <= 300.0
        assert rows["Alpha"]["bytes"] is None
        assert (rows["Beta"]["state"], rows["Beta"]["holders"]) == ("held", 1)


def test_the_table(served: Served) -> None:
    """Without a terminal there are no escape sequences, and COLUMNS is ignored."""
    result = subprocess.run(
        warmset("stats"), capture_output=True, text=True, timeout=60,
        env={**os.environ, "COLUMNS": "20"},
    )  # fmt: skip
    assert result.returncode == 0
    assert "\x1b" not in result.stdout
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[0].startswith(f"process {served.pid} ")
    assert lines[1].startswith("main: 2 of at most 3 warm, 1 held   hit rate 0.0%   2 builds")
    assert lines[2].split() == [
        *["class", "state", "age", "idle", "uses", "build", "bytes", "held", "removal"]
    ]
    assert lines[3].split()[:2] == ["Beta", "held"]
    assert lines[3].endswith("not while held")
    assert lines[4].split()[:2] == ["Alpha", "warm"]
    assert len(lines) == 3 + 5


def test_sort_and_filter(served: Served) -> None:
    """The filter ignores case; an unknown column is a usage error."""
    _, output, _ = invoke_apart("stats", "--json", "--sort", "class", "--filter", "A")
    (process,) = json.loads(output)["processes"]
    names = [row["class_name"] for row in process["registries"][0]["classes"]]
    assert names == ["Alpha", "Beta", "Delta", "Gamma"]
    status, _, errors = invoke_apart("stats", "--sort", "colour")
    assert status == 2
    assert "colour" in errors


def test_several_processes(served: Served) -> None:
    """All of them are shown unless one is selected."""
    with Served(name="other") as other:
        _, output, _ = invoke_apart("stats", "--json")
        pids = [process["pid"] for process in json.loads(output)["processes"]]
        assert pids == sorted([served.pid, other.pid])
        _, output, _ = invoke_apart("stats", "other", "--json")
        assert [process["pid"] for process in json.loads(output)["processes"]] == [other.pid]
        _, output, _ = invoke_apart("stats")
        assert output.count("process ") == 2


def test_no_process_serves(place: str) -> None:
    """Exit status 4; the message explains how a process serves."""
    status, output, errors = invoke_apart("stats", "--json")
    assert (status, output) == (4, "")
    assert errors.startswith("warmset: no running process serves a registry; ")
    assert "observe_socket = true" in errors


def test_the_requested_process_does_not_serve(served: Served) -> None:
    """Exit status 4; the message has the nearest name and lists what is served."""
    status, _, errors = invoke_apart("stats", "mian")
    assert status == 4
    assert errors.startswith("warmset: no registry mian is served (nearest: 'main'); served: ")
    assert f"{served.pid} -c: main" in errors
    status, _, errors = invoke_apart("stats", "1")
    assert status == 4
    assert errors.startswith("warmset: no process 1 is served; served: ")


def test_a_directory_that_is_not_private_is_reported(place: str) -> None:
    """No socket in it is used."""
    os.mkdir(place, 0o755)
    status, _, errors = invoke_apart("stats")
    assert status == 4
    assert "skipped: " in errors
    assert "mode 0755; expected 0700" in errors


def test_the_reader_closes_the_pipe(served: Served) -> None:
    """As in `warmset stats | head -1`: exit status 141 without a message."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        warmset("stats"), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_completion_of_live_names(served: Served) -> None:
    """PIDs and names, with a description."""
    completer = ShellComplete(app.cli, {}, "warmset", "_WARMSET_COMPLETE")
    for command in ("top", "stats"):
        found = {item.value: item.help for item in completer.get_completions([command], "")}
        assert found == {str(served.pid): "-c: main", "main": f"process {served.pid}"}
        assert [item.value for item in completer.get_completions([command], "ma")] == ["main"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"), (0.0994, "99ms"), (0.0996, "0.1s"), (9.94, "9.9s"), (9.96, "10s"),
        (99.4, "99s"), (99.6, "2m"), (5_960, "99m"), (6_000, "2h"), (170_000, "47h"),
        (172_800, "2d"), (86_400 * 999, "999d"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert len(text) <= 4


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"), (0, "0"), (999, "999"), (1_000, "1.0k"), (99_940, "99.9k"), (100_000, "100k"),
        (12_300_000, "12.3M"), (2_000_000_000, "2.0G"),
    ],
)  # fmt: skip
def test_sizes(number: int | None, text: str) -> None:
    assert format_bytes(number) == text
    assert len(text) <= 5


def test_sort_orders() -> None:
    """Largest first, names alphabetically, unknown values always last."""

    def row(name: str, state: str, uses: int | None, removal: float | None) -> dict[str, Any]:
        return {"class_name": name, "state": state, "uses": uses, "expires_in_seconds": removal}

    rows = [row("b", "cold", None, None), row("C", "warm", 1, 5.0), row("a", "held", 7, 2.0)]

    def names(sort: str | None, reverse: bool = False) -> str:
        return "".join(each["class_name"] for each in class_table.sort_rows(rows, sort, reverse))

    assert names(None) == "bCa"
    assert names(None, True) == "aCb"
    assert names("class") == "abC"
    assert names("state") == "aCb"
    assert names("uses") == "aCb"
    assert names("uses", True) == "Cab"
    assert names("removal") == "aCb"


def test_help_names_every_column() -> None:
    """As a choice of --sort."""
    text = CliRunner().invoke(app.cli, ["stats", "--help"]).output
    assert "[class|state|age|idle|uses|build|bytes|held|removal]" in text.replace("\n", "").replace(
        " ", ""
    )
