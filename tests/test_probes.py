"""
Problems of other libraries of this kind, each as a probe that must pass here.

The numbers are those of docs/comparison.md. Where a probe has its own tests elsewhere, it
still runs here in the form in which the others fail it.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import weakref
from typing import Any

import pytest
from threads import PATIENCE, in_threads, until


def test_p1_a_constructor_that_asks_for_its_own_name(ws: Any, make: Any, samples: Any) -> None:
    """Raises at once."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.get_instance("Alpha")
    assert isinstance(in_threads(lambda: registry.get_instance("Alpha"))[0], ws.CycleError)


def test_p2_two_threads_that_build_what_the_other_wants(ws: Any, make: Any, samples: Any) -> None:
    """Both raise."""
    registry = make()
    barrier = threading.Barrier(2)

    def wants(name: str) -> Any:
        def build(_: Any) -> None:
            barrier.wait(PATIENCE)
            registry.get_instance(name)

        return build

    samples.script.update(Alpha=wants("Beta"), Beta=wants("Alpha"))
    results = in_threads(
        lambda: registry.get_instance("Alpha"), lambda: registry.get_instance("Beta")
    )
    assert [type(result) for result in results] == [ws.CycleError] * 2


def test_p3_a_loader_that_raised_once(make: Any, samples: Any) -> None:
    """Is called again, and its name is not wedged."""
    registry = make(retry_after_seconds=0)
    failures = [ValueError("once")]

    def flaky(_: Any) -> None:
        if failures:
            raise failures.pop()

    samples.script["Alpha"] = flaky
    results = in_threads(lambda: registry.get_instance("Alpha"))
    results += in_threads(*[lambda: registry.get_instance("Alpha")] * 4)
    assert isinstance(results[0], RuntimeError)
    assert {type(result) for result in results[1:]} == {samples.Alpha}


def test_p5_eight_threads_and_a_loader_that_fails(ws: Any, make: Any, samples: Any) -> None:
    """One run, and all get the error."""
    registry = make()
    go = threading.Event()

    def failing(_: Any) -> None:
        assert go.wait(PATIENCE)
        raise ValueError("no")

    def release() -> None:
        until(lambda: registry.stats().waits == 7)
        go.set()

    samples.script["Alpha"] = failing
    results = in_threads(*[lambda: registry.get_instance("Alpha")] * 8, release)[:8]
    assert samples.built == ["Alpha"]
    assert {type(result) for result in results} == {ws.BuildError}


def test_p6_a_clear_during_a_build(make: Any, samples: Any) -> None:
    """The stale object is not stored after it."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    stale = registry.get_instance("Alpha")
    samples.script.clear()
    assert registry.get_instance("Alpha") is not stale


@pytest.mark.counts
def test_p7_an_evicted_value_with_a_close(make: Any, samples: Any) -> None:
    """Is closed."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    assert samples.closed == ["Alpha"]


def test_p8_a_value_that_refers_to_its_cache(make: Any) -> None:
    """Both are collected."""
    registry = make()
    alpha = registry.get_instance("Alpha")
    alpha.registry = registry
    gone = weakref.ref(registry), weakref.ref(alpha)
    del registry, alpha
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_p9_a_ttl_that_passes_without_traffic(ws: Any, make: Any, timer: Any) -> None:
    """The listener is called all the same, where a sweep interval is set."""
    registry = make(cache_ttl_seconds=10, sweep_interval_seconds=0.001)
    called = threading.Event()
    registry.add_listener(lambda event: called.set())
    registry.get_instance("Alpha")
    timer.advance(11)
    assert called.wait(PATIENCE)
    until(lambda: not registry.stats().states["waiting"])
    registry.close()


def test_p10_statistics_read_three_times(make: Any) -> None:
    """Reading them changes nothing."""
    registry = make()
    for _ in range(3):
        registry.get_instance("Alpha")
    first, second, third = registry.stats(), registry.stats(), registry.get_stats()
    assert first == second
    assert third == second.as_dict()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_p11_an_entry_that_expires_in_a_forked_child(make: Any, timer: Any) -> None:
    """Is removed there."""
    registry = make(cache_ttl_seconds=10)
    registry.get_instance("Alpha")
    child = os.fork()
    if child == 0:
        timer.advance(11)
        os._exit(0 if registry.evict_expired() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_p12_eight_threads_ask_for_one_singleton(make: Any, samples: Any) -> None:
    """It is built once."""
    registry = make()
    barrier = threading.Barrier(8)

    def ask() -> Any:
        barrier.wait(PATIENCE)
        return registry.get_instance("Alpha")

    results = in_threads(*[ask] * 8)
    assert samples.built == ["Alpha"]
    assert len(set(map(id, results))) == 1


def test_p13_a_rule_that_asks_for_another_class(make: Any, samples: Any) -> None:
    """Gets it."""
    registry = make()
    registry.register_instantiation_rule("Alpha", lambda cls: [registry.get_instance("Beta")])
    result = in_threads(lambda: registry.get_instance("Alpha"))[0]
    assert type(result[0]) is samples.Beta


def test_p14_and_p17_unrelated_names_during_a_slow_build(make: Any, samples: Any) -> None:
    """Neither a look-up nor a build of another name waits for it."""
    registry = make()
    registry.get_instance("Beta")
    both = threading.Barrier(2)
    # Each constructor waits until the other runs too: one lock for both would hang.
    samples.script["Alpha"] = samples.script["Gamma"] = lambda _: both.wait(PATIENCE)
    results = in_threads(
        lambda: registry.get_instance("Alpha"),
        lambda: registry.get_instance("Gamma"),
        lambda: registry.get_instance("Beta"),
    )
    assert [type(result).__name__ for result in results] == ["Alpha", "Gamma", "Beta"]


def test_p15_an_instance_with_a_finaliser(make: Any) -> None:
    """It runs once."""
    ran: list[int] = []

    class Finalised:
        def __del__(self) -> None:
            ran.append(1)

    registry = make(max_cache_size=1)
    registry.register_instantiation_rule("Alpha", lambda cls: Finalised())
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    registry.close()
    gc.collect()
    assert ran == [1]


def test_p16_pickling_an_empty_cache(ws: Any) -> None:
    """Works, and copying it too."""
    registry = ws.MethodRegistry({})
    assert len(pickle.loads(pickle.dumps(registry))) == 0
    assert len(copy.deepcopy(registry)) == 0
