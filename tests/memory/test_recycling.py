"""Tests of recycling: built in the background and replaced; the old one stays with its holders."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from managers import manager_of

from warmset.testing.structure import eviction_order


def recycled(registry: Any) -> int:
    return int(registry.stats().as_dict()["removals"]["recycled"])


def swept(registry: Any) -> None:
    """Sweep, and wait for the thread that it started."""
    registry.sweep()
    assert manager_of(registry).recycling.wait(30.0)


def test_recycling_replaces_the_instance(make: Any, samples: Any) -> None:
    """It is counted as a build and an eviction, not as a miss."""
    registry = make()
    events: list[Any] = []
    registry.add_listener(events.append)
    with registry.use("Alpha") as old:
        pass
    assert registry.recycle("Alpha")
    assert samples.closed == ["Alpha"]
    new = registry.get_instance("Alpha")
    assert new is not old
    stats = registry.stats()
    assert (stats.builds, stats.hits, stats.misses) == (2, 1, 1)
    assert [(e.cause.name, e.held) for e in events] == [("RECYCLED", False)]
    assert recycled(registry) == stats.evictions == 1


def test_the_old_instance_serves_during_the_build(make: Any, samples: Any) -> None:
    registry = make()
    old = registry.get_instance("Alpha")
    seen: list[Any] = []
    samples.script["Alpha"] = lambda _: seen.append(registry.get_instance("Alpha"))
    assert registry.recycle("Alpha")
    assert seen == [old]


def test_holders_keep_the_old_instance(make: Any, samples: Any) -> None:
    registry = make()
    with registry.use("Alpha") as old:
        assert registry.recycle("Alpha")
        assert registry.get_instance("Alpha") is not old
        assert old.echo("x") == "x"
        assert samples.closed == []
        assert [h.class_name for h in registry.holders()] == ["Alpha"]
    assert samples.closed == ["Alpha"]


def test_recycling_does_not_count_as_a_use(make: Any, timer: Any) -> None:
    """The idle clock continues, and the eviction order stays the same."""
    registry = make(cache_ttl_seconds=10)
    registry.get_instance("Alpha")
    timer.advance(4)
    registry.get_instance("Beta")
    timer.advance(4)
    registry.recycle("Alpha")
    assert eviction_order(registry) == ["Alpha", "Beta"]
    entry = registry.stats().entries[1]
    assert (entry.idle_seconds, entry.age_seconds, entry.uses) == (8.0, 0.0, 0)
    timer.advance(3)
    assert registry.evict_expired() == 1


def test_only_warm_instances_are_recycled(ws: Any, make: Any, samples: Any) -> None:
    registry = make()
    assert not registry.recycle("Alpha")
    assert samples.built == []
    with pytest.raises(ws.errors.UnknownClassError):
        registry.recycle("Nobody")
    registry.close()
    with pytest.raises(ws.errors.ClosedError):
        registry.recycle("Alpha")


@pytest.mark.counts
@pytest.mark.parametrize("end", ["discard", "clear", "unregister", "close", "replace"])
def test_an_instance_removed_during_the_build_is_not_replaced(
    make: Any, samples: Any, end: str
) -> None:
    """The new instance is closed, because it was never handed out."""
    registry = make()
    registry.get_instance("Alpha")
    ends = {
        "discard": lambda _: registry.discard("Alpha"),
        "clear": lambda _: registry.clear_cache(),
        "unregister": lambda _: registry.unregister("Alpha"),
        "close": lambda _: registry.close(),
        "replace": lambda _: registry.register("Alpha", "samples.Beta"),
    }
    samples.script["Alpha"] = ends[end]
    assert not registry.recycle("Alpha")
    assert registry.stats().cached == 0
    assert samples.built == ["Alpha", "Alpha"]
    assert samples.closed == ["Alpha", "Alpha"]


def test_a_look_up_after_the_removal_of_the_old_instance_builds_its_own(
    make: Any, samples: Any
) -> None:
    """The instance that was to replace the old one is closed."""
    registry = make()
    registry.get_instance("Alpha")
    waiting, asked = threading.Event(), threading.Event()
    got: list[Any] = []

    def ask() -> None:
        asked.set()
        got.append(registry.get_instance("Alpha"))

    def script(_: Any) -> None:
        del samples.script["Alpha"]
        registry.discard("Alpha")
        thread.start()
        asked.wait(10.0)
        while not registry.stats().waits:
            waiting.wait(0.001)

    thread = threading.Thread(target=ask)
    samples.script["Alpha"] = script
    assert not registry.recycle("Alpha")
    thread.join()
    assert got[0].echo("x") == "x"
    assert registry.get_instance("Alpha") is got[0]


def test_the_old_instance_stays_if_the_build_fails(ws: Any, make: Any, samples: Any) -> None:
    registry = make()
    old = registry.get_instance("Alpha")

    def fail(_: Any) -> None:
        raise OSError("no weights")

    samples.script["Alpha"] = fail
    with pytest.raises(ws.errors.BuildError, match="no weights"):
        registry.recycle("Alpha")
    assert registry.get_instance("Alpha") is old
    assert registry.stats().failed_builds == 1
    assert registry.has_method("Alpha", "echo")
    del samples.script["Alpha"]
    assert registry.recycle("Alpha")


def test_an_interrupt_is_raised_and_the_old_instance_stays(make: Any, samples: Any) -> None:
    registry = make()
    old = registry.get_instance("Alpha")

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    samples.script["Alpha"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        registry.recycle("Alpha")
    assert registry.get_instance("Alpha") is old


# -- sweeps --------------------------------------------------------------------------------------


def test_recycling_after_a_number_of_uses(make: Any, samples: Any) -> None:
    """Due at a sweep, built in a thread."""
    registry = make({})
    registry.register("Alpha", "samples.Alpha", recycle_after_uses=3)
    old = registry.get_instance("Alpha")
    registry.get_instance("Alpha")
    swept(registry)
    assert registry.get_instance("Alpha") is old
    thread: list[str] = []
    samples.script["Alpha"] = lambda _: thread.append(threading.current_thread().name)
    swept(registry)
    assert registry.get_instance("Alpha") is not old
    assert thread == ["warmset-recycler"]
    swept(registry)
    assert recycled(registry) == 1


def test_recycling_at_an_age(make: Any, timer: Any) -> None:
    registry = make({}, cache_ttl_seconds=0)
    registry.register("Alpha", "samples.Alpha", recycle_after_seconds=60)
    old = registry.get_instance("Alpha")
    timer.advance(59)
    swept(registry)
    assert registry.get_instance("Alpha") is old
    timer.advance(1)
    swept(registry)
    assert registry.get_instance("Alpha") is not old


def test_a_failed_build_is_retried_later(make: Any, samples: Any, timer: Any) -> None:
    """After `retry_after_seconds`; the old instance serves meanwhile."""
    registry = make({}, cache_ttl_seconds=0, retry_after_seconds=30)
    registry.register("Alpha", "samples.Alpha", recycle_after_uses=1)
    old = registry.get_instance("Alpha")

    def fail(_: Any) -> None:
        raise OSError("no weights")

    samples.script["Alpha"] = fail
    for _ in range(3):
        swept(registry)
    assert registry.stats().failed_builds == 1
    assert registry.get_instance("Alpha") is old
    timer.advance(30)
    del samples.script["Alpha"]
    swept(registry)
    assert registry.get_instance("Alpha") is not old


def test_a_constructor_that_exits_does_not_stop_the_others(
    make: Any, samples: Any, timer: Any, caplog: Any
) -> None:
    """It is logged, and retried after `retry_after_seconds`."""
    registry = make({}, cache_ttl_seconds=0, retry_after_seconds=30)
    for name in ("Alpha", "Beta"):
        registry.register(name, f"samples.{name}", recycle_after_uses=1)
        registry.get_instance(name)

    def leave(_: Any) -> None:
        raise SystemExit("enough")

    samples.script["Alpha"] = leave
    swept(registry)
    assert recycled(registry) == 1
    assert "recycling 'Alpha' failed" in caplog.text
    assert "SystemExit: enough" in caplog.text
    assert registry.stats().failed_builds == 1
    del samples.script["Alpha"]
    registry.get_instance("Beta")
    swept(registry)
    assert samples.built.count("Alpha") == 2
    timer.advance(30)
    swept(registry)
    assert samples.built.count("Alpha") == 3


def test_what_is_known_of_removed_instances_is_forgotten(make: Any, samples: Any) -> None:
    registry = make({})
    for number in range(20):
        name = f"Alpha@{number}"
        registry.register(name, "samples.Alpha", recycle_after_growth_bytes=10**9)
        registry.get_instance(name)
        registry.sweep()
        registry.unregister(name)
    registry.sweep()
    assert manager_of(registry).recycling._sizes == {}


def test_the_sweeper_recycles(make: Any) -> None:
    """If an interval is set."""
    registry = make({}, sweep_interval_seconds=0.001)
    registry.register("Alpha", "samples.Alpha", recycle_after_uses=1)
    old = registry.get_instance("Alpha")
    pause = threading.Event()
    for _ in range(10_000):
        if recycled(registry):
            break
        pause.wait(0.001)
    registry.close()
    assert manager_of(registry).recycling.wait(30.0)
    assert old is not None
    assert recycled(registry) >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_recycles_in_its_own_thread(make: Any) -> None:
    registry = make({})
    registry.register("Alpha", "samples.Alpha", recycle_after_uses=1)
    registry.get_instance("Alpha")
    swept(registry)
    registry.get_instance("Alpha")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            registry.get_instance("Alpha")
            swept(registry)
            status = 0 if recycled(registry) == 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_recycling_under_traffic(make: Any, samples: Any) -> None:
    """No look-up misses because of it, and no closed instance is handed out."""
    registry = make()
    registry.get_instance("Alpha")
    stop = threading.Event()
    errors: list[BaseException] = []

    def serve() -> None:
        tag = registry.bind("Alpha", "echo")
        try:
            while not stop.is_set():
                assert tag("x") == "x"
                with registry.use("Alpha") as instance:
                    assert instance.echo("y") == "y"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    count = sum(registry.recycle("Alpha") for _ in range(200))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count == 200
    assert registry.stats().misses == 1
    assert len(samples.closed) == 200 - registry.stats().left_open
