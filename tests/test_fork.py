"""Forks: the child can use its registry at once, although other threads are gone."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from forks import in_child
from threads import Gate, in_thread, until

from warmset.testing.structure import check_structure

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


NOT_AGAIN = 77  # the exit status where the numbers of dead threads were not used again


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


def close_counted(registry: Any) -> None:
    """Evict all instances that are not held; fail if the accounts do not add up."""
    registry.clear_cache()
    check_structure(registry)
    stats = registry.stats()
    assert stats.held == 0
    assert sum(stats.states.values()) == stats.builds


WAYS = {
    "lease": lambda registry, gate: _use(registry, gate),
    "handle": lambda registry, gate: registry.bind("Alpha", "call")(gate),
    "execute": lambda registry, gate: registry.execute("Alpha", "call", function=gate),
}


def _use(registry: Any, gate: Any) -> None:
    with registry.use("Alpha"):
        gate()


@pytest.fixture
def call(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpha has a method that calls what it is given."""
    monkeypatch.setattr(samples.Alpha, "call", lambda self, function: function(), raising=False)


@pytest.mark.usefixtures("call")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("removed", [False, True])
def test_holds_of_other_threads_are_dropped(
    ws: Any, make: Any, samples: Any, way: str, removed: bool
) -> None:
    """The child sees its own, and can remove the instance; the parent's obligations stay there."""
    registry = make(max_cache_size=2)
    executor = ws.MethodExecutor(method_registry=registry)
    registry.execute = executor.execute if way == "execute" else None
    gate = Gate()
    with registry.use("Beta"):
        holder = in_thread(WAYS[way], registry, gate)
        gate.wait()
        if removed:
            registry.discard("Alpha")

        def work() -> None:
            assert [row.class_name for row in registry.holders()] == ["Beta"]
            registry.discard("Alpha")
            assert samples.closed == ([] if removed else ["Alpha"])
            assert registry.stats().states["parents"] == removed
            registry.get_instance("Gamma")

        assert in_child(work) == 0
        assert len(registry.holders()) == 2
        gate.open()
        holder.result()
    assert samples.closed == (["Alpha"] if removed else [])
    close_counted(registry)


def test_a_dropped_lease_releases_nothing(make: Any, samples: Any) -> None:
    """Whoever still has it in the child; a hold of the child is not affected by it."""
    registry = make()
    lease = registry.use("Alpha")
    in_thread(lease.__enter__).result()

    def work() -> None:
        with registry.use("Alpha"):
            lease.__exit__(None, None, None)
            registry.discard("Alpha")
            assert registry.stats().states["held"] == 1
            assert samples.closed == []
        assert samples.closed == ["Alpha"]

    assert in_child(work) == 0
    lease.__exit__(None, None, None)
    close_counted(registry)


def test_a_lease_that_the_child_enters_again_holds(make: Any, samples: Any) -> None:
    """Its record was given back."""
    registry = make()
    lease = registry.use("Alpha")
    in_thread(lease.__enter__).result()

    def work() -> None:
        lease.__exit__(None, None, None)
        with lease:
            registry.discard("Alpha")
            assert len(registry.holders()) == 1
        close_counted(registry)

    assert in_child(work) == 0
    lease.__exit__(None, None, None)


@pytest.mark.parametrize("when", ["listener", "closer"])
def test_holds_of_builds_of_other_threads_are_dropped(make: Any, samples: Any, when: str) -> None:
    """While it reports, or closes what it evicted."""
    registry = make(max_cache_size=1)
    gate = Gate()
    if when == "listener":
        registry.add_build_listener(lambda event: event.class_name == "Alpha" and gate())
    else:
        registry.register("Beta", "samples.Beta", closer=lambda _: gate())
    with registry.use("Beta"):
        pass
    builder = in_thread(lambda: registry.get_instance("Alpha") and None)
    gate.wait()

    def work() -> None:
        registry.discard("Alpha")
        stats = registry.stats()
        assert (stats.held, stats.states["held"]) == (0, 0)
        close_counted(registry)

    try:
        assert in_child(work) == 0
    finally:
        gate.open()
        builder.result()
    close_counted(registry)
