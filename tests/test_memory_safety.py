"""Plain scripts that crashed the process, each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

PRELUDE = """
import gc, os, sys, threading, types, warmset

class Service:
    def __init__(self):
        self.calls = 0

    def call(self, function=None, *arguments):
        self.calls += 1
        return None if function is None else function(*arguments)

    def stream(self):
        yield 1
        yield 2

module = sys.modules["services"] = types.ModuleType("services")
module.Service = Service
registry = warmset.MethodRegistry({"A": "services.Service", "B": "services.Service"})
executor = warmset.MethodExecutor(method_registry=registry)
handle = registry.bind("A", "call")
"""


def run(twin: str, body: str) -> str:
    """Run a script on a core; return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment["WARMSET_PURE" if twin == "pure" else "WARMSET_REQUIRE_COMPILED"] = "1"
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-X",
            "faulthandler",
            "-c",
            PRELUDE + textwrap.dedent(body),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("call", ["handle(wait)", 'executor.execute("A", "call", function=wait)'])
def test_a_fork_while_another_thread_is_in_a_call(twin: str, call: str) -> None:
    """In the child that thread and its stack are gone; the holds it had are read all the same."""
    body = f"""
        inside, go = threading.Event(), threading.Event()

        def wait():
            inside.set()
            go.wait(60)

        caller = threading.Thread(target=lambda: {call})
        caller.start()
        assert inside.wait(60)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                # Uses the memory that the stack of the thread had.
                threads = [threading.Thread(target=sorted, args=([3, 1, 2],)) for _ in range(20)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert [holder.class_name for holder in registry.holders()] == ["A"]
                registry.stats()
                handle()
                registry.clear_cache()
                with registry.use("B"):
                    assert len(registry.holders()) == 2
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        go.set()
        caller.join()
        print(status, registry.holders())
    """
    assert run(twin, body) == "0 []"


def test_greenlets_in_calls_of_one_thread(twin: str) -> None:
    """Their calls end in another order than they began."""
    pytest.importorskip("greenlet")
    body = """
        import random
        from greenlet import getcurrent, greenlet

        def pause():
            getcurrent().parent.switch()

        def deeper(times):
            return handle(pause) if not times else deeper(times - 1)

        running = []
        for number in range(20):
            running.append(greenlet(deeper))
            running[-1].switch(number % 7)
        assert len(registry.holders()) == 20
        random.Random(1).shuffle(running)
        for number, each in enumerate(running):
            each.switch()
            assert len(registry.holders()) == 19 - number
        print(registry.holders())
    """
    assert run(twin, body) == "[]"


def test_daemon_threads_in_calls_when_the_interpreter_exits(twin: str) -> None:
    """A finaliser that calls a handle then meets no freed memory."""
    body = """
        inside = threading.Semaphore(0)

        def wait():
            inside.release()
            threading.Event().wait(60)

        for _ in range(4):
            threading.Thread(target=handle, args=(wait,), daemon=True).start()
            inside.acquire()

        class Last:
            def __del__(self):
                try:
                    registry.holders()
                    handle()
                except Exception:
                    pass

        module.last = Last()
        print("ended", flush=True)
    """
    assert run(twin, body) == "ended"


@pytest.mark.parametrize("kind", ["handle", "lease"])
def test_use_from_a_weak_reference_callback_amid_a_collection(twin: str, kind: str) -> None:
    """The collector clears a cycle of which the handle or lease is a part."""
    body = f"""
        import weakref

        class Node:
            pass

        def cycle():
            own = warmset.MethodRegistry({{"A": "services.Service"}})
            node = Node()
            node.itself = node
            node.handle = own.bind("A", "call")
            node.lease = own.use("A")
            used = node.handle if {kind!r} == "handle" else node.lease

            def callback(_):
                try:
                    used() if {kind!r} == "handle" else used.__enter__()
                except Exception:
                    pass

            node.watched = Node()
            node.reference = weakref.ref(node.watched, callback)
            own.get_instance("A").node = node

        for _ in range(50):
            cycle()
            gc.collect()
        print("survived")
    """
    assert run(twin, body) == "survived"


def test_a_lease_that_is_entered_by_a_finaliser(twin: str) -> None:
    """It comes back to life when its registry is being dropped with it."""
    body = """
        saved = []

        class Keeper:
            def __del__(self):
                saved.append(self.lease)

        def leave_behind():
            own = warmset.MethodRegistry({"A": "services.Service"})
            keeper = Keeper()
            keeper.lease = own.use("A")
            keeper.itself = keeper
            own.get_instance("A").keeper = keeper

        for _ in range(50):
            leave_behind()
            gc.collect()
        for lease in saved:
            try:
                with lease as service:
                    service.call()
            except Exception:
                pass
        print(len(saved))
    """
    assert run(twin, body) == "50"


def test_a_second_init_of_an_executor_during_its_call(twin: str) -> None:
    """It is refused: the call goes on with the registry that it has."""
    body = """
        def again():
            other = warmset.MethodRegistry({"A": "services.Service"})
            for init in (executor.__init__, warmset.executor.Calls.__init__.__get__(executor)):
                try:
                    init(other) if init is not executor.__init__ else init(method_registry=other)
                except RuntimeError as error:
                    assert "initialised already" in str(error), error
                else:
                    raise AssertionError
            gc.collect()

        for _ in range(20):
            executor.execute("A", "call", function=again)
        print(executor.registry is registry)
    """
    assert run(twin, body) == "True"


def test_private_mappings_cannot_be_written(make: Any) -> None:
    """Slots and injected methods belong to the core."""
    registry = make()
    for mapping in (registry.slots, registry.injected):
        with pytest.raises(TypeError):
            mapping["Alpha"] = object()
