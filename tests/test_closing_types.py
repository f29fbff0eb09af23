"""How an instance is closed: static types by their attributes, dynamic ones by asking them."""

from __future__ import annotations

import functools
import io
import logging
import sqlite3
import unittest.mock
import weakref
import xmlrpc.client
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

calls: list[str] = []


def note(name: str) -> Callable[..., None]:
    """Make a function that notes its name."""
    return lambda *_: calls.append(name)


class Both:
    """Leaving its context commits."""

    close = note("close")
    __enter__ = note("enter")
    __exit__ = note("commit")


class OnlyContext:
    """Has no other way to be closed."""

    __enter__ = note("enter")
    __exit__ = note("exit")


class Delegating:
    """A proxy by `__getattr__`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Wrapping(Delegating):
    """A proxy that passes the protocol of contexts on, as tracing ones do."""

    def __enter__(self) -> Any:
        return type(self.inner).__enter__(self.inner)

    def __exit__(self, *exception: Any) -> Any:
        return type(self.inner).__exit__(self.inner, *exception)


class Transparent:
    """A proxy by `__getattribute__`, with the class of what it wraps."""

    def __init__(self, inner: Any) -> None:
        object.__setattr__(self, "inner", inner)

    def __getattribute__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "inner"), name)

    __enter__ = note("enter")
    __exit__ = note("commit")


class Forwarding:
    """Delegates single attributes, by descriptors."""

    class Forward:
        def __init__(self, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, kind: Any) -> Any:
            return getattr(instance.inner, self.name)

    close = Forward("close")
    __exit__ = note("commit")
    __enter__ = note("enter")

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Anything:
    """A client of remote procedures: each name is one."""

    def __getattr__(self, name: str) -> Any:
        return note(f"remote {name}")


class AnythingInContext(Anything):
    """Whether leaving the context closes or commits is not known."""

    __enter__ = note("enter")
    __exit__ = note("commit")


class AnythingThatCloses(Anything):
    """Its class has a `close` of its own."""

    close = note("close")


class Price:
    """Its `close` is data."""

    @property
    def close(self) -> Any:
        calls.append("property")
        return note("data")


class LazyPrice:
    """Likewise."""

    @functools.cached_property
    def close(self) -> Any:
        calls.append("property")
        return note("data")


class Slots:
    """Keeps its closer in a slot."""

    __slots__ = ("close",)

    def __init__(self) -> None:
        self.close = note("close")


class Refused(Both):
    """Denies having a `close`."""

    close = None  # type: ignore[assignment]


class Backend(type):
    """A metaclass that refuses to be asked."""

    def __getattribute__(cls, name: str) -> Any:
        if not name.startswith("_"):
            raise ImportError("needs a backend")
        return super().__getattribute__(name)


class Dummy(metaclass=Backend):
    """Has a `close` all the same."""

    def close(self) -> None:
        calls.append("close")


class Bound:
    """Closers that are no plain functions."""

    @classmethod
    def close(cls) -> None:
        calls.append("close")


class Partial:
    """Likewise."""

    def shut(self, how: str) -> None:
        calls.append(how)

    close = functools.partialmethod(shut, "close")


class DictLike:
    """Its `__getattr__` looks into a dict, and raises what that raises."""

    def __getattr__(self, name: str) -> Any:
        return {}[name]


class OwnClose:
    """Its `close` is in the instance."""

    def __init__(self) -> None:
        self.close = note("close")


def a_connection() -> Any:
    """Return a connection behind nothing."""
    return sqlite3.connect(":memory:")


SHAPES: list[tuple[str, Callable[[], Any], list[str], str]] = [
    ("close before exit", Both, ["close"], "closed"),
    ("exit", OnlyContext, ["exit"], "closed"),
    ("nothing", object, [], "nothing_to_close"),
    ("delegating", lambda: Delegating(Both()), ["close"], "closed"),
    ("wrapping", lambda: Wrapping(Both()), ["close"], "closed"),
    ("wrapping twice", lambda: Wrapping(Wrapping(Both())), ["close"], "closed"),
    ("wrapping a context", lambda: Wrapping(OnlyContext()), ["exit"], "closed"),
    ("transparent", lambda: Transparent(Both()), ["close"], "closed"),
    ("forwarding", lambda: Forwarding(Both()), ["close"], "closed"),
    ("delegating to nothing", lambda: Delegating(object()), [], "nothing_to_close"),
    ("remote procedures", Anything, [], "nothing_to_close"),
    ("remote procedures in a context", AnythingInContext, [], "close_failed"),
    ("remote procedures that close", AnythingThatCloses, ["close"], "closed"),
    ("a mock", unittest.mock.MagicMock, [], "nothing_to_close"),
    ("a property", Price, [], "nothing_to_close"),
    ("a cached property", LazyPrice, [], "nothing_to_close"),
    ("a slot", Slots, ["close"], "closed"),
    ("None", Refused, ["commit"], "closed"),
    ("a metaclass that raises", Dummy, ["close"], "closed"),
    ("a class method", Bound, ["close"], "closed"),
    ("a partial method", Partial, ["close"], "closed"),
    ("a dict", DictLike, [], "nothing_to_close"),
    ("of the instance", OwnClose, ["close"], "closed"),
    ("a namespace", lambda: SimpleNamespace(close=note("close")), ["close"], "closed"),
    ("a number", lambda: SimpleNamespace(close=12.5), [], "nothing_to_close"),
    ("a class", lambda: OwnClose, [], "nothing_to_close"),
    ("a class with close", lambda: Both, [], "nothing_to_close"),
    ("a file", io.StringIO, [], "closed"),
]


@pytest.mark.parametrize(("make_one", "called", "state"), [s[1:] for s in SHAPES], ids=lambda v: "")
def test_how_a_shape_is_closed(
    make: Any, make_one: Callable[[], Any], called: list[str], state: str
) -> None:
    """Each in the same way, by whichever way it is removed."""
    registry = make()
    registry.register("X", make_one)
    with registry.use("X"):
        pass
    calls.clear()
    registry.discard("X")
    assert calls == called
    assert registry.stats().states[state] == 1


def test_a_mock_with_a_specification_is_closed(make: Any) -> None:
    """It denies other names."""
    registry = make()
    registry.register("X", lambda: unittest.mock.Mock(spec=["close"]))
    with registry.use("X") as mock:
        pass
    registry.discard("X")
    mock.close.assert_called_once_with()


def test_a_client_of_remote_procedures_is_asked_for_nothing(make: Any, caplog: Any) -> None:
    """Its `close` would be a call of a server that need not exist."""
    registry = make()
    registry.register("X", lambda: xmlrpc.client.ServerProxy("http://127.0.0.1:9/"))
    with registry.use("X"), caplog.at_level(logging.WARNING):
        pass
    registry.discard("X")
    assert "register the class with closer=" in caplog.text
    assert registry.stats().close_failures == 1


@pytest.mark.parametrize("wrap", [lambda c: c, Delegating, Wrapping, Transparent])
def test_a_connection_is_not_committed(make: Any, tmp_path: Any, wrap: Any) -> None:
    """Neither plain nor behind a proxy."""
    file = tmp_path / "db"
    setup = sqlite3.connect(file)
    setup.execute("create table t (x)")
    setup.close()
    registry = make()
    registry.register("DB", lambda: wrap(sqlite3.connect(file)))
    with registry.use("DB") as db:
        db.execute("insert into t values (1)")
    registry.discard("DB")
    with pytest.raises(sqlite3.ProgrammingError):
        db.execute("select 1")
    check = sqlite3.connect(file)
    assert check.execute("select count(*) from t").fetchone() == (0,)
    check.close()
    assert registry.stats().closed == 1


class Remote:
    """A proxy of an object in another process, which may end."""

    def __init__(self, names: tuple[str, ...]) -> None:
        object.__setattr__(self, "dead_for", names)
        object.__setattr__(self, "alive", True)

    def __getattribute__(self, name: str) -> Any:
        dead = object.__getattribute__(self, "dead_for")
        if not object.__getattribute__(self, "alive") and (not dead or name in dead):
            raise EOFError("the stream has been closed")
        return object.__getattribute__(self, name)

    def run(self) -> int:
        return 42


@pytest.mark.parametrize("names", [(), ("close",), ("__dict__", "__class__", "close")])
@pytest.mark.parametrize("way", ["get_instance", "execute", "handle", "expired", "release"])
def test_a_dead_peer_is_a_close_failure(
    ws: Any, make: Any, timer: Any, names: tuple[str, ...], way: str
) -> None:
    """Whoever removes it does not get its error."""
    registry = make(max_cache_size=1, cache_ttl_seconds=10.0)
    registry.register("Remote", lambda: Remote(names))
    executor = ws.MethodExecutor(method_registry=registry)
    assert executor.execute("Remote", "run") == 42
    remote = registry._cache["Remote"].instance
    object.__setattr__(remote, "alive", False)
    del remote
    if way == "expired":
        timer.advance(11)
        assert registry.evict_expired() == 1
    elif way == "release":
        with registry.use("Alpha"):
            pass
    elif way == "handle":
        assert registry.bind("Alpha", "echo")("x") == "x"
    elif way == "execute":
        assert executor.execute("Alpha", "echo", text="x") == "x"
    else:
        registry.get_instance("Alpha")
    assert registry.stats().close_failures == 1


def test_a_dead_weak_proxy_is_a_close_failure(make: Any) -> None:
    """Its referent is gone."""
    registry = make()
    referents = [OwnClose()]
    registry.register("X", lambda: weakref.proxy(referents[0]))
    with registry.use("X"):
        pass
    referents.clear()
    registry.discard("X")
    assert registry.stats().close_failures == 1
