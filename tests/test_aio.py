"""Event loops and synchronous callers share instances, builds, failures and counters."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from loops import Worker, join_workers, run, until
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


@pytest.fixture
def worker(registry: Any, executor: Any) -> Any:
    """The executor; "Alpha" builds a `Worker`."""
    registry.register_instantiation_rule("Alpha", lambda _: Worker())
    return executor


def test_a_hit_uses_no_thread(worker: Any, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread looks up, holds and releases warm instances, and runs async methods."""
    alpha = registry.get_instance("Alpha")

    async def main() -> None:
        monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread"))
        assert await worker.get_instance("Alpha") is alpha
        async with worker.use("Alpha") as held:
            assert held is alpha
            assert registry.stats().held == 1
        assert await worker.execute("Alpha", "loop") is asyncio.get_running_loop()
        monkeypatch.undo()

    run(main())
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.held) == (3, 1, 0)


def test_a_hundred_awaiters_one_build(executor: Any, registry: Any, samples: Any) -> None:
    """In a thread other than the loop's; each is a miss, and all but one wait."""
    gate = samples.script["Alpha"] = Gate()

    async def main() -> None:
        asking = [asyncio.create_task(executor.get_instance("Alpha")) for _ in range(100)]
        await until(lambda: registry.stats().misses == 100 and gate.reached.is_set())
        gate.opened.set()
        assert len(set(map(id, await asyncio.gather(*asking)))) == 1
        assert gate.thread != threading.get_ident()

    run(main())
    stats = registry.stats()
    assert samples.built == ["Alpha"]
    assert (stats.hits, stats.misses, stats.waits, stats.builds) == (0, 100, 99, 1)
    assert registry.get_instance("Alpha") is not None
    assert registry.stats().held == 0


@pytest.mark.parametrize("who", [[0], [1, 2], [0, 1, 2, 3]], ids=["first", "others", "all"])
def test_cancelling_waiters(executor: Any, registry: Any, samples: Any, who: list[int]) -> None:
    """The build continues for the others, and its result is cached."""
    gate = samples.script["Alpha"] = Gate()

    async def main() -> None:
        asking = [asyncio.create_task(executor.get_instance("Alpha")) for _ in range(4)]
        await until(gate.reached.is_set)
        for i in who:
            asking[i].cancel()
        await asyncio.wait([asking[i] for i in who])
        assert all(asking[i].cancelled() for i in who)
        gate.opened.set()
        alpha = await executor.get_instance("Alpha")
        for i, task in enumerate(asking):
            assert i in who or await task is alpha

    run(main())
    assert samples.built == ["Alpha"]
    assert registry.stats().held == 0


def test_a_result_that_arrives_with_the_cancellation_is_released(
    executor: Any, registry: Any, samples: Any
) -> None:
    """A task that is cancelled after the completion of the build leaves no hold behind."""
    gate = samples.script["Alpha"] = Gate()

    async def main() -> None:
        asking = asyncio.create_task(executor.execute("Alpha", "echo"))
        await until(gate.reached.is_set)
        gate.opened.set()
        while not registry.stats().builds:
            pass  # the loop stands still, so the result and the cancellation arrive together
        join_workers()
        asyncio.get_running_loop().call_soon(asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking

    run(main())
    assert registry.stats().held == 0
    assert registry.stats().cached == 1


def test_two_loops_and_a_thread_share_a_build(executor: Any, registry: Any, samples: Any) -> None:
    """Whichever of them builds."""
    gate = samples.script["Alpha"] = Gate()
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(run, executor.get_instance("Alpha")) for _ in range(2)]
        assert gate.reached.wait(PATIENCE)
        asking.append(pool.submit(registry.get_instance, "Alpha"))
        while registry.stats().waits < 2:
            pass
        gate.opened.set()
        assert len({id(future.result(PATIENCE)) for future in asking}) == 1
    assert samples.built == ["Alpha"]


def test_a_build_of_a_thread_is_shared_with_loops(
    executor: Any, registry: Any, samples: Any
) -> None:
    """Also if the synchronous caller was first."""
    gate = samples.script["Alpha"] = Gate()
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(registry.get_instance, "Alpha")]
        assert gate.reached.wait(PATIENCE)
        asking.append(pool.submit(run, executor.get_instance("Alpha")))
        while registry.stats().waits < 1:
            pass
        gate.opened.set()
        assert len({id(future.result(PATIENCE)) for future in asking}) == 1
    assert samples.built == ["Alpha"]


def test_loops_in_turn(worker: Any, registry: Any) -> None:
    """What one loop built is warm for the next."""
    seen = []

    async def main() -> None:
        seen.append(await worker.get_instance("Alpha"))
        seen.append(await worker.execute("Alpha", "loop"))
        await worker.execute("Alpha", "thread")

    for _ in range(3):
        run(main())
    assert len(set(map(id, seen[::2]))) == 1
    assert len(set(map(id, seen[1::2]))) == 3
    assert registry.stats().builds == 1


def test_a_failure_is_shared_and_not_kept(
    ws: Any, executor: Any, registry: Any, samples: Any
) -> None:
    """The waiters get copies of one error; a later look-up builds again."""
    gate = Gate()

    def fail(_: Any) -> None:
        gate()
        raise ValueError("no model file")

    samples.script["Alpha"] = fail

    async def main() -> None:
        asking = [asyncio.create_task(executor.get_instance("Alpha")) for _ in range(5)]
        await until(lambda: registry.stats().misses == 5 and gate.reached.is_set())
        gate.opened.set()
        errors = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(error) for error in errors} == {ws.BuildError}
        assert len(set(map(id, errors))) == 5
        assert len({id(error.__cause__) for error in errors}) == 1
        for _ in range(2):
            with pytest.raises(ws.BuildError, match="no model file"):
                await executor.get_instance("Alpha")

    run(main())
    assert len(samples.built) == 3
    samples.script.clear()
    run(executor.get_instance("Alpha"))


def test_a_remembered_failure_is_raised_at_once(
    ws: Any, aio: Any, make: Any, samples: Any, timer: Any
) -> None:
    """For loops as for threads."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=10)
    executor = aio.AsyncMethodExecutor(method_registry=registry)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ws.BuildError, match="no model file"):
                await executor.get_instance("Broken")

    run(main())
    assert samples.built == ["Broken"]
    timer.advance(11)
    run(main())
    assert samples.built == ["Broken"] * 2
    assert registry.stats().misses == 6


def test_a_clear_during_a_build(executor: Any, registry: Any, samples: Any) -> None:
    """Look-ups before the clear get the result; those after it get another one."""
    gate = samples.script["Alpha"] = Gate()

    async def main() -> None:
        early = [asyncio.create_task(executor.get_instance("Alpha")) for _ in range(3)]
        await until(lambda: gate.reached.is_set() and registry.stats().misses == 3)
        await executor.clear_instance_cache()
        late = [asyncio.create_task(executor.get_instance("Alpha")) for _ in range(3)]
        await until(lambda: registry.stats().misses == 6)
        gate.opened.set()
        first, second = await asyncio.gather(*early), await asyncio.gather(*late)
        assert len(set(map(id, first))) == len(set(map(id, second))) == 1
        assert first[0] is not second[0]
        assert registry.get_instance("Alpha") is second[0]

    run(main())
    assert samples.built == ["Alpha", "Alpha"]


def test_waiters_occupy_no_thread(aio: Any, registry: Any, samples: Any) -> None:
    """200 tasks wait for a class whose constructor asks for another; the pool has one thread."""
    executor = aio.AsyncMethodExecutor(method_registry=registry, max_threads=1)
    samples.script["Alpha"] = lambda self: setattr(self, "beta", registry.get_instance("Beta"))
    threads = set()

    async def main() -> None:
        asking = [executor.execute("Alpha", "echo", text=i) for i in range(200)]
        counting = asyncio.create_task(count())
        assert await asyncio.gather(*asking) == list(range(200))
        counting.cancel()
        await executor.aclose()

    async def count() -> None:
        while True:
            threads.add(sum(t.name.startswith("warmset") for t in threading.enumerate()))
            await asyncio.sleep(0)

    run(main())
    assert sorted(samples.built) == ["Alpha", "Beta"]
    assert max(threads) <= 2, "one that builds, one of the pool"


def test_a_build_that_takes_too_long(ws: Any, aio: Any, make: Any, samples: Any) -> None:
    """A waiter gets the error that threads get; the task that began the build gets its result."""
    registry = make(build_timeout_seconds=0.01)
    executor = aio.AsyncMethodExecutor(method_registry=registry)
    gate = samples.script["Alpha"] = Gate()

    async def main() -> None:
        first = asyncio.create_task(executor.get_instance("Alpha"))
        await until(gate.reached.is_set)
        with pytest.raises(ws.BuildTimeoutError, match="warmset build of 'Alpha'"):
            await executor.get_instance("Alpha")
        gate.opened.set()
        built = await first
        assert await executor.get_instance("Alpha") is built

    run(main())


def test_an_interrupt_is_for_one(executor: Any, registry: Any, samples: Any) -> None:
    """The others try again."""
    gates = [Gate(), Gate()]

    def leave(_: Any) -> None:
        gate = gates.pop(0)
        gate()
        if gates:
            raise SystemExit(3)

    samples.script["Alpha"] = leave
    first, second = gates
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(asyncio.run, executor.get_instance("Alpha"))
        assert first.reached.wait(PATIENCE)
        other = pool.submit(run, executor.get_instance("Alpha"))
        while registry.stats().misses < 2:
            pass
        while registry.stats().waits < 1:
            pass
        first.opened.set()
        second.opened.set()
        assert isinstance(one.exception(PATIENCE), SystemExit)
        assert type(other.result(PATIENCE)) is samples.Alpha


def test_unknown_and_closed(ws: Any, executor: Any) -> None:
    """The errors of the registry."""

    async def main() -> None:
        with pytest.raises(ws.UnknownClassError, match="nearest: 'Alpha'"):
            await executor.get_instance("Alhpa")
        with pytest.raises(TypeError):
            await executor.get_instance(3)
        await executor.close_registry()
        with pytest.raises(ws.ClosedError):
            await executor.get_instance("Alpha")

    run(main())


def test_no_task_is_kept(worker: Any, registry: Any, samples: Any) -> None:
    """Afterwards no task, no future and no loop is referred to."""
    loops = []
    gc.collect()
    before = {id(found) for found in gc.get_objects() if issubclass(type(found), asyncio.Future)}

    async def rule(cls: type) -> Any:
        return cls()

    async def fail(cls: type) -> Any:
        raise ValueError

    registry.register_instantiation_rule("Beta", rule)
    registry.register_instantiation_rule("Gamma", fail)

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        for name in ("Alpha", "Beta", "Gamma"):
            await asyncio.gather(
                *[worker.get_instance(name) for _ in range(3)], return_exceptions=True
            )
        await asyncio.gather(*[worker.execute("Alpha", "thread") for _ in range(3)])
        await worker.clear_instance_cache()

    run(main())
    join_workers()
    gc.collect()
    kept = [found for found in gc.get_objects() if issubclass(type(found), asyncio.Future)]
    assert [found for found in kept if id(found) not in before] == []
    assert loops[0]() is None


def test_a_dropped_executor_is_freed(aio: Any, make: Any) -> None:
    """With its registry, and without the collector."""
    executor = aio.AsyncMethodExecutor(method_registry=make())
    run(executor.get_instance("Alpha"))
    join_workers()
    dropped = weakref.ref(executor), weakref.ref(executor.registry)
    gc.disable()
    try:
        del executor
        assert [reference() for reference in dropped] == [None, None]
    finally:
        gc.enable()


def test_settings(aio: Any, registry: Any) -> None:
    """A wrong one is named, with its value."""
    for wrong, error in ((0, ValueError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match=f"max_threads.*{wrong!r}"):
            aio.AsyncMethodExecutor(method_registry=registry, max_threads=wrong)
    executor = aio.AsyncMethodExecutor(method_registry=registry)
    assert executor.registry is executor.sync.registry is registry
    assert not executor.degraded_mode
    assert executor.get_registry_stats()["total_classes_registered"] == 4
    assert repr(executor).startswith("<AsyncMethodExecutor of <MethodRegistry: 4 classes")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_waits_for_no_thread_of_its_parent(executor: Any, samples: Any) -> None:
    """A build in progress in the parent is begun again in the child."""
    gate = samples.script["Alpha"] = Gate()

    async def main() -> int:
        asking = asyncio.create_task(executor.get_instance("Alpha"))
        await until(gate.reached.is_set)
        child = os.fork()
        if child == 0:
            asyncio._set_running_loop(None)
            samples.script.clear()
            try:
                os._exit(0 if type(asyncio.run(executor.get_instance("Alpha"))) else 1)
            finally:
                os._exit(2)
        gate.opened.set()
        await asking
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert run(main()) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_in_an_asynchronous_rule(executor: Any, registry: Any) -> None:
    """In the child no worker serves the rule's code, and no thread has a loop of the parent."""
    statuses: list[int] = []

    async def rule(cls: type) -> Any:
        child = os.fork()
        if child == 0:
            asyncio._set_running_loop(None)
            try:
                assert registry.classes.awaiting == {}
                os._exit(0 if type(asyncio.run(executor.get_instance("Beta"))) else 1)
            finally:
                os._exit(2)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    run(executor.get_instance("Alpha"))
    assert statuses == [0]


def test_importing_the_package_imports_no_asyncio() -> None:
    """It costs more than the package itself; only `warmset.aio` needs it."""
    program = "import sys, warmset; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
