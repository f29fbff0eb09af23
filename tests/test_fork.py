"""Forks: the child can use its registry at once, although other threads are gone."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from threads import Gate, in_thread

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


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
