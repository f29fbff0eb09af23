"""With closing="background", a thread runs the closers, and nobody waits for them."""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

import pytest
from threads import Gate, in_thread, until


def closers() -> list[str]:
    """The closing threads that run."""
    return [t.name for t in threading.enumerate() if t.name == "warmset-closer"]


@pytest.fixture
def module(ws: Any) -> Any:
    """The module of this copy of the package."""
    return importlib.import_module("warmset.lifecycle.closing_thread")


@pytest.fixture
def registry(make: Any) -> Any:
    """At most one instance, closed in the background."""
    return make(max_cache_size=1, closing="background")


def settled(module: Any, registry: Any) -> Any:
    """Wait for the closing thread; the statistics."""
    assert registry.extension(module.ClosingThread).wait(30.0)
    return registry.stats()


def use(registry: Any, *names: str) -> None:
    """Build and release."""
    for name in names:
        with registry.use(name):
            pass


def test_nobody_waits_for_a_closer(module: Any, registry: Any, samples: Any) -> None:
    """The instance is in the state waiting meanwhile."""
    gate, where = Gate(), []

    def slow(instance: Any) -> None:
        where.append(threading.current_thread().name)
        gate()
        instance.close()

    registry.register("Alpha", "samples.Alpha", closer=slow)
    use(registry, "Alpha", "Beta")
    gate.wait()
    assert samples.closed == []
    assert registry.stats().states["waiting"] == 1
    use(registry, "Gamma")  # the next one waits behind it
    states = registry.stats().states
    assert states["waiting"] == 2
    assert sum(states.values()) == registry.stats().builds == 3
    gate.open()
    stats = settled(module, registry)
    assert samples.closed == ["Alpha", "Beta"]
    assert where == ["warmset-closer"]
    assert (stats.closed, stats.states["waiting"]) == (2, 0)


def test_the_thread_exists_only_while_there_is_something_to_close(
    module: Any, make: Any, registry: Any, samples: Any
) -> None:
    """And never without the setting."""
    inline = make(max_cache_size=1)
    use(inline, "Alpha", "Beta")
    assert samples.closed == ["Alpha"]
    assert closers() == []
    use(registry, "Alpha", "Beta")
    settled(module, registry)
    until(lambda: closers() == [])


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_the_thread_survives_closers(
    module: Any, registry: Any, samples: Any, kind: type[BaseException]
) -> None:
    """Their failures are counted as ever."""

    def fail(instance: Any) -> None:
        raise kind

    registry.register("Alpha", "samples.Alpha", closer=fail)
    use(registry, "Alpha", "Beta", "Gamma")
    until(lambda: samples.closed == ["Beta"])
    stats = settled(module, registry)
    assert (stats.closed, stats.close_failures) == (1, 1)


def test_close_waits_for_the_thread(module: Any, registry: Any, samples: Any) -> None:
    """What is cached then is closed by the caller."""
    gate = Gate()
    registry.register("Alpha", "samples.Alpha", closer=lambda alpha: (gate(), alpha.close()))
    use(registry, "Alpha", "Beta")
    gate.wait()
    closing = in_thread(registry.close)
    until(lambda: samples.closed == ["Beta"])
    assert closing.is_running()
    gate.open()
    closing.result()
    assert samples.closed == ["Beta", "Alpha"]
    assert registry.stats().states["waiting"] == 0


def test_close_does_not_wait_for_ever(
    module: Any, registry: Any, samples: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It is logged how many are waiting."""
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.0)
    gate = Gate()
    registry.register("Alpha", "samples.Alpha", closer=lambda alpha: gate())
    use(registry, "Alpha", "Beta")
    gate.wait()
    registry.close()
    assert "1 instances are waiting" in caplog.text
    assert registry.stats().states["waiting"] == 1
    gate.open()
    assert settled(module, registry).states["waiting"] == 0


def test_a_closer_that_closes_the_registry(module: Any, registry: Any, samples: Any) -> None:
    """The thread does not wait for itself."""
    registry.register("Alpha", "samples.Alpha", closer=lambda alpha: registry.close())
    use(registry, "Alpha", "Beta")
    until(lambda: registry.closed)
    settled(module, registry)
    assert samples.closed == ["Beta"]
    assert registry.stats().closed == 2


def test_a_closer_that_removes_others(module: Any, registry: Any, samples: Any) -> None:
    """They wait behind it."""
    registry.register(
        "Alpha", "samples.Alpha", closer=lambda alpha: (registry.clear_cache(), alpha.close())
    )
    use(registry, "Alpha", "Beta")
    until(lambda: sorted(samples.closed) == ["Alpha", "Beta"])
    settled(module, registry)


def test_without_a_thread_the_caller_closes(
    module: Any, registry: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left waiting."""

    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        use(registry, "Alpha", "Beta")
        assert samples.closed == ["Alpha"]
    use(registry, "Gamma")
    settled(module, registry)
    assert samples.closed == ["Alpha", "Beta"]


def test_too_many_are_closed_by_the_caller(
    module: Any, registry: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the instances that wait are bounded."""
    monkeypatch.setattr(module, "_MOST_WAITING", 1)
    gate = Gate()
    registry.register("Alpha", "samples.Alpha", closer=lambda alpha: gate())
    use(registry, "Alpha", "Beta")
    gate.wait()
    use(registry, "Gamma")  # Beta waits
    assert samples.closed == []
    use(registry, "Delta")  # Gamma would be one too many
    assert samples.closed == ["Gamma"]
    gate.open()
    settled(module, registry)
    assert samples.closed == ["Gamma", "Beta"]


def test_a_dropped_registry(module: Any, make: Any, samples: Any) -> None:
    """What waits is closed first."""
    registry = make(max_cache_size=1, closing="background")
    use(registry, "Alpha", "Beta")
    del registry
    until(lambda: samples.closed == ["Alpha", "Beta"] or samples.closed == ["Beta", "Alpha"])
    until(lambda: closers() == [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_fork_while_instances_wait(module: Any, registry: Any, samples: Any) -> None:
    """They are the parent's; the child has a thread of its own."""
    gate = Gate()
    parent = os.getpid()

    def slow(instance: Any) -> None:
        if os.getpid() == parent:
            gate()
        instance.close()

    registry.register("Alpha", "samples.Alpha", closer=slow)
    use(registry, "Alpha", "Beta", "Gamma")
    gate.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            states = registry.stats().states
            status = 2 if (states["parents"], states["waiting"]) == (2, 0) else 3
            use(registry, "Delta")
            until(lambda: samples.closed == ["Gamma"])
            status = 0 if status == 2 else status
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open()
    settled(module, registry)
    assert samples.closed == ["Alpha", "Beta"]


def test_the_setting_is_checked(ws: Any) -> None:
    """It names what is expected."""
    with pytest.raises(ValueError, match=r"closing.*'inline' or 'background'"):
        ws.MethodRegistry({}, closing="later")
