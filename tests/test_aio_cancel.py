"""A cancellation at any await loses no instance, no hold and no waiter."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
from typing import Any

import pytest
from loops import Closable, Worker, join_workers, run, until

from warmset.testing.structure import check_accounts


class Both(Worker, Closable):
    """Has methods of every kind, and is closed asynchronously."""


@pytest.mark.parametrize("asynchronous", [False, True], ids=["rule", "async rule"])
@pytest.mark.parametrize("way", ["execute", "thread", "generator", "use", "get", "discard"])
def test_a_cancellation_at_each_await(make: Any, way: str, asynchronous: bool) -> None:
    """A task is cancelled after 0, 1, 2, ... steps of the loop; another one is served."""
    aio = importlib.import_module("warmset.aio")
    closed: list[Any] = []

    async def build(_: type) -> Any:
        await asyncio.sleep(0)
        return Both(closed)

    async def act(executor: Any) -> None:
        if way == "execute":
            await executor.execute("Alpha", "loop")
        elif way == "thread":
            await executor.execute("Alpha", "thread")
        elif way == "generator":
            async for _ in await executor.execute("Alpha", "acount"):
                await asyncio.sleep(0)
        elif way == "get":
            await executor.get_instance("Alpha")
        else:
            async with executor.use("Alpha"):
                await asyncio.sleep(0)
                if way == "discard":
                    await executor.discard("Alpha")

    async def main(registry: Any, steps: int) -> None:
        executor = aio.AsyncMethodExecutor(registry)
        tasks = [asyncio.create_task(act(executor)) for _ in range(2)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]
        await tasks[1]
        gc.collect()
        await until(lambda: registry.stats().held == 0)
        await executor.close_registry()

    for steps in range(15):
        registry = make(retry_after_seconds=0)
        rule = build if asynchronous else lambda _: Both(closed)
        registry.register_instantiation_rule("Alpha", rule)
        run(main(registry, steps))
        join_workers()
        check_accounts(registry)
        assert registry.holders() == []
        assert registry.stats().states["waiting"] == registry.stats().states["held"] == 0
