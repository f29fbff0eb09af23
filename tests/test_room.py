"""Waiting for room, timeouts of those who wait, and what a forked child does with instances."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest


def until(condition: Any) -> None:
    """Wait until something is so, in another thread."""
    pause = threading.Event()
    for _ in range(30_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to be")


def blocked(registry: Any, name: str) -> tuple[threading.Thread, list[Any]]:
    """A thread that asks for a name and waits for room; what it got comes into the list."""
    results: list[Any] = []

    def ask() -> None:
        try:
            results.append(registry.get_instance(name))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: registry._blocked)
    return thread, results


@pytest.mark.parametrize("way", ["release", "discard", "release after clear"])
def test_a_build_waits_for_room(make: Any, samples: Any, way: str) -> None:
    """Until something held is released or removed; the bound is not exceeded."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=30)
    lease = registry.use("Alpha")
    lease.__enter__()
    thread, results = blocked(registry, "Beta")
    assert samples.built == ["Alpha"]
    if way == "release":
        lease.__exit__()
    elif way == "discard":
        registry.discard("Alpha")
    else:
        registry.clear_cache()
    thread.join(30)
    assert type(results[0]) is samples.Beta
    # A clear in the middle of a build keeps its result out of the cache, also while it waits.
    assert registry._ring() == ([] if way == "release after clear" else ["Beta"])
    lease.__exit__()


def test_waiting_for_room_has_a_timeout(ws: Any, make: Any, samples: Any) -> None:
    """The error says what is full; the class is not remembered as failed."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=0.0)
    with registry.use("Alpha"):
        with pytest.raises(ws.CapacityError, match="no room for 'Beta': all 1 cached") as caught:
            registry.get_instance("Beta")
        assert isinstance(caught.value, TimeoutError)
        assert registry.get_instance("Alpha") is not None
    assert type(registry.get_instance("Beta")) is samples.Beta
    assert registry._blocked == 0


def test_a_waiter_gives_up_after_its_timeout(ws: Any, make: Any, samples: Any) -> None:
    """The error names the builder's thread; the build itself goes on and is kept."""
    registry = make(build_timeout_seconds=0.01)
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(30)

    samples.script["Alpha"] = slow
    builder = threading.Thread(target=registry.get_instance, args=("Alpha",), name="the builder")
    builder.start()
    assert entered.wait(30)
    with pytest.raises(ws.BuildTimeoutError, match="is being built by 'the builder'") as caught:
        registry.get_instance("Alpha")
    assert caught.value.builder == "the builder"
    assert caught.value.seconds > 0
    go.set()
    builder.join(30)
    assert registry.stats().failed_class_names == ()
    assert registry.get_instance("Alpha") is not None
    assert samples.built == ["Alpha"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("policy", "builds", "same"), [("keep", 1, True), ("drop", 1, False), ("rebuild", 2, False)]
)
def test_what_a_forked_child_does_with_an_instance(
    make: Any, samples: Any, policy: str, builds: int, same: bool
) -> None:
    """It keeps it, drops it unclosed, or builds another at once."""
    registry = make()
    registry.register_class("Alpha", "samples.Alpha", after_fork=policy)
    alpha = registry.get_instance("Alpha")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert registry.stats().builds == builds
            assert (registry.get_instance("Alpha") is alpha) is same
            assert samples.closed == []
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_policy_that_does_not_exist(make: Any) -> None:
    """Is refused, and nothing is registered."""
    registry = make()
    with pytest.raises(ValueError, match="after_fork of 'New' must be 'keep', 'drop' or 'rebuild'"):
        registry.register_class("New", "samples.Alpha", after_fork="share")
    assert "New" not in registry
