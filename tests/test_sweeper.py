"""The sweeper: expiry without look-ups, by one thread that keeps no registry alive."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
import threading
import traceback
import weakref
from typing import Any

import pytest
from threads import in_threads, until


@pytest.fixture
def sweeper(ws: Any) -> Any:
    """The process's sweeper, of this copy of the package."""
    module = importlib.import_module("warmset.lifecycle.sweeper")
    yield module.sweeper
    module.sweeper._swept.clear()
    module.sweeper.service.wake()
    until(lambda: not module.sweeper.service.is_running)


def test_no_thread_without_an_interval(make: Any, sweeper: Any) -> None:
    """It is off by default."""
    make().get_instance("Alpha")
    assert not sweeper.service.is_running


@pytest.mark.counts
def test_an_expired_instance_is_evicted_without_a_look_up(
    make: Any, sweeper: Any, timer: Any, samples: Any
) -> None:
    """It is closed, too."""
    registry = make(cache_ttl_seconds=10, sweep_interval_seconds=0.001)
    registry.get_instance("Alpha")
    timer.advance(11)
    until(lambda: samples.closed == ["Alpha"])
    assert registry.stats().evictions == 1


def test_each_registry_at_its_own_interval(
    make: Any, sweeper: Any, timer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock that the thread reads."""
    monkeypatch.setattr(sweeper.service, "_start", lambda: None)  # no thread sweeps in between
    often = make(cache_ttl_seconds=1, sweep_interval_seconds=1000)
    seldom = make(cache_ttl_seconds=1, sweep_interval_seconds=3000)
    for registry in (often, seldom):
        registry.get_instance("Alpha")
        sweeper.add(registry, registry.settings.sweep_interval_seconds, now=0.0)
    timer.advance(5)
    assert sweeper.sweep(999.0) == 1.0
    assert (often.stats().cached, seldom.stats().cached) == (1, 1)
    assert sweeper.sweep(1000.0) == 1000.0
    assert (often.stats().cached, seldom.stats().cached) == (0, 1)
    assert sweeper.sweep(3000.0) == 1000.0
    assert seldom.stats().cached == 0


def test_the_thread_keeps_no_registry_alive(make: Any, sweeper: Any) -> None:
    """And ends with the last one."""
    registry = make(sweep_interval_seconds=0.001)
    until(lambda: sweeper.service.is_running)
    gone = weakref.ref(registry)
    del registry
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: not sweeper.service.is_running)


def test_a_closed_registry_is_no_longer_swept(make: Any, sweeper: Any) -> None:
    """The thread ends, and another one starts when it is needed."""
    registry = make(sweep_interval_seconds=1000)
    registry.close()
    until(lambda: not sweeper.service.is_running)
    again = make(sweep_interval_seconds=1000)
    until(lambda: sweeper.service.is_running)
    again.close()


def test_a_sweep_that_fails_is_logged(
    make: Any, sweeper: Any, timer: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other registries are swept."""
    monkeypatch.setattr(sweeper.service, "_start", lambda: None)  # no thread sweeps in between
    broken = make(cache_ttl_seconds=1, sweep_interval_seconds=1000)
    broken.evict_expired = None  # not callable
    sound = make(cache_ttl_seconds=1, sweep_interval_seconds=1000)
    sound.get_instance("Alpha")
    timer.advance(5)
    sweeper.add(broken, 1000, now=0.0)
    sweeper.add(sound, 1000, now=0.0)
    sweeper.sweep(1000.0)
    assert sound.stats().cached == 0
    assert "sweeping" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_sweeps_with_a_thread_of_its_own(
    make: Any, sweeper: Any, timer: Any
) -> None:
    """The parent's does not exist there."""
    registry = make(cache_ttl_seconds=10, sweep_interval_seconds=0.001)
    registry.get_instance("Alpha")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (9,)).start()
            timer.advance(11)
            until(lambda: registry.stats().cached == 0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class PanicException(BaseException):
    """As a Rust extension raises it."""


@pytest.mark.parametrize("kind", [ValueError, SystemExit, PanicException, KeyboardInterrupt])
@pytest.mark.parametrize("site", ["closer", "listener", "policy", "timer", "sizer"])
def test_the_sweeper_survives_what_it_runs(
    ws: Any, make: Any, sweeper: Any, timer: Any, samples: Any, kind: type[BaseException], site: str
) -> None:
    """Other registries are swept, and those that are made afterwards."""

    def fail(*_: Any) -> Any:
        if threading.current_thread().name != "warmset-sweeper":
            return 0
        failing.set()
        raise kind("no")

    failing = threading.Event()
    own_timer = FailingTimer(timer)
    options: dict[str, Any] = {"timer": own_timer, "cache_ttl_seconds": 10}
    if site == "policy":
        options |= {"policy": type("Policy", (), {"worth": fail})(), "max_cache_size": 1}
    if site == "sizer":
        options |= {"sizer": fail}
    bad = make(sweep_interval_seconds=0.001, **options)
    if site == "closer":
        bad.register("Alpha", "samples.Alpha", closer=fail)
    elif site == "listener":
        bad.add_listener(fail)
    elif site == "sizer":
        bad.register("Alpha", "samples.Alpha", recycle_after_growth_bytes=1)
    with bad.use("Alpha"):
        if site == "policy":
            bad.get_instance("Beta")
    good = make(cache_ttl_seconds=10, sweep_interval_seconds=0.001)
    good.get_instance("Alpha")
    if site == "timer":
        own_timer.error = fail
    if site in ("closer", "listener", "timer"):  # the others are asked about what is cached
        timer.advance(11)
    until(failing.is_set)
    timer.advance(11)
    until(lambda: good.stats().cached == 0)
    new = make(cache_ttl_seconds=10, sweep_interval_seconds=0.001)
    new.get_instance("Alpha")
    timer.advance(11)
    until(lambda: new.stats().cached == 0)
    assert sweeper.service.is_running
    own_timer.error = None


class FailingTimer:
    """Another timer's seconds, or an error."""

    def __init__(self, timer: Any) -> None:
        self.timer = timer
        self.error: Any = None

    def __call__(self) -> float:
        if self.error is not None:
            self.error()
        return float(self.timer())


def test_an_interval_longer_than_a_lock_can_wait(make: Any, sweeper: Any) -> None:
    """The thread waits for as long as it can."""
    registry = make(sweep_interval_seconds=1e10)
    until(lambda: sweeper.service.is_running)
    before = threading.active_count()
    sweeper.service.wake()
    other = make(sweep_interval_seconds=1e300)
    until(lambda: sweeper.service._quiet.locked())
    assert sweeper.service.is_running
    assert threading.active_count() == before
    registry.close()
    other.close()


def is_running(thread: threading.Thread, function: str) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and any(
        each.f_code.co_name == function for each, _ in traceback.walk_stack(frame)
    )


def test_the_thread_is_replaced_if_it_dies(make: Any, sweeper: Any, caplog: Any) -> None:
    """As when an error is sent to it."""
    services = importlib.import_module("warmset.lifecycle.services")
    before = services.failures().get("warmset-sweeper", 0)
    registry = make(sweep_interval_seconds=1000)
    until(lambda: sweeper.service.thread is not None)
    thread = sweeper.service.thread
    # At its first instruction no handler is there yet, and pytest keeps what would replace it then.
    until(lambda: is_running(thread, "_do_steps"))
    sent = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )
    assert sent == 1
    sweeper.service.signal()
    until(lambda: sweeper.service.thread not in (None, thread))
    assert services.failures()["warmset-sweeper"] == before + 1
    assert "another one takes over" in caplog.text
    registry.close()


def test_a_service_that_cannot_be_started(
    make: Any, sweeper: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It is logged, and tried again when there is work."""

    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        registry = make(sweep_interval_seconds=1000)
    assert "cannot be started" in caplog.text
    other = make(sweep_interval_seconds=1000)
    until(lambda: sweeper.service.is_running)
    registry.close()
    other.close()


def test_two_sweeps_at_once(make: Any, samples: Any) -> None:
    """Instances that are due are recycled once each."""
    registry = make()
    registry.register("Alpha", "samples.Alpha", recycle_after_uses=1)
    registry.get_instance("Alpha")
    samples.built.clear()
    barrier = threading.Barrier(4)

    def sweep() -> None:
        barrier.wait()
        registry.sweep()

    assert in_threads(*[sweep] * 4) == [None] * 4
    recycling = registry.extensions[0].recycling
    assert recycling.wait(30)
    assert samples.built == ["Alpha"]
