"""
The suite runs on both cores.

The package is loaded twice, once by default and once with ``WARMSET_PURE=1``. The fixture `ws`
returns one of the two and puts it into `sys.modules` for the time of a test, so that late imports
inside the package find their own copy.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import sys
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import samples as sample_classes
from twins import load, take_out

from warmset.testing import FakeTimer
from warmset.testing.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

TWINS = ("compiled", "pure")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pure-only",
        action="store_true",
        help="run on the pure core only; without it, a missing extension fails the run",
    )
    parser.addoption(
        "--examples", default="150", help="how many random sequences of operations to try"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "twin" in metafunc.fixturenames:
        pure_only = metafunc.config.getoption("--pure-only")
        pure_only |= metafunc.definition.get_closest_marker("pure_core") is not None
        twins = ("pure",) if pure_only else TWINS
        metafunc.parametrize("twin", twins, scope="session", indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return
    later = pytest.mark.skip(reason="not at once without an interpreter lock")
    unknown = pytest.mark.skip(reason="not known to the pure core without an interpreter lock")
    locked = pytest.mark.skip(reason="the pure core has locks without an interpreter lock")
    for item in items:
        if item.get_closest_marker("referrers") is not None:
            item.add_marker(later)
        if getattr(item, "callspec", None) is None or item.callspec.params.get("twin") != "pure":
            continue
        if item.get_closest_marker("counts") is not None:
            item.add_marker(unknown)
        if item.get_closest_marker("points") is not None:
            item.add_marker(locked)


def pytest_collection_finish() -> None:
    # Hundreds of thousands of objects of imported packages: without this, each full collection in a
    # test traverses them all.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def twin(request: pytest.FixtureRequest) -> str:
    """The name of a core: "compiled" or "pure"."""
    return str(request.param)


@pytest.fixture
def ws(twin: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package on one core; each registry that the test makes is checked at its end."""
    modules = load(twin)
    before = take_out()
    sys.modules.update(modules)
    package = sys.modules["warmset"]
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    initialise = package.api.Registry.__init__

    @functools.wraps(initialise)
    def initialise_and_note(self: Any, *args: Any, **options: Any) -> None:
        initialise(self, *args, **options)
        made.add(self)

    monkeypatch.setattr(package.api.Registry, "__init__", initialise_and_note)
    try:
        yield package
        for registry in list(made):
            check_structure(registry)
            registry.closed = True  # else it is closed when it is collected, in a later test
    finally:
        take_out()
        sys.modules.update(before)


@pytest.fixture
def timer() -> FakeTimer:
    """A clock that the test advances."""
    return FakeTimer()


@pytest.fixture
def samples() -> Iterator[Any]:
    """The sample classes, with no instance noted and an empty script."""
    noted = (sample_classes.built, sample_classes.closed, sample_classes.script)
    for notes in noted:
        notes.clear()
    yield sample_classes
    for notes in noted:
        notes.clear()


PATHS = {name: f"samples.{name}" for name in ("Alpha", "Beta", "Gamma", "Delta")}


@pytest.fixture
def make(ws: Any, samples: Any, timer: FakeTimer) -> Any:
    """Make a registry over the four sample classes, with the test's timer."""

    def make(paths: dict[str, str] | None = None, **options: Any) -> Any:
        return ws.MethodRegistry(PATHS if paths is None else paths, **{"timer": timer, **options})

    return make


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The private directory; its path is short, as the path of a socket must be."""
    above = tempfile.mkdtemp(prefix="warmset-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", above)
    yield os.path.join(above, "warmset")
    # The thread of a server that was just stopped may remove its socket at the same time.
    shutil.rmtree(above, ignore_errors=True)
    shutil.rmtree(above, ignore_errors=True)
