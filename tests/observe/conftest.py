"""Fixtures for the tests of `observe`: modules, raw connections, log records, process memory."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def serving(ws: Any, place: str) -> Iterator[Any]:
    """The server module of this copy of the package."""
    module = importlib.import_module("warmset.observe.serving")
    yield module
    module.server.stop()
    assert module.server._thread is None
    assert not os.path.isdir(place) or os.listdir(place) == []


class Raw:
    """A connection that sends and receives raw bytes, without our client."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self._lines = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> dict[str, Any]:
        """Read the next answer."""
        line = self._lines.readline()
        assert line.endswith(b"\n"), "the connection was closed"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def ask(self, command: object, **arguments: object) -> dict[str, Any]:
        """Send a command and return the answer."""
        self.send(json.dumps({"command": command, **arguments}).encode() + b"\n")
        return self.line()

    def is_closed(self) -> bool:
        """Wait for the other end to close the connection; whether it did."""
        try:
            return self._lines.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@pytest.fixture
def connect(serving: Any) -> Iterator[Callable[..., Raw]]:
    """Makes raw connections to the server."""
    made: list[Raw] = []

    def connect(path: Path | str | None = None) -> Raw:
        made.append(Raw(str(path or serving.server.path)))
        return made[-1]

    yield connect
    for raw in made:
        raw.close()


@pytest.fixture
def client_module(ws: Any, place: str) -> Any:
    """The client module of this copy of the package."""
    return importlib.import_module("warmset.observe.client")


@pytest.fixture
def observe(ws: Any) -> Any:
    """Imports a module of `warmset.observe` for the core that the test runs on."""

    def observe(name: str) -> Any:
        return importlib.import_module(f"warmset.observe.{name}")

    return observe


class Records(logging.Handler):
    """A handler that collects records."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)

    def of(self, area: str) -> list[logging.LogRecord]:
        """The records of one logger."""
        return [record for record in self.kept if record.name == f"warmset.{area}"]


@pytest.fixture
def records() -> Iterator[Records]:
    """The records that ``warmset`` logs at INFO and above."""
    logger, handler = logging.getLogger("warmset"), Records()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def rss(observe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A resident set size that the test sets: ``rss.bytes``."""

    class Rss:
        bytes: int | None = 100_000_000

    made = Rss()
    for name in ("health", "prometheus", "otel"):
        monkeypatch.setattr(observe(name), "resident_bytes", lambda: made.bytes)
    return made
