"""How big an instance is: measured, walked through, declared, or told by one's own sizer."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from typing import Any

import pytest

from warmset.memory.growth import Growth
from warmset.memory.sizing import SizeHooks, declared_size
from warmset.memory.walking import deep_size

np = pytest.importorskip("numpy")


class Probe:
    """The memory of a process, as it is set by hand."""

    def __init__(self) -> None:
        self.level = 1000

    def __call__(self) -> int:
        return self.level


# -- growth --------------------------------------------------------------------------------------


def test_a_build_alone_has_all_the_growth() -> None:
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


def test_a_shrinking_process_is_no_negative_size() -> None:
    probe = Probe()
    growth = Growth(probe)
    mark = growth.begin()
    probe.level -= 500
    growth.end(mark)
    assert mark.bytes == 0


def test_what_another_class_took_is_not_ones_own() -> None:
    """A build that asked for another one."""
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


def test_builds_at_the_same_time_share() -> None:
    """Interval by interval; the sum is what the process grew by."""
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


def test_a_probe_that_fails_is_said_once(caplog: Any) -> None:
    def broken() -> int:
        raise OSError("no /proc")

    growth = Growth(broken)
    for _ in range(3):
        mark = growth.begin()
        growth.end(mark)
        assert mark.bytes is None
    assert [r.name for r in caplog.records] == ["warmset.memory"]
    assert "no /proc" in caplog.text


def test_tracemalloc_is_more_exact_where_it_is_on() -> None:
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


# -- walking -------------------------------------------------------------------------------------


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


def test_cycles_slots_and_odd_objects() -> None:
    one = Slotted()
    one.part = Plain(back=one, lying=Lying(), data=b"x" * 50_000)
    size, _ = deep_size(one)
    assert 50_000 < size < 55_000


def test_the_program_is_not_entered(make: Any) -> None:
    """Modules, types, functions; nor the registry, from which all is reached."""
    from warmset.memory.walking import deep_size  # of this copy: it knows its registries

    registry = make()
    registry.register_instantiation_rule("Alpha", lambda cls: cls())
    other = registry.get_instance("Beta")
    other.load = bytearray(1_000_000)
    one = Plain(module=sys, kind=dict, function=deep_size, method=gc.collect, registry=registry)
    assert deep_size(one)[0] < 2_000


def test_an_array_and_its_views_are_one_buffer() -> None:
    array = np.zeros(1_000_000, dtype=np.uint8)
    assert 1_000_000 <= deep_size(array)[0] < 1_001_000
    assert 1_000_000 <= deep_size(Plain(a=array, v=[array[1:], array[::2]]))[0] < 1_003_000
    view = array[:10]
    assert 1_000_000 <= deep_size(view)[0] < 1_001_000  # the view keeps it all
    boxed = np.array([bytearray(200_000), None], dtype=object)
    assert 200_000 < deep_size(boxed)[0] < 202_000


def test_tensors_that_share_their_storage() -> None:
    """By what torch offers; torch itself is not needed for it."""

    class Storage:
        def data_ptr(self) -> int:
            return 4711

        def nbytes(self) -> int:
            return 5_000_000

    tensor = type("Tensor", (), {"untyped_storage": lambda self: Storage()})
    tensor.__module__, tensor.__qualname__ = "torch", "Tensor"
    assert 5_000_000 < deep_size([tensor(), tensor()])[0] < 5_002_000


def test_a_time_limit_cuts_it_short() -> None:
    ticks = iter(range(10_000))
    size, stopped = deep_size(
        [[n] for n in range(100_000)], time_limit_seconds=3, clock=lambda: next(ticks)
    )
    assert stopped
    assert size > 100_000


def test_it_agrees_with_pympler() -> None:
    """On what pympler can count."""
    asizeof = pytest.importorskip("pympler.asizeof")
    one = {"a": [str(n) * 10 for n in range(1000)], "b": {n: (n, float(n)) for n in range(1000)}}
    mine, theirs = deep_size(one)[0], asizeof.asizeof(one)
    assert abs(mine - theirs) / theirs < 0.05


# -- declared ------------------------------------------------------------------------------------


def test_what_an_object_says_itself() -> None:
    hooks = SizeHooks()
    assert declared_size(np.zeros(1000), hooks) == 8000
    assert declared_size(Plain(nbytes=77), hooks) == 77
    assert declared_size(b"abc", hooks) == sys.getsizeof(b"abc")


def test_a_hook_counts_for_what_is_derived_from_its_type() -> None:
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
def test_a_lie_is_refused(says: Any) -> None:
    with pytest.raises(ValueError, match="expected a whole number of bytes"):
        declared_size(Plain(nbytes=says), SizeHooks())


@pytest.mark.parametrize(("kind", "hook"), [(1, len), (dict, "len")])
def test_a_wrong_hook_is_refused(make: Any, kind: Any, hook: Any) -> None:
    with pytest.raises(TypeError, match="size hook"):
        make().register_size_hook(kind, hook)


def test_an_estimator_of_sklearn_is_walked_through() -> None:
    base = type("BaseEstimator", (), {})
    base.__module__ = "sklearn.base"
    model = type("Model", (base,), {})()
    model.coef_ = np.zeros(10_000)
    assert declared_size(model, SizeHooks()) > 80_000


def test_a_module_of_torch_counts_shared_weights_once() -> None:
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


def test_nothing_is_sized_unless_asked_for(make: Any) -> None:
    registry = make()
    registry.get_instance("Alpha")
    assert (sizes(registry), registry.stats().bytes) == ({"Alpha": None}, None)
    assert registry._memory is None


@pytest.mark.parametrize("sizer", ["deep", "declared", lambda instance: 1_000_100])
def test_each_sizer_tells_the_size_at_the_build(make: Any, samples: Any, sizer: Any) -> None:
    """In the statistics, the events of builds and removals, and `get_stats`."""
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
    assert registry.stats().bytes == registry._bytes == size
    assert registry.get_stats()["cache_entries"][0]["bytes"] == size
    registry.discard("Alpha")
    assert [event.bytes for event in events] == [size, size]
    assert registry._bytes == 0


def test_measured_is_an_estimate_of_its_build(make: Any, samples: Any, timer: Any) -> None:
    probe = Probe()
    registry = make(sizer="measured")
    registry._manager().sizing._growth = Growth(probe)

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


def test_a_class_has_a_sizer_of_its_own(make: Any) -> None:
    class Own:
        def size(self, instance: Any) -> int:
            return 42

    registry = make({}, sizer=lambda instance: 7)
    registry.register_class("Alpha", "samples.Alpha", sizer=Own())
    registry.register_class("Beta", "samples.Beta")
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    assert sizes(registry) == {"Alpha": 42, "Beta": 7}
    assert registry.measure("Alpha").method == "Own"


def test_it_is_measured_anew_on_demand(ws: Any, make: Any, timer: Any) -> None:
    """By "deep", where there is no sizer; and that is no use."""
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


def test_what_instances_share_is_counted_once(make: Any) -> None:
    registry = make(sizer="deep")
    shared = bytearray(1_000_000)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name).load = shared
    told = registry.measure_all()
    assert list(told) == ["Beta", "Alpha"]
    assert 1_000_000 < sum(size.bytes for size in told.values()) < 1_010_000
    assert told["Beta"].bytes > 1_000_000


def test_a_sizer_that_fails_fails_no_build(make: Any, caplog: Any) -> None:
    """It is said once, and again when it had been well."""

    def sizer(instance: Any) -> Any:
        return answers.pop()

    answers = ["x", -1, 5, "x", None]
    registry = make(sizer=sizer)
    for _ in range(5):
        registry.get_instance("Alpha")
        registry.discard("Alpha")
    said = [r.getMessage() for r in caplog.records if r.name == "warmset.memory"]
    assert len(said) == 2
    assert "the size of 'Alpha' cannot be told: the sizer 'sizer' gave None" in said[0]


def test_a_sizer_may_use_and_remove_what_it_sizes(make: Any) -> None:
    def sizer(instance: Any) -> int:
        assert registry.get_instance("Alpha") is instance
        registry.discard("Alpha")
        return 5

    registry = make(sizer=sizer)
    registry.get_instance("Alpha")
    assert (registry.stats().cached, registry._bytes) == (0, 0)


def test_an_interrupt_in_a_sizer_passes_and_nothing_stays_held(make: Any) -> None:
    def sizer(instance: Any) -> int:
        raise KeyboardInterrupt

    registry = make(sizer=sizer)
    with pytest.raises(KeyboardInterrupt):
        registry.get_instance("Alpha")
    assert registry.stats().held == 0
    assert registry.stats().cached == 1


def test_sizes_add_up_under_threads(make: Any) -> None:
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
    assert registry._bytes == 0


def test_a_revived_instance_brings_its_size_back(make: Any) -> None:
    registry = make(sizer=lambda instance: 50)
    with registry.use("Alpha"):
        registry.clear_cache()
        assert registry._bytes == 0
        registry.get_instance("Alpha")
        assert registry._bytes == 50


def test_weakly_kept_instances_are_in_no_sum(make: Any) -> None:
    """They are somebody else's."""
    registry = make(sizer=lambda instance: 50, enable_weakref=True)
    kept = registry.get_instance("Alpha")
    assert registry._bytes == 0
    assert registry.measure("Alpha").bytes == 50
    del kept


def test_growth_recycles(make: Any) -> None:
    """By the sizer of the class; by walking, where that measures builds."""
    for sizer in ("measured", "deep", lambda instance: len(getattr(instance, "load", b""))):
        registry = make({}, sizer=sizer)
        registry.register_class("Alpha", "samples.Alpha", recycle_after_growth_bytes=100_000)
        old = registry.get_instance("Alpha")
        for load, same in ((0, True), (50_000, True), (150_000, False)):
            old.load = bytearray(load)
            registry.sweep()
            assert registry._memory.recycling.wait(30.0)
            assert (registry.get_instance("Alpha") is old) == same
