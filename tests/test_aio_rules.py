"""Rules that are awaited, by the loop of the caller that began the build."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from loops import join_workers, run, until
from threads import PATIENCE, Gate


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


@pytest.mark.parametrize("form", ["coroutine function", "gives a coroutine", "gives an awaitable"])
def test_an_asynchronous_rule(executor: Any, registry: Any, samples: Any, form: str) -> None:
    """It is awaited once, by the loop of the caller that began the build, in its context."""
    seen = []
    variable = contextvars.ContextVar("variable", default="")

    class Awaitable:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __await__(self) -> Any:
            return self.inner.__await__()

    async def rule(cls: type) -> Any:
        await asyncio.sleep(0)
        seen.append((asyncio.get_running_loop(), threading.get_ident(), variable.get()))
        return cls()

    rules = {
        "coroutine function": rule,
        "gives a coroutine": lambda cls: rule(cls),
        "gives an awaitable": lambda cls: Awaitable(rule(cls)),
    }
    registry.register_instantiation_rule("Alpha", rules[form])

    async def main() -> None:
        variable.set("mine")
        alphas = await asyncio.gather(*[executor.get_instance("Alpha") for _ in range(10)])
        assert len(set(map(id, alphas))) == 1
        assert type(alphas[0]) is samples.Alpha
        assert seen == [(asyncio.get_running_loop(), threading.get_ident(), "mine")]

    run(main())
    assert registry.stats().builds == 1


def test_an_instance_that_can_be_awaited_is_an_instance(executor: Any, registry: Any) -> None:
    """It is not awaited if a rule returns it."""

    class Pool(dict):  # type: ignore[type-arg]
        def __await__(self) -> Any:
            raise AssertionError("awaited")

    registry.register("Dict", "builtins.dict")
    registry.register_instantiation_rule("Dict", lambda _: Pool())
    assert type(run(executor.get_instance("Dict"))) is Pool
    registry.discard("Dict")
    assert type(registry.get_instance("Dict")) is Pool


def test_a_synchronous_caller_cannot_await(ws: Any, aio: Any, make: Any) -> None:
    """It gets an error that says so, and no coroutine is left unawaited; loops are not affected."""
    registry = make(retry_after_seconds=100)
    executor = aio.AsyncMethodExecutor(method_registry=registry)

    async def rule(cls: type) -> Any:
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    registry.register_instantiation_rule("Beta", lambda _: (registry.get_instance("Alpha"),))
    for _ in range(2):
        with pytest.raises(ws.BuildError, match=r"asynchronous.*AsyncMethodExecutor"):
            registry.get_instance("Beta")
    gc.collect()
    beta = run(executor.get_instance("Beta"))
    assert type(beta[0]).__name__ == "Alpha"
    assert registry.get_instance("Beta") is beta
    assert registry.stats().failed_class_names == ()
    with pytest.raises(ws.AsyncRuleError):  # that one belongs to the loop
        registry.get_instance("Alpha")


def test_a_rule_awaits_others(aio: Any, registry: Any, samples: Any) -> None:
    """With synchronous and asynchronous rules, and synchronous methods, also with a full pool."""
    executor = aio.AsyncMethodExecutor(method_registry=registry, max_threads=1)
    gate = Gate()

    async def alpha(cls: type) -> Any:
        made = cls()
        made.parts = await asyncio.gather(
            executor.get_instance("Beta"), executor.get_instance("Gamma")
        )
        made.echoed = await executor.execute("Beta", "echo", text="x")
        async with executor.use("Delta") as delta:
            made.parts.append(delta)
        return made

    async def beta(cls: type) -> Any:
        made = cls()
        made.delta = await executor.get_instance("Delta")
        return made

    registry.register_instantiation_rule("Alpha", alpha)
    registry.register_instantiation_rule("Beta", beta)
    registry.inject_method("Pool", "fill", gate)

    async def main() -> None:
        filling = asyncio.create_task(executor.execute("Pool", "fill"))
        await until(gate.reached.is_set)
        made = await executor.get_instance("Alpha")
        gate.opened.set()
        await filling
        assert made.echoed == "x"
        assert [type(part).__name__ for part in made.parts] == ["Beta", "Gamma", "Delta"]
        await executor.aclose()

    run(main())
    assert sorted(samples.built) == ["Alpha", "Beta", "Delta", "Gamma"]


@pytest.mark.parametrize("kinds", ["async async", "async sync", "sync async"])
def test_a_cycle_among_rules(ws: Any, executor: Any, registry: Any, kinds: str) -> None:
    """It raises and names the chain, whichever of the rules are asynchronous."""

    def rule(kind: str, other: str) -> Any:
        async def awaiting(_: type) -> Any:
            return [await executor.get_instance(other)]

        return awaiting if kind == "async" else lambda _: [registry.get_instance(other)]

    one, other = kinds.split()
    registry.register_instantiation_rule("Alpha", rule(one, "Beta"))
    registry.register_instantiation_rule("Beta", rule(other, "Alpha"))

    async def main() -> None:
        with pytest.raises(ws.CycleError) as caught:
            await executor.get_instance("Alpha")
        assert caught.value.chain == ("Alpha", "Beta", "Alpha")

    run(main())


def test_a_cycle_across_two_builds(ws: Any, executor: Any, registry: Any) -> None:
    """Two rules that wait for each other's build: at least one raises, and nobody hangs."""
    begun: list[str] = []

    def rule(name: str, other: str) -> Any:
        async def awaiting(_: type) -> Any:
            begun.append(name)
            await until(lambda: len(begun) >= 2)
            return [await executor.get_instance(other)]

        return awaiting

    registry.register_instantiation_rule("Alpha", rule("Alpha", "Beta"))
    registry.register_instantiation_rule("Beta", rule("Beta", "Alpha"))

    async def main() -> None:
        errors = await asyncio.gather(
            executor.get_instance("Alpha"), executor.get_instance("Beta"), return_exceptions=True
        )
        assert {type(error) for error in errors} == {ws.CycleError}
        assert all(set(error.chain) == {"Alpha", "Beta"} for error in errors)

    run(main())


def test_a_task_that_outlives_its_rule(executor: Any, registry: Any, samples: Any) -> None:
    """It looks up as any other task does."""
    tasks = []

    async def main() -> None:
        ended = asyncio.Event()

        async def later() -> Any:
            await ended.wait()
            return await executor.get_instance("Beta"), await executor.execute("Beta", "echo")

        async def rule(cls: type) -> Any:
            tasks.append(asyncio.create_task(later()))
            return cls()

        registry.register_instantiation_rule("Alpha", rule)
        await executor.get_instance("Alpha")
        ended.set()
        beta, _ = await tasks[0]
        assert type(beta) is samples.Beta

    run(main())


@pytest.mark.parametrize("end", ["cancelled", "closed", "stopped"])
def test_a_loop_that_ends_under_a_rule(
    ws: Any, aio: Any, make: Any, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Another loop builds its own meanwhile, and no failure is remembered."""
    monkeypatch.setattr(sys.modules["warmset.aio.awaiting"], "MAX_IDLE_POLLS", 1)
    registry = make(retry_after_seconds=100)
    executor = aio.AsyncMethodExecutor(method_registry=registry)
    begun: list[Any] = []

    async def rule(cls: type) -> Any:
        begun.append(asyncio.get_running_loop())
        if len(begun) == 1:
            await asyncio.get_running_loop().create_future()
        return cls()

    async def ask() -> None:
        asking = asyncio.ensure_future(executor.get_instance("Alpha"))
        await until(lambda: begun)
        waiting.extend(
            [
                pool.submit(run, executor.get_instance("Alpha")),
                pool.submit(registry.get_instance, "Alpha"),
            ]
        )
        await until(lambda: len(begun) == 2)
        assert not asking.done()
        kept.append(asking)

    registry.register_instantiation_rule("Alpha", rule)
    waiting: list[Any] = []
    kept: list[Any] = []
    with ThreadPoolExecutor(2) as pool:
        if end == "cancelled":
            asyncio.run(ask())
        else:
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)  # pending tasks that are destroyed
            loop.run_until_complete(ask())
            if end == "closed":
                loop.close()
        assert waiting[0].result(PATIENCE) is not None
        assert isinstance(waiting[1].exception(PATIENCE), ws.BuildError)
        if end == "stopped":
            kept[0].cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    assert len(begun) == 2
    join_workers()
    kept.clear()
    gc.collect()
