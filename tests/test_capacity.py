"""Waiting for capacity, timeouts of waiters, and the instances of a forked child."""

from __future__ import annotations

import os
from typing import Any

import pytest
from threads import Gate, Running, in_thread, until

from warmset.testing.structure import eviction_order


def waiting(registry: Any, name: str) -> Running:
    """Look a name up in a thread, which waits for capacity."""
    running = in_thread(registry.get_instance, name)
    until(lambda: registry.watched)
    return running


@pytest.mark.parametrize("way", ["release", "discard", "release after clear"])
def test_a_build_waits_for_capacity(make: Any, samples: Any, way: str) -> None:
    """It waits until a held instance is released or removed; the bound is not exceeded."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=30)
    lease = registry.use("Alpha")
    lease.__enter__()
    running = waiting(registry, "Beta")
    assert samples.built == ["Alpha"]
    if way == "release":
        lease.__exit__()
    elif way == "discard":
        registry.discard("Alpha")
    else:
        registry.clear_cache()
    assert type(running.result()) is samples.Beta
    # A clear in the middle of a build keeps its result out of the cache, also while it waits.
    assert eviction_order(registry) == ([] if way == "release after clear" else ["Beta"])
    lease.__exit__()


def test_waiting_for_capacity_has_a_timeout(ws: Any, make: Any, samples: Any) -> None:
    """The error names the held instances; the class is not remembered as failed."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=0.0)
    with registry.use("Alpha"):
        with pytest.raises(ws.CapacityError, match="no capacity for 'Beta': all 1 cached"):
            registry.get_instance("Beta")
        assert registry.get_instance("Alpha") is not None
    assert type(registry.get_instance("Beta")) is samples.Beta
    assert registry.watched == 0


def test_a_waiter_gives_up_after_its_timeout(ws: Any, make: Any, samples: Any) -> None:
    """The error names the builder's thread; the build continues and is cached."""
    registry = make(build_timeout_seconds=0.01)
    samples.script["Alpha"] = gate = Gate()
    builder = in_thread(registry.get_instance, "Alpha", name="the builder")
    gate.wait()
    with pytest.raises(
        ws.BuildTimeoutError, match="thread 'the builder' has been building"
    ) as caught:
        registry.get_instance("Alpha")
    assert caught.value.builder == "the builder"
    assert caught.value.seconds > 0
    gate.open()
    builder.result()
    assert registry.stats().failed_class_names == ()
    assert registry.get_instance("Alpha") is not None
    assert samples.built == ["Alpha"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("policy", "builds", "same"), [("keep", 1, True), ("drop", 1, False), ("rebuild", 2, False)]
)
def test_the_option_after_fork(
    make: Any, samples: Any, policy: str, builds: int, same: bool
) -> None:
    """It keeps the instance, drops it unclosed, or builds another one at once."""
    registry = make()
    registry.register("Alpha", "samples.Alpha", after_fork=policy)
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


def test_an_unknown_value_of_after_fork(make: Any) -> None:
    """It is refused, and nothing is registered."""
    registry = make()
    with pytest.raises(ValueError, match="after_fork of 'New' must be 'keep', 'drop' or 'rebuild'"):
        registry.register("New", "samples.Alpha", after_fork="share")
    assert "New" not in registry
