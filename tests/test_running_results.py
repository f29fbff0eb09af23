"""Whatever behaves like a coroutine is awaited; whatever behaves like an iterator holds."""

from __future__ import annotations

import asyncio
import csv
import functools
import gc
import importlib
import io
import itertools
import operator
import types
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Iterator
from typing import Any
from unittest import mock

import pytest
from loops import run, until

ENDS = ("ended", "closed", "dropped", "dropped before it began")


class Iterating:
    """An iterator of a type of its own, with further methods."""

    def __init__(self, stop: int) -> None:
        self.numbers = iter(range(stop))
        self.stop = stop

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        return next(self.numbers)

    def __len__(self) -> int:
        return self.stop

    def __getitem__(self, at: int) -> int:
        return at * 10

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def close(self) -> None:
        self.numbers = iter(())


class CompiledGenerator(Iterating):
    """As Cython's."""

    def send(self, value: Any) -> Any:
        return next(self.numbers) if value is None else (value, next(self.numbers))

    def throw(self, *error: Any) -> None:
        raise error[0]


class AsyncIterating:
    """An asynchronous iterator of a type of its own."""

    def __init__(self, stop: int) -> None:
        self.numbers = iter(range(stop))

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        for number in self.numbers:
            return number
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await asyncio.sleep(0)


class AsyncIterable:
    """Has no ``__anext__`` of its own."""

    def __init__(self, stop: int) -> None:
        self.stop = stop

    async def __aiter__(self) -> Any:
        for number in range(self.stop):
            yield number

    async def close(self) -> None:
        await asyncio.sleep(0)


class Deferred:
    """Can be awaited, and used as a block, as the requests of HTTP clients."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self.value

    async def __aenter__(self) -> Any:
        return self.value

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.sleep(0)


class CompiledCoroutine:
    """As Cython's."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def send(self, value: Any) -> Any:
        return self.inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self.inner.throw(*error)

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Any:
        return self.inner.__await__()


class Service:
    """Its methods are plain; their results are not."""

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        return 1

    def itself(self) -> Any:
        return self

    # -- iterators ---------------------------------------------------------------------------------

    def iterating(self) -> Any:
        return Iterating(3)

    def compiled_generator(self) -> Any:
        return CompiledGenerator(3)

    def mapped(self) -> Any:
        return map(operator.index, range(3))

    def zipped(self) -> Any:
        return zip(range(3), range(3), strict=True)

    def chained(self) -> Any:
        return itertools.chain(range(2), range(1))

    def listed(self) -> Any:
        return iter([0, 1, 2])

    def rows(self) -> Any:
        return csv.reader(io.StringIO("a\nb\nc\n"))

    def lines(self) -> Any:
        return io.StringIO("a\nb\nc\n")

    # -- asynchronous iterators --------------------------------------------------------------------

    def async_iterating(self) -> Any:
        return AsyncIterating(3)

    def async_iterable(self) -> Any:
        return AsyncIterable(3)

    # -- awaitables --------------------------------------------------------------------------------

    def coroutine(self) -> Any:
        return self._answer()

    async def _answer(self) -> int:
        await asyncio.sleep(0)
        return 42

    def deferred(self) -> Any:
        return Deferred(42)

    def compiled_coroutine(self) -> Any:
        return CompiledCoroutine(self._answer())

    @types.coroutine
    def generator_coroutine(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return 42

    def task(self) -> Awaitable[int]:
        return asyncio.ensure_future(self._answer())

    # -- neither -----------------------------------------------------------------------------------

    def plain(self, what: Any) -> Any:
        return what


ITERATORS = (
    "iterating",
    "compiled_generator",
    "mapped",
    "zipped",
    "chained",
    "listed",
    "rows",
    "lines",
)
ASYNC_ITERATORS = ("async_iterating", "async_iterable")
AWAITABLES = ("coroutine", "deferred", "compiled_coroutine", "generator_coroutine", "task")


@pytest.fixture
def registry(make: Any) -> Any:
    """Builds a `Service` under the name "Service"."""
    registry = make({"Service": "samples.Alpha"})
    registry.register_instantiation_rule("Service", lambda cls: Service())
    return registry


@pytest.fixture(params=["execute", "handle"])
def call(ws: Any, registry: Any, request: pytest.FixtureRequest) -> Any:
    """Call a method through execute or a handle."""
    executor = ws.MethodExecutor(method_registry=registry)

    def call(method: str, **payload: Any) -> Any:
        if request.param == "execute":
            return executor.execute("Service", method, **payload)
        return registry.bind("Service", method)(**payload)

    return call


@pytest.fixture
def aio(registry: Any) -> Any:
    """An executor for event loops on the registry."""
    return importlib.import_module("warmset.aio").AsyncMethodExecutor(method_registry=registry)


def held(registry: Any) -> int:
    return len(registry.holders())


# -- iterators -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ITERATORS)
def test_an_iterator_of_any_type_holds(call: Any, registry: Any, method: str, end: str) -> None:
    """Until it has ended, was closed, or was dropped; also if the instance is removed meanwhile."""
    items = call(method)
    registry.clear_cache()
    assert held(registry) == 1
    if end != "dropped before it began":
        next(items)
        assert held(registry) == 1
    if end == "ended":
        assert len(list(items)) == 2
        assert next(items, None) is None
    elif end == "closed" and hasattr(items, "close"):
        items.close()
    else:
        del items
        gc.collect()
    assert held(registry) == 0


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ITERATORS)
def test_the_asynchronous_executor_holds_for_iterators(
    aio: Any, registry: Any, method: str, end: str
) -> None:
    """As the synchronous one."""

    async def main() -> None:
        items = await aio.execute("Service", method)
        assert held(registry) == 1
        if end != "dropped before it began":
            next(items)
        if end == "ended":
            assert len(list(items)) == 2
        elif end == "closed" and hasattr(items, "close"):
            items.close()
        else:
            del items
            gc.collect()
        assert held(registry) == 0

    run(main())


@pytest.mark.referrers
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ASYNC_ITERATORS)
@pytest.mark.parametrize("way", ["synchronous", "asynchronous"])
def test_an_asynchronous_iterator_of_any_type_holds(
    call: Any, aio: Any, registry: Any, way: str, method: str, end: str
) -> None:
    """Also one that only has ``__aiter__``."""

    async def main() -> None:
        items = call(method) if way == "synchronous" else await aio.execute("Service", method)
        assert held(registry) == 1
        if end != "dropped before it began":
            iterator = aiter(items)
            assert await anext(iterator) == 0
            assert held(registry) == 1
            if end == "ended":
                assert [number async for number in iterator] == [1, 2]
                assert held(registry) == 0
            del iterator
        if end == "closed":
            await (items.close() if hasattr(items, "close") else items.aclose())
            assert held(registry) == 0
        del items
        gc.collect()
        await until(lambda: held(registry) == 0)  # the loop closes a generator that was begun

    run(main())


# -- awaitables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", AWAITABLES)
def test_whatever_can_be_awaited_is_awaited(aio: Any, registry: Any, method: str) -> None:
    """By the asynchronous executor, in the loop; the instance is held meanwhile."""

    async def main() -> None:
        assert await aio.execute("Service", method) == 42
        assert held(registry) == 0

    run(main())


@pytest.mark.parametrize("end", ["awaited", "cancelled", "dropped"])
@pytest.mark.parametrize("method", AWAITABLES)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_whatever_can_be_awaited_holds(call: Any, registry: Any, method: str, end: str) -> None:
    """Until it has been awaited, was cancelled, or was dropped."""

    async def main() -> None:
        result = call(method)
        registry.clear_cache()
        assert held(registry) == 1
        if end == "awaited":
            assert await result == 42
            assert held(registry) == 0
        elif end == "cancelled":
            task = result if asyncio.isfuture(result) else asyncio.ensure_future(result)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert held(registry) == 0
        del result
        gc.collect()
        for _ in range(4):  # a task that runs ends by itself
            await asyncio.sleep(0)
        assert held(registry) == 0

    run(main())


def test_a_block_of_an_awaitable(call: Any, registry: Any) -> None:
    """``async with`` works as on the result itself, and holds to the end of the block."""

    async def main() -> None:
        async with call("deferred") as value:
            assert value == 42
            assert held(registry) == 1
        assert held(registry) == 0

    run(main())


@pytest.mark.parametrize("method", ["compiled_coroutine", "coroutine", "deferred"])
def test_loops_take_a_held_awaitable(call: Any, registry: Any, method: str) -> None:
    """`asyncio.gather`, `wait_for` and tasks."""

    async def main() -> None:
        assert await asyncio.gather(call(method), call(method)) == [42, 42]
        assert await asyncio.wait_for(call(method), 10) == 42
        assert await asyncio.ensure_future(call(method)) == 42
        assert held(registry) == 0

    run(main())


def test_a_plain_method_that_is_annotated_with_an_awaitable_runs_in_the_loop(
    aio: Any, registry: Any
) -> None:
    """It may start a task there; the annotation may be of any form."""
    loops = []

    def start() -> Any:
        loops.append(asyncio.get_running_loop())
        return asyncio.ensure_future(asyncio.sleep(0, 42))

    class Call(Deferred):
        pass

    for annotation in (Awaitable[int], "Awaitable[int]", asyncio.Future, Call, Coroutine, "Call"):
        method = types.FunctionType(
            start.__code__,
            {**globals(), "Call": Call},
            closure=start.__closure__,
        )
        method.__annotations__ = {"return": annotation}
        aio.inject_method("Virtual", "start", method)
        assert run(aio.execute("Virtual", "start")) == 42
    assert len(loops) == 6


# -- the form of what is returned ------------------------------------------------------------------


def test_a_stand_in_is_as_what_it_stands_for(call: Any) -> None:
    """For `isinstance`, for its attributes, and for the special methods of its type."""
    items = call("iterating")
    assert isinstance(items, Iterating)
    assert isinstance(items, Iterator)
    assert iter(items) is items
    assert (len(items), items[3], items.stop) == (3, 30, 3)
    items.stop = 5
    assert len(items) == 5
    del items.stop
    with pytest.raises(AttributeError, match="stop"):
        len(items)
    assert items == items
    assert items != call("iterating")
    assert len({items, items}) == 1
    assert "Iterating object" in repr(items)
    assert "numbers" in dir(items)
    with items as entered:
        assert entered is items
    with pytest.raises(TypeError):
        items + 1
    generator = call("compiled_generator")
    assert isinstance(generator, Generator)
    assert generator.send(None) == 0
    assert generator.send("x") == ("x", 1)
    with pytest.raises(KeyError):
        generator.throw(KeyError("x"))
    rows = call("rows")
    assert next(rows) == ["a"]
    assert rows.line_num == 1
    coroutine = call("compiled_coroutine")
    assert isinstance(coroutine, Coroutine)
    coroutine.close()
    assert isinstance(call("async_iterating"), AsyncIterator)
    assert call("lines").read() == "a\nb\nc\n"


def test_an_iterator_that_raises_may_go_on(call: Any, registry: Any) -> None:
    """But not a generator."""
    for kind, ends in ((Iterating, False), (CompiledGenerator, True)):
        made = kind(3)
        made.numbers = map(functools.partial(operator.floordiv, 1), [0, 1])
        registry.get_instance("Service").plain = lambda made=made: made
        items = call("plain")
        with pytest.raises(ZeroDivisionError):
            next(items)
        assert held(registry) == (0 if ends else 1)
        assert next(items) == 1
        del items, made


@pytest.mark.parametrize(
    "value",
    [None, 1, "x", b"x", [1], (1,), {1}, {1: 2}, range(3), object(), Service, types, len],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_other_results_are_returned_as_they_are(
    call: Any, aio: Any, registry: Any, value: Any
) -> None:
    """And hold nothing."""
    assert call("plain", what=value) is value
    assert run(aio.execute("Service", "plain", what=value)) is value
    assert held(registry) == 0


@pytest.mark.parametrize("kind", [mock.Mock, mock.MagicMock, mock.NonCallableMagicMock])
def test_a_mock_is_returned_as_it_is(call: Any, aio: Any, registry: Any, kind: Any) -> None:
    """It has every method, whatever it stands for."""
    double = kind()
    assert call("plain", what=double) is double
    assert run(aio.execute("Service", "plain", what=double)) is double
    assert held(registry) == 0


def test_an_instance_that_returns_itself(call: Any, aio: Any, registry: Any) -> None:
    """Although it is an iterator; it is then in use without a lease."""
    service = call("itself")
    assert service is registry.get_instance("Service")
    assert run(aio.execute("Service", "itself")) is service
    assert held(registry) == 0
    registry.clear_cache()
    assert registry.stats().states["closed"] == 0


def test_a_type_whose_metaclass_refuses_everything(call: Any) -> None:
    """The type alone decides, and no foreign code runs for that."""

    class Refusing(type):
        def __getattribute__(cls, name: str) -> Any:
            raise OSError(name)

    class Strange(metaclass=Refusing):
        pass

    strange = object.__new__(Strange)
    assert call("plain", what=strange) is strange


def test_a_future_that_is_done_with_its_loop(call: Any, registry: Any) -> None:
    """It cannot call back any more."""

    async def main() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(42)
        return future

    future = run(main())
    result = call("plain", what=future)
    assert result.result() == 42
    del result
    assert held(registry) == 0


def test_partial_methods_run_in_the_loop(ws: Any, make: Any, aio: Any) -> None:
    """If what they call does."""

    async def answer(a: int, b: int) -> Any:
        return asyncio.get_running_loop(), a + b

    aio.inject_method("Virtual", "answer", functools.partial(answer, b=1))

    async def main() -> None:
        assert await aio.execute("Virtual", "answer", a=1) == (asyncio.get_running_loop(), 2)

    run(main())
