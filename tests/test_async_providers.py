"""Coroutine functions and asynchronous generators as providers."""

from __future__ import annotations

import asyncio
import gc
import logging
import types
from typing import Any

import pytest
from loops import join_workers, run, until


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
def provided(make: Any, log: list[Any]) -> Any:
    """A registry with an asynchronous provider ``db``, which notes loops in `log`."""
    registry = make({})

    @registry.provider
    async def db() -> Any:
        connection = ["connection"]
        log.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        yield connection
        await asyncio.sleep(0)
        log.append(asyncio.get_running_loop())

    return registry


@pytest.fixture
def executor_of(ws: Any) -> Any:
    def executor_of(registry: Any) -> Any:
        from warmset.aio import AsyncMethodExecutor

        return AsyncMethodExecutor(method_registry=registry)

    return executor_of


def test_a_synchronous_look_up_is_refused(provided: Any, ws: Any) -> None:
    with pytest.raises(ws.AsyncRuleError, match="'db'"):
        provided.get_instance("db")
    gc.collect()  # nothing that was never awaited


def test_a_coroutine_function_is_awaited(make: Any, ws: Any, executor_of: Any) -> None:
    registry = make({})

    @registry.provider
    async def client() -> Any:
        await asyncio.sleep(0)
        return ["client"]

    @registry.provider
    @types.coroutine
    def old() -> Any:
        yield from asyncio.sleep(0).__await__()
        return ["old"]

    async def main() -> None:
        executor = executor_of(registry)
        assert await executor.get_instance("client") == ["client"]
        assert await executor.get_instance("old") == ["old"]

    run(main())
    registry.clear_cache()
    for name in ("client", "old"):
        with pytest.raises(ws.AsyncRuleError):
            registry.get_instance(name)


@pytest.mark.parametrize("removal", ["discard", "clear"])
def test_the_code_after_the_yield_is_awaited_by_its_own_loop(
    provided: Any, log: list[Any], executor_of: Any, removal: str
) -> None:
    async def main() -> Any:
        executor = executor_of(provided)
        async with executor.use("db") as connection:
            assert connection == ["connection"]
        del connection
        if removal == "discard":
            await executor.discard("db")
        else:
            await executor.clear_instance_cache()
        return asyncio.get_running_loop()

    loop = run(main())
    assert log == [loop, loop]
    assert provided.stats().closed == 1
    provided.close()
    assert log == [loop, loop]


def test_a_synchronous_removal_leaves_it_to_its_loop(
    provided: Any, log: list[Any], executor_of: Any
) -> None:
    """Also one in the thread of the loop, which must not wait for itself."""

    async def main() -> None:
        executor = executor_of(provided)
        async with executor.use("db"):
            pass
        provided.discard("db")
        assert len(log) == 1
        await until(lambda: len(log) == 2)
        await until(lambda: provided.stats().closed == 1)
        async with executor.use("db"):
            pass
        await asyncio.to_thread(provided.discard, "db")
        await until(lambda: provided.stats().closed == 2)

    run(main())
    assert len(log) == 4


def test_it_is_left_open_where_its_loop_is_closed(
    provided: Any, log: list[Any], executor_of: Any, caplog: Any
) -> None:
    async def main() -> None:
        async with executor_of(provided).use("db"):
            pass

    run(main())
    with caplog.at_level(logging.WARNING, "warmset"):
        provided.close()
    assert provided.stats().left_open == 1
    assert "left open: the event loop that built it is closed" in caplog.text
    assert len(log) == 1


def test_an_error_after_the_yield_is_a_failure_of_the_closer(
    make: Any, executor_of: Any, caplog: Any
) -> None:
    registry = make({})

    @registry.provider
    async def broken() -> Any:
        yield []
        raise OSError("cannot close")

    @registry.provider
    async def twice() -> Any:
        yield []
        yield []

    async def main() -> None:
        executor = executor_of(registry)
        for name in ("broken", "twice"):
            async with executor.use(name):
                pass
            await executor.discard(name)

    with caplog.at_level(logging.WARNING, "warmset"):
        run(main())
    assert registry.stats().close_failures == 2
    assert "cannot close" in caplog.text
    assert "yields a second time" in caplog.text


def test_errors_before_the_yield_are_errors_of_the_build(
    make: Any, ws: Any, executor_of: Any
) -> None:
    registry = make({})

    @registry.provider
    async def broken() -> Any:
        raise OSError("no database")
        yield

    @registry.provider
    async def empty() -> Any:
        return
        yield

    async def main() -> None:
        executor = executor_of(registry)
        with pytest.raises(ws.BuildError, match="no database"):
            await executor.get_instance("broken")
        with pytest.raises(ws.BuildError, match="yielded nothing"):
            await executor.get_instance("empty")

    run(main())
    join_workers()
