"""A place for sockets, a server that is stopped after the test, and raw connections to it."""

from __future__ import annotations

import importlib
import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so, in the other thread."""
    pause = threading.Event()
    for _ in range(30_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to be")


@pytest.fixture
def serving(ws: Any, place: str) -> Iterator[Any]:
    """The module of the server, of this copy of the package."""
    module = importlib.import_module("warmset.observe.serving")
    yield module
    module.server.stop()
    assert module.server._thread is None
    assert not os.path.isdir(place) or os.listdir(place) == []


class Raw:
    """A connection without any of our own client's manners."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self._lines = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> dict[str, Any]:
        """The next answer."""
        line = self._lines.readline()
        assert line.endswith(b"\n"), "the connection was closed"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def ask(self, command: object, **arguments: object) -> dict[str, Any]:
        """Ask and give the answer."""
        self.send(json.dumps({"command": command, **arguments}).encode() + b"\n")
        return self.line()

    def is_closed(self) -> bool:
        """Whether the other end hangs up; it waits for that."""
        try:
            return self._lines.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@pytest.fixture
def connect(serving: Any) -> Iterator[Callable[..., Raw]]:
    """Make raw connections to the server."""
    made: list[Raw] = []

    def connect(path: Path | str | None = None) -> Raw:
        made.append(Raw(str(path or serving.server.path)))
        return made[-1]

    yield connect
    for raw in made:
        raw.close()


@pytest.fixture
def asking(ws: Any, place: str) -> Any:
    """The module of the client, of this copy of the package."""
    return importlib.import_module("warmset.observe.asking")
