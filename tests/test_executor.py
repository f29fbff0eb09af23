"""The executor: routing, checks before the call, holds, degraded mode, metrics."""

from __future__ import annotations

import gc
import importlib
import logging
import pickle
import types
import weakref
from typing import Annotated, Any, NewType, Protocol, TypedDict

import pytest
from loops import run


@pytest.fixture
def executor(ws: Any, make: Any) -> Any:
    """An executor over `Typed` and the samples."""
    names = ("Typed", "Alpha", "Beta", "Broken")
    return ws.MethodExecutor(method_registry=make({name: f"samples.{name}" for name in names}))


def refusal(ws: Any, executor: Any, method: str, **payload: Any) -> Any:
    """The error of a payload that is refused."""
    with pytest.raises(ws.ArgumentValidationError) as caught:
        executor.execute("Typed", method, **payload)
    assert (caught.value.class_name, caught.value.method_name) == ("Typed", method)
    assert isinstance(caught.value, ws.ArgRouterError)
    return caught.value


@pytest.mark.parametrize(
    ("method", "payload", "result"),
    [
        ("plain", {"a": 1}, (1, "b")),
        ("plain", {"b": "x", "a": True}, (True, "x")),
        ("keyword_only", {"a": 1}, (1, False)),
        ("keyword_only", {"a": 1.5, "b": True}, (1.5, True)),
        ("positional", {"a": 1}, (1, 2, 3)),
        ("positional", {"a": 1, "c": 9}, (1, 2, 9)),
        ("positional", {"b": 5, "a": 1}, (1, 5, 3)),
        ("open", {"a": 1, "x": 2, "y": 3}, (1, {"x": 2, "y": 3})),
        ("many", {}, ((), 1)),
        ("many", {"a": 2}, ((), 2)),
        ("many", {"values": (3, 4), "a": 2}, ((3, 4), 2)),
        ("many", {"values": [3]}, ((3,), 1)),
        ("unions", {"a": None}, (None, None)),
        ("unions", {"a": 3, "b": ["x"]}, (3, ["x"])),
        ("implicit", {"a": None}, None),
        ("unresolved", {"a": object}, object),
        ("six", {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}, 21),
        ("static", {"a": 4}, 4),
    ],
)
def test_payloads_become_arguments(
    executor: Any, method: str, payload: dict[str, Any], result: Any
) -> None:
    """By name, for parameters of any kind; the second time as the first."""
    assert executor.execute("Typed", method, **payload) == result
    assert executor.execute("Typed", method, **payload) == result


def test_a_class_method_is_routed(executor: Any, samples: Any) -> None:
    """As any other method."""
    assert executor.execute("Typed", "of_class", a=1) == (samples.Typed, 1)


@pytest.mark.parametrize(
    ("method", "payload", "missing", "unexpected", "mistyped"),
    [
        ("plain", {}, {"a"}, set(), set()),
        ("plain", {"a": 1, "x": 2, "y": 3}, set(), {"x", "y"}, set()),
        ("plain", {"a": "1"}, set(), set(), {"a"}),
        ("plain", {"a": 1.0, "b": None}, set(), set(), {"a", "b"}),
        ("plain", {"x": 1}, {"a"}, {"x"}, set()),
        ("keyword_only", {"a": "x", "b": 2}, set(), set(), {"a", "b"}),
        ("positional", {"b": 2}, {"a"}, set(), set()),
        ("open", {"x": 1}, {"a"}, set(), set()),
        ("many", {"values": 1}, set(), set(), {"values"}),
        ("unions", {"a": "x", "b": "y"}, set(), set(), {"a", "b"}),
        ("six", {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, {"f"}, set(), set()),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_before_the_call(
    ws: Any,
    executor: Any,
    method: str,
    payload: dict[str, Any],
    missing: set[str],
    unexpected: set[str],
    mistyped: set[str],
) -> None:
    """The error has all its faults, by name."""
    for _ in range(2):
        error = refusal(ws, executor, method, **payload)
        assert error.missing == missing
        assert error.unexpected == unexpected
        assert set(error.mistyped) == mistyped
    metrics = executor.get_routing_metrics()
    assert metrics["validation_errors"] == 2
    assert metrics["silent_drops_prevented"] == 2 * len(unexpected)
    assert metrics["total_routes"] == 2
    assert metrics["error_rate"] == 1.0
    assert executor.registry.stats().held == 0


def test_the_same_call_with_other_values_is_checked_anew(ws: Any, executor: Any) -> None:
    """Each value is checked each time, although the names of the arguments are the same tuple."""

    def call(a: Any, b: Any) -> Any:
        return executor.execute("Typed", "plain", a=a, b=b)

    def fewer(b: Any) -> Any:
        return executor.execute("Typed", "plain", b=b)

    for _ in range(3):
        assert call(1, "x") == (1, "x")
        with pytest.raises(ws.ArgumentValidationError, match="a expected int, got str"):
            call("1", "x")
        with pytest.raises(ws.ArgumentValidationError, match="b expected str, got int"):
            call(1, 2)
        with pytest.raises(ws.ArgumentValidationError, match="missing a"):
            fewer("x")
        payload = {"b": "y", "a": 2}
        assert executor.execute("Typed", "plain", **payload) == (2, "y")


def test_the_text_of_a_refusal(ws: Any, executor: Any) -> None:
    """It names the method, the arguments, and what was expected."""
    error = refusal(ws, executor, "plain", a="1", x=2)
    assert str(error) == (
        "arguments do not match Typed.plain: unexpected x; a expected int, got str"
    )
    error = refusal(ws, executor, "unions", b=3)
    assert "missing a" in str(error)
    assert "b expected list[str] | None, got int" in str(error)


def test_annotations_are_checked_as_far_as_isinstance_can(ws: Any, executor: Any) -> None:
    """A value that cannot be checked is accepted."""

    class Proto(Protocol):
        def f(self) -> None: ...

    class Shape(TypedDict):
        a: int

    Name = NewType("Name", str)

    class Real:
        def __float__(self) -> float:
            return 1.0

    import numbers

    numbers.Real.register(Real)

    def method(
        proto=None, shape=None, name="", note=0, number=0.0, anything=None, thing=None, kinds=int
    ):  # type: ignore[no-untyped-def]
        return "ran"

    method.__annotations__ = {
        "proto": Proto,
        "shape": Shape,
        "name": Name,
        "note": Annotated[int, "small"],
        "number": float,
        "anything": Any,
        "thing": object,
        "kinds": type[int],
    }
    executor.inject_method("Free", "method", method)
    assert executor.execute("Free", "method", proto=1, shape=2, anything=3, thing=4) == "ran"
    assert executor.execute("Free", "method", name="x", note=1, number=Real(), kinds=bool) == "ran"
    with pytest.raises(ws.ArgumentValidationError) as caught:
        executor.execute("Free", "method", name=1, note="x", number="y", kinds=3)
    assert set(caught.value.mistyped) == {"name", "note", "number", "kinds"}


def test_a_callable_without_a_signature_takes_anything(executor: Any) -> None:
    """Nothing can be checked."""

    class Opaque:
        __signature__ = 3

        def __call__(self, **payload: Any) -> Any:
            return payload

    executor.inject_method("Free", "opaque", Opaque())
    assert executor.execute("Free", "opaque", a=1) == {"a": 1}


def test_names_by_keyword_and_parameters_of_these_names(executor: Any) -> None:
    """The two names are positional; by keyword they are taken only where they were not given."""
    assert executor.execute(class_name="Typed", method_name="plain", a=1) == (1, "b")
    assert executor.execute("Typed", method_name="plain", a=1) == (1, "b")
    assert executor.execute("Typed", "names", class_name="c") == ("c", "m")
    assert executor.execute("Typed", "names", class_name="c", method_name="d") == ("c", "d")
    for call in (
        lambda: executor.execute(),
        lambda: executor.execute("Typed"),
        lambda: executor.execute("Typed", "plain", 1),
        lambda: executor.execute(3, "plain"),
        lambda: executor.execute("Typed", 3),
    ):
        with pytest.raises(TypeError):
            call()


def test_an_injected_method_is_routed_and_checked_too(ws: Any, executor: Any) -> None:
    """It has no hold and is no look-up; a later injection replaces it."""
    executor.inject_method("Virtual", "score", lambda x: x + 1)
    assert executor.execute("Virtual", "score", x=1) == 2
    with pytest.raises(ws.ArgumentValidationError):
        executor.execute("Virtual", "score", y=1)
    executor.inject_method("Virtual", "score", lambda y: y - 1)
    assert executor.execute("Virtual", "score", y=1) == 0
    assert executor.registry.stats().lookups == 0


def test_the_signature_follows_the_method(ws: Any, executor: Any, samples: Any) -> None:
    """The method is replaced on the instance, on the class, or by an instance of another class."""
    assert executor.execute("Alpha", "echo", text="x") == "x"
    instance = executor.registry.get_instance("Alpha")
    instance.echo = lambda other: other * 2
    assert executor.execute("Alpha", "echo", other="x") == "xx"
    assert executor.execute("Alpha", "echo", other="y") == "yy"
    with pytest.raises(ws.ArgumentValidationError):
        executor.execute("Alpha", "echo", text="x")
    del instance.echo
    original = samples.Alpha.echo
    samples.Alpha.echo = lambda self, third: third
    try:
        assert executor.execute("Alpha", "echo", third=1) == 1
    finally:
        del samples.Alpha.echo
    assert samples.Alpha.echo is original
    executor.registry.register("Alpha", "samples.Typed")
    assert executor.execute("Alpha", "plain", a=1) == (1, "b")


def test_builtin_methods_are_routed(ws: Any, make: Any) -> None:
    """Classes written in C have signatures, too, some of them positional-only."""
    executor = ws.MethodExecutor(
        method_registry=make({"Counter": "collections.Counter", "D": "collections.OrderedDict"})
    )
    executor.execute("D", "setdefault", key="a", default=1)
    assert executor.execute("D", "get", key="a") == 1
    assert executor.execute("D", "get", key="a") == 1
    assert executor.execute("D", "pop", key="b", default=5) == 5
    assert executor.execute("Counter", "most_common", n=1) == []


def test_the_instance_is_held_while_the_method_runs(executor: Any) -> None:
    """It is released also if the method raises."""
    registry = executor.registry
    seen = []
    registry.get_instance("Alpha").probe = lambda: seen.append(registry.stats().held)
    executor.execute("Alpha", "probe")
    assert seen == [1]
    with pytest.raises(AttributeError, match="from inside"):
        executor.execute("Alpha", "fail")
    assert registry.stats().held == 0


def test_a_method_that_is_not_available_is_an_attribute_error(ws: Any, executor: Any) -> None:
    """And the error of its stage; an error from inside a method is raised as it is."""
    aio = importlib.import_module("warmset.aio").AsyncMethodExecutor(executor.registry)
    for class_name, method_name, stage, cause in (
        ("Nobody", "x", ws.UnknownClassError, type(None)),
        ("Broken", "x", ws.BuildError, ValueError),
        ("Alpha", "tga", ws.MethodNotFoundError, AttributeError),
    ):
        for call in (
            lambda: executor.execute(class_name, method_name),  # noqa: B023
            lambda: run(aio.execute(class_name, method_name)),  # noqa: B023
        ):
            with pytest.raises(AttributeError) as caught:
                call()
            error = caught.value
            assert isinstance(error, stage)
            assert isinstance(error.__cause__, cause)
            assert (error.class_name, error.method_name) == (class_name, method_name)
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    executor.registry.get_instance("Alpha").nested = lambda: executor.registry.get_instance("No")
    with pytest.raises(ws.UnknownClassError):
        executor.execute("Alpha", "nested")
    assert executor.registry.stats().held == 0


def test_instances_is_a_lazy_read_only_mapping(ws: Any, executor: Any, samples: Any) -> None:
    """It maps the registered names; only reading an item builds."""
    instances = executor.instances
    assert list(instances) == ["Typed", "Alpha", "Beta", "Broken"]
    assert len(instances) == 4
    assert "Alpha" in instances
    assert "Nobody" not in instances
    assert samples.built == []
    assert instances["Alpha"] is executor.registry.get_instance("Alpha")
    assert instances.get("Nobody", 3) == 3
    assert instances.get("Broken") is None
    with pytest.raises(ws.UnknownClassError):
        instances["Nobody"]
    with pytest.raises(TypeError):
        instances["Alpha"] = 1


def test_the_executor_delegates_to_its_registry(executor: Any) -> None:
    """Under the pipeline's names."""
    executor.execute("Alpha", "echo")
    assert executor.has_method("Alpha", "echo")
    assert executor.evict_expired_instances() == 0
    assert executor.get_registry_stats()["cached_instances"] == 1
    assert executor.clear_instance_cache()["entries_cleared"] == 1
    assert "MethodExecutor" in repr(executor)


# -- without a registry ----------------------------------------------------------------------------


def test_an_executor_without_classes_is_degraded(
    ws: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`execute` returns None and logs a warning; injected methods work."""
    monkeypatch.delenv("WARMSET_CONFIG", raising=False)
    executor = ws.MethodExecutor()
    assert executor.degraded_mode
    assert "no classes are registered" in executor.degraded_reasons[0]
    with caplog.at_level(logging.WARNING):
        assert executor.execute("Tagger", "tag", text="x") is None
    assert "Tagger.tag is not available" in caplog.text
    executor.inject_method("Tagger", "tag", lambda text: text)
    assert executor.execute("Tagger", "tag", text="x") == "x"
    with pytest.raises(ws.ArgumentValidationError):
        executor.execute("Tagger", "tag", txet="x")


def test_an_unreadable_table_is_a_reason(
    ws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """No error is raised."""
    path = tmp_path / "warmset.toml"
    path.write_text("[classes\n")
    monkeypatch.setenv("WARMSET_CONFIG", str(path))
    executor = ws.MethodExecutor()
    assert executor.degraded_mode
    assert str(path) in executor.degraded_reasons[0]


def test_the_default_table_of_the_environment(
    ws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, samples: Any
) -> None:
    """It is the file that WARMSET_CONFIG names, and never one in the working directory."""
    (tmp_path / "warmset.toml").write_text('[classes]\nAlpha = "samples.Alpha"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WARMSET_CONFIG", raising=False)
    assert ws.MethodExecutor().degraded_mode
    monkeypatch.setenv("WARMSET_CONFIG", str(tmp_path / "warmset.toml"))
    executor = ws.MethodExecutor()
    assert not executor.degraded_mode
    assert executor.execute("Alpha", "echo", text="x") == "x"


def test_from_file_and_from_settings(ws: Any, tmp_path: Any) -> None:
    """Both accept settings that override others."""
    path = tmp_path / "w.toml"
    path.write_text('[registry]\nmax_cache_size = 7\n[classes]\nA = "samples.Alpha"\n')
    registry = ws.MethodRegistry.from_file(path, cache_ttl_seconds=5)
    assert (registry.settings.max_cache_size, registry.settings.cache_ttl_seconds) == (7, 5.0)
    assert registry.class_names() == ["A"]
    preset = ws.RegistrySettings.memory_constrained()
    registry = ws.MethodRegistry.from_settings(preset, {}, max_cache_size=9)
    stats = registry.get_stats()
    assert (stats["cache_ttl_seconds"], stats["max_cache_size"]) == (120.0, 9)
    assert stats["enable_weakref"] is True
    path.write_text("[registry]\nmax_cache = 7\n")
    with pytest.raises(ws.SettingsError, match="max_cache"):
        ws.MethodRegistry.from_file(path)


def test_an_executor_that_was_not_initialised(ws: Any) -> None:
    """It has no registry, which is an error and no crash."""

    class Mine(ws.MethodExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(AttributeError):
        Mine().execute("Alpha", "echo")


def test_an_execute_that_is_overridden_and_called_by_keyword(ws: Any, make: Any) -> None:
    """The override is called once."""
    calls = []

    class Counting(ws.MethodExecutor):  # type: ignore[misc, name-defined]
        def execute(self, class_name: str, method_name: str, **arguments: Any) -> Any:
            calls.append(method_name)
            return super().execute(class_name=class_name, method_name=method_name, **arguments)

    executor = Counting(method_registry=make())
    assert executor.execute("Alpha", "echo", text="x") == "x"
    assert calls == ["echo"]


def test_empty_names_are_names_that_were_not_given(ws: Any, make: Any, samples: Any) -> None:
    """They may then be given by keyword."""
    executor = ws.MethodExecutor(method_registry=make())
    assert executor.execute("Alpha", "", method_name="echo", text="x") == "x"
    assert executor.execute("", "echo", class_name="Alpha", text="x") == "x"
    with pytest.raises(TypeError, match="needs a class name and a method name"):
        executor.execute("Beta", "")
    assert samples.built == ["Alpha"]


def test_a_route_keeps_no_weak_instance_alive(ws: Any, make: Any) -> None:
    """A bound method whose function the instance made itself refers to the instance."""
    registry = make(enable_weakref=True)

    class Closing:
        def __init__(self) -> None:
            self.run = types.MethodType(lambda me, x=1: (self, x)[1], object())

    registry.register_instantiation_rule("Alpha", lambda cls: Closing())
    executor = ws.MethodExecutor(method_registry=registry)
    instance = registry.get_instance("Alpha")
    assert executor.execute("Alpha", "run", x=2) == 2
    freed = weakref.ref(instance)
    del instance
    gc.collect()
    assert freed() is None


def test_a_builtin_method_that_is_exchanged(ws: Any, make: Any) -> None:
    """Another method of the same type has another signature."""
    executor = ws.MethodExecutor(method_registry=make())

    class Items(list):  # type: ignore[type-arg]
        pass

    executor.registry.register_instantiation_rule("Alpha", lambda cls: Items())
    items = executor.registry.get_instance("Alpha")
    items.method = items.append
    executor.execute("Alpha", "method", object=1)
    items.method = items.clear
    executor.execute("Alpha", "method")
    assert items == []


def test_arguments_that_only_look_mistyped(ws: Any, make: Any) -> None:
    """Files for typing's IO, a default passed explicitly, an annotation that is no type."""
    import io
    import typing

    class Greedy:
        def __getattr__(self, name: str) -> Any:
            raise OSError(name)

    def method(file=None, number=Ellipsis, greedy=0) -> str:  # type: ignore[no-untyped-def]
        return "ran"

    method.__annotations__ = {
        "file": typing.TextIO | typing.IO[bytes],
        "number": int,
        "greedy": Greedy(),
    }
    executor = ws.MethodExecutor(method_registry=make({}))
    executor.inject_method("Free", "method", method)
    assert executor.execute("Free", "method", file=io.StringIO(), number=..., greedy=1) == "ran"
    with pytest.raises(ws.ArgumentValidationError):
        executor.execute("Free", "method", number="1")


# -- the constructor -------------------------------------------------------------------------------


def test_the_registry_may_be_the_first_argument(ws: Any, make: Any) -> None:
    """Of both executors."""
    registry = make()
    aio = importlib.import_module("warmset.aio")
    assert ws.MethodExecutor(registry).execute("Alpha", "echo", text="x") == "x"
    assert run(aio.AsyncMethodExecutor(registry).execute("Alpha", "echo", text="x")) == "x"
    executor = ws.MethodExecutor(registry, "signals")
    assert (executor.registry, executor.signal_registry) == (registry, "signals")
    assert executor.dispatcher is None
    assert not executor.degraded_mode


def test_a_dispatcher_needs_a_registry_beside_it(ws: Any, make: Any) -> None:
    """It is kept and ignored."""
    registry = make()
    executor = ws.MethodExecutor("dispatcher", method_registry=registry)
    assert (executor.dispatcher, executor.registry) == ("dispatcher", registry)
    for first in ("dispatcher", Duck(), {"Alpha": "samples.Alpha"}):
        with pytest.raises(TypeError, match="expected a registry as the first argument, got "):
            ws.MethodExecutor(first)
    with pytest.raises(TypeError, match="two registries"):
        ws.MethodExecutor(registry, method_registry=make())


class Duck:
    """A registry of somebody else's, with the least that one needs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, x: int, y: int = 2) -> int:
        return x * y

    def has_method(self, class_name: str, method_name: str) -> bool:
        return class_name == "Scorer" and hasattr(self, method_name)

    def get_method(self, class_name: str, method_name: str) -> Any:
        self.asked.append((class_name, method_name))
        if not self.has_method(class_name, method_name):
            raise KeyError(f"{class_name}.{method_name}")
        return getattr(self, method_name)


def test_any_object_with_the_methods_of_a_registry(ws: Any) -> None:
    """Its methods are routed, checked and counted as all others."""
    duck = Duck()
    executor = ws.MethodExecutor(method_registry=duck)
    assert executor.registry is duck
    for _ in range(3):
        assert executor.execute("Scorer", "score", x=2) == 4
    assert executor.execute(class_name="Scorer", method_name="score", x=2, y=5) == 10
    assert duck.asked == [("Scorer", "score")] * 4
    assert executor.has_method("Scorer", "score")
    assert not executor.has_method("Scorer", "nothing")
    with pytest.raises(ws.ArgumentValidationError, match="z"):
        executor.execute("Scorer", "score", x=2, z=1)
    metrics = executor.get_routing_metrics()
    assert (metrics["total_routes"], metrics["validation_errors"]) == (5, 1)
    for class_name, method_name in (("Scorer", "nothing"), ("Nobody", "score")):
        with pytest.raises(AttributeError) as caught:
            executor.execute(class_name, method_name)
        assert isinstance(caught.value, ws.MethodNotFoundError)
        assert isinstance(caught.value.__cause__.__cause__, KeyError)
    executor.degraded_mode = True
    assert executor.execute("Nobody", "score") is None
    assert executor.execute("Scorer", "score", x=3) == 6


@pytest.mark.parametrize("wrong", [object(), "registry", 3, {}])
def test_what_is_no_registry(ws: Any, wrong: Any) -> None:
    """Is named; the two cores agree."""
    with pytest.raises(TypeError, match="method_registry must be a registry, or have the methods"):
        ws.MethodExecutor(method_registry=wrong)


def test_degraded_mode_can_be_assigned(ws: Any, make: Any, caplog: Any) -> None:
    """As the pipeline does it."""
    for executor in (
        ws.MethodExecutor(make()),
        importlib.import_module("warmset.aio").AsyncMethodExecutor(make()),
    ):
        executor.degraded_mode = True
        assert executor.degraded_mode is True
        result = executor.execute("Nobody", "x")
        assert (result if result is None else run(result)) is None
        executor.degraded_mode = False
        with pytest.raises(ws.UnknownClassError):
            run(executor.execute("Nobody", "x"))
    executor = ws.MethodExecutor(make())
    executor.degraded_mode = True
    assert pickle.loads(pickle.dumps(executor)).degraded_mode


def test_a_refusal_under_the_pipelines_name(ws: Any, executor: Any) -> None:
    """`type_mismatches` is `mistyped`."""
    error = refusal(ws, executor, "plain", a="x")
    assert error.type_mismatches == error.mistyped == {"a": "expected int, got str"}


def test_the_setting_of_the_registry(ws: Any, make: Any, tmp_path: Any) -> None:
    """Executors check payloads as it says, unless they say otherwise."""
    registry = make({"Typed": "samples.Typed"}, arguments="names")
    assert ws.MethodExecutor(registry).execute("Typed", "plain", a="x") == ("x", "b")
    with pytest.raises(ws.ArgumentValidationError):
        ws.MethodExecutor(registry, arguments="strict").execute("Typed", "plain", a="x")
    path = tmp_path / "warmset.toml"
    path.write_text('[registry]\narguments = "off"\n[classes]\nTyped = "samples.Typed"\n')
    executor = ws.MethodExecutor(ws.MethodRegistry.from_file(path))
    assert executor.arguments == "off"
    assert executor.execute("Typed", "plain", a="x") == ("x", "b")


def test_each_stage_has_an_error_for_execute(ws: Any) -> None:
    """Static classes that are pickled; a class of somebody else's is the cause of its nearest."""
    errors = ws.errors
    stages = [
        each
        for each in vars(errors).values()
        if isinstance(each, type)
        and issubclass(each, ws.MethodRegistryError)
        and not issubclass(each, AttributeError)
    ]
    assert len(stages) > 10
    for stage in stages:
        error = errors.restore_error(stage, ("text",), {"class_name": "A"})
        error.__cause__ = cause = ValueError("mine")
        made = errors.error_in_execute(error, "m")
        assert isinstance(made, stage)
        assert isinstance(made, AttributeError)
        assert (made.stage, made.class_name, made.method_name) == (stage.stage, "A", "m")
        assert made.__cause__ is cause
        assert errors.error_in_execute(made, "m") is made
        assert type(pickle.loads(pickle.dumps(made))) is type(made)
        assert type(made.fresh_copy()) is type(made)

    class Special(ws.BuildError):  # type: ignore[misc, name-defined]
        pass

    special = Special("text", class_name="A")
    made = errors.error_in_execute(special, "m")
    assert isinstance(made, ws.BuildError)
    assert made.__cause__ is special
