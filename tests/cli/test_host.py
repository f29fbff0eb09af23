"""`warmset top --host` and `warmset stats --host`: the processes that share a budget."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from invoking import invoke

from warmset.share.host_table import HostTable, Member, ProcessRow, process_start

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1_000_000


@pytest.fixture
def put(place: str) -> Callable[..., HostTable]:
    """A function that writes the rows of two running processes: this one and its parent."""

    def put(name: str = "default", *, evicting: bool = False, late: bool = False) -> HostTable:
        table = HostTable(name)

        def change(rows: Any, relieving: bool) -> bool:
            for pid, least in ((os.getpid(), "Big"), (os.getppid(), "Small")):
                start = process_start(pid)
                assert start is not None
                member = Member(
                    "m", 3, 40 * MB, least, 30 * MB, 1.0 if least == "Big" else 9.0, 2.0
                )
                other = Member("n", 0, 0, None, 0, 0.0, 0.0)
                members = {"m": member} if least == "Small" else {"m": member, "n": other}
                updated = table.now() - (99.0 if late and least == "Small" else 0.0)
                rows[pid, start] = ProcessRow(
                    pid, start, f"{least}.py", 50 * MB, 90 * MB, 80 * MB, updated, 1.0, members
                )
            return evicting

        table.change(change)
        return table

    return put


def test_as_a_table(put: Any) -> None:
    """The next registry to evict is marked; the values of a process are shown once."""
    put(evicting=True)
    status, output = invoke("stats", "--host")
    assert status == 0
    lines = [line.split() for line in output.splitlines()]
    assert "2 processes use 100.0 MB of at most 90.0 MB; evicting to free memory" in output
    here, parent = (
        next(line for line in lines if line[0] == str(pid)) for pid in (os.getpid(), os.getppid())
    )
    assert here[1:7] == ["Big.py", "50.0M", "3", "40.0M", "Big", "30.0M"]
    assert here[-1] == "next"
    assert parent[-1] != "next"
    assert ["0", "0", "-", "-"] in [line[:4] for line in lines]


def test_as_json(put: Any) -> None:
    put(late=True)
    status, output = invoke("stats", "--host", "--json")
    assert status == 0
    data = json.loads(output)
    assert (data["budget"], data["bytes"], data["evicting"]) == ("default", 100 * MB, False)
    by_pid = {each["pid"]: each for each in data["processes"]}
    assert by_pid[os.getppid()]["late"]
    assert by_pid[os.getpid()]["registries"][0]["next"]
    assert by_pid[os.getpid()]["max_bytes"] == 90 * MB


def test_no_budget(place: str, put: Any) -> None:
    status, output = invoke("stats", "--host=a-test-of-ours")
    assert status == 4
    assert "no budget 'a-test-of-ours' is in use" in output
    put("a-test-of-ours")
    status, output = invoke("stats", "--host=a-tset-of-ours")
    assert status == 4
    assert "(nearest: 'a-test-of-ours')" in output
    status, output = invoke("stats", "--host=default", "shop")
    assert status == 2
    assert "cannot be combined with 'shop'" in output
    status, output = invoke("top", "--host")
    assert status == 2
    assert "top needs a terminal" in output


def test_the_screen(put: Any) -> None:
    from textual.widgets import DataTable, Static

    from warmset.cli.host_screen import HostApp

    table = put("a-test-of-ours", evicting=True)

    async def check() -> None:
        screen = HostApp("a-test-of-ours", interval_seconds=3600.0)
        async with screen.run_test(size=(120, 20)) as pilot:
            shown = screen.query_one(DataTable)
            summary = screen.query_one("#summary", Static)
            assert shown.row_count == 3
            assert [str(cell) for cell in shown.get_row_at(0)][-1] in ("next", "")
            assert "evicting to free memory" in str(summary.render())
            put("a-test-of-ours", evicting=False)
            screen._update()
            assert "within the budget" in str(summary.render())
            await pilot.press("space")
            assert "paused" in str(summary.render())
            os.unlink(table.path)
            screen._update()
            assert "paused" in str(summary.render())
            await pilot.press("space")
            screen._update()
            assert "no budget 'a-test-of-ours'" in str(summary.render())
            put("a-test-of-ours")
            screen._update()
            assert "within the budget" in str(summary.render())
            await pilot.press("q")

    asyncio.run(check())
