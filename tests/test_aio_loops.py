"""An instance that an event loop built is used by that loop only."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from loops import join_workers, run, until
from managers import manager_of
from threads import PATIENCE

from warmset.testing.structure import check_accounts


class Client:
    """Belongs to the loop in which it was made."""

    def __init__(self) -> None:
        self.loop = weakref.ref(asyncio.get_running_loop())
        self.number = id(asyncio.get_running_loop())
        self.closed_in: Any = None

    async def ask(self) -> str:
        assert self.closed_in is None
        assert self.loop() is asyncio.get_running_loop(), "used in another loop"
        return "answer"

    def plain(self) -> Any:
        return self.loop()

    async def aclose(self) -> None:
        self.closed_in = asyncio.get_running_loop()
        assert self.loop() is self.closed_in, "closed in another loop"


@pytest.fixture
def aio(ws: Any) -> Any:
    """The module, on the core under test."""
    return importlib.import_module("warmset.aio")


@pytest.fixture
def made() -> list[Any]:
    """The clients, in the order of their building."""
    return []


class Pause(threading.Event):
    """Unless it is set, a build of a client stops in the middle, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.reached = threading.Event()


@pytest.fixture
def may_end() -> Pause:
    return Pause()


@pytest.fixture(params=["coroutine function", "gives a coroutine", "gives an awaitable", "factory"])
def registry(make: Any, made: list[Any], may_end: Pause, request: pytest.FixtureRequest) -> Any:
    """Builds a `Client` under the name "Client", asynchronously."""

    async def connect(*_: Any) -> Client:
        may_end.reached.set()
        await until(may_end.is_set)
        made.append(Client())
        return made[-1]

    class Connecting:
        def __await__(self) -> Any:
            return connect().__await__()

    registry = make({"Client": "samples.Alpha", "Beta": "samples.Beta"})
    if request.param == "factory":
        registry.register("Client", connect)
    else:
        rules = {
            "coroutine function": connect,
            "gives a coroutine": lambda cls: connect(cls),
            "gives an awaitable": lambda cls: Connecting(),
        }
        registry.register_instantiation_rule("Client", rules[request.param])
    return registry


@pytest.fixture
def executor(aio: Any, registry: Any) -> Any:
    """An executor on the registry."""
    return aio.AsyncMethodExecutor(registry)


async def ask(executor: Any) -> Any:
    """Use the client in each way that there is."""
    client = await executor.get_instance("Client")
    assert await client.ask() == "answer"
    assert await executor.execute("Client", "ask") == "answer"
    assert await executor.execute("Client", "plain") is asyncio.get_running_loop()
    async with executor.use("Client") as held:
        assert held is client
    return id(client)


def test_loops_in_turn(executor: Any, registry: Any, made: list[Any]) -> None:
    """Each `asyncio.run` has its own; that of a closed loop is dropped at the next build."""
    for number in range(1, 4):
        run(ask(executor))
        assert len(made) == number
        assert registry.stats().cached == 1
    stats = registry.stats()
    assert (stats.builds, stats.hits, stats.misses, stats.held) == (3, 9, 3, 0)
    assert stats.states["left_open"] == 2  # nobody can await their closing
    join_workers()
    check_accounts(registry)


def test_loops_at_once(executor: Any, registry: Any, made: list[Any]) -> None:
    """Tasks of one loop share a build, and loops share nothing."""
    barrier = threading.Barrier(3, timeout=PATIENCE)

    async def main() -> None:
        await asyncio.gather(*[ask(executor) for _ in range(5)])
        await asyncio.to_thread(barrier.wait)
        await asyncio.gather(*[ask(executor) for _ in range(5)])

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(run, main()) for _ in range(3)]:
            each.result(PATIENCE)
    join_workers()
    assert len({id(client) for client in made}) == len(made)
    assert len({client.number for client in made}) == 3
    assert registry.stats().held == 0
    check_accounts(registry)


@pytest.mark.parametrize("warm", [False, True])
def test_a_synchronous_look_up_has_no_loop(
    ws: Any, executor: Any, registry: Any, warm: bool
) -> None:
    """It raises, whether a loop has built one or not."""

    async def main() -> None:
        if warm:
            await ask(executor)
        for look_up in (
            lambda: registry.get_instance("Client"),
            lambda: registry.use("Client").__enter__(),
            registry.bind("Client", "plain"),
            lambda: executor.sync.execute("Client", "plain"),
        ):
            with pytest.raises(ws.AsyncRuleError):
                look_up()
        await ask(executor)

    run(main())


@pytest.mark.parametrize(
    "way", ["discard", "clear", "unregister", "replace", "close", "idle", "aged", "size"]
)
def test_removals_include_the_instances_of_loops(
    aio: Any, registry: Any, executor: Any, made: list[Any], timer: Any, way: str
) -> None:
    """Their own loop awaits the closing, if the removal is asynchronous."""

    async def main() -> None:
        async with executor.use("Client"):
            pass
        (slot,) = registry.classes.loop_slots.of_name("Client")
        assert slot.entry is not None
        if way == "discard":
            assert await executor.discard("Client")
        elif way == "clear":
            assert (await executor.clear_instance_cache())["entries_cleared"] == 1
        elif way == "unregister":
            await executor._workers.call(lambda: registry.unregister("Client"))
        elif way == "replace":
            await executor._workers.call(lambda: registry.register("Client", "samples.Gamma"))
        elif way == "close":
            await executor.close_registry()
        elif way == "idle":
            timer.advance(1e6)
            assert await executor.evict_expired_instances() == 1
        elif way == "aged":
            registry.set_limits(slot, None, 1.0)
            timer.advance(2)
            await executor.execute("Client", "ask")
        else:
            registry.max_size = 1
            await executor.get_instance("Beta")
        assert made[0].closed_in is asyncio.get_running_loop()

    run(main())
    stats = registry.stats()
    assert stats.states["closed"] == 1
    check_accounts(registry)


def test_a_removal_by_another_loop(executor: Any, registry: Any, made: list[Any]) -> None:
    """The loop for which it was built awaits the closing."""
    built, removed = threading.Event(), threading.Event()

    async def first() -> None:
        async with executor.use("Client"):
            pass
        built.set()
        await until(removed.is_set)
        assert made[0].closed_in is asyncio.get_running_loop()

    async def second() -> None:
        await asyncio.to_thread(built.wait)
        await executor.clear_instance_cache()
        removed.set()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(run, first()), pool.submit(run, second())]:
            each.result(PATIENCE)
    assert registry.stats().states["closed"] == 1


def test_a_discard_during_the_build(
    executor: Any, registry: Any, made: list[Any], may_end: Pause
) -> None:
    """The result is returned and not cached."""

    async def main() -> None:
        may_end.clear()
        asking = asyncio.create_task(executor.execute("Client", "ask"))
        await until(may_end.reached.is_set)
        registry.discard("Client")
        may_end.set()
        assert await asking == "answer"
        await executor.execute("Client", "ask")
        assert len(made) == 2

    run(main())
    check_accounts(registry)


def test_a_rule_that_waits_in_one_loop_does_not_stop_another(aio: Any, make: Any) -> None:
    """Each loop builds its own, as soon as the rule is known to be asynchronous."""
    registry = make()
    executor = aio.AsyncMethodExecutor(registry)
    events: list[asyncio.Event] = []
    first_begun, second_ended = threading.Event(), threading.Event()

    async def rule(cls: type) -> Any:
        if not events:
            events.append(asyncio.Event())
            first_begun.set()
            await events[0].wait()
        return cls()

    registry.register_instantiation_rule("Alpha", rule)

    async def first() -> None:
        asking = asyncio.create_task(executor.get_instance("Alpha"))
        await until(second_ended.is_set)
        events[0].set()
        await asking

    async def second() -> None:
        await asyncio.to_thread(first_begun.wait)
        await executor.get_instance("Alpha")
        second_ended.set()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(run, first()), pool.submit(run, second())]:
            each.result(PATIENCE)
    assert registry.stats().builds == 2


def test_a_loop_is_not_kept(executor: Any, registry: Any, made: list[Any]) -> None:
    """By the slots of its instances."""
    loops = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await ask(executor)

    run(main())
    join_workers()
    gc.collect()
    assert loops[0]() is None


@pytest.mark.parametrize("how", ["recycle", "sweep"])
def test_recycling_lets_the_loop_build_anew(aio: Any, make: Any, how: str) -> None:
    """Nobody else can: what is due is removed, also while it is held, and closed at its release."""
    registry = make({})
    made: list[Client] = []

    async def connect() -> Client:
        made.append(Client())
        return made[-1]

    registry.register("Client", connect, recycle_after_uses=3)
    executor = aio.AsyncMethodExecutor(registry)

    async def main() -> None:
        async with executor.use("Client") as first:
            await executor.execute("Client", "ask")
            await executor.execute("Client", "ask")
            if how == "recycle":
                assert registry.recycle("Client")
            else:
                registry.sweep()
                assert manager_of(registry).recycling.wait(PATIENCE)
            async with executor.use("Client") as second:
                assert second is not first
            assert await first.ask() == "answer"
        await executor.close_registry()

    run(main())
    assert len(made) == 2
    assert registry.stats().as_dict()["removals"]["recycled"] == 1
    check_accounts(registry)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_has_loops_of_its_own(executor: Any, registry: Any, made: list[Any]) -> None:
    """What the parent's loop built is the parent's."""

    async def main() -> int:
        await ask(executor)
        join_workers()
        child = os.fork()
        if child == 0:
            asyncio._set_running_loop(None)
            try:
                assert registry.stats().states["parents"] == 1
                asyncio.run(ask(executor))
                assert len(made) == 2
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert run(main()) == 0
    assert len(made) == 1
