"""Methods called from an event loop: where they run, and how long their instance is held."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import importlib
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from loops import Worker, join_workers, run, until
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


@pytest.fixture
def worker(registry: Any, executor: Any) -> Any:
    """The executor; "Alpha" builds a `Worker`."""
    registry.register_instantiation_rule("Alpha", lambda _: Worker())
    return executor


def test_arguments_are_checked_before_the_method_runs(ws: Any, aio: Any, make: Any) -> None:
    """With the errors and the metrics of the synchronous executor, which it shares."""
    registry = make({"Typed": "samples.Typed"})
    executor = aio.AsyncMethodExecutor(method_registry=registry)

    async def main() -> None:
        execute = executor.execute
        assert await execute("Typed", "plain", a=1) == (1, "b")
        assert await execute(class_name="Typed", method_name="plain", a=1, b="c") == (1, "c")
        assert await execute("Typed", "positional", a=1, c=4) == (1, 2, 4)
        assert await execute("Typed", "static", a=1) == 1
        assert await execute("Typed", "names", class_name="c") == ("c", "m")
        with pytest.raises(ws.ArgumentValidationError) as caught:
            await execute("Typed", "plain", b=1, z=2)
        assert caught.value.missing == {"a"}
        assert caught.value.unexpected == {"z"}
        assert list(caught.value.mistyped) == ["b"]
        with pytest.raises(ws.MethodNotFoundError, match="'nope'"):
            await execute("Typed", "nope")
        with pytest.raises(ws.UnknownClassError, match="no class is registered"):
            await execute("Nope", "nope")
        with pytest.raises(TypeError, match="needs a class name"):
            await execute("Typed")

    run(main())
    metrics = executor.get_routing_metrics()
    assert metrics == executor.sync.get_routing_metrics()
    assert (metrics["total_routes"], metrics["validation_errors"]) == (6, 1)
    assert metrics["silent_drops_prevented"] == 1
    assert registry.stats().held == 0


def test_degraded_mode(aio: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """It exists without a class table, and returns None for methods that are not available."""
    monkeypatch.setenv("WARMSET_CONFIG", str(tmp_path / "missing.toml"))
    executor = aio.AsyncMethodExecutor()
    assert executor.degraded_mode
    assert executor.degraded_reasons
    assert run(executor.execute("Alpha", "echo")) is None


def test_where_methods_run(worker: Any, registry: Any) -> None:
    """Coroutine functions in the loop, others in a thread; a returned coroutine is awaited."""

    async def injected(a: int) -> Any:
        return threading.get_ident(), a

    registry.inject_method("Virtual", "async", injected)
    registry.inject_method("Virtual", "partial", functools.partial(injected, a=2))
    registry.inject_method("Virtual", "sync", lambda a: (threading.get_ident(), a))

    async def main() -> None:
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        assert await worker.execute("Alpha", "loop") is loop
        assert await worker.execute("Alpha", "late") is loop
        assert await worker.execute("Alpha", "thread") != here
        assert await worker.execute("Virtual", "async", a=1) == (here, 1)
        assert await worker.execute("Virtual", "partial") == (here, 2)
        thread, a = await worker.execute("Virtual", "sync", a=3)
        assert thread != here
        assert a == 3
        assert worker.has_method("Virtual", "sync")

    run(main())


@pytest.mark.parametrize("max_threads", [None, 2])
def test_context_variables_reach_methods_in_threads(
    aio: Any, registry: Any, max_threads: int | None
) -> None:
    """As with `asyncio.to_thread`; values that they set are not seen by the caller."""
    executor = aio.AsyncMethodExecutor(method_registry=registry, max_threads=max_threads)
    variable = contextvars.ContextVar("variable", default="")

    def method() -> Any:
        seen = variable.get(), threading.current_thread().name.startswith("warmset methods")
        variable.set("theirs")
        return seen

    executor.inject_method("Virtual", "method", method)

    async def main() -> None:
        variable.set("mine")
        for _ in range(2):
            assert await executor.execute("Virtual", "method") == ("mine", bool(max_threads))
        await executor.aclose()

    run(main())
    assert not any("warmset methods" in thread.name for thread in threading.enumerate())


def test_stop_iteration_does_not_hang(worker: Any) -> None:
    """A future cannot carry it."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(worker.execute("Alpha", "stop"))


@pytest.mark.parametrize("where", ["method", "constructor", "rule"])
def test_an_error_leaves_nothing_to_the_collector(worker: Any, registry: Any, where: str) -> None:
    """Whatever its frames refer to is freed with it, and so is the instance."""
    witnesses = []

    class Witness:
        pass

    def fail(*_: Any) -> None:
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        raise ValueError("mine")

    async def fail_in_loop(_: type) -> None:
        fail()

    registry.inject_method("Virtual", "fail", fail)
    rule = {"method": lambda cls: cls(), "constructor": fail, "rule": fail_in_loop}[where]
    registry.register_instantiation_rule("Alpha", rule)

    async def main() -> None:
        with contextlib.suppress(Exception):
            await worker.execute(*(("Virtual", "fail") if where == "method" else ("Alpha", "echo")))

    gc.collect()
    gc.disable()
    try:
        run(main())
        join_workers()
        assert [witness() for witness in witnesses] == [None]
    finally:
        gc.enable()


def test_held_while_it_runs(worker: Any, registry: Any) -> None:
    """By asynchronous methods and by those in threads; afterwards it is not held."""

    async def main() -> None:
        gate, event = Gate(), asyncio.Event()
        waiting = [
            asyncio.create_task(worker.execute("Alpha", "wait", gate=gate)),
            asyncio.create_task(worker.execute("Alpha", "loop", event=event)),
        ]
        await until(lambda: registry.stats().cached and registry.stats().entries[0].holders == 2)
        gate.opened.set()
        event.set()
        await asyncio.gather(*waiting)
        assert registry.stats().held == 0

    run(main())


def test_a_cancelled_async_method_is_released(worker: Any, registry: Any) -> None:
    """At once."""
    registry.get_instance("Alpha")

    async def main() -> None:
        waiting = asyncio.create_task(worker.execute("Alpha", "loop", event=asyncio.Event()))
        await until(lambda: registry.stats().held)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert registry.stats().held == 0

    run(main())


def test_a_cancelled_method_in_a_thread_is_held_to_its_end(
    aio: Any, worker: Any, registry: Any
) -> None:
    """A thread cannot be stopped; a method that has not begun never begins."""
    worker = aio.AsyncMethodExecutor(method_registry=registry, max_threads=1)
    registry.get_instance("Alpha")
    never = Gate()

    async def main() -> None:
        gate = Gate()
        waiting = [
            asyncio.create_task(worker.execute("Alpha", "wait", gate=each))
            for each in (gate, never)
        ]
        await until(lambda: gate.reached.is_set() and registry.stats().entries[0].holders == 2)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert registry.stats().entries[0].holders == 2
        gate.opened.set()
        await until(lambda: registry.stats().held == 0)
        del waiting, task
        await worker.aclose()

    run(main())
    assert not never.reached.is_set()


def test_a_loop_that_ends_before_its_method(worker: Any, registry: Any) -> None:
    """The thread continues, and the instance is released at its end."""
    gate = Gate()
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as pool:
        loop.set_default_executor(pool)

        async def main() -> None:
            waiting = asyncio.create_task(worker.execute("Alpha", "wait", gate=gate))
            await until(gate.reached.is_set)
            waiting.cancel()
            await asyncio.wait([waiting])

        loop.run_until_complete(main())
        loop.close()
        assert registry.stats().held == 1
        gate.opened.set()
    assert registry.stats().held == 0


@pytest.mark.parametrize("end", ["finished", "closed", "dropped", "never begun"])
@pytest.mark.parametrize("kind", ["count", "acount"])
def test_generators_hold(worker: Any, registry: Any, kind: str, end: str) -> None:
    """Until they have ended, were closed, or were dropped, also if they were never begun."""

    async def main() -> None:
        numbers = await worker.execute("Alpha", kind, to=2)
        assert registry.stats().held == 1
        if kind == "count":
            take, close = numbers.__next__, numbers.close
        else:
            take, close = numbers.__anext__, numbers.aclose
        taken = []
        if end != "never begun":
            taken.append(take() if kind == "count" else await take())
            assert registry.stats().held == 1
        if end == "finished":
            taken += list(numbers) if kind == "count" else [number async for number in numbers]
            assert taken == [0, 1]
        elif end == "closed":
            if kind == "count":
                close()
            else:
                await close()
        del numbers, take, close
        gc.collect()
        await until(lambda: registry.stats().held == 0)

    run(main())


def test_leases(aio: Any, executor: Any, registry: Any) -> None:
    """Held in the block; may be entered again after it; released when dropped."""

    async def main() -> None:
        lease = executor.use("Alpha")
        assert repr(lease) == "<warmset lease of 'Alpha', not held>"
        for _ in range(2):
            async with lease as alpha:
                assert registry.get_instance("Alpha") is alpha
                assert registry.stats().held == 1
                with pytest.raises(RuntimeError, match="already holds 'Alpha'"):
                    await lease.__aenter__()
            assert registry.stats().held == 0
        await lease.__aenter__()
        del lease
        gc.collect()
        assert registry.stats().held == 0

    run(main())
