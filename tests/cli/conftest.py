"""Fixtures: a module of small classes, and functions that write pipeline files."""

from __future__ import annotations

import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FAKES = '''
import threading

log = []


class Counter:
    """Counts words; stores its constructor arguments."""

    def __init__(self, factor=1, tags=()):
        self.factor = factor
        self.tags = tags

    def count(self, text):
        log.append(("count", text))
        return self.factor * len(text.split())

    def build_tags(self):
        self.tags.append("used")
        return list(self.tags)


kept = []


class Sink:
    def take(self, *values, **named):
        log.append(("take", named))
        return named

    def take_all(self, names, texts):
        log.append(("take_all", names, list(texts)))
        texts.clear()
        return len(names)

    def fail_on_b(self, name):
        if name.endswith("b.txt"):
            raise ValueError("no b")
        return name

    def fail(self, name=None):
        raise ValueError("never")

    def keep(self):
        kept.append(self)

    def leave(self):
        raise SystemExit(7)

    def interrupt(self, name):
        log.append(("interrupt", name))
        if len(log) == 4:
            raise KeyboardInterrupt

    def leak(self):
        # Not zeros, which would take no memory until they are written to.
        log.append(b"x" * 30_000_000)

    def thread(self, text):
        log.append(("thread", threading.current_thread().name))

    def ordered(self, name, step):
        log.append(("ordered", name, step))


class Broken:
    def __init__(self):
        raise RuntimeError("cannot be built")

    def run(self, text):
        return text


def plain_rule(cls):
    return cls(factor=3)


def rule_with_parameters(cls, registry, documents):
    log.append(("rule", type(registry.get_instance("Counter")).__name__, len(documents)))
    return cls()


def source():
    yield "one", "first text here"
    yield "two", "second text"
    yield "three", "third"


def bad_source():
    yield "one", "text"
    yield "two"


def failing_source():
    raise OSError("no such thing")


def empty_source():
    return iter(())
'''


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Make the module ``fakes`` importable; returns the log that its classes write."""
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "fakes.py").write_text(FAKES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.delitem(sys.modules, "fakes", raising=False)
    import fakes  # type: ignore[import-not-found]

    yield fakes.log
    sys.modules.pop("fakes", None)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a pipeline file, next to two documents."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("some words in a", encoding="utf-8")
    (texts / "b.txt").write_text("b has others", encoding="utf-8")

    def write_file(text: str, name: str = "pipeline.toml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def pipeline_text() -> Callable[..., str]:
    """A function that returns the text of a pipeline file with the given steps."""

    def make(steps: str, *, extra: str = "") -> str:
        return (
            '[classes]\nCounter = "fakes.Counter"\nSink = "fakes.Sink"\nBroken = "fakes.Broken"\n'
            f'{dedent(extra)}\n[documents]\nfiles = ["texts/*.txt"]\n{dedent(steps)}'
        )

    return make
