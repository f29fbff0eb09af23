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


def serve_known_traffic(registry: Any, timer: Any, samples: Any) -> None:
    """
    Over four classes and two places: 4 hits, 5 misses, 4 builds of 2 s, 1 failed, 2 evictions.

    Beta is held at the end; Delta fails to be built; Alpha was left open.
    """

    def slow(instance: Any) -> None:
        timer.advance(2.0)

    def fail(instance: Any) -> None:
        raise OSError("no model file")

    for name in ("Alpha", "Beta", "Gamma"):
        samples.script[name] = slow
    samples.script["Delta"] = fail
    alpha = registry.get_instance("Alpha")
    for _ in range(3):
        registry.get_instance("Alpha")
    registry.use("Beta").__enter__()  # the lease ends with the test
    registry.get_instance("Gamma")  # evicts Alpha, which its caller still has
    registry.get_instance("Gamma")
    try:
        registry.get_instance("Delta")
    except RuntimeError:
        pass
    registry.discard("Gamma")
    registry.use("Alpha").__enter__().echo("x")
    assert alpha is not None
    registry.kept = alpha
