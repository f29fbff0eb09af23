"""Registration: targets, arguments, options, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import pytest


def connect(dsn: str = "local", *, timeout: float = 5.0) -> Any:
    return [dsn, timeout]


class Tagger:
    def __init__(self, model: str = "large", *, device: str = "cpu") -> None:
        self.model, self.device = model, device


class Opaque(type):
    """A metaclass whose classes have no readable signature."""

    @property
    def __signature__(cls) -> Any:
        raise RuntimeError("not readable")


TARGETS: dict[str, Any] = {
    "path": "samples.Alpha",
    "entry point": "samples:Alpha",
    "class": Tagger,
    "function": connect,
    "lambda": lambda: [1],
    "partial": functools.partial(connect, "remote"),
    "method": {"a": 1}.copy,
    "builtin": dict,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_target_is_a_path_a_class_or_a_factory(make: Any, kind: str) -> None:
    """By `register`, and as a value of the table."""
    for registry in (make({"it": TARGETS[kind]}), make({})):
        registry.register("it", TARGETS[kind])
        first = registry.get_instance("it")
        assert first is not None
        assert registry.get_instance("it") is first
        assert "it" in registry


@pytest.mark.parametrize("target", [None, 3, b"samples.Alpha", ["samples.Alpha"]])
def test_anything_else_is_refused(make: Any, target: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a class path, .* a class, or a factory"):
        make({}).register("it", target)


def test_a_class_is_registered_under_its_own_name(make: Any) -> None:
    registry = make({})
    registry.register(Tagger, kwargs={"model": "small"})
    assert registry.class_names() == ["Tagger"]
    assert registry.get_instance("Tagger").model == "small"


def test_a_class_is_registered_only_as_itself(make: Any) -> None:
    with pytest.raises(TypeError, match="can only be registered as itself"):
        make({}).register(Tagger, connect)


def test_arguments_reach_the_class_and_the_factory(make: Any) -> None:
    registry = make({})
    registry.register("small", Tagger, args=("small",), kwargs={"device": "gpu"})
    registry.register("db", connect, kwargs={"dsn": "remote"})
    registry.register("path", f"{__name__}.Tagger", kwargs={"model": "tiny"})
    small = registry.get_instance("small")
    assert (small.model, small.device) == ("small", "gpu")
    assert registry.get_instance("db") == ["remote", 5.0]


@pytest.mark.parametrize(
    ("target", "given", "text"),
    [
        (connect, {"kwargs": {"dns": "x"}}, r"connect\(dsn.*timeout.*did you mean 'dsn'"),
        (Tagger, {"kwargs": {"devise": "x"}}, r"Tagger\(model.*did you mean 'device'"),
        (connect, {"args": (1, 2)}, r"connect\(dsn.*too many positional"),
        (lambda: [1], {"kwargs": {"size": 3}}, "lambda.*size"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_registration(
    make: Any, target: Any, given: Any, text: str
) -> None:
    """With the signature; nothing is registered."""
    registry = make({})
    with pytest.raises(TypeError, match=rf"(?s)arguments of 'it' do not fit: .*{text}"):
        registry.register("it", target, **given)
    assert "it" not in registry


def test_required_arguments_may_be_missing_at_registration(make: Any, ws: Any) -> None:
    """A rule may give them later."""

    def load(path: str) -> list[str]:
        return [path]

    registry = make({})
    registry.register("it", load)
    with pytest.raises(ws.BuildError, match="path"):
        registry.get_instance("it")
    registry.register_instantiation_rule("it", lambda factory: factory("a"))
    assert registry.get_instance("it") == ["a"]


def test_a_target_without_a_readable_signature_takes_any_arguments(make: Any, ws: Any) -> None:
    class Hidden(metaclass=Opaque):
        pass

    registry = make({})
    registry.register("hidden", Hidden, kwargs={"a": 1})
    registry.register("dict", dict, kwargs={"a": 1})
    assert registry.get_instance("dict") == {"a": 1}
    with pytest.raises(ws.BuildError):
        registry.get_instance("hidden")


def test_arguments_of_a_path_are_checked_at_the_first_build(make: Any, ws: Any) -> None:
    """It is not imported before; the error shows the signature all the same."""
    registry = make({})
    registry.register("it", "samples.Alpha", kwargs={"model": "small"})
    with pytest.raises(ws.BuildError, match=r"Alpha\(\).*'model'"):
        registry.get_instance("it")


def test_a_type_error_of_the_factory_itself_is_not_explained_away(make: Any, ws: Any) -> None:
    def load(path: str) -> Any:
        raise TypeError("from inside")

    registry = make({})
    registry.register("it", load, kwargs={"path": "a"})
    with pytest.raises(ws.BuildError, match="from inside") as caught:
        registry.get_instance("it")
    assert str(caught.value.__cause__) == "from inside"


@pytest.mark.parametrize(
    ("option", "nearest"), [("prioritty", "priority"), ("max_age", "max_age_seconds")]
)
def test_a_misspelt_option_is_refused_with_the_nearest(
    make: Any, option: str, nearest: str
) -> None:
    registry = make({})
    expected = f"'it' has no option '{option}'; did you mean '{nearest}'"
    with pytest.raises(TypeError, match=expected):
        registry.register("it", connect, **{option: 1})
    with pytest.raises(TypeError, match=expected):
        registry.provider("it", **{option: 1})(connect)
    assert "it" not in registry


def test_a_misspelt_setting_is_refused_with_the_nearest(ws: Any) -> None:
    with pytest.raises(TypeError, match="'max_cach_size'; did you mean 'max_cache_size'"):
        ws.MethodRegistry({}, max_cach_size=3)
    with pytest.raises(TypeError, match="'retry_after'; did you mean 'retry_after_seconds'"):
        ws.RegistrySettings.batch(retry_after=3)


def test_a_closed_registry_takes_no_registrations(make: Any, ws: Any) -> None:
    registry = make()
    registry.close()
    for register in (
        lambda: registry.register("it", connect),
        lambda: registry.register(Tagger),
        lambda: registry.provider(connect),
        lambda: registry.register_instantiation_rule("it", lambda cls: cls()),
        lambda: registry.inject_method("it", "run", connect),
    ):
        with pytest.raises(ws.ClosedError, match="the registry is closed"):
            register()
    assert "it" not in registry


def test_a_provider_is_registered_where_it_is_defined(make: Any) -> None:
    """Bare and with arguments, on functions and classes; they stay what they are."""
    registry = make({})

    @registry.provider
    def clock() -> Any:
        return ["clock"]

    @registry.provider("database", kwargs={"dsn": "remote"}, pin=True)
    def db(dsn: str) -> Any:
        return [dsn]

    @registry.provider
    class Scorer:
        pass

    @registry.provider(priority=2)
    class Parser:
        pass

    assert clock() == ["clock"]
    assert Scorer.__name__ == "Scorer"
    assert registry.class_names() == ["clock", "database", "Scorer", "Parser"]
    assert registry.get_instance("clock") == ["clock"]
    assert registry.get_instance("database") == ["remote"]
    assert registry.pinned() == ["database"]
    assert type(registry.get_instance("Scorer")) is Scorer
    assert registry.slots["Parser"].options.priority == 2


@pytest.mark.parametrize("target", [lambda: [1], functools.partial(connect)])
def test_a_provider_without_a_name_needs_one(make: Any, target: Any) -> None:
    registry = make({})
    with pytest.raises(TypeError, match="register it under a name"):
        registry.provider(target)
    registry.provider("named")(target)
    assert registry.get_instance("named") is not None


def test_a_provider_is_a_function_or_a_class(make: Any) -> None:
    with pytest.raises(TypeError, match="a provider is a function or a class, got int 3"):
        make({}).provider(3)
