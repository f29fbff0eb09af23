"""After a fork the child can use its registry at once, whatever other threads were doing."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


def in_child(work: Any) -> int:
    """Run something in a forked child; its exit status, 0 if it returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (9,)).start()  # a hang is an answer too
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_warm_instances_are_there_in_the_child(make: Any) -> None:
    """And cold ones are built."""
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
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(60)

    samples.script["Alpha"] = slow
    builder = threading.Thread(target=registry.get_instance, args=("Alpha",))
    builder.start()
    assert entered.wait(30)

    def work() -> None:
        samples.script.clear()
        registry.get_instance("Alpha")

    try:
        assert in_child(work) == 0
    finally:
        go.set()
        builder.join()


def test_a_constructor_may_fork(make: Any, samples: Any) -> None:
    """The child goes on with the build that it was forked in."""
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
    if twin == "pure":
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            with registry._lock:
                held.set()
                go.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(30)
        try:
            assert in_child(lambda: registry.get_instance("Alpha")) == 0
        finally:
            go.set()
            holder.join()
    else:
        assert not hasattr(registry, "_lock")
