"""The sweeper: expiry without look-ups, by one thread that keeps no registry alive."""

from __future__ import annotations

import gc
import importlib
import os
import threading
import weakref
from typing import Any

import pytest
from threads import until


@pytest.fixture
def sweeper(ws: Any) -> Any:
    """The process's sweeper, of this copy of the package."""
    module = importlib.import_module("warmset.lifecycle.sweeper")
    yield module.sweeper
    for registry in list(module.sweeper._due):
        module.sweeper.remove(registry)
    until(lambda: module.sweeper._thread is None)


def test_no_thread_without_an_interval(make: Any, sweeper: Any) -> None:
    """It is off by default."""
    make().get_instance("Alpha")
    assert sweeper._thread is None


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
    monkeypatch.setattr(sweeper, "_start", lambda: None)  # no thread sweeps in between
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
    assert sweeper._thread is not None
    gone = weakref.ref(registry)
    del registry
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: sweeper._thread is None)


def test_a_closed_registry_is_no_longer_swept(make: Any, sweeper: Any) -> None:
    """The thread ends, and another one starts when it is needed."""
    registry = make(sweep_interval_seconds=1000)
    registry.close()
    until(lambda: sweeper._thread is None)
    again = make(sweep_interval_seconds=1000)
    assert sweeper._thread is not None
    again.close()


def test_a_sweep_that_fails_is_logged(make: Any, sweeper: Any, timer: Any, caplog: Any) -> None:
    """The other registries are swept."""
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
