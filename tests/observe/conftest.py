"""What the tests of observing share."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def observe(ws: Any) -> Any:
    """Gives a module of `warmset.observe`, of the twin that the test runs on."""

    def observe(name: str) -> Any:
        return importlib.import_module(f"warmset.observe.{name}")

    return observe


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)

    def of(self, area: str) -> list[logging.LogRecord]:
        """Those of one logger."""
        return [record for record in self.kept if record.name == f"warmset.{area}"]


@pytest.fixture
def records() -> Iterator[Records]:
    """What ``warmset`` logs from INFO on."""
    logger, handler = logging.getLogger("warmset"), Records()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def rss(observe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The resident set as the test sets it: ``rss.bytes``."""

    class Rss:
        bytes: int | None = 100_000_000

    made = Rss()
    for name in ("health", "prometheus", "otel"):
        monkeypatch.setattr(observe(name), "resident_bytes", lambda: made.bytes)
    return made
