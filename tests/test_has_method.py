"""`has_method` runs no foreign code, and returns the same for warm and cold classes."""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ran: list[str] = []


class Properties:
    """Its attributes do work, or fail."""

    @functools.cached_property
    def model(self) -> Any:
        ran.append("model")
        return len

    @property
    def remote(self) -> Any:
        ran.append("remote")
        raise ConnectionError

    @property
    def exits(self) -> Any:
        ran.append("exits")
        raise SystemExit

    def run(self) -> None: ...


class Kinds:
    """All kinds of methods, and of what is none."""

    def plain(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def static() -> None: ...

    partial = functools.partialmethod(plain)

    @functools.singledispatchmethod
    def dispatched(self, value: Any) -> None: ...

    called = functools.partial(print)
    data = 3
    refused = None


class Meta(type):
    """Refuses to be asked."""

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        ran.append(name)
        raise ImportError("needs a backend")

    def only_meta(cls) -> None: ...


class Dummy(metaclass=Meta):
    """As the stand-in for a class whose backend is missing."""

    def forward(self) -> None: ...


class Answering:
    """A proxy."""

    def __getattr__(self, name: str) -> Any:
        ran.append(name)
        raise EOFError

    def own(self) -> None: ...


class Refusing:
    """A proxy whose peer is gone."""

    def __getattribute__(self, name: str) -> Any:
        ran.append(name)
        raise EOFError

    def own(self) -> None: ...


class Slots:
    """Its slot has data."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.slot = 3


CASES = [
    (Properties, "model", True),
    (Properties, "remote", True),
    (Properties, "exits", True),
    (Properties, "run", True),
    (Properties, "nothing", False),
    (Kinds, "plain", True),
    (Kinds, "of_class", True),
    (Kinds, "static", True),
    (Kinds, "partial", True),
    (Kinds, "dispatched", True),
    (Kinds, "called", True),
    (Kinds, "data", False),
    (Kinds, "refused", False),
    (Kinds, "mro", False),
    (Dummy, "forward", True),
    (Dummy, "only_meta", False),
    (Dummy, "nothing", False),
    (Answering, "own", True),
    (Answering, "anything", True),
    (Refusing, "own", True),
    (Refusing, "anything", True),
    (Slots, "slot", False),
    (OrderedDict, "popitem", True),
    (OrderedDict, "nothing", False),
    (deque, "append", True),
    (deque, "nothing", False),
]


@pytest.fixture
def home() -> Iterator[types.ModuleType]:
    """A module that has the classes."""
    module = types.ModuleType("home_of_methods")
    for kind in {case[0] for case in CASES}:
        setattr(module, kind.__name__, kind)
    sys.modules["home_of_methods"] = module
    yield module
    del sys.modules["home_of_methods"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("registered", ["path", "class"])
@pytest.mark.parametrize(("kind", "name", "expected"), CASES)
def test_cold_and_warm(make: Any, kind: Any, name: str, expected: bool, registered: str) -> None:
    """The answer is the same, and nothing was run for it."""
    registry = make({})
    path = f"home_of_methods.{kind.__name__}"
    registry.register("X", path if registered == "path" else kind)
    ran.clear()
    cold = registry.has_method("X", name)
    assert ran == []
    registry.get_instance("X")
    ran.clear()
    warm = registry.has_method("X", name)
    assert ran == []
    assert (cold, warm) == (expected, expected)


def test_what_the_constructor_sets_is_known_once_it_ran(make: Any) -> None:
    """Callables of the instance itself count, and hide those of the class."""

    class Own:
        def hidden(self) -> None: ...

        def __init__(self) -> None:
            self.run = len
            self.hidden = None  # type: ignore[assignment,method-assign]

    registry = make({})
    registry.register("X", Own)
    assert not registry.has_method("X", "run")
    registry.get_instance("X")
    assert registry.has_method("X", "run")
    assert not registry.has_method("X", "hidden")
