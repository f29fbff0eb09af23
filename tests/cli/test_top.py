"""``warmset top`` in a pseudo-terminal, operated by its keys, on a running process."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pty")
pytest.importorskip("pyte")

from served import Served
from terminal import Terminal, warmset

if TYPE_CHECKING:
    from collections.abc import Iterator


FAST = ("--interval", "0.1")


@contextmanager
def process_with_instances(*, pure: bool = False) -> Iterator[Served]:
    """A process with a warm instance, a held one and a failed one."""
    with Served(pure=pure, allow_changes=True) as process:
        process.do("registry.get_instance('Alpha')")
        process.do("hold('Beta')")
        process.do("fail('Broken')")
        yield process


@pytest.fixture
def served(place: str) -> Iterator[Served]:
    """A process on the default core, for tests of the screen."""
    with process_with_instances() as process:
        yield process


@pytest.fixture
def either(twin: str, place: str) -> Iterator[Served]:
    """A process on each core, for tests of the data that it sends."""
    with process_with_instances(pure=twin == "pure") as process:
        yield process


def names(screen: str) -> list[str]:
    """The classes on the screen, from top to bottom."""
    known = ("Alpha", "Beta", "Gamma", "Delta", "Broken")
    return [line.split()[0] for line in screen.splitlines() if line.startswith(known)]


def row(screen: str, name: str) -> list[str]:
    """The words of a class's line; empty strings while it is being drawn."""
    lines = (line.split() for line in screen.splitlines() if line.startswith(name))
    return next(lines, [""] * 9)


def complete(screen: str) -> bool:
    """Whether all classes and the keys are there."""
    return len(names(screen)) == 5 and "q Quit" in screen


def test_the_screen(either: Served) -> None:
    """It shows the process, the registry, each class and the keys within 80 columns."""
    with Terminal(warmset("top", *FAST)) as terminal:
        # The keys of what changes the cache come with what the process allows.
        screen = terminal.until(lambda screen: complete(screen) and "e Evict" in screen)
        lines = screen.splitlines()
        assert f"process {either.pid} " in lines[0]
        assert "RSS" in lines[0]
        assert "main: 2 of at most 3 warm, 1 held" in lines[1]
        assert lines[3].split() == [
            *["class", "state", "age", "idle", "uses", "build", "bytes", "held", "removal"]
        ]
        assert names(screen)[:2] == ["Beta", "Alpha"]
        assert row(screen, "Alpha")[1] == "warm"
        assert "idle in" in screen
        beta = row(screen, "Beta")
        assert (beta[1], beta[3], beta[7]) == ("held", "-", "1")
        assert "not while held" in screen
        assert row(screen, "Broken")[1] == "failed"
        assert "retry in" in screen
        assert row(screen, "Gamma")[1] == "cold"
        for key in ("q Quit", "s Sort", "/ Filter", "e Evict", "c Clear", "p Pin"):
            assert key in lines[-1]
        assert all(len(line) <= 80 for line in lines)
        terminal.send("q")
        assert terminal.end() == 0


def test_it_follows_the_process(either: Served) -> None:
    """Builds and releases appear on the screen."""
    with Terminal(warmset("top", "main", *FAST)) as terminal:
        terminal.until(complete)
        either.do("registry.get_instance('Gamma')")
        terminal.until(lambda screen: row(screen, "Gamma")[1] == "warm")
        either.do("held.pop().__exit__()")
        terminal.until(lambda screen: row(screen, "Beta")[1] == "warm")
        terminal.send(" ")
        terminal.until(lambda screen: "paused" in screen)
        terminal.send("\x03")
        assert terminal.end() == 0


def test_sorting_and_filtering(served: Served) -> None:
    """By each column in both directions; Escape removes the filter."""
    with Terminal(warmset("top", str(served.pid), *FAST)) as terminal:
        terminal.until(complete)
        terminal.send("s")
        terminal.until(
            lambda screen: names(screen) == ["Alpha", "Beta", "Broken", "Delta", "Gamma"]
        )
        terminal.send("r")
        terminal.until(
            lambda screen: names(screen) == ["Gamma", "Delta", "Broken", "Beta", "Alpha"]
        )
        assert "sorted by class, reversed" in terminal.text()
        terminal.send("/")
        terminal.until(lambda screen: "part of a class name" in screen)
        terminal.send("TA\r")
        screen = terminal.until(lambda screen: names(screen) == ["Delta", "Beta"])
        assert "filter: TA" in screen
        terminal.send("\x1b")
        terminal.until(lambda screen: len(names(screen)) == 5)
        terminal.send("q")
        assert terminal.end() == 0


def test_evict_and_clear(either: Served) -> None:
    """Both need a confirmation."""
    with Terminal(warmset("top", "--sort", "class", *FAST)) as terminal:
        terminal.until(complete)
        terminal.send("e")
        terminal.until(lambda screen: "Evict the instance of Alpha?" in screen)
        terminal.send("n")
        terminal.until(lambda screen: "Evict the" not in screen)
        terminal.until(lambda screen: row(screen, "Alpha")[1] == "warm")
        terminal.send("e")
        terminal.until(lambda screen: "Evict the instance of Alpha?" in screen)
        terminal.send("y")
        terminal.until(lambda screen: row(screen, "Alpha")[1] == "cold")
        assert "evict: 1 removed" in terminal.text()
        terminal.send("c")
        terminal.until(lambda screen: "Clear main: all 1 instances?" in screen)
        terminal.send("y")
        terminal.until(lambda screen: row(screen, "Beta")[1] == "removed")
        either.do("assert registry.stats().cached == 0")
        terminal.send("q")
        assert terminal.end() == 0


def test_changes_that_are_not_allowed_have_no_key(place: str) -> None:
    """Pressing the key has no effect."""
    with Served() as served:
        served.do("registry.get_instance('Alpha')")
        with Terminal(warmset("top", *FAST)) as terminal:
            screen = terminal.until(complete)
            assert "Evict" not in screen
            assert "Clear" not in screen
            terminal.send("es")
            terminal.until(lambda screen: "sorted by class" in screen)
            assert "Evict the" not in terminal.text()
            terminal.send("q")
            assert terminal.end() == 0


def test_the_process_ends(served: Served) -> None:
    """The screen reports it, keeps the last state, and can be quit."""
    with Terminal(warmset("top", *FAST)) as terminal:
        terminal.until(complete)
        served.kill()
        screen = terminal.until(lambda screen: "has ended" in screen)
        assert f"process {served.pid} has ended or no longer serves" in screen
        assert len(names(screen)) == 5
        terminal.send("q")
        assert terminal.end() == 0


def test_the_process_hangs(served: Served) -> None:
    """The keys keep working, and updates resume when the process continues."""
    with Terminal(warmset("top", *FAST)) as terminal:
        terminal.until(complete)
        os.kill(served.pid, signal.SIGSTOP)
        try:
            terminal.send("s")
            terminal.until(lambda screen: "sorted by class" in screen)
            terminal.until(lambda screen: "does not answer" in screen)
        finally:
            os.kill(served.pid, signal.SIGCONT)
        terminal.until(lambda screen: "does not answer" not in screen)
        os.kill(served.pid, signal.SIGSTOP)
        try:
            terminal.send("q")
            assert terminal.end() == 0
        finally:
            os.kill(served.pid, signal.SIGCONT)


def test_several_processes_are_listed(served: Served) -> None:
    """So are processes that serve the same name; quitting the list is exit status 0."""
    with Served() as other:
        with Terminal(warmset("top", "main", *FAST)) as terminal:
            both = {str(served.pid), str(other.pid)}
            terminal.until(lambda screen: both <= set(screen.split()))
            assert "Several processes serve a registry" in terminal.text()
            first = min(served.pid, other.pid)
            terminal.send("\r")
            terminal.until(lambda screen: f"process {first} " in screen and complete(screen))
            terminal.send("q")
            assert terminal.end() == 0
        with Terminal(warmset("top", *FAST)) as terminal:
            terminal.until(lambda screen: "Several processes serve a registry" in screen)
            terminal.send("q")
            assert terminal.end() == 0


def test_the_next_registry(served: Served) -> None:
    """The key is available if the process serves several registries."""
    served.do("second = warmset.MethodRegistry({'Only': 'samples.Alpha'})")
    served.do("observe.serve(second, name='second')")
    with Terminal(warmset("top", *FAST)) as terminal:
        screen = terminal.until(complete)
        assert "[1/2] main" in screen
        assert "n Next" in screen
        terminal.send("n")
        # The heading is drawn before the rows.
        terminal.until(
            lambda screen: "[2/2] second" in screen and "Only" in screen and names(screen) == []
        )
        terminal.until(lambda screen: "Evict" not in screen)
        terminal.send("q")
        assert terminal.end() == 0


@pytest.mark.parametrize(("columns", "lines"), [(120, 40), (40, 10), (20, 5)])
def test_other_sizes(served: Served, columns: int, lines: int) -> None:
    """Extra width is used; on a small screen the command still runs."""
    with Terminal(warmset("top", *FAST), columns=columns, lines=lines) as terminal:
        screen = terminal.until(lambda screen: f"process {served.pid}"[:columns] in screen)
        if columns > 80:
            assert "ValueError: no model file" in terminal.until(complete)
        assert all(len(line) <= columns for line in screen.splitlines())
        terminal.resize(80, 24)
        terminal.until(complete)
        terminal.send("q")
        assert terminal.end() == 0


def test_without_a_process(place: str) -> None:
    """Exit status 4; the message explains how a process serves."""
    with Terminal(warmset("top"), columns=200) as terminal:
        assert terminal.end() == 4
        assert "no running process serves a registry" in terminal.text()
        assert "observe.serve(registry)" in terminal.text()


def test_without_a_terminal(place: str) -> None:
    """The command fails and names the alternative."""
    result = subprocess.run(
        warmset("top"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert result.stderr == "warmset: top needs a terminal; `warmset stats` prints the same once\n"
