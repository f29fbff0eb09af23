"""`execute` accepts what the direct call accepts, whatever the method is made of."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import types
import typing
from typing import Any
from unittest import mock

import pytest
import routed
from loops import run


@pytest.fixture
def registry(make: Any) -> Any:
    """Builds `routed.Routed` under the name "Routed"."""
    return make({"Routed": "routed.Routed", "Derived": "routed.Derived"})


@pytest.fixture
def executor(ws: Any, registry: Any) -> Any:
    """An executor on the registry."""
    return ws.MethodExecutor(method_registry=registry)


@pytest.fixture
def inject(executor: Any) -> Any:
    """Inject a method under the names "V" and "m", and return a function that executes it."""

    def inject(method: Any) -> Any:
        executor.inject_method("V", "m", method)
        return functools.partial(executor.execute, "V", "m")

    return inject


# -- what the direct call accepts ------------------------------------------------------------------


@pytest.mark.parametrize("class_name", ["Routed", "Derived"])
@pytest.mark.parametrize(
    ("method", "payload", "result"),
    [
        ("dispatched", {"source": "a"}, "text a"),
        ("dispatched", {"source": [1, 2]}, "2 parts"),
        ("dispatched", {"source": "a", "upper": True}, "TEXT A"),
        ("dispatched_function", {"source": "a"}, "text a"),
        ("self_bound", {"a": 1}, (1, 2)),
        ("self_bound", {"a": 1, "b": 3}, (1, 3)),
        ("static_wrapped", {"a": 1}, (1, 2)),
        ("wrapped", {"a": 1, "b": 3}, (1, 3)),
        ("wrapped_without_trace", {"a": 1, "b": 3}, (1, 3)),
        ("wrapped_by_position", {"a": 1}, (1, 2)),
        ("wrapped_by_position", {"a": 1, "b": 3}, (1, 3)),
        ("wrapped_with_fewer", {"a": 1}, (1, "supplied")),
        ("cached", {"a": 1}, (1, 2)),
        ("context", {"a": 1}, (1, 2)),
        ("converted", {"n": "3"}, 3),
        ("converted", {"n": 3}, 3),
        ("unchecked", {"n": "any"}, "any"),
        ("either", {"n": None}, None),
        ("either", {"n": 1}, 1),
        ("either_postponed", {"n": None}, None),
        ("either_number", {"n": "x"}, "x"),
        ("nested", {"options": routed.Routed.Options()}, "nested"),
        ("nested_in_a_union", {"options": routed.Routed.Options()}, "nested"),
        ("hooked", {"frame": [1]}, [1]),
        ("pair", {"both": [1, 2]}, [1, 2]),
        ("pair", {"both": (1, 2)}, (1, 2)),
        ("pair_of_ints", {"both": [1, 2]}, [1, 2]),
        ("partial", {"b": 3}, (1, 3)),
        ("partial", {}, (1, 2)),
        ("partial_keyword", {"a": 5}, (5, 7)),
        ("static", {"a": 1}, (1, 2)),
        ("of_class", {"a": 1}, ("Routed", 1)),
        ("lambda_attribute", {"a": 1}, 2),
        ("callable_attribute", {"a": 1}, (1, 2)),
        ("Options", {}, None),
        ("positional", {"a": 1, "b": 3}, (1, 3, 4)),
        ("positional", {"a": 1, "c": 5}, (1, 2, 5)),
        ("star", {"rest": [3, 4], "a": 1}, (1, 2, (3, 4), 5)),
        ("star", {"rest": (3,), "a": 1, "b": 0, "c": 6}, (1, 0, (3,), 6)),
        ("star", {"a": 1, "c": 6}, (1, 2, (), 6)),
        ("star_and_keywords", {"rest": [3]}, ((), {"rest": [3]})),
        ("generic", {"items": [1]}, [1]),
    ],
)
def test_what_the_direct_call_accepts(
    executor: Any, class_name: str, method: str, payload: dict[str, Any], result: Any
) -> None:
    """The second time as the first, and in an event loop."""
    aio = importlib.import_module("warmset.aio").AsyncMethodExecutor(
        method_registry=executor.registry
    )
    if method == "Options":
        assert isinstance(executor.execute(class_name, method), routed.Routed.Options)
        return
    if method == "of_class":
        result = (class_name, 1)
    for _ in range(2):
        assert executor.execute(class_name, method, **payload) == result
    assert run(aio.execute(class_name, method, **payload)) == result


@pytest.mark.parametrize(
    ("method", "payload", "faults"),
    [
        ("dispatched", {}, {"source"}),
        ("self_bound", {"b": 1}, {"a"}),
        ("wrapped", {"b": 1, "z": 1}, {"a", "z"}),
        ("wrapped_by_position", {}, {"a"}),
        ("cached", {"a": "x"}, {"a"}),
        ("either", {"n": "x"}, {"n"}),
        ("either_postponed", {"n": 1.5}, {"n"}),
        ("nested", {"options": 3}, {"options"}),
        ("pair", {"both": {1, 2}}, {"both"}),
        ("partial", {"b": "x"}, {"b"}),
        ("positional", {"b": 1}, {"a"}),
        ("star", {"rest": 3, "a": "x"}, {"rest", "a"}),
        ("callable_attribute", {"a": "x"}, {"a"}),
    ],
)
def test_what_is_still_refused(
    ws: Any, executor: Any, method: str, payload: dict[str, Any], faults: set[str]
) -> None:
    """Before the method runs."""
    for _ in range(2):
        with pytest.raises(ws.ArgumentValidationError) as caught:
            executor.execute("Routed", method, **payload)
        error = caught.value
        assert error.missing | error.unexpected | set(error.mistyped) == faults


def test_the_text_of_an_annotation_with_or(ws: Any, executor: Any) -> None:
    """It is the annotation as it was meant."""
    with pytest.raises(ws.ArgumentValidationError, match=r"n expected int \| None, got str"):
        executor.execute("Routed", "either", n="x")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bool, "bool_"),
        (int, "bool_"),
        (float, "bool_"),
        (float, "float64"),
        (float, "float32"),
        (float, "int64"),
        (int, "int64"),
        (int, "uint8"),
        (complex, "complex64"),
        (str, "str_"),
    ],
)
def test_numpy_scalars(inject: Any, annotation: type, value: str) -> None:
    """For Python's numbers, and Python's numbers for them."""
    numpy = pytest.importorskip("numpy")

    def method(x):  # type: ignore[no-untyped-def]
        return x

    kind = getattr(numpy, value)
    method.__annotations__ = {"x": annotation}
    assert inject(method)(x=kind(1)) == kind(1)

    def other(x):  # type: ignore[no-untyped-def]
        return x

    other.__annotations__ = {"x": kind}
    given = annotation(1)
    if (annotation, value) not in {(int, "bool_"), (float, "bool_"), (float, "int64")}:
        assert inject(other)(x=given) == given


def test_numpy_scalars_of_another_kind_are_refused(ws: Any, inject: Any) -> None:
    """A float is no int, and a text is no number."""
    numpy = pytest.importorskip("numpy")

    def method(a: int = 0, b: numpy.int64 = 0, c: bool = False) -> None: ...

    method.__annotations__ = {"a": int, "b": numpy.int64, "c": bool}
    for payload in ({"a": numpy.float64(1.5)}, {"b": "1"}, {"b": 1.5}, {"c": numpy.int64(1)}):
        with pytest.raises(ws.ArgumentValidationError):
            inject(method)(**payload)


def test_doubles_of_tests(ws: Any, inject: Any) -> None:
    """An unspecced mock is accepted for any class; a specced one only for its own."""

    def method(n: int, path: Any = None) -> str:
        return "ran"

    method.__annotations__ = {"n": int}
    call = inject(method)
    for double in (
        mock.Mock(),
        mock.MagicMock(),
        mock.AsyncMock(),
        mock.NonCallableMock(),
        mock.sentinel.number,
        mock.Mock(spec=int),
        mock.ANY,
    ):
        assert call(n=double) == "ran"
    for double in (mock.Mock(spec=str), mock.create_autospec(str, instance=True)):
        with pytest.raises(ws.ArgumentValidationError):
            call(n=double)


def test_a_mock_as_instance(ws: Any, make: Any) -> None:
    """It has every method; with a specification, their signatures are checked."""
    registry = make({"M": "routed.Routed", "S": "routed.Routed"})
    double = mock.Mock()
    registry.register_instantiation_rule("M", lambda cls: double)
    registry.register_instantiation_rule("S", mock.create_autospec)
    executor = ws.MethodExecutor(method_registry=registry)
    assert executor.execute("M", "anything", x=1) is double.anything.return_value
    double.anything.assert_called_once_with(x=1)
    executor.execute("S", "positional", a=1)
    with pytest.raises(ws.ArgumentValidationError):
        executor.execute("S", "positional", z=1)


def test_a_class_of_the_same_name(ws: Any, inject: Any) -> None:
    """A class that is local to a function has a namesake in the module; so has a reloaded one."""

    class Options:
        pass

    def method(options: Options) -> str:
        return type(options).__module__

    method.__globals__["Options"] = routed.Options
    try:
        assert inject(method)(options=Options()) == __name__
        with pytest.raises(ws.ArgumentValidationError):
            inject(method)(options=object())
    finally:
        del method.__globals__["Options"]


def test_type_parameters(executor: Any, inject: Any) -> None:
    """They accept anything, whatever else has their names."""

    def method(x: routed.Options) -> Any:
        return x

    method.__annotations__ = {"x": "Options"}
    method.__type_params__ = (typing.TypeVar("Options"),)  # type: ignore[attr-defined]
    assert inject(method)(x=3) == 3


# -- validators ------------------------------------------------------------------------------------


def test_validators_of_pydantic(ws: Any, executor: Any, inject: Any) -> None:
    """What `validate_call` converts is accepted; without it a model is a class as any other."""
    pydantic = pytest.importorskip("pydantic")

    class Options(pydantic.BaseModel):  # type: ignore[misc]
        top: int

    def plain(options, url=None):  # type: ignore[no-untyped-def]
        return options.top

    plain.__annotations__ = {"options": Options, "url": pydantic.HttpUrl}
    call = inject(pydantic.validate_call(plain))
    assert call(options={"top": "3"}) == 3
    assert call(options=Options(top=3), url="http://x.org/") == 3
    with pytest.raises(pydantic.ValidationError):
        call(options={"top": "x"})
    with pytest.raises(ws.ArgumentValidationError):
        call(option=3)
    with pytest.raises(ws.ArgumentValidationError):
        inject(plain)(options={"top": 3})
    executor.inject_method("V", "Options", Options)
    assert executor.execute("V", "Options", top="3").top == 3


def test_validators_of_pandera(inject: Any) -> None:
    """Its data frames are those of pandas, with and without `check_types`."""
    pandas = pytest.importorskip("pandas")
    pandera = pytest.importorskip("pandera.pandas")
    frame_type = importlib.import_module("pandera.typing").DataFrame

    class Rows(pandera.DataFrameModel):  # type: ignore[misc]
        a: int

    Rows.__annotations__ = {"a": int}

    def count(df):  # type: ignore[no-untyped-def]
        return len(df)

    count.__annotations__ = {"df": frame_type[Rows]}
    for method in (count, pandera.check_types(count)):
        assert inject(method)(df=pandas.DataFrame({"a": [1, 2]})) == 2


# -- reloads ---------------------------------------------------------------------------------------


def reload_into(function: Any, other: Any) -> None:
    """Change a function in place, as autoreload does."""
    for name in ("__code__", "__defaults__", "__kwdefaults__", "__annotations__"):
        setattr(function, name, getattr(other, name))
    function.__dict__.clear()
    function.__dict__.update(other.__dict__)


def fresh(function: Any) -> Any:
    """A copy of a function of `routed`, which a test may change."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = dict(function.__annotations__)
    return copy


@pytest.fixture(params=["method", "inherited", "injected", "bound", "wrapped"])
def reloaded(executor: Any, request: pytest.FixtureRequest) -> Any:
    """Return (function to be changed in place, a function that executes it)."""

    def before(self, a: int, b: int = 2):  # type: ignore[no-untyped-def]
        return a, b

    function = fresh(before)
    base = type("Base", (), {"run": function})
    if request.param == "wrapped":

        @functools.wraps(function)
        def wrapper(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            return function(self, *args, **kwargs)

        base.run = wrapper  # type: ignore[attr-defined]
    derived = type("Derived", (base,), {})
    registry = executor.registry
    kind = base if request.param in ("method", "wrapped") else derived
    registry.register_instantiation_rule("Routed", lambda cls: kind())
    if request.param in ("injected", "bound"):
        executor.inject_method("Routed", "run", types.MethodType(function, 1))
    if request.param == "injected":
        function = fresh(lambda a, b=2: (a, b))
        function.__annotations__ = {"a": int}
        executor.inject_method("Routed", "run", function)
    return function, functools.partial(executor.execute, "Routed", "run"), request.param


def test_a_reload_is_a_new_signature(ws: Any, reloaded: Any) -> None:
    """Names that are new are accepted, those that are gone are refused, and types are the new."""
    function, call, how = reloaded
    for _ in range(3):
        assert call(a=1) == (1, 2)

    def after(self, c: str, d: str = "x"):  # type: ignore[no-untyped-def]
        return c, d

    def after_without(c: str, d: str = "x"):  # type: ignore[no-untyped-def]
        return c, d

    other = after_without if how == "injected" else after
    other.__annotations__ = {"c": str, "d": str}
    reload_into(function, other)
    for _ in range(3):
        assert call(c="y") == ("y", "x")
        assert call(c="y", d="z") == ("y", "z")
    if how == "wrapped":
        return  # a wrapper is called with whatever its old code takes
    for payload in ({"a": 1}, {"c": 1}, {}):
        with pytest.raises(ws.ArgumentValidationError):
            call(**payload)


@pytest.mark.parametrize("what", ["__defaults__", "__kwdefaults__", "__signature__"])
def test_a_signature_that_changes_in_place(ws: Any, inject: Any, what: str) -> None:
    """Without new code."""

    def method(a, b, *, c=3, **more):  # type: ignore[no-untyped-def]
        return a, b, c, *more.values()

    if what == "__kwdefaults__":

        def method(*, a, b, c=3):  # type: ignore[no-untyped-def, no-redef, misc]
            return a, b, c

    elif what == "__defaults__":

        def method(a, b, c=3):  # type: ignore[no-untyped-def, no-redef, misc]
            return a, b, c

    call = inject(method)
    with pytest.raises(ws.ArgumentValidationError):
        call(a=1)
    if what == "__defaults__":
        method.__defaults__ = (2, 3)
    elif what == "__kwdefaults__":
        method.__kwdefaults__ = {"b": 2, "c": 3}
    else:
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("a", "b", "new")
        ]
        method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        assert call(a=1, b=2, new=4) == (1, 2, 3, 4)
        return
    for _ in range(2):
        assert call(a=1) == (1, 2, 3)
    setattr(method, what, None)
    for _ in range(2):
        with pytest.raises(ws.ArgumentValidationError, match="missing b, c"):
            call(a=1)
        assert call(a=1, b=2, c=3) == (1, 2, 3)


def test_a_callable_that_is_another_one_each_time(ws: Any, inject: Any) -> None:
    """Its signature is compiled once more, and not without end."""

    class Changing:
        @property
        def __code__(self) -> Any:
            return object()

        def __call__(self, a: int) -> int:
            return a

    call = inject(Changing())
    assert call(a=1) == 1
    with pytest.raises(ws.ArgumentValidationError):
        call(b=1)


def test_a_callable_that_answers_to_every_name(inject: Any) -> None:
    """Also to ``__wrapped__``."""

    class Greedy:
        def __getattr__(self, name: str) -> Any:
            return Greedy()

        def __call__(self, **payload: Any) -> Any:
            return payload

    assert inject(Greedy())(a=1) == {"a": 1}


@pytest.mark.counts
def test_plans_refer_to_no_instance(ws: Any, registry: Any, executor: Any) -> None:
    """An instance that was refused arguments is closed as any other."""
    registry.register("Routed", "routed.Routed", closer=lambda instance: None)
    registry.get_instance("Routed")
    for method in ("either", "dispatched", "nested", "self_bound"):
        with contextlib.suppress(ws.ArgumentValidationError):
            executor.execute("Routed", method, n=object(), options=3)
    registry.clear_cache()
    assert registry.stats().states["left_open"] == 0


# -- `arguments` -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MethodExecutor", "AsyncMethodExecutor"])
def test_how_payloads_are_checked(ws: Any, registry: Any, kind: str) -> None:
    """`arguments` says it, for both executors."""
    package = ws if kind == "MethodExecutor" else importlib.import_module("warmset.aio")

    def call(arguments: str | None, method: str, **payload: Any) -> Any:
        options = {} if arguments is None else {"arguments": arguments}
        executor = getattr(package, kind)(method_registry=registry, **options)
        assert executor.arguments == (arguments or "strict")
        for _ in range(2):
            result = executor.execute("Routed", method, **payload)
            if kind == "AsyncMethodExecutor":
                result = run(result)
        return result

    wrong = ws.ArgumentValidationError
    for arguments in (None, "strict"):
        with pytest.raises(wrong):
            call(arguments, "plain", a="x")
    assert call("names", "plain", a="x") == ("x", 2)
    for payload in ({}, {"a": 1, "z": 1}):
        with pytest.raises(wrong):
            call("names", "plain", **payload)
    assert call("off", "plain", a="x") == ("x", 2)
    assert call("off", "plain", a="x", b="y") == ("x", "y")
    for payload in ({}, {"a": 1, "z": 1}):
        with pytest.raises(TypeError) as caught:
            call("off", "plain", **payload)
        assert type(caught.value) is TypeError
    assert call("off", "positional", a="x", c=1) == ("x", 2, 1)
    assert call("off", "star", a="x", rest=[1]) == ("x", 2, (1,), 5)
    with pytest.raises(TypeError):
        call("off", "positional", b=1)


def test_a_wrong_way_to_check_is_named(ws: Any, registry: Any) -> None:
    """With what is expected."""
    with pytest.raises(ValueError, match="'strict', 'names' or 'off', got str 'none'"):
        ws.MethodExecutor(method_registry=registry, arguments="none")
    with pytest.raises(TypeError, match="arguments must be"):
        ws.MethodExecutor(method_registry=registry, arguments=3)
