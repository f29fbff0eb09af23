"""Handles: calls of one method of one class, also after evictions."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest


def test_a_handle_outlives_evictions(make: Any, samples: Any) -> None:
    """It builds where nothing is warm, and every call is a look-up."""
    registry = make()
    handle = registry.bind("Alpha", "itself")
    assert samples.built == []
    first = handle()
    assert handle() is first
    registry.clear_cache()
    assert handle() is not first
    assert (registry.stats().hits, registry.stats().misses) == (1, 2)
    assert (handle.class_name, handle.method_name) == ("Alpha", "itself")
    assert repr(handle) == "<warmset handle of Alpha.itself>"


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 20])
def test_a_handle_passes_arguments_as_they_are(make: Any, count: int) -> None:
    """Positional and keyword ones, few and many, from a call, a tuple and a dict."""
    handle = make().bind("Alpha", "echo")
    args = tuple(range(count))
    kwargs = {f"k{i}": i for i in range(count)}
    expected = (args[0] if args else None, args[1:], kwargs)
    if count < 2:
        expected = expected if kwargs else None
    assert handle(*args, **kwargs) == expected
    assert handle.__call__(*args, **kwargs) == expected
    assert list(map(handle, args)) == list(args)
    assert handle(7, k=8) == (7, (), {"k": 8})
    assert handle("x") == "x"


def test_a_handle_holds_while_it_runs(make: Any) -> None:
    """It releases the instance also if the method raises."""
    registry = make()
    seen = []
    registry.get_instance("Alpha").probe = lambda: seen.append(registry.stats().held)
    registry.bind("Alpha", "probe")()
    assert seen == [1]
    with pytest.raises(AttributeError, match="from inside the method"):
        registry.bind("Alpha", "fail")()
    assert registry.stats().held == 0


def test_errors_of_a_handle(ws: Any, make: Any) -> None:
    """A missing method has its error; an error from inside the method passes as it is."""
    registry = make()
    with pytest.raises(ws.UnknownClassError):
        registry.bind("Nobody", "echo")
    with pytest.raises(ws.MethodNotFoundError, match="has no method 'tga'"):
        registry.bind("Alpha", "tga")()
    with pytest.raises(ws.MethodNotFoundError, match="label is not callable"):
        registry.bind("Alpha", "label")()
    with pytest.raises(AttributeError, match="from inside the method") as caught:
        registry.bind("Alpha", "fail")()
    assert type(caught.value) is AttributeError
    with pytest.raises(TypeError, match="itself") as mismatch:
        registry.bind("Alpha", "itself")(1, 2, 3)
    assert type(mismatch.value) is TypeError
    assert registry.stats().held == 0


def test_a_handle_follows_injections(ws: Any, make: Any) -> None:
    """A method that is injected later takes precedence from the next call on."""
    registry = make()
    handle = registry.bind("Alpha", "echo")
    assert handle("x") == "x"
    registry.inject_method("Alpha", "echo", str.upper)
    assert handle("x") == "X"
    registry.inject_method("Alpha", "echo", str.title)
    assert handle("xy") == "Xy"
    registry.inject_method("Virtual", "score", len)
    assert registry.bind("Virtual", "score")("abc") == 3


def test_a_handle_works_from_within_its_own_method(make: Any) -> None:
    """Recursion holds once for each call."""
    registry = make()
    seen = []

    def countdown(n: int) -> int:
        seen.append(registry.stats().entries[0].holders)
        return handle(n - 1) if n else 0

    registry.get_instance("Alpha").countdown = countdown
    handle = registry.bind("Alpha", "countdown")
    assert handle(3) == 0
    assert seen == [1, 2, 3, 4]
    assert registry.stats().held == 0


def test_a_class_may_be_unregistered_during_a_call_of_its_handle(make: Any) -> None:
    """Its instance is held until the call has ended."""
    registry = make()
    registry.get_instance("Alpha").leave = lambda: registry.unregister("Alpha")
    handle = registry.bind("Alpha", "leave")
    assert handle() is True
    assert registry.stats().cached == 0


def test_handles_leak_nothing(make: Any) -> None:
    """Exact reference counts over many calls, right and wrong."""
    registry = make()
    alpha = registry.get_instance("Alpha")
    handle = registry.bind("Alpha", "echo")
    missing = registry.bind("Alpha", "tga")
    argument = object()
    before = sys.getrefcount(alpha), sys.getrefcount(argument), sys.getrefcount(handle)
    for _ in range(100):
        handle(argument)
        handle(argument, k=argument)
        handle(*[argument] * 20)
        with pytest.raises(AttributeError):
            missing(argument)
    gc.collect()
    after = sys.getrefcount(alpha), sys.getrefcount(argument), sys.getrefcount(handle)
    assert after == before


@pytest.mark.parametrize("way", ["injected", "attribute"])
def test_a_handle_that_reaches_itself(make: Any, way: str) -> None:
    """It is a RecursionError, also where only C code is on the stack."""
    registry = make()
    handle = registry.bind("Alpha", "echo")
    if way == "injected":
        registry.inject_method("Alpha", "echo", handle)
    else:
        registry.get_instance("Alpha").echo = handle
    with pytest.raises(RecursionError):
        handle()
    registry.clear_cache()


def test_an_injected_method_whose_finaliser_calls_its_handle(make: Any) -> None:
    """The handle finds the method that replaced it."""
    registry = make()
    calls = []

    class Inner:
        def __del__(self) -> None:
            calls.append(handle("last"))

    class Outer:
        def __init__(self) -> None:
            self.inner = Inner()

        def __call__(self, text: str) -> str:
            return text

    registry.inject_method("Alpha", "echo", Outer())
    handle = registry.bind("Alpha", "echo")
    handle("first")
    registry.inject_method("Alpha", "echo", str.upper)
    assert handle("x") == "X"
    gc.collect()
    assert calls == ["LAST"]


def test_an_error_from_inside_a_method_is_not_looked_up_again(make: Any) -> None:
    """The method is a property, which may raise the second time."""
    registry = make()
    reads = []

    class Odd:
        @property
        def method(self) -> Any:
            reads.append(1)
            return self._method

        def _method(self) -> None:
            raise TypeError("mine")

    registry.register_instantiation_rule("Alpha", lambda cls: Odd())
    with pytest.raises(TypeError, match="mine"):
        registry.bind("Alpha", "method")()
    assert reads == [1]
