"""Foreign code that re-enters: finalisers, the collector, signals, timers, constructors."""

from __future__ import annotations

import gc
import random
import signal
import sys
import weakref
from typing import Any

import pytest
from scripts import run_script
from threads import in_thread

from warmset.testing.structure import check_structure, eviction_order


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
    """An instance that is freed, by its reference count or by the collector, runs any operation."""
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
                    pass  # the finaliser ran during the build of a class that it looked up

    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.register_instantiation_rule(name, lambda cls: Restless())
    for _ in range(400):
        timer.advance(rng.choice((0, 1, 6)))
        mixed(registry, rng, executor)
    budget[0] = 0
    gc.collect()
    assert finalised > 100
    check_structure(registry)
    stats = registry.stats()
    assert stats.held == 0
    assert stats.cached <= 2
    registry.clear_cache()


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_handler_that_uses_the_registry(
    ws: Any, make: Any, samples: Any, timer: Any, seed: int
) -> None:
    """It runs in the main thread between any two steps, and waits for no lock of its own thread."""
    rng = random.Random(seed)
    registry = make(max_cache_size=2, cache_ttl_seconds=5)
    executor = ws.MethodExecutor(method_registry=registry)
    handled = 0

    depth = 0

    def handler(*_: Any) -> None:
        nonlocal handled, depth
        handled += 1
        if depth > 10:  # on a busy machine the next signal may arrive before this one is handled
            return
        depth += 1
        try:
            mixed(registry, rng, executor)
        except ws.MethodRegistryError:
            pass
        finally:
            depth -= 1

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
    check_structure(registry)
    assert registry.stats().held == 0


def test_a_finaliser_sees_a_whole_registry(make: Any, samples: Any) -> None:
    """A removed instance is unlinked and counted before it is dropped."""
    registry = make(max_cache_size=1)
    seen = []

    class Watcher:
        def __del__(self) -> None:
            stats = registry.stats()
            seen.append((eviction_order(registry), stats.evictions, stats.cached))

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
    check_structure(registry)
    assert registry.stats().held == 0


@pytest.mark.parametrize("result", ["x", None])
def test_a_timer_that_returns_no_number(make: Any, timer: Any, result: Any) -> None:
    """Its error is raised, and nothing is lost."""
    broken = False
    registry = make(timer=lambda: result if broken else timer())
    registry.get_instance("Alpha")
    broken = True
    with pytest.raises((TypeError, ValueError)):
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
            registry.register("New", "samples.Gamma")
            registry.inject_method("Alpha", "extra", len)
            registry.get_instance("New")
            registry.unregister("New")
            registry.stats()

    samples.script["Alpha"] = busy
    assert type(registry.get_instance("Alpha")) is samples.Alpha
    assert registry.get_method("Alpha", "extra")("abc") == 3


# -- threads ---------------------------------------------------------------------------------------


def test_eight_threads_mix_everything(ws: Any, make: Any, samples: Any, timer: Any) -> None:
    """Invariants and counters hold."""
    registry = make(max_cache_size=2, cache_ttl_seconds=5)
    executor = ws.MethodExecutor(method_registry=registry)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(index: int) -> int:
        rng = random.Random(index)
        lookups = 400
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
                    lookups -= 1
        return lookups

    running = [in_thread(work, i) for i in range(8)]
    try:
        lookups = [each.result() for each in running]
    finally:
        sys.setswitchinterval(interval)
    stats = registry.stats()
    assert stats.lookups == sum(lookups)
    assert stats.held == 0
    assert stats.cached <= 2


# -- lifetimes -------------------------------------------------------------------------------------


def test_a_dropped_registry_is_freed_without_the_collector(ws: Any, samples: Any) -> None:
    """With all its instances: nothing in it is a cycle."""
    gc.disable()
    try:
        registry = ws.MethodRegistry({"Alpha": "samples.Alpha"})
        executor = ws.MethodExecutor(method_registry=registry)
        executor.execute("Alpha", "echo", text="x")
        registry.bind("Alpha", "echo")("x")
        freed = weakref.ref(registry.get_instance("Alpha")), weakref.ref(registry)
        del registry, executor
        assert [ref() for ref in freed] == [None, None]
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
    freed = weakref.ref(alpha), weakref.ref(registry)
    del alpha, registry
    gc.collect()
    assert [ref() for ref in freed] == [None, None]


def test_leases_and_handles_outlive_their_registry_safely(make: Any) -> None:
    """They keep it alive."""
    registry = make()
    lease, handle = registry.use("Alpha"), registry.bind("Alpha", "itself")
    alpha = lease.__enter__()
    del registry
    gc.collect()
    assert handle() is alpha
    lease.__exit__(None, None, None)


def test_the_collector_inside_a_walk_of_the_ring(make: Any) -> None:
    """A finaliser that it runs clears the cache."""
    registry = make({f"N{i}": "samples.Alpha" for i in range(50)})

    class Clears:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            registry.clear_cache()

    thresholds = gc.get_threshold()
    try:
        for offset in range(1, 40):
            gc.disable()
            gc.collect()
            for i in range(50):
                registry.get_instance(f"N{i}")
            Clears()
            kept = [[] for _ in range(300)]  # empties the free list of lists
            gc.set_threshold(gc.get_count()[0] + offset, 10**6, 10**6)
            gc.enable()
            eviction_order(registry)
            registry.warm_entries()
            registry.holds()
            del kept
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
        gc.collect()  # else the last finaliser closes instances amid another test


def test_another_thread_moves_what_a_walk_of_the_ring_comes_to_next(ws: Any, make: Any) -> None:
    """Then the walk begins again; behind the mark it would move the last two for ever."""
    if ws.implementation == "compiled":
        pytest.skip("its walk is one step")
    registry = make({f"N{i}": "samples.Alpha" for i in range(4)}, max_cache_size=4)
    for i in range(4):
        registry.get_instance(f"N{i}")
    assert eviction_order(registry) == [f"N{i}" for i in range(4)]  # all are in front of the mark
    for i in range(4):
        registry.get_instance(f"N{i}")
    move, calls = registry._move, 0

    def move_after_another_thread(entry: Any, *others: Any) -> bool:
        nonlocal calls
        calls += 1
        assert calls < 20, "the walk does not end"
        if calls == 1:
            for i in (1, 2):
                move(registry.slots[f"N{i}"].entry, registry._root)
        return bool(move(entry, *others))

    registry._move = move_after_another_thread
    try:
        assert registry.oldest().name == "N0"
    finally:
        del registry._move
    check_structure(registry)


def test_another_thread_moves_an_entry_in_place_of_the_walk(ws: Any, make: Any) -> None:
    """As many entries were moved as the walk expects: it must not go on to the end of the ring."""
    if ws.implementation == "compiled":
        pytest.skip("its walk is one step")
    registry = make(dict.fromkeys(("A", "B", "C"), "samples.Alpha"))
    registry.get_instance("A")
    move, moved = registry._move, []

    def move_another_entry(entry: Any, *others: Any) -> bool:
        if moved:
            return bool(move(entry, *others))
        moved.append(entry)
        move(registry.slots["B"].entry, registry._root)
        return False

    with registry.use("B"):
        registry.get_instance("C")
        assert eviction_order(registry) == ["A", "B", "C"]
        registry.get_instance("A")
        registry._move = move_another_entry
        try:
            assert registry.oldest().name == "C"
        finally:
            del registry._move
    assert [entry.name for entry in moved] == ["A"]
    check_structure(registry)


def test_the_interpreter_exits_with_daemon_threads(twin: str) -> None:
    """A lease in a global is dropped while a frozen thread may hold the lock."""
    code = """
        import sys, threading, types
        sys.setswitchinterval(1e-6)
        import warmset
        module = types.ModuleType("models")
        module.Model = type("Model", (), {"tag": lambda self: None})
        sys.modules["models"] = module
        registry = warmset.MethodRegistry({"Model": "models.Model"})
        lease = registry.use("Model")
        lease.__enter__()
        handle = registry.bind("Model", "tag")
        def work():
            while True:
                try:
                    registry.get_instance("Model")
                except warmset.ClosedError:
                    pass  # 3.10 may crash when a thread prints an error while the process ends
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
    """
    for _ in range(5):
        result = run_script(code, twin)
        assert (result.returncode, result.stderr) == (0, "")


def test_a_lease_that_lives_to_the_end_leaves_its_instance_open(twin: str) -> None:
    """When the interpreter exits, nothing is closed by a lease: what closes may be gone."""
    code = """
        import os, sys, types
        import warmset
        module = types.ModuleType("models")
        module.Model = type("Model", (), {"close": lambda self: os.write(1, b"closed")})
        sys.modules["models"] = module
        registry = warmset.MethodRegistry({"Model": "models.Model"})
        lease = registry.use("Model")
        lease.__enter__()
    """
    result = run_script(code, twin)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.pure_core
def test_finalisers_run_without_their_module(
    make: Any, twin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the interpreter exits, the names of a module are None before the last registry dies."""
    registry = make()
    lease = registry.use("Alpha")
    lease.__enter__()
    finalised = [*type(registry).__mro__[:-1], type(lease)]
    for module in {sys.modules[each.__module__] for each in finalised}:
        if hasattr(module, "sys"):
            monkeypatch.setattr(module, "sys", None)
    lease.__del__()
    registry.__del__()
    assert eviction_order(registry) == []
    assert registry.holders() == []
