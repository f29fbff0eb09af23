"""Instances that an event loop removes are closed, with ``aclose()`` if they have one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import sys
import threading
from typing import Any

import pytest
from loops import Closable, Worker, run, until
from threads import Gate


@pytest.fixture
def aio(ws: Any) -> Any:
    """The module, on the core under test."""
    return importlib.import_module("warmset.aio")


@pytest.fixture
def registry(make: Any) -> Any:
    """A registry of the sample classes that remembers no failure."""
    return make(retry_after_seconds=0)


@pytest.fixture
def executor(aio: Any, registry: Any) -> Any:
    """An executor on the registry."""
    return aio.AsyncMethodExecutor(method_registry=registry)


def closables(registry: Any, *names: str) -> list[Any]:
    """Have classes closed asynchronously; return the list of what was closed, with the loop."""
    closed: list[Any] = []
    for name in names:
        registry.register_instantiation_rule(name, lambda _: Closable(closed))
    return closed


@pytest.mark.parametrize(
    "way", ["clear", "discard", "sweep", "size", "idle", "release", "surplus", "close"]
)
def test_the_async_api_closes_with_aclose(aio: Any, make: Any, timer: Any, way: str) -> None:
    """Once, in the loop that removes, before the call that removes returns."""
    registry = make(max_cache_size=1, cache_ttl_seconds=10)
    executor = aio.AsyncMethodExecutor(method_registry=registry)
    closed = closables(registry, "Alpha")

    async def main() -> None:
        await executor.execute("Alpha", "work")
        if way == "clear":
            assert (await executor.clear_instance_cache())["entries_cleared"] == 1
        elif way == "discard":
            assert await executor.discard("Alpha")
            assert not await executor.discard("Alpha")
        elif way == "sweep":
            timer.advance(11)
            assert await executor.evict_expired_instances() == 1
        elif way == "size":
            await executor.execute("Beta", "echo")
        elif way == "idle":
            timer.advance(11)
            await executor.execute("Alpha", "work")
        elif way == "release":
            async with executor.use("Alpha"):
                await executor.clear_instance_cache()
                assert closed == []
        elif way == "surplus":
            async with executor.use("Alpha"), executor.use("Beta"):
                assert closed == []
            async with executor.use("Beta"):
                pass
        else:
            await executor.close_registry()
            await executor.close_registry()
        assert [loop for _, loop in closed] == [asyncio.get_running_loop()]
        await executor.close_registry()

    run(main())
    assert len(closed) == (2 if way == "idle" else 1)
    stats = registry.stats()
    assert (stats.close_failures, stats.left_open) == (0, 0)
    assert stats.closed >= len(closed)


@pytest.mark.referrers
def test_a_dropped_generator_closes_what_was_removed(aio: Any, make: Any) -> None:
    """The last hold may end in a finaliser; a worker closes."""
    registry = make()
    executor = aio.AsyncMethodExecutor(method_registry=registry)
    closed: list[Any] = []

    class Both(Worker, Closable):
        pass

    registry.register_instantiation_rule("Alpha", lambda _: Both(closed))

    async def main() -> None:
        numbers = await executor.execute("Alpha", "acount")
        await executor.clear_instance_cache()
        assert closed == []
        del numbers
        gc.collect()
        await until(lambda: registry.stats().closed)

    run(main())
    assert len(closed) == 1


def test_closing_in_reverse_order_and_outside_the_loop(
    executor: Any, registry: Any, timer: Any
) -> None:
    """Each with its own closer; a slow `close` does not stop the loop."""
    closed = closables(registry, "Beta", "Delta")
    order: list[str] = []
    gate = Gate()

    def close_gamma(_: Any) -> None:
        gate()
        order.append("Gamma")

    async def close_alpha(_: Any) -> None:
        await asyncio.sleep(0)
        order.append("Alpha")

    registry.register("Gamma", "samples.Gamma", closer=close_gamma)
    registry.register("Alpha", "samples.Alpha", closer=close_alpha)

    async def main() -> None:
        for name in ("Alpha", "Beta", "Gamma", "Delta"):
            async with executor.use(name):
                timer.advance(1)
        closing = asyncio.create_task(executor.close_registry())
        await until(gate.reached.is_set)
        assert gate.thread != threading.get_ident()
        assert len(closed) == 1
        assert order == []
        gate.opened.set()
        await closing
        assert len(closed) == 2
        assert order == ["Gamma", "Alpha"]

    run(main())
    assert registry.stats().closed == 4


def test_errors_of_aclose_are_counted(
    executor: Any, registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And logged; the removal continues."""

    class Bad:
        async def aclose(self) -> None:
            raise OSError("no such connection")

    registry.register_instantiation_rule("Alpha", lambda _: Bad())
    closed = closables(registry, "Beta")

    async def main() -> None:
        for name in ("Alpha", "Beta"):
            async with executor.use(name):
                pass
        await executor.clear_instance_cache()

    run(main())
    assert len(closed) == 1
    assert (registry.stats().closed, registry.stats().close_failures) == (1, 1)
    assert "no such connection" in caplog.text


def test_what_is_in_use_without_a_lease_is_left_open(executor: Any, registry: Any) -> None:
    """As in the synchronous registry."""
    closed = closables(registry, "Alpha")

    async def main() -> None:
        alpha = await executor.get_instance("Alpha")
        await executor.clear_instance_cache()
        await alpha.work()

    run(main())
    assert closed == []
    assert registry.stats().left_open == 1


@pytest.mark.counts
@pytest.mark.parametrize(
    "method", ["work", "fine", pytest.param("fail", marks=pytest.mark.referrers), "itself"]
)
def test_nothing_of_the_executor_refers_to_an_instance(
    executor: Any, registry: Any, method: str
) -> None:
    """An instance that was handed out without a lease is closed when nothing else refers to it."""
    closed: list[Any] = []

    class Alpha(Closable):
        async def aclose(self) -> None:
            self.closed.append("Alpha")

        def fine(self) -> None: ...

        def fail(self) -> None:
            raise ValueError("mine")

        def itself(self) -> Any:
            return self

    registry.register_instantiation_rule("Alpha", lambda _: Alpha(closed))

    async def main() -> None:
        for _ in range(20):
            await executor.get_instance("Alpha")
            with contextlib.suppress(ValueError):
                await executor.execute("Alpha", method)
            await executor.clear_instance_cache()

    run(main())
    assert len(closed) == 20
    assert registry.stats().left_open == 0


def test_the_synchronous_api_does_not_await(executor: Any, registry: Any) -> None:
    """An asynchronous closer fails there and is counted; no coroutine is left unawaited."""

    async def close(_: Any) -> None:
        raise AssertionError

    closed = closables(registry, "Beta")
    registry.register("Alpha", "samples.Alpha", closer=close)
    for name in ("Alpha", "Beta"):
        with registry.use(name):
            pass
    registry.clear_cache()
    gc.collect()
    assert closed == []
    assert registry.stats().close_failures == 1


class Slow:
    """Is closed asynchronously, as soon as an event is set."""

    def __init__(self, event: asyncio.Event) -> None:
        self.begun, self.event = asyncio.Event(), event

    async def aclose(self) -> None:
        self.begun.set()
        await self.event.wait()


def test_a_task_is_cancelled_while_what_it_released_is_closed(executor: Any, registry: Any) -> None:
    """It is closed in any case."""

    async def main() -> None:
        slow = Slow(asyncio.Event())
        registry.register_instantiation_rule("Alpha", lambda _: slow)

        async def use() -> None:
            async with executor.use("Alpha"):
                await executor.discard("Alpha")

        using = asyncio.create_task(use())
        await slow.begun.wait()
        using.cancel()
        await asyncio.wait([using])
        assert using.cancelled()
        slow.event.set()
        await until(lambda: registry.stats().closed == 1)

    run(main())


def test_a_task_is_cancelled_before_what_it_released_is_closed(
    executor: Any, registry: Any
) -> None:
    """The worker that serves an asynchronous rule is busy with a method meanwhile."""

    async def main() -> None:
        gate, event = Gate(), asyncio.Event()
        event.set()

        async def rule(cls: type) -> Any:
            lease = executor.use("Alpha")
            await lease.__aenter__()
            registry.discard("Alpha")
            method = asyncio.create_task(executor.execute("Virtual", "method"))
            await until(gate.reached.is_set)
            releasing = asyncio.create_task(lease.__aexit__())
            await until(lambda: registry.stats().states["waiting"])
            releasing.cancel()
            await asyncio.wait([releasing])
            gate.opened.set()
            await method
            return cls()

        registry.register_instantiation_rule("Alpha", lambda _: Slow(event))
        registry.register_instantiation_rule("Beta", rule)
        registry.inject_method("Virtual", "method", gate)
        await executor.get_instance("Beta")
        await until(lambda: registry.stats().closed == 1)

    run(main())


def test_each_registry_closes_its_own(aio: Any, make: Any, executor: Any, registry: Any) -> None:
    """A listener of one registry removes an instance of another."""
    closed: list[str] = []
    other = make()
    aio.AsyncMethodExecutor(method_registry=other)
    registry.register("Alpha", "samples.Alpha", closer=lambda _: closed.append("registry"))
    other.register("Alpha", "samples.Alpha", closer=lambda _: closed.append("other"))
    asynchronous = closables(other, "Beta")
    registry.add_listener(lambda event: other.clear_cache())
    with other.use("Alpha"), other.use("Beta"):
        pass

    async def main() -> None:
        async with executor.use("Alpha"):
            pass
        await executor.clear_instance_cache()

    run(main())
    assert sorted(closed) == ["other", "registry"]
    assert len(asynchronous) == 1
    assert (registry.stats().closed, other.stats().closed) == (1, 2)


@pytest.mark.referrers
def test_a_loop_that_ends_before_it_closes(
    executor: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was handed to it is closed without it."""
    closed: list[str] = []
    registry.register_instantiation_rule("Alpha", lambda _: Worker())
    registry.register("Alpha", "samples.Alpha", closer=lambda _: closed.append("Alpha"))

    async def main() -> None:
        numbers = await executor.execute("Alpha", "count")
        await executor.clear_instance_cache()
        loop = asyncio.get_running_loop()
        for _ in range(10_000):  # the worker may not have dropped what it returned
            if sys.getrefcount(numbers) == 2:
                break
            await asyncio.sleep(0)
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *arguments, **context: None)
        del numbers
        monkeypatch.undo()
        assert closed == ["Alpha"]

    run(main())


def test_cancelling_a_removal_does_not_stop_it(executor: Any, registry: Any) -> None:
    """The removed instance is closed, although nobody waits for that."""
    closed: list[str] = []

    async def main() -> None:
        begun, event = asyncio.Event(), asyncio.Event()

        class Slow:
            async def aclose(self) -> None:
                begun.set()
                await event.wait()
                closed.append("Slow")

        registry.register_instantiation_rule("Alpha", lambda _: Slow())
        async with executor.use("Alpha"):
            pass
        removing = asyncio.create_task(executor.clear_instance_cache())
        await begun.wait()
        removing.cancel()
        await asyncio.wait([removing])
        event.set()
        await until(lambda: registry.stats().closed == 1)

    run(main())
    assert closed == ["Slow"]


class PanicException(BaseException):
    """As a Rust extension raises it."""


@pytest.mark.parametrize("kind", [SystemExit, PanicException, GeneratorExit, ValueError])
def test_an_asynchronous_closer_that_exits(
    executor: Any, registry: Any, kind: type[BaseException]
) -> None:
    """It has failed, and the loop goes on."""

    class Client:
        async def aclose(self) -> None:
            await asyncio.sleep(0)
            raise kind("from a closer")

        def ask(self) -> str:
            return "fine"

    registry.register("Client", Client)

    async def main() -> str:
        await executor.execute("Client", "ask")
        await executor.discard("Client")
        return str(await executor.execute("Client", "ask"))

    assert run(main()) == "fine"
    assert registry.stats().close_failures == 1


@pytest.mark.parametrize("kind", [SystemExit, PanicException])
def test_an_asynchronous_rule_that_exits(
    ws: Any, executor: Any, registry: Any, kind: type[BaseException]
) -> None:
    """Its caller gets the exit, and the loop goes on."""

    async def build(cls: type) -> Any:
        await asyncio.sleep(0)
        raise kind("no licence")

    registry.register_instantiation_rule("Alpha", build)

    async def main() -> list[Any]:
        outcomes = [await asyncio.gather(_caught(executor.execute("Alpha", "echo", text="x")))]
        outcomes.append(await executor.execute("Beta", "echo", text="y"))
        return outcomes

    async def _caught(awaitable: Any) -> type[BaseException]:
        try:
            await awaitable
        except BaseException as error:
            return type(error)
        raise AssertionError

    first, second = run(main())
    assert first[0] is kind or issubclass(first[0], ws.BuildError)
    assert second == "y"
    assert registry.stats().failed_builds == 1
