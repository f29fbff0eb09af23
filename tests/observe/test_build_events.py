"""Build listeners: each build is reported once, when it ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest


def listening(registry: Any) -> list[Any]:
    """Listen to builds; return the list that collects the events."""
    events: list[Any] = []
    registry.add_build_listener(events.append)
    return events


def test_a_build_is_reported_with_its_seconds(make: Any, timer: Any, samples: Any) -> None:
    """A hit is not reported."""
    registry = make()
    events = listening(registry)
    timer.advance(5)
    samples.script["Alpha"] = lambda instance: timer.advance(2.5)
    registry.get_instance("Alpha")
    registry.get_instance("Alpha")
    (event,) = events
    assert (event.class_name, event.succeeded) == ("Alpha", True)
    assert (event.started, event.seconds) == (1005.0, 2.5)
    assert (event.stage, event.error_type, event.error, event.bytes) == (None,) * 4


def test_a_failed_build_is_reported_with_its_cause(make: Any, timer: Any, samples: Any) -> None:
    """It is reported once: raising a remembered failure is not a build."""
    registry = make({"Broken": "samples.Broken", "Lost": "samples.Nothing", "Gone": "no_such.C"})
    events = listening(registry)
    for name in ("Broken", "Broken", "Lost", "Gone"):
        with pytest.raises(RuntimeError):
            registry.get_instance(name)
    assert [(e.class_name, e.stage, e.error_type) for e in events] == [
        ("Broken", "build", "ValueError"),
        ("Lost", "attribute", events[1].error_type),
        ("Gone", "import", "ModuleNotFoundError"),
    ]
    assert "no model file" in events[0].error
    assert not any(event.succeeded for event in events)
    assert registry.stats().failed_builds == 3


def test_events_and_counters_agree(make: Any, samples: Any) -> None:
    """With nested builds, cycles and clears; the inner build is reported first."""
    registry = make()
    events = listening(registry)
    samples.script["Alpha"] = lambda instance: registry.get_instance("Beta")
    samples.script["Beta"] = lambda instance: registry.clear_cache()
    samples.script["Gamma"] = lambda instance: registry.get_instance("Gamma")
    registry.get_instance("Alpha")
    with pytest.raises(RecursionError):
        registry.get_instance("Gamma")
    assert [e.class_name for e in events] == ["Beta", "Alpha", "Gamma"]
    assert [e.stage for e in events] == [None, None, "cycle"]
    stats = registry.stats()
    assert stats.builds == sum(e.succeeded for e in events)
    assert stats.failed_builds == sum(not e.succeeded for e in events)


def test_a_build_without_capacity_is_reported(ws: Any, make: Any) -> None:
    """It counts as failed."""
    registry = make(max_cache_size=1, block_when_full=True, block_timeout_seconds=0.01)
    events = listening(registry)
    with registry.use("Alpha"), pytest.raises(ws.CapacityError):
        registry.get_instance("Beta")
    assert [(e.class_name, e.succeeded) for e in events] == [("Alpha", True), ("Beta", False)]
    assert events[1].error_type == "CapacityError"


def test_an_interrupted_build_is_not_reported(make: Any, samples: Any) -> None:
    """It neither succeeded nor failed."""
    registry = make()
    events = listening(registry)

    def interrupt(instance: Any) -> None:
        raise KeyboardInterrupt

    samples.script["Alpha"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        registry.get_instance("Alpha")
    assert events == []


def test_a_listener_may_use_the_registry(make: Any, samples: Any) -> None:
    """The build has ended: its class can be looked up, even after a failure, and removed."""
    registry = make({"Alpha": "samples.Alpha", "Broken": "samples.Broken"}, retry_after_seconds=60)
    seen: list[Any] = []

    def listener(event: Any) -> None:
        seen.append(event.class_name)
        if event.succeeded:
            assert registry.get_instance("Alpha") is not None
            registry.discard("Alpha")
        else:
            with pytest.raises(RuntimeError, match="no model file"):
                registry.get_instance("Broken")

    registry.add_build_listener(listener)
    with registry.use("Alpha") as alpha:
        assert not alpha.is_closed
    with pytest.raises(RuntimeError, match="no model file"):
        registry.get_instance("Broken")
    assert seen == ["Alpha", "Broken"]
    assert registry.stats().listener_failures == 0


def test_a_listener_that_raises_changes_no_result(make: Any, records: Any) -> None:
    """The error is logged and counted; the other listeners are called."""
    registry = make()

    def fail(event: Any) -> None:
        raise ValueError("no")

    registry.add_build_listener(fail)
    events = listening(registry)
    assert registry.get_instance("Alpha").echo("x") == "x"
    assert len(events) == 1
    assert registry.stats().listener_failures == 1
    (record,) = records.of("listeners")
    assert "a build listener failed" in record.getMessage()
    assert record.class_name == "Alpha"
    assert registry.remove_build_listener(fail)
    assert not registry.remove_build_listener(fail)
    with pytest.raises(TypeError, match="must be callable"):
        registry.add_build_listener(3)


def test_an_interrupt_in_a_listener_leaves_no_hold(make: Any, samples: Any) -> None:
    """The instance stays cached and can be evicted."""
    registry = make()

    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    registry.add_build_listener(interrupt)
    with pytest.raises(KeyboardInterrupt):
        registry.get_instance("Alpha")
    assert registry.remove_build_listener(interrupt)
    assert registry.stats().held == 0
    assert registry.stats().cached == 1
    registry.clear_cache()
    assert samples.closed == ["Alpha"]


def test_each_build_is_reported_once_under_threads(make: Any) -> None:
    """By the building thread; waiters are not affected."""
    registry = make()
    events: list[tuple[str, int]] = []
    registry.add_build_listener(lambda e: events.append((e.class_name, threading.get_ident())))
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(30)
        for step in range(100):
            registry.get_instance("Alpha" if step % 2 else "Beta")
            if step % 10 == 0:
                registry.clear_cache()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(events) == registry.stats().builds > 2


def test_waiters_do_not_wait_for_the_listener(make: Any, samples: Any) -> None:
    """Waiters get the instance before the listeners are called."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def slow(event: Any) -> None:
        entered.set()
        assert go.wait(30)

    registry.add_build_listener(slow)
    first = threading.Thread(target=registry.get_instance, args=("Alpha",))
    first.start()
    assert entered.wait(30)
    assert registry.get_instance("Alpha") is not None
    assert first.is_alive()
    go.set()
    first.join(30)
