"""Mistakes of a first use: each error says what, where, and what was expected."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest


class Tagger:
    def __init__(self, model: str = "small") -> None:
        self.model = model

    def tag(self, text: str) -> str:
        return f"{self.model} {text}"


class Other:
    def work(self) -> None:
        """Is a method that no other class has."""


class Unregistered:
    """Has no name like that of a registered class."""


def load(key: str, folder: str) -> Any:
    return Tagger(f"{folder}/{key}")


def settings() -> Any:
    return {}


@contextlib.contextmanager
def opened() -> Any:
    yield Tagger()


async def is_valid(tagger: Tagger) -> bool:
    return True


@pytest.fixture
def registry(make: Any) -> Any:
    registry = make({})
    registry.register(Tagger)
    registry.register("by_path", f"{__name__}.Other")
    registry.get_instance("by_path")  # imported
    registry.family("Model", Tagger)
    return registry


def models(registry: Any) -> Any:
    return registry.family("Model", Tagger)


MISTAKES: dict[str, tuple[Any, type[Exception], list[str]]] = {
    "a method of a lease that was not entered": (
        lambda r: r.use(Tagger).tag("x"),
        AttributeError,
        ["'tag'", "with registry.use(...) as instance"],
    ),
    "a class that is not registered": (
        lambda r: r.get_instance(Unregistered),
        LookupError,
        [f"{__name__}.Unregistered", "registry.register(Unregistered)"],
    ),
    "an option": (
        lambda r: r.register("x", Tagger, prioritty=1),
        TypeError,
        ["'x'", "'prioritty'", "'priority'"],
    ),
    "an argument as an option": (
        lambda r: r.register("x", Tagger, model="large"),
        TypeError,
        ["'x'", "'model'", "kwargs="],
    ),
    "an unknown argument": (
        lambda r: r.register("x", Tagger, kwargs={"modle": "large"}),
        TypeError,
        ["'x'", "Tagger(model", "'modle'", "'model'"],
    ),
    "args": (
        lambda r: r.register("x", Tagger, args="ab"),
        TypeError,
        ["args of 'x'", "tuple", "str 'ab'"],
    ),
    "kwargs": (
        lambda r: r.register("x", Tagger, kwargs=[("a", 1)]),
        TypeError,
        ["kwargs of 'x'", "mapping", "list"],
    ),
    "keys of kwargs": (
        lambda r: r.register("x", Tagger, kwargs={1: 2}),
        TypeError,
        ["kwargs of 'x'", "str keys"],
    ),
    "an instance": (
        lambda r: r.register("x", object()),
        TypeError,
        ["'x'", "class path", "factory", "lambda"],
    ),
    "a list as table": (lambda r: type(r)(["a.B"]), TypeError, ["class_paths", "mapping", "list"]),
    "a file as table": (
        lambda r: type(r)("w.toml"),
        TypeError,
        ["class_paths", "mapping", "from_file"],
    ),
    "a class that is registered by its path": (
        lambda r: r.get_instance(Other),
        LookupError,
        ["Other'", "by its path", "'by_path'"],
    ),
    "a bound method": (lambda r: r.bind(Tagger().tag), TypeError, ["Tagger.tag", "instance"]),
    "a method of another class": (
        lambda r: r.bind(Other.work),
        LookupError,
        ["Other.work'", "no class that is registered itself"],
    ),
    "a method name": (
        lambda r: r.get_method("Tagger", Tagger.tag),
        TypeError,
        ["a method name", "function"],
    ),
    "a method name of a handle": (
        lambda r: r.bind("Tagger", 3),
        TypeError,
        ["a method name", "int 3"],
    ),
    "an empty method name": (lambda r: r.bind("Tagger", ""), ValueError, ["a method name"]),
    "a method name of a family": (
        lambda r: models(r).bind("fr", Tagger.tag),
        TypeError,
        ["a method name", "function"],
    ),
    "a family as a class": (
        lambda r: r.get_instance("Model"),
        LookupError,
        ["'Model' is a family", "FamilyKey('Model', key)"],
    ),
    "what a key is displayed as": (
        lambda r: r.get_instance("Model[fr]"),
        LookupError,
        ["'Model[fr]'", "FamilyKey('Model', key)"],
    ),
    "a key of another family": (
        lambda r: r.get_instance(type(models(r).key("fr"))("Models", "fr")),
        LookupError,
        ["'Models[fr]'", "no family 'Models'"],
    ),
    "a bound of a family": (
        lambda r: r.family("x", Tagger, max_cache_size=0),
        ValueError,
        ["max_cache_size of 'x'", "1 or more"],
    ),
    "a chosen bound of a family": (
        lambda r: r.family("x", Tagger, max_cache_size="auto"),
        TypeError,
        ["max_cache_size of 'x'", "1 or more", "'auto'"],
    ),
    "an option of a family": (
        lambda r: r.family("x", Tagger, max_cache_sise=3),
        TypeError,
        ["'x'", "'max_cache_sise'", "'max_cache_size'"],
    ),
    "a factory without a key": (
        lambda r: r.family("x", Other),
        TypeError,
        ["the key and the arguments of 'x'", "Other("],
    ),
    "a factory that needs more": (
        lambda r: r.family("x", load),
        TypeError,
        ["'x'", "load(key", "'folder'"],
    ),
    "a function as the key": (
        lambda r: (r.provider(settings), r.get_instance(settings)),
        TypeError,
        ["a class name", "function", "'settings'"],
    ),
    "a context manager as the factory": (
        lambda r: r.provider("opened")(opened) and r.get_instance("opened"),
        RuntimeError,
        ["'opened'", "contextlib", "yields"],
    ),
    "one key to warm up": (
        lambda r: models(r).warm_up("fr"),
        TypeError,
        ["iterable of keys", "'fr'"],
    ),
    "an asynchronous check": (
        lambda r: r.register("x", Tagger, validate=is_valid),
        TypeError,
        ["validate of 'x'", "coroutine function"],
    ),
    "a policy": (
        lambda r: type(r)({}, policy="lfu"),
        ValueError,
        ["policy", "'cost'", "worth(entry, now)", "'lfu'"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_error_tells_what_and_what_was_expected(registry: Any, mistake: str) -> None:
    call, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        call(registry)
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text


CLOSED: dict[str, Any] = {
    "register": lambda r: r.register("x", Other),
    "provider": lambda r: r.provider(Other),
    "family": lambda r: r.family("x", Tagger),
    "a rule": lambda r: r.register_instantiation_rule("Tagger", Tagger),
    "inject": lambda r: r.inject_method("Tagger", "other", print),
    "look up": lambda r: r.get_instance(Tagger),
    "a key": lambda r: models(r).get("fr"),
    "warm up": lambda r: r.warm_up([Tagger]),
    "warm up a family": lambda r: r.kept.warm_up(["fr"]),
}


@pytest.mark.parametrize("what", CLOSED)
def test_a_closed_registry_tells_that_it_is_closed(registry: Any, ws: Any, what: str) -> None:
    registry.kept = models(registry)
    registry.close()
    with pytest.raises(ws.ClosedError, match="the registry is closed"):
        CLOSED[what](registry)


class Static:
    @staticmethod
    def double(number: int) -> int:
        return 2 * number


def test_a_static_method_is_bound_by_itself(make: Any) -> None:
    registry = make({})
    registry.register(Static)
    assert registry.bind(Static.double)(3) == 6


class Client:
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn


def test_a_mistake_is_corrected_by_registering_again(make: Any, ws: Any) -> None:
    """Without waiting until the failure is forgotten; what is warm is built anew."""
    registry = make({})
    registry.register(Client)
    with pytest.raises(ws.BuildError, match="'dsn'"):
        registry.get_instance(Client)
    registry.register(Client, kwargs={"dsn": "one"})
    assert registry.get_instance(Client).dsn == "one"
    registry.register(Client, kwargs={"dsn": "two"})
    assert registry.get_instance(Client).dsn == "two"
    kept = registry.get_instance(Client)
    registry.register(Client, kwargs={"dsn": "two"}, pin=True)
    assert registry.get_instance(Client) is kept


def test_the_mistake_of_a_family_is_corrected_as_well(make: Any, ws: Any) -> None:
    def connect(key: str, dsn: str = "") -> Any:
        if not dsn:
            raise OSError("no dsn")
        return Client(f"{dsn}/{key}")

    registry = make({})
    clients = registry.family("Client", connect)
    with pytest.raises(ws.BuildError, match="no dsn"):
        clients.get("fr")
    registry.family("Client", connect, kwargs={"dsn": "one"})
    assert clients.get("fr").dsn == "one/fr"
    registry.family("Client", connect, kwargs={"dsn": "two"})
    assert clients.get("fr").dsn == "two/fr"
