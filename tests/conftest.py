"""
The suite runs on both cores.

The package is loaded twice, once as it comes up by default and once with ``WARMSET_PURE=1``. The
fixture `ws` gives one of the two and puts it into `sys.modules` for the time of a test, so that
late imports inside the package find their own copy.
"""

from __future__ import annotations

import importlib
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import samples as sample_classes
import structure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

TWINS = ("compiled", "pure")
MODULES = (
    "builder",
    "errors",
    "events",
    "executor",
    "legacy",
    "registry",
    "resolver",
    "routing",
    "settings",
    "sources",
    "stats",
)
_loaded: dict[str, dict[str, ModuleType]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pure-only",
        action="store_true",
        help="run on the pure core only; without it, a missing extension fails the run",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "twin" in metafunc.fixturenames:
        twins = ("pure",) if metafunc.config.getoption("--pure-only") else TWINS
        metafunc.parametrize("twin", twins, scope="session", indirect=True)


def _ours() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "warmset" or name.startswith("warmset.")]
    return {name: sys.modules.pop(name) for name in names}


def load(twin: str) -> dict[str, ModuleType]:
    """Give the modules of one copy of the package."""
    if twin not in _loaded:
        before = _ours()
        switch = os.environ.pop("WARMSET_PURE", None)
        try:
            if twin == "pure":
                os.environ["WARMSET_PURE"] = "1"
            package = importlib.import_module("warmset")
            for name in MODULES:
                importlib.import_module(f"warmset.{name}")
            assert package.implementation == twin, "the compiled core is not installed"
            _loaded[twin] = _ours()
        finally:
            _ours()
            sys.modules.update(before)
            os.environ.pop("WARMSET_PURE", None)
            if switch is not None:
                os.environ["WARMSET_PURE"] = switch
    return _loaded[twin]


@pytest.fixture(scope="session")
def twin(request: pytest.FixtureRequest) -> str:
    """The name of a core: "compiled" or "pure"."""
    return str(request.param)


@pytest.fixture
def ws(twin: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package on one core; each registry that the test makes is checked after it."""
    before = _ours()
    sys.modules.update(load(twin))
    package = sys.modules["warmset"]
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    initialise = package.registry.Registry.__init__

    def initialise_and_note(self: Any, *args: Any, **options: Any) -> None:
        initialise(self, *args, **options)
        made.add(self)

    monkeypatch.setattr(package.registry.Registry, "__init__", initialise_and_note)
    try:
        yield package
        for registry in list(made):
            structure.check(registry)
    finally:
        _ours()
        sys.modules.update(before)


class Timer:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def timer() -> Timer:
    """A clock that is moved by hand."""
    return Timer()


@pytest.fixture
def samples() -> Iterator[Any]:
    """The sample classes, with nothing built yet and nothing in their script."""
    sample_classes.built.clear()
    sample_classes.script.clear()
    yield sample_classes
    sample_classes.built.clear()
    sample_classes.script.clear()


PATHS = {name: f"samples.{name}" for name in ("Alpha", "Beta", "Gamma", "Delta")}


@pytest.fixture
def make(ws: Any, samples: Any, timer: Timer) -> Any:
    """Make a registry over the four sample classes, with the test's timer."""

    def make(paths: dict[str, str] | None = None, **options: Any) -> Any:
        return ws.MethodRegistry(PATHS if paths is None else paths, **{"timer": timer, **options})

    return make
