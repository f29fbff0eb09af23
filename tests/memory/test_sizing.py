"""Tests of sizes: measured, computed by traversal, declared, or returned by a custom sizer."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from typing import Any

import pytest
from managers import manager_of

from warmset.memory.deep_size import deep_size
from warmset.memory.growth import Growth
from warmset.memory.sizing import SizeHooks, declared_size

np = pytest.importorskip("numpy")


class Probe:
    """The memory of a process, as it is set by hand."""

    def __init__(self) -> None:
        self.level = 1000

    def __call__(self) -> int:
        return self.level


# -- growth --------------------------------------------------------------------------------------


def test_a_single_build_gets_all_the_growth() -> None:
    probe = Probe()
    growth = Growth(probe)
    mark = growth.begin()
    probe.level += 500
    growth.end(mark)
    probe.level += 100
    assert mark.bytes == 500
    mark = growth.begin()
    growth.end(mark)
    assert mark.bytes == 0


def test_the_size_is_zero_if_the_process_shrinks() -> None:
    probe = Probe()
    growth = Growth(probe)
    mark = growth.begin()
    probe.level -= 500
    growth.end(mark)
    assert mark.bytes == 0


def test_the_outer_build_does_not_get_the_growth_of_a_nested_one() -> None:
    probe = Probe()
    growth = Growth(probe)
    outer = growth.begin()
    probe.level += 10
    inner = growth.begin()
    probe.level += 700
    growth.end(inner)
    probe.level += 5
    growth.end(outer)
    assert (outer.bytes, inner.bytes) == (15, 700)


def test_concurrent_builds_share_the_growth() -> None:
    """In each interval; the sum is the growth of the process."""
    probe = Probe()
    growth = Growth(probe)
    first = growth.begin()
    probe.level += 100
    begun, go_on = threading.Event(), threading.Event()
    marks: list[Any] = []

    def other() -> None:
        marks.append(growth.begin())
        begun.set()
        go_on.wait(30.0)
        growth.end(marks[0])

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(30.0)
    probe.level += 60
    go_on.set()
    thread.join()
    probe.level += 7
    growth.end(first)
    assert (first.bytes, marks[0].bytes) == (100 + 30 + 7, 30)


def test_a_failing_probe_is_logged_once(caplog: Any) -> None:
    def broken() -> int:
        raise OSError("no /proc")

    growth = Growth(broken)
    for _ in range(3):
        mark = growth.begin()
        growth.end(mark)
        assert mark.bytes is None
    assert [r.name for r in caplog.records] == ["warmset.memory"]
    assert "no /proc" in caplog.text


def test_tracemalloc_is_used_while_it_is_tracing() -> None:
    tracemalloc.start()
    try:
        growth = Growth()
        mark = growth.begin()
        kept = bytearray(3_000_000)
        growth.end(mark)
    finally:
        tracemalloc.stop()
    assert mark.bytes is not None
    assert abs(mark.bytes - len(kept)) < 100_000


# -- traversal -------------------------------------------------------------------------------------


class Plain:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class Slotted:
    __slots__ = ("part",)


class Lying:
    def __sizeof__(self) -> int:
        raise RuntimeError("no size")


def test_shared_parts_are_counted_once() -> None:
    part = bytearray(1_000_000)
    one = Plain(a=part, b=[part, part], c={"d": part})
    size, stopped = deep_size(one)
    assert not stopped
    assert 1_000_000 < size < 1_005_000


def test_cycles_slots_and_a_failing_sizeof() -> None:
    one = Slotted()
    one.part = Plain(back=one, lying=Lying(), data=b"x" * 50_000)
    size, _ = deep_size(one)
    assert 50_000 < size < 55_000


def test_the_rest_of_the_program_is_not_traversed(make: Any) -> None:
    """Modules, types, functions, and registries, from which everything is reachable."""
    from warmset.memory.deep_size import deep_size  # of this copy: it knows its registries

    registry = make()
    registry.register_instantiation_rule("Alpha", lambda cls: cls())
    other = registry.get_instance("Beta")
    other.load = bytearray(1_000_000)
    one = Plain(module=sys, kind=dict, function=deep_size, method=gc.collect, registry=registry)
    assert deep_size(one)[0] < 2_000


def test_an_array_and_its_views_share_one_buffer() -> None:
    array = np.zeros(1_000_000, dtype=np.uint8)
    assert 1_000_000 <= deep_size(array)[0] < 1_001_000
    assert 1_000_000 <= deep_size(Plain(a=array, v=[array[1:], array[::2]]))[0] < 1_003_000
    view = array[:10]
    assert 1_000_000 <= deep_size(view)[0] < 1_001_000  # the view keeps the whole buffer alive
    boxed = np.array([bytearray(200_000), None], dtype=object)
    assert 200_000 < deep_size(boxed)[0] < 202_000


def test_tensors_with_shared_storage_are_counted_once() -> None:
    """With the methods of torch tensors, but without torch itself."""

    class Storage:
        def data_ptr(self) -> int:
            return 4711

        def nbytes(self) -> int:
            return 5_000_000

    tensor = type("Tensor", (), {"untyped_storage": lambda self: Storage()})
    tensor.__module__, tensor.__qualname__ = "torch", "Tensor"
    assert 5_000_000 < deep_size([tensor(), tensor()])[0] < 5_002_000


def test_the_traversal_stops_at_its_time_limit() -> None:
    ticks = iter(range(10_000))
    size, stopped = deep_size(
        [[n] for n in range(100_000)], time_limit_seconds=3, clock=lambda: next(ticks)
    )
    assert stopped
    assert size > 100_000


def test_the_deep_size_agrees_with_pympler() -> None:
    """For types that pympler supports."""
    asizeof = pytest.importorskip("pympler.asizeof")
    one = {"a": [str(n) * 10 for n in range(1000)], "b": {n: (n, float(n)) for n in range(1000)}}
    mine, theirs = deep_size(one)[0], asizeof.asizeof(one)
    assert abs(mine - theirs) / theirs < 0.05


# -- declared ------------------------------------------------------------------------------------


def test_declared_sizes() -> None:
    hooks = SizeHooks()
    assert declared_size(np.zeros(1000), hooks) == 8000
    assert declared_size(Plain(nbytes=77), hooks) == 77
    assert declared_size(b"abc", hooks) == sys.getsizeof(b"abc")


def test_a_hook_applies_to_subclasses() -> None:
    class Model:
        nbytes = 1

    class Own(Model):
        pass

    hooks = SizeHooks()
    hooks.add(Model, lambda model: 500)
    assert declared_size(Own(), hooks) == 500
    hooks.add(f"{__name__}.{Own.__qualname__}", lambda model: 600)
    assert declared_size(Own(), hooks) == 600
    assert declared_size(Model(), hooks) == 500


@pytest.mark.parametrize("says", [-1, True, "many", 1.5, None])
def test_an_invalid_declared_size_raises(says: Any) -> None:
    with pytest.raises(ValueError, match="expected a whole number of bytes"):
        declared_size(Plain(nbytes=says), SizeHooks())


@pytest.mark.parametrize(("kind", "hook"), [(1, len), (dict, "len")])
def test_an_invalid_hook_raises(make: Any, kind: Any, hook: Any) -> None:
    with pytest.raises(TypeError, match="size hook"):
        make().register_size_hook(kind, hook)


def test_an_sklearn_estimator_is_traversed() -> None:
    base = type("BaseEstimator", (), {})
    base.__module__ = "sklearn.base"
    model = type("Model", (base,), {})()
    model.coef_ = np.zeros(10_000)
    assert declared_size(model, SizeHooks()) > 80_000


def test_a_torch_module_counts_shared_weights_once() -> None:
    class Tensor:
        def nelement(self) -> int:
            return 100

        def element_size(self) -> int:
            return 4

    base = type("Module", (), {})
    base.__module__, base.__qualname__ = "torch.nn.modules.module", "Module"
    weight, bias = Tensor(), Tensor()
    net = type("Net", (base,), {})()
    net.parameters = lambda: iter([weight, weight])
    net.buffers = lambda: iter([bias])
    assert declared_size(net, SizeHooks()) == 800


# -- in a registry -------------------------------------------------------------------------------


def sizes(registry: Any) -> dict[str, Any]:
    return {entry.class_name: entry.bytes for entry in registry.stats().entries}


def test_sizes_are_unknown_without_a_sizer(make: Any) -> None:
    registry = make()
    registry.get_instance("Alpha")
    assert (sizes(registry), registry.stats().bytes) == ({"Alpha": None}, None)
    assert manager_of(registry) is None


@pytest.mark.parametrize("sizer", ["deep", "declared", lambda instance: 1_000_100])
def test_each_sizer_determines_the_size_at_the_build(make: Any, samples: Any, sizer: Any) -> None:
    """It appears in the statistics and in the events of builds and removals."""
    registry = make(sizer=sizer)
    events: list[Any] = []
    registry.add_listener(events.append)
    registry.add_build_listener(events.append)

    def load(instance: Any) -> None:
        instance.load = bytearray(1_000_000)
        instance.nbytes = 1_000_000

    samples.script["Alpha"] = load
    registry.get_instance("Alpha")
    size = sizes(registry)["Alpha"]
    assert 1_000_000 <= size < 1_010_000
    assert registry.stats().bytes == registry.known_bytes == size
    assert registry.stats().entries[0].bytes == size
    registry.discard("Alpha")
    assert [event.bytes for event in events] == [size, size]
    assert registry.known_bytes == 0


def test_measured_sizes_are_estimates_from_the_build(make: Any, samples: Any, timer: Any) -> None:
    probe = Probe()
    registry = make(sizer="measured")
    manager_of(registry).sizing._growth = Growth(probe)

    def grow(by: int, ask: str | None = None) -> Any:
        def script(_: Any) -> None:
            probe.level += by
            if ask is not None:
                registry.get_instance(ask)

        return script

    samples.script["Alpha"] = grow(10, ask="Beta")
    samples.script["Beta"] = grow(700)
    registry.get_instance("Alpha")
    assert sizes(registry) == {"Alpha": 10, "Beta": 700}
    timer.advance(5)
    size = registry.measure("Beta")
    assert (size.bytes, size.method, size.estimate) == (700, "measured", True)
    assert timer() - size.measured_at == 5.0


def test_measured_sizes_include_what_other_extensions_do(make: Any, samples: Any) -> None:
    """Such as opening a snapshot instead of calling the constructor."""
    from warmset.extension import Extension

    class Opening(Extension):
        def build(self, registry: Any, build: Any, make: Any) -> Any:
            probe.level += 300
            return samples.Alpha()

    probe = Probe()
    registry = make(sizer="measured")
    manager_of(registry).sizing._growth = Growth(probe)
    registry.attach(Opening())
    registry.get_instance("Alpha")
    assert sizes(registry) == {"Alpha": 300}


def test_a_class_can_have_its_own_sizer(make: Any) -> None:
    class Own:
        def size(self, instance: Any) -> int:
            return 42

    registry = make({}, sizer=lambda instance: 7)
    registry.register("Alpha", "samples.Alpha", sizer=Own())
    registry.register("Beta", "samples.Beta")
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    assert sizes(registry) == {"Alpha": 42, "Beta": 7}
    assert registry.measure("Alpha").method == "Own"


def test_measuring_on_demand(ws: Any, make: Any, timer: Any) -> None:
    """By "deep" if there is no sizer; a measurement does not count as a use."""
    registry = make()
    instance = registry.get_instance("Alpha")
    before = registry.measure("Alpha")
    instance.load = bytearray(500_000)
    timer.advance(1)
    after = registry.measure("Alpha")
    assert 500_000 <= after.bytes - before.bytes < 501_000
    assert after.measured_at - before.measured_at == 1.0
    assert sizes(registry) == {"Alpha": after.bytes}
    assert (registry.stats().hits, registry.stats().entries[0].uses) == (0, 1)
    assert registry.measure("Beta") is None
    with pytest.raises(ws.errors.UnknownClassError):
        registry.measure("Nobody")


def test_measure_all_counts_shared_objects_once(make: Any) -> None:
    registry = make(sizer="deep")
    shared = bytearray(1_000_000)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name).load = shared
    told = registry.measure_all()
    assert list(told) == ["Beta", "Alpha"]
    assert 1_000_000 < sum(size.bytes for size in told.values()) < 1_010_000
    assert told["Beta"].bytes > 1_000_000


def test_a_failing_sizer_does_not_fail_the_build(make: Any, caplog: Any) -> None:
    """It is logged once, and again after a success in between."""

    def sizer(instance: Any) -> Any:
        return answers.pop()

    answers = ["x", -1, 5, "x", None]
    registry = make(sizer=sizer)
    for _ in range(5):
        registry.get_instance("Alpha")
        registry.discard("Alpha")
    logged = [r.getMessage() for r in caplog.records if r.name == "warmset.memory"]
    assert len(logged) == 2
    assert (
        "cannot determine the size of 'Alpha': ValueError: the sizer 'sizer' returned None"
        in logged[0]
    )


def test_a_sizer_may_use_and_remove_the_instance(make: Any) -> None:
    def sizer(instance: Any) -> int:
        assert registry.get_instance("Alpha") is instance
        registry.discard("Alpha")
        return 5

    registry = make(sizer=sizer)
    registry.get_instance("Alpha")
    assert (registry.stats().cached, registry.known_bytes) == (0, 0)


def test_an_instance_is_not_closed_while_it_is_measured(make: Any, samples: Any) -> None:
    """It is closed after the measurement if it was removed meanwhile."""
    registry = make()

    def sizer(instance: Any) -> int:
        registry.clear_cache()
        assert not instance.is_closed
        return 5

    with registry.use("Alpha"):
        pass
    registry.register("Alpha", "samples.Alpha", sizer=sizer)
    assert registry.measure("Alpha").bytes == 5
    assert samples.closed == ["Alpha"]


def test_an_interrupt_in_a_sizer_is_raised_and_the_instance_is_released(make: Any) -> None:
    def sizer(instance: Any) -> int:
        raise KeyboardInterrupt

    registry = make(sizer=sizer)
    with pytest.raises(KeyboardInterrupt):
        registry.get_instance("Alpha")
    assert registry.stats().held == 0
    assert registry.stats().cached == 1


def test_the_total_is_exact_under_threads(make: Any) -> None:
    """The structural check after the test compares the sum with the slots."""
    registry = make(sizer=lambda instance: id(instance) % 1000, max_cache_size=2)
    names = ("Alpha", "Beta", "Gamma", "Delta")

    def work(offset: int) -> None:
        for turn in range(300):
            with registry.use(names[(turn + offset) % 4]):
                if turn % 7 == 0:
                    registry.discard(names[turn % 4])
                if turn % 11 == 0:
                    registry.measure(names[(turn + 1) % 4])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.clear_cache()
    assert registry.known_bytes == 0


def test_weak_instances_are_not_part_of_the_total(make: Any) -> None:
    """They belong to their users."""
    registry = make(sizer=lambda instance: 50, enable_weakref=True)
    kept = registry.get_instance("Alpha")
    assert registry.known_bytes == 0
    assert registry.measure("Alpha").bytes == 50
    del kept


def test_sizes_of_removed_instances_are_forgotten(make: Any, monkeypatch: Any) -> None:
    """Above a bound on the number of names; those of warm instances are kept."""
    registry = make(sizer=lambda instance: 50)
    from warmset.memory import sizing

    monkeypatch.setattr(sizing, "_MOST_NAMES", 10)
    manager_of(registry).sizing._most_known = 10
    registry.get_instance("Alpha")
    for number in range(50):
        registry.register(f"Beta@{number}", "samples.Beta")
        registry.get_instance(f"Beta@{number}")
        registry.discard(f"Beta@{number}")
    known = manager_of(registry).sizing
    names = ("Alpha", "Beta@49", "Beta@20")
    sizes = {name: known.expected(registry.slots[name]) for name in names}
    assert sizes == {"Alpha": 50, "Beta@49": 50, "Beta@20": None}
    assert len(known._known) <= 10


def test_an_instance_that_has_grown_is_recycled(make: Any) -> None:
    """As measured by the sizer of its class, or by traversal if that measures builds only."""
    for sizer in ("measured", "deep", lambda instance: len(getattr(instance, "load", b""))):
        registry = make({}, sizer=sizer)
        registry.register("Alpha", "samples.Alpha", recycle_after_growth_bytes=100_000)
        old = registry.get_instance("Alpha")
        for load, same in ((0, True), (50_000, True), (150_000, False)):
            old.load = bytearray(load)
            registry.sweep()
            assert manager_of(registry).recycling.wait(30.0)
            assert (registry.get_instance("Alpha") is old) == same
