"""Forks: the child can use its registry at once, although other threads are gone."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from threads import Gate, in_thread, until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


NOT_AGAIN = 77  # the exit status where the numbers of dead threads were not used again


def in_child(work: Any) -> int:
    """Run a function in a forked child; return its exit status, 0 if the function returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (9,)).start()  # so that a hang is an exit status, too
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_warm_instances_are_there_in_the_child(make: Any) -> None:
    """Others are built."""
    registry = make()
    alpha = registry.get_instance("Alpha")

    def work() -> None:
        assert registry.get_instance("Alpha") is alpha
        registry.get_instance("Beta")
        assert registry.stats().builds == 2

    assert in_child(work) == 0


def test_a_build_of_another_thread_does_not_wedge_its_name(make: Any, samples: Any) -> None:
    """Its thread does not exist in the child, so the child builds."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    builder = in_thread(registry.get_instance, "Alpha")
    gate.wait()

    def work() -> None:
        samples.script.clear()
        registry.get_instance("Alpha")

    try:
        assert in_child(work) == 0
    finally:
        gate.open()
        builder.result()


def test_a_constructor_may_fork(make: Any, samples: Any) -> None:
    """The child continues the build in which it was forked."""
    registry = make()
    status: list[int] = []

    def forks(_: Any) -> None:
        status.append(in_child(lambda: registry.get_instance("Beta")))

    samples.script["Alpha"] = forks
    registry.get_instance("Alpha")
    assert status == [0]


def test_a_lock_that_another_thread_holds_is_free_in_the_child(make: Any, twin: str) -> None:
    """Only the pure core has one."""
    registry = make()
    if twin != "pure":
        assert not hasattr(registry, "lock")
        return
    gate = Gate()

    def hold() -> None:
        with registry.lock:
            gate()

    holder = in_thread(hold)
    gate.wait()
    try:
        assert in_child(lambda: registry.get_instance("Alpha")) == 0
    finally:
        gate.open()
        holder.result()


def test_a_rule_that_asks_another_registry(make: Any, samples: Any) -> None:
    """`after_fork="rebuild"` builds when all registries have been reset."""
    first, second = make(), make()
    samples.script["Alpha"] = lambda _: second.get_instance("Beta")
    samples.script["Beta"] = gate = Gate()
    builder = in_thread(second.get_instance, "Beta")
    gate.wait()
    samples.script.clear()
    first.register("Alpha", "samples.Alpha", after_fork="rebuild")
    first.get_instance("Alpha")
    samples.script["Alpha"] = lambda _: second.get_instance("Beta")

    def work() -> None:
        assert first.stats().builds == 2
        assert second.get_instance("Beta") is not None

    try:
        assert in_child(work) == 0
    finally:
        gate.open()
        builder.result()


def test_a_failed_rebuild_does_not_keep_others_from_being_reset(
    ws: Any, make: Any, samples: Any
) -> None:
    """It is logged; the next look-up tries again."""
    first, second = make(retry_after_seconds=0), make()
    first.register("Alpha", "samples.Alpha", after_fork="rebuild")
    first.get_instance("Alpha")
    parent = os.getpid()

    def fails_in_child(_: Any) -> None:
        if os.getpid() != parent and not samples.closed:
            raise SystemExit

    samples.script["Alpha"] = fails_in_child

    def work() -> None:
        assert first.cached == 0
        assert second.get_instance("Beta") is not None
        samples.script.clear()
        assert first.get_instance("Alpha") is not None

    assert in_child(work) == 0


def test_a_listener_that_reports_during_the_fork(make: Any, samples: Any) -> None:
    """The child reports its own removals, and its queue does not grow."""
    registry = make()
    gate = Gate()
    told: list[str] = []

    def listener(event: Any) -> None:
        told.append(event.class_name)
        if event.class_name == "Alpha":
            gate()

    registry.add_listener(listener)
    registry.get_instance("Alpha")
    remover = in_thread(registry.discard, "Alpha")
    gate.wait()

    def work() -> None:
        registry.get_instance("Beta")
        registry.discard("Beta")
        assert told[-1] == "Beta"

    try:
        assert in_child(work) == 0
    finally:
        gate.open()
        remover.result()


def test_a_thread_of_the_child_has_the_number_of_a_dead_one(make: Any, samples: Any) -> None:
    """It is not taken for that one: it waits for nothing, and is in no build."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    threads = [in_thread(registry.get_instance, "Alpha") for _ in range(4)]
    gate.wait()
    until(lambda: registry.builder.waiting() == 3)
    numbers = {running.thread.ident for running in threads}

    def work() -> None:
        samples.script["Beta"] = lambda _: registry.get_instance("Alpha")
        samples.script.pop("Alpha")
        barrier = threading.Barrier(4)
        seen: set[int] = set()

        def build() -> None:
            seen.add(threading.get_ident())
            barrier.wait(10)
            registry.get_instance("Beta")

        for running in [in_thread(build) for _ in range(4)]:
            running.result()
        if not seen & numbers:
            os._exit(NOT_AGAIN)

    try:
        status = in_child(work)
        if status == NOT_AGAIN:
            pytest.skip("this system does not use the numbers of dead threads again")
        assert status == 0
    finally:
        gate.open()
        for running in threads:
            running.result()


def test_a_loop_awaits_for_a_worker_during_the_fork(ws: Any, make: Any, samples: Any) -> None:
    """The child builds in other threads, which may have the numbers of dead workers."""
    from warmset.aio import AsyncMethodExecutor

    registry = make()
    status: list[int] = []

    async def rule(cls: type) -> Any:
        def work() -> None:
            assert in_thread(registry.get_instance, "Beta").result() is not None
            other = AsyncMethodExecutor(method_registry=registry)
            text = in_thread(lambda: asyncio.run(other.execute("Gamma", "echo", text="x")))
            assert text.result() == "x"

        status.append(in_child(work))
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    executor = AsyncMethodExecutor(method_registry=registry)
    assert asyncio.run(executor.execute("Alpha", "echo", text="x")) == "x"
    assert status == [0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_what_another_thread_is_closing_is_the_parents(make: Any, samples: Any) -> None:
    """The child neither closes it nor waits for it for ever."""
    registry = make()
    gate = Gate()
    registry.register("Alpha", "samples.Alpha", closer=lambda alpha: gate())
    for name in ("Beta", "Alpha"):
        with registry.use(name):
            pass
    closing = in_thread(registry.clear_cache)
    gate.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            states = registry.stats().states
            status = 0 if (states["parents"], states["waiting"]) == (2, 0) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open()
    closing.result()
    assert samples.closed == ["Beta"]
    assert registry.stats().closed == 2
