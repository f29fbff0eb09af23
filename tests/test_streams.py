"""Generators and coroutines that a method returned hold their instance until they have ended."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest


class Streams:
    """Methods whose results still run after they have returned."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def count(self, stop: int) -> Any:
        """Yields, takes what is sent, returns."""
        total = 0
        for i in range(stop):
            assert not self.is_closed
            total += (yield i) or 0
        return total

    async def answer(self, value: int) -> int:
        await asyncio.sleep(0)
        assert not self.is_closed
        return value

    async def stream(self, stop: int) -> Any:
        for i in range(stop):
            assert not self.is_closed
            try:
                sent = yield i
            except ValueError:
                sent = "thrown"
            if sent:
                yield sent


@pytest.fixture(params=["execute", "handle"])
def call(ws: Any, request: pytest.FixtureRequest, samples: Any) -> Any:
    """Call a method of `Streams` through execute or a handle; the registry is `call.registry`."""
    registry = ws.MethodRegistry({"Streams": "samples.Alpha"})
    registry.register_instantiation_rule("Streams", lambda cls: Streams())
    executor = ws.MethodExecutor(method_registry=registry)

    def call(method: str, **payload: Any) -> Any:
        if request.param == "execute":
            return executor.execute("Streams", method, **payload)
        return registry.bind("Streams", method)(**payload)

    call.registry = registry  # type: ignore[attr-defined]
    return call


def held(call: Any) -> int:
    return int(call.registry.stats().held)


def test_a_generator_holds_until_it_is_exhausted(call: Any) -> None:
    """It passes on sent and returned values."""
    generator = call("count", stop=2)
    assert held(call) == 1
    call.registry.clear_cache()
    assert next(generator) == 0
    assert generator.send(5) == 1
    assert call.registry.stats().closed == 0
    with pytest.raises(StopIteration) as end:
        generator.send(6)
    assert end.value.value == 11
    assert call.registry.stats().closed == 1


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("end", ["close", "drop", "throw"])
def test_a_generator_that_is_closed_or_dropped_releases(call: Any, started: bool, end: str) -> None:
    """Also if it never ran."""
    generator = call("count", stop=5)
    if started:
        next(generator)
    if end == "close":
        generator.close()
    elif end == "throw":
        with pytest.raises(KeyError):
            generator.throw(KeyError("x"))
    del generator
    gc.collect()
    assert held(call) == 0


def test_a_coroutine_holds_until_it_is_done(call: Any) -> None:
    """It is awaited after the call has returned."""

    async def main() -> int:
        coroutine = call("answer", value=3)
        assert held(call) == 1
        call.registry.clear_cache()
        result = await coroutine
        assert call.registry.stats().closed == 1
        return int(result)

    assert asyncio.run(main()) == 3


def test_a_coroutine_that_is_cancelled_releases(call: Any) -> None:
    """At once."""

    async def main() -> None:
        task = asyncio.ensure_future(call("answer", value=3))
        await asyncio.sleep(0)
        assert held(call) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert held(call) == 0


def test_an_asynchronous_generator_holds_until_it_is_exhausted(call: Any) -> None:
    """It passes on sent values and thrown exceptions."""

    async def main() -> list[Any]:
        stream = call("stream", stop=3)
        assert held(call) == 1
        seen = [await stream.__anext__()]
        seen.append(await stream.asend("sent"))
        seen.append(await stream.__anext__())
        seen.append(await stream.athrow(ValueError("x")))
        seen += [item async for item in stream]
        return seen

    assert asyncio.run(main()) == [0, "sent", 1, "thrown", 2]
    assert held(call) == 0


def test_an_asynchronous_generator_that_is_closed_releases(call: Any) -> None:
    """Before its end."""

    async def main() -> None:
        stream = call("stream", stop=3)
        await stream.__anext__()
        await stream.aclose()

    asyncio.run(main())
    assert held(call) == 0
