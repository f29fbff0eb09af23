"""Foreign code that comes back in: finalisers, the collector, signals, timers, constructors."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import weakref
from typing import Any

import pytest
import structure


@pytest.fixture
def busy_collector() -> Any:
    """The collector runs as often as it can."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


def mixed(registry: Any, rng: random.Random, executor: Any) -> None:
    """One random operation."""
    name = rng.choice(("Alpha", "Beta", "Gamma", "Delta"))
    match rng.randrange(10):
        case 0 | 1 | 2:
            registry.get_instance(name)
        case 3:
            executor.execute(name, "echo", text="x")
        case 4:
            registry.bind(name, "echo")("x")
        case 5:
            with registry.use(name):
                registry.get_instance("Alpha")
        case 6:
            registry.evict_expired()
        case 7:
            registry.clear_cache()
        case 8:
            registry.discard(name)
        case 9:
            registry.stats()


@pytest.mark.parametrize("seed", range(5))
def test_finalisers_that_use_the_registry(
    ws: Any, make: Any, samples: Any, timer: Any, seed: int, busy_collector: Any
) -> None:
    """Whenever an instance dies, by reference count or by the collector, it does anything."""
    rng = random.Random(seed)
    registry = make(max_cache_size=2, cache_ttl_seconds=5)
    executor = ws.MethodExecutor(method_registry=registry)
    finalised = 0
    budget = [3000]

    class Restless:
        def __init__(self) -> None:
            if rng.random() < 0.5:
                self.cycle = self  # left to the collector

        def echo(self, text: str) -> str:
            return text

        def __del__(self) -> None:
            nonlocal finalised
            finalised += 1
            if budget[0] > 0:
                budget[0] -= 1
                try:
                    mixed(registry, rng, executor)
                except ws.MethodRegistryError:
                    pass  # it died in the middle of a build of what it asked for

    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.register_instantiation_rule(name, lambda cls: Restless())
    for _ in range(400):
        timer.advance(rng.choice((0, 1, 6)))
        mixed(registry, rng, executor)
    budget[0] = 0
    gc.collect()
    assert finalised > 100
    structure.check(registry)
    stats = registry.stats()
    assert stats.held == 0
    assert stats.cached <= 2
    registry.clear_cache()


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_handler_that_uses_the_registry(
    ws: Any, make: Any, samples: Any, timer: Any, seed: int
) -> None:
    """It runs on the main thread between any two steps, and meets no lock that its thread holds."""
    rng = random.Random(seed)
    registry = make(max_cache_size=2, cache_ttl_seconds=5)
    executor = ws.MethodExecutor(method_registry=registry)
    handled = 0

    def handler(*_: Any) -> None:
        nonlocal handled
        handled += 1
        try:
            mixed(registry, rng, executor)
        except ws.MethodRegistryError:
            pass

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(200_000):
            timer.advance(rng.choice((0, 1, 6)))
            try:
                mixed(registry, rng, executor)
            except ws.MethodRegistryError:
                pass
            if handled > 100:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled > 100
    structure.check(registry)
    assert registry.stats().held == 0


def test_a_finaliser_sees_a_whole_registry(make: Any, samples: Any) -> None:
    """What leaves is unlinked and counted before it is dropped."""
    registry = make(max_cache_size=1)
    seen = []

    class Watcher:
        def __del__(self) -> None:
            structure_of = registry._ring(), registry.stats().evictions, registry.stats().cached
            seen.append(structure_of)

    registry.register_instantiation_rule("Alpha", lambda cls: Watcher())
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    assert seen == [(["Beta"], 1, 1)]
    registry.get_instance("Alpha")
    registry.clear_cache()
    assert seen[1] == ([], 2, 0)
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    assert seen[2] == ([], 2, 0)


def test_a_timer_that_uses_the_registry(make: Any, timer: Any) -> None:
    """It is foreign code: it is read before anything is touched."""
    inside = False
    registry: Any = None

    def clock() -> float:
        nonlocal inside
        if registry is not None and not inside:
            inside = True
            try:
                registry.clear_cache()
                registry.get_instance("Beta")
            finally:
                inside = False
        return timer()

    registry = make(timer=clock)
    for _ in range(3):
        registry.get_instance("Alpha")
        with registry.use("Gamma"):
            pass
        registry.bind("Alpha", "echo")("x")
    registry.evict_expired()
    structure.check(registry)
    assert registry.stats().held == 0


@pytest.mark.parametrize("result", ["x", None])
def test_a_timer_that_gives_nonsense(make: Any, timer: Any, result: Any) -> None:
    """Its error comes out, and nothing is lost."""
    broken = False
    registry = make(timer=lambda: result if broken else timer())
    registry.get_instance("Alpha")
    broken = True
    with pytest.raises(TypeError):
        registry.get_instance("Alpha")
    broken = False
    registry.get_instance("Alpha")


def test_a_constructor_that_does_anything(ws: Any, make: Any, samples: Any) -> None:
    """Clears, discards, evicts, holds, registers and injects, while it is being built."""
    registry = make(max_cache_size=1)

    def busy(_: Any) -> None:
        with registry.use("Beta"):
            registry.clear_cache()
            registry.discard("Alpha")
            registry.evict_expired()
            registry.register_class("New", "samples.Gamma")
            registry.inject_method("Alpha", "extra", len)
            registry.get_instance("New")
            registry.unregister_class("New")
            registry.stats()

    samples.script["Alpha"] = busy
    assert type(registry.get_instance("Alpha")) is samples.Alpha
    assert registry.get_method("Alpha", "extra")("abc") == 3


# -- threads -------------------------------------------------------------------------------------


def test_eight_threads_mix_everything(ws: Any, make: Any, samples: Any, timer: Any) -> None:
    """Invariants and counters hold whatever the interleaving."""
    registry = make(max_cache_size=2, cache_ttl_seconds=5)
    executor = ws.MethodExecutor(method_registry=registry)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors: list[BaseException] = []
    lookups = [0] * 8

    def work(index: int) -> None:
        rng = random.Random(index)
        try:
            for _ in range(400):
                timer.advance(rng.choice((0, 0, 1, 6)))
                match rng.randrange(6):
                    case 0 | 1:
                        registry.get_instance(rng.choice(("Alpha", "Beta", "Gamma")))
                    case 2:
                        executor.execute(rng.choice(("Alpha", "Delta")), "echo", text="x")
                    case 3:
                        registry.bind("Beta", "echo")("x")
                    case 4:
                        with registry.use("Gamma"):
                            pass
                    case 5:
                        rng.choice((registry.clear_cache, registry.evict_expired, registry.stats))()
                        continue
                lookups[index] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    stats = registry.stats()
    assert stats.lookups == sum(lookups)
    assert stats.held == 0
    assert stats.cached <= 2


# -- what is kept alive --------------------------------------------------------------------------


def test_a_dropped_registry_goes_without_the_collector(ws: Any, samples: Any) -> None:
    """With all its instances: nothing in it is a cycle."""
    gc.disable()
    try:
        registry = ws.MethodRegistry({"Alpha": "samples.Alpha"})
        executor = ws.MethodExecutor(method_registry=registry)
        executor.execute("Alpha", "echo", text="x")
        registry.bind("Alpha", "echo")("x")
        gone = weakref.ref(registry.get_instance("Alpha")), weakref.ref(registry)
        del registry, executor
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_cycles_through_the_registry_are_collected(ws: Any, make: Any, samples: Any) -> None:
    """An instance that refers to its registry, a handle on its own, a lease that holds itself."""
    registry = make()
    alpha = registry.get_instance("Alpha")
    alpha.registry = registry
    alpha.handle = registry.bind("Alpha", "echo")
    alpha.lease = registry.use("Alpha")
    alpha.executor = ws.MethodExecutor(method_registry=registry)
    alpha.lease.__enter__()
    gone = weakref.ref(alpha), weakref.ref(registry)
    del alpha, registry
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_leases_and_handles_outlive_their_registry_safely(make: Any) -> None:
    """They keep it, so that there is always something to give back to."""
    registry = make()
    lease, handle = registry.use("Alpha"), registry.bind("Alpha", "itself")
    alpha = lease.__enter__()
    del registry
    gc.collect()
    assert handle() is alpha
    lease.__exit__(None, None, None)
