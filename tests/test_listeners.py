"""Listeners: none is lost, and each gets every event, under threads, forks and interrupts."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from threads import Gate, in_thread, in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads are switched as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("which", ["build", "removal"])
def test_threads_that_add_listeners_at_once(make: Any, samples: Any, which: str) -> None:
    """None is lost, the first ones included; those that are removed at once are gone."""
    registry = make()
    add = registry.add_listener if which == "removal" else registry.add_build_listener
    remove = registry.remove_listener if which == "removal" else registry.remove_build_listener
    told: list[int] = []
    barrier = threading.Barrier(4)

    def add_some(first: int) -> None:
        barrier.wait()
        for number in range(first, first + 200):
            listener = lambda event, number=number: told.append(number)  # noqa: E731
            add(listener)
            if number % 2:
                assert remove(listener)

    assert in_threads(*[lambda n=n: add_some(n * 200) for n in range(4)]) == [None] * 4
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    assert sorted(told) == list(range(0, 800, 2))


@pytest.mark.parametrize("which", ["build", "removal"])
def test_a_listener_that_is_added_twice(make: Any, samples: Any, which: str) -> None:
    """It gets each event twice, and is removed as a whole."""
    registry = make()
    add = registry.add_listener if which == "removal" else registry.add_build_listener
    remove = registry.remove_listener if which == "removal" else registry.remove_build_listener
    events: list[Any] = []
    add(events.append)
    add(events.append)
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    assert len(events) == 2
    assert remove(events.append)
    assert not remove(events.append)


def test_an_interrupt_leaves_no_removal_unreported(make: Any, samples: Any) -> None:
    """Of three, the listener is interrupted at the first."""
    registry = make()
    events: list[Any] = []

    def interrupted(event: Any) -> None:
        events.append(event)
        if len(events) == 1:
            raise KeyboardInterrupt

    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    registry.add_listener(interrupted)
    with pytest.raises(KeyboardInterrupt):
        registry.clear_cache()
    assert [event.class_name for event in events] == ["Alpha", "Beta", "Gamma"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_reports(make: Any, samples: Any) -> None:
    """The child's listeners get the child's removals, and not those of the parent."""
    registry = make()
    gate = Gate()
    events: list[str] = []
    parent = os.getpid()

    def listen(event: Any) -> None:
        events.append(event.class_name)
        if os.getpid() == parent:
            gate()

    registry.add_listener(listen)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    reporting = in_thread(registry.discard, "Alpha")
    gate.wait()
    registry.discard("Beta")  # queued: the other thread reports it
    child = os.fork()
    if child == 0:
        status = 1
        try:
            events.clear()
            registry.get_instance("Gamma")
            registry.discard("Gamma")
            status = 0 if events == ["Gamma"] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open()
    reporting.result()
    assert events == ["Alpha", "Beta"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_listener_that_forks(make: Any, samples: Any) -> None:
    """Both processes go on to report."""
    registry = make()
    events: list[str] = []
    children: list[int] = []

    def listen(event: Any) -> None:
        events.append(event.class_name)
        if event.class_name == "Alpha":
            children.append(os.fork())

    registry.add_listener(listen)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    registry.discard("Alpha")
    if children == [0]:
        status = 1
        try:
            registry.discard("Beta")
            status = 0 if events == ["Alpha", "Beta"] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    registry.discard("Beta")
    assert events == ["Alpha", "Beta"]
