"""Builds: single flight, failures, cycles, removals during a build, interrupts."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import pytest
from threads import PATIENCE, Gate, in_thread, outcomes, until

from warmset.testing.structure import eviction_order


def test_many_threads_get_one_build(make: Any, samples: Any) -> None:
    """One builds, the others wait, and all get the same instance."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    running = [in_thread(registry.get_instance, "Alpha") for _ in range(8)]
    until(lambda: registry.stats().waits == 7)
    gate.open()
    results = outcomes(running)
    assert samples.built == ["Alpha"]
    assert len({id(result) for result in results}) == 1
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.builds, stats.waits) == (0, 8, 1, 7)


def test_another_class_is_not_disturbed_by_a_slow_build(make: Any, samples: Any) -> None:
    """Hits and builds of other names go on while a constructor runs."""
    registry = make()
    registry.get_instance("Beta")
    samples.script["Alpha"] = gate = Gate()
    building = in_thread(registry.get_instance, "Alpha")
    gate.wait()
    registry.get_instance("Beta")
    registry.get_instance("Gamma")
    assert registry.evict_expired() == 0
    assert registry.stats().cached == 2
    gate.open()
    assert type(building.result()) is samples.Alpha


def test_a_constructor_may_ask_for_other_classes(make: Any, samples: Any) -> None:
    """To any depth."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = lambda _: registry.get_instance("Gamma")
    registry.get_instance("Alpha")
    assert samples.built == ["Alpha", "Beta", "Gamma"]
    assert eviction_order(registry) == ["Gamma", "Beta", "Alpha"], "the inner ones were used first"


def test_a_rule_builds_in_place_of_the_constructor(ws: Any, make: Any, samples: Any) -> None:
    """It may ask the registry: a text processor is given the one ontology that all share."""
    registry = make()
    registry.register_instantiation_rule(
        "Alpha", lambda cls: (cls(), registry.get_instance("Beta"))
    )
    alpha, beta = registry.get_instance("Alpha")
    assert beta is registry.get_instance("Beta")
    assert type(alpha) is samples.Alpha
    with pytest.raises(TypeError, match="rule of 'Alpha' must be callable, got 3"):
        registry.register_instantiation_rule("Alpha", 3)
    registry.register_instantiation_rule("Gamma", lambda cls: None)
    with pytest.raises(ws.BuildError, match=r"'Gamma' \(samples.Gamma\) returned None"):
        registry.get_instance("Gamma")


# -- failures --------------------------------------------------------------------------------------


def test_each_stage_has_its_error(ws: Any, make: Any) -> None:
    """It has the class name, the path and the stage, and the cause is chained."""
    registry = make(
        {
            "Import": "no_such_module.Alpha",
            "Attribute": "samples.Alhpa",
            "Class": "samples.not_a_class",
            "Build": "samples.Broken",
        }
    )
    for name, error, builtin, cause in (
        ("Import", ws.ClassImportError, RuntimeError, ModuleNotFoundError),
        ("Attribute", ws.ClassAttributeError, AttributeError, None),
        ("Class", ws.NotAClassError, TypeError, None),
        ("Build", ws.BuildError, RuntimeError, ValueError),
    ):
        with pytest.raises(error) as caught:
            registry.get_instance(name)
        assert isinstance(caught.value, builtin)
        assert isinstance(caught.value, ws.MethodRegistryError)
        assert caught.value.stage == name.lower()
        assert caught.value.class_name == name
        assert caught.value.class_path == registry._class_paths[name]
        if cause is not None:
            assert isinstance(caught.value.__cause__, cause)
    assert registry.stats().failed_class_names == ("Import", "Attribute", "Class", "Build")


def test_a_failure_is_raised_at_once_until_it_is_retried(
    ws: Any, make: Any, samples: Any, timer: Any
) -> None:
    """The same error for `retry_after_seconds`, and no constructor runs."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=30)
    errors = []
    for _ in range(3):
        with pytest.raises(ws.BuildError, match="ValueError: no model file") as caught:
            registry.get_instance("Broken")
        errors.append(caught.value)
    assert samples.built == ["Broken"]
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 3, "one object raised twice grows its traceback"
    assert errors[0].__cause__ is errors[2].__cause__
    assert registry.get_stats()["failed_class_names"] == ["Broken"]
    stats = registry.stats()
    assert (stats.misses, stats.failed_builds, stats.builds) == (3, 1, 0)
    timer.advance(30)
    assert registry.stats().failed_class_names == ()
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    assert samples.built == ["Broken", "Broken"]
    assert registry.forget_failures() == 1
    assert registry.forget_failures() == 0
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    assert len(samples.built) == 3


@pytest.mark.parametrize(("retry_after", "builds"), [(0, 3), (float("inf"), 1)])
def test_retry_at_once_or_never(
    ws: Any, make: Any, samples: Any, timer: Any, retry_after: float, builds: int
) -> None:
    """0 tries each time, inf never, as the pipeline did."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=retry_after)
    for _ in range(3):
        timer.advance(1e6)
        with pytest.raises(ws.BuildError):
            registry.get_instance("Broken")
    assert len(samples.built) == builds


def test_a_rule_or_another_path_lets_a_failed_class_try_again(
    ws: Any, make: Any, samples: Any
) -> None:
    """The remembered failure was that of another target."""
    registry = make({"Broken": "samples.Broken"})
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    registry.register_instantiation_rule("Broken", lambda cls: 3)
    assert registry.get_instance("Broken") == 3
    registry.clear_cache()
    registry.register_instantiation_rule("Broken", lambda cls: cls())
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    registry.register("Broken", "samples.Beta")
    assert type(registry.get_instance("Broken")) is samples.Beta


def test_a_failed_build_wakes_every_waiter_with_the_same_error(
    ws: Any, make: Any, samples: Any
) -> None:
    """The constructor runs once for all waiters."""
    registry = make()
    gate = Gate()

    def failing(_: Any) -> None:
        gate()
        raise ValueError("out of memory")

    samples.script["Alpha"] = failing
    running = [in_thread(registry.get_instance, "Alpha") for _ in range(8)]
    until(lambda: registry.stats().waits == 7)
    gate.open()
    results = outcomes(running)
    assert samples.built == ["Alpha"]
    assert {type(result) for result in results} == {ws.BuildError}
    assert len({str(result) for result in results}) == 1
    assert len({id(result) for result in results}) == 8
    assert len({id(result.__cause__) for result in results}) == 1


def test_a_remembered_failure_keeps_nothing_of_the_constructor_alive(
    ws: Any, make: Any, samples: Any
) -> None:
    """The frames of the traceback may hold half a model."""
    kept: list[weakref.ref[Any]] = []

    def failing(instance: Any) -> None:
        kept.append(weakref.ref(instance))
        raise ValueError("half way")

    samples.script["Alpha"] = failing
    registry = make()
    with pytest.raises(ws.BuildError):
        registry.get_instance("Alpha")
    gc.collect()
    assert kept[0]() is None
    with pytest.raises(ws.BuildError) as caught:
        registry.get_instance("Alpha")
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is not None, "it still has its lines"


def test_the_failure_of_another_class_is_chained(ws: Any, make: Any, samples: Any) -> None:
    """A build that asked for a broken class fails with its own name, for that reason."""
    registry = make({"Alpha": "samples.Alpha", "Broken": "samples.Broken"})
    samples.script["Alpha"] = lambda _: registry.get_instance("Broken")
    with pytest.raises(ws.BuildError) as caught:
        registry.get_instance("Alpha")
    assert caught.value.class_name == "Alpha"
    assert isinstance(caught.value.__cause__, ws.BuildError)
    assert caught.value.__cause__.class_name == "Broken"
    assert isinstance(caught.value.__cause__.__cause__, ValueError)


# -- cycles ----------------------------------------------------------------------------------------


def test_a_build_that_asks_for_itself_raises(ws: Any, make: Any, samples: Any) -> None:
    """At once, naming the chain; the other way round works after it."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.get_instance("Alpha")
    with pytest.raises(ws.CycleError, match="Alpha -> Alpha") as caught:
        registry.get_instance("Alpha")
    assert caught.value.chain == ("Alpha", "Alpha")
    assert isinstance(caught.value, RecursionError)


def test_a_cycle_through_others_names_the_chain(ws: Any, make: Any, samples: Any) -> None:
    """In the order in which they looked each other up."""
    registry = make()
    samples.script["Delta"] = lambda _: registry.get_instance("Alpha")
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = lambda _: registry.get_instance("Gamma")
    samples.script["Gamma"] = lambda _: registry.get_instance("Alpha")
    with pytest.raises(ws.CycleError) as caught:
        registry.get_instance("Delta")
    assert caught.value.chain == ("Alpha", "Beta", "Gamma", "Alpha")


def test_a_constructor_may_catch_the_error_of_a_cycle(ws: Any, make: Any, samples: Any) -> None:
    """Both classes are built then."""
    registry = make()

    def optional(_: Any) -> None:
        with pytest.raises(ws.CycleError):
            registry.get_instance("Alpha")

    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = optional
    registry.get_instance("Alpha")
    assert registry.stats().failed_class_names == ()
    assert eviction_order(registry) == ["Beta", "Alpha"]


@pytest.mark.parametrize("names", [("Alpha", "Beta"), ("Alpha", "Beta", "Gamma", "Delta")])
def test_a_cycle_across_threads_raises(
    ws: Any, make: Any, samples: Any, names: tuple[str, ...]
) -> None:
    """Each thread builds one class and waits for the next: none hangs, and the chain is named."""
    registry = make(retry_after_seconds=0)
    barrier = threading.Barrier(len(names))
    for name, wanted in zip(names, (*names[1:], names[0]), strict=True):

        def build(_: Any, wanted: str = wanted) -> None:
            barrier.wait(PATIENCE)
            registry.get_instance(wanted)

        samples.script[name] = build
    results = outcomes([in_thread(registry.get_instance, name) for name in names])
    for result in results:
        assert isinstance(result, ws.CycleError)
        chain = result.chain
        assert chain[0] == chain[-1]
        assert set(chain) == set(names)
        at = names.index(chain[0])
        assert chain[:-1] == names[at:] + names[:at]


def test_waiting_for_a_long_chain_is_no_cycle(make: Any, samples: Any) -> None:
    """A diamond: two builds in two threads look up the same third class."""
    registry = make()
    barrier = threading.Barrier(2)

    def wants_gamma(_: Any) -> None:
        barrier.wait(PATIENCE)
        registry.get_instance("Gamma")

    samples.script["Alpha"] = samples.script["Beta"] = wants_gamma
    results = outcomes([in_thread(registry.get_instance, name) for name in ("Alpha", "Beta")])
    assert [type(result).__name__ for result in results] == ["Alpha", "Beta"]
    assert samples.built.count("Gamma") == 1


# -- removals and interrupts -----------------------------------------------------------------------


@pytest.mark.parametrize("removal", ["clear_cache", "discard", "unregister"])
def test_a_removal_during_a_build_keeps_its_result_out_of_the_cache(
    make: Any, samples: Any, removal: str
) -> None:
    """Its waiters get it; a look-up after the removal gets another one."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    before = [in_thread(registry.get_instance, "Alpha") for _ in range(2)]
    gate.wait()
    until(lambda: registry.stats().waits == 1)
    if removal == "clear_cache":
        registry.clear_cache()
    else:
        getattr(registry, removal)("Alpha")
    if removal == "unregister":
        registry.register("Alpha", "samples.Alpha")
    samples.script.clear()
    after = in_thread(registry.get_instance, "Alpha")
    until(lambda: registry.stats().waits == 2)
    gate.open()
    stale = outcomes(before)
    fresh = after.result()
    assert stale[0] is stale[1]
    assert fresh is not stale[0]
    assert registry.get_instance("Alpha") is fresh
    assert samples.built == ["Alpha", "Alpha"]


def test_a_clear_by_the_constructor_itself(make: Any, samples: Any) -> None:
    """Its caller gets the instance, which is not cached."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    instance = registry.get_instance("Alpha")
    assert type(instance) is samples.Alpha
    assert registry.stats().cached == 0
    assert registry.stats().builds == 1


def test_an_interrupt_passes_through_and_a_waiter_takes_over(make: Any, samples: Any) -> None:
    """Only the interrupted thread gets it, and it is not remembered."""
    registry = make()
    gate = Gate()

    def interrupted(_: Any) -> None:
        if not gate.reached.is_set():
            gate()
            raise KeyboardInterrupt

    samples.script["Alpha"] = interrupted
    first = in_thread(registry.get_instance, "Alpha")
    gate.wait()
    others = [in_thread(registry.get_instance, "Alpha") for _ in range(3)]
    until(lambda: registry.stats().waits == 3)
    gate.open()
    assert type(first.outcome()) is KeyboardInterrupt
    results = outcomes(others)
    assert len({id(result) for result in results}) == 1
    assert type(results[0]) is samples.Alpha
    assert samples.built == ["Alpha", "Alpha"]
    assert registry.stats().failed_class_names == ()


def test_a_build_between_a_miss_and_the_own_build(make: Any, samples: Any) -> None:
    """Another thread may have built in between: the class is not built twice."""
    registry = make()
    registry.plain_builds = None
    builder = registry.builder
    lead = builder._lead

    def late(build: Any) -> Any:
        builder._lead = lead
        del builder._builds["Alpha"]
        registry.get_instance("Alpha")
        builder._builds["Alpha"] = build
        return lead(build)

    builder._lead = late
    registry.get_instance("Alpha")
    assert samples.built == ["Alpha"]
    assert registry.stats().misses == 2


def test_a_waiter_builds_for_the_new_registration_of_its_name(make: Any, samples: Any) -> None:
    """Its name was unregistered and registered anew while it waited."""
    registry = make({"Alpha": "samples.Alpha"})
    gate = Gate()

    def rule(cls: type) -> Any:
        gate()
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    first = in_thread(registry.get_instance, "Alpha")
    gate.wait()
    registry.discard("Alpha")
    second = in_thread(registry.get_instance, "Alpha")
    until(lambda: registry.stats().waits == 1)
    registry.unregister("Alpha")
    registry.register("Alpha", "samples.Beta")
    gate.open()
    assert type(first.result()) is samples.Alpha
    assert type(second.result()) is samples.Beta
    assert registry.get_instance("Alpha") is second.result()
    assert eviction_order(registry) == ["Alpha"]
    assert len(registry) == 1


def test_a_waiter_does_not_build_after_close(ws: Any, make: Any, samples: Any) -> None:
    """The build that it waited for was discarded, so it would have to build itself."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    first = in_thread(registry.get_instance, "Alpha")
    gate.wait()
    registry.discard("Alpha")
    second = in_thread(registry.get_instance, "Alpha")
    until(lambda: registry.stats().waits == 1)
    registry.close()
    gate.open()
    assert type(first.result()) is samples.Alpha
    assert type(second.outcome()) is ws.ClosedError
    assert registry.stats().cached == 0
    with pytest.raises(ws.ClosedError):
        registry._cache["Alpha"] = ws.CacheEntry(object(), 0.0, 0.0)


def test_a_build_that_began_after_a_removal_is_cached(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another instance was built and evicted between the miss and the build."""
    registry = make(max_cache_size=1)
    registry.plain_builds = None
    token = type(registry).token
    late = []

    def token_and_more(self: Any, slot: Any) -> Any:
        before = token(self, slot)
        if not late:
            late.append(slot.name)
            registry.get_instance("Alpha")
            registry.get_instance("Beta")  # evicts Alpha
        return before

    monkeypatch.setattr(type(registry), "token", token_and_more)
    instance = registry.get_instance("Alpha")
    assert late == ["Alpha"]
    assert eviction_order(registry) == ["Alpha"]
    assert registry.get_instance("Alpha") is instance


def test_a_failed_build_does_not_change_the_callers_exception(ws: Any, make: Any) -> None:
    """Its locals are cleared, but not those of the exception that its caller is handling."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=30)

    def errors() -> Any:
        for i in range(3):
            try:
                raise KeyError(i)
            except KeyError as error:
                yield error

    rounds = 0
    for error in errors():
        rounds += 1
        try:
            raise error
        except KeyError:
            registry.forget_failures()
            with pytest.raises(ws.BuildError):
                registry.get_instance("Broken")
    assert rounds == 3


@pytest.mark.parametrize("retry_after", [0, 30])
def test_a_failed_build_clears_its_locals(
    ws: Any, make: Any, samples: Any, retry_after: float
) -> None:
    """Also when it is not remembered."""
    freed: list[Any] = []

    class Half:
        pass

    def failing(_: Any) -> None:
        half = Half()
        freed.append(weakref.ref(half))
        raise ValueError("half way")

    samples.script["Alpha"] = failing
    registry = make(retry_after_seconds=retry_after)
    gc.disable()
    try:
        with pytest.raises(ws.BuildError):
            registry.get_instance("Alpha")
        assert freed[0]() is None
    finally:
        gc.enable()


def test_an_error_class_with_a_constructor_of_its_own(ws: Any, make: Any, samples: Any) -> None:
    """A subclass of ours cannot be copied; it is chained to a BuildError."""

    class Mine(ws.MethodRegistryError):  # type: ignore[misc, name-defined]
        def __init__(self, code: int) -> None:
            self.code = code

        def __new__(cls, code: int) -> Any:
            return super().__new__(cls)

    def failing(_: Any) -> None:
        raise Mine(3)

    samples.script["Alpha"] = failing
    registry = make()
    for _ in range(2):
        with pytest.raises(ws.BuildError) as caught:
            registry.get_instance("Alpha")
        assert isinstance(caught.value.__cause__, Mine)


def test_a_rule_that_raises_stop_iteration(ws: Any, make: Any) -> None:
    """It failed, as with any other error."""
    registry = make()
    registry.register_instantiation_rule("Alpha", lambda cls: next(iter(())))
    with pytest.raises(ws.BuildError, match="StopIteration"):
        registry.get_instance("Alpha")


@pytest.mark.parametrize("nested", [False, True])
def test_the_import_is_timed_apart_from_the_build(
    make: Any,
    timer: Any,
    samples: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    nested: bool,
) -> None:
    """A later build does not repeat it, and so it is no cost of an eviction."""
    name = f"slow_to_import_{nested}"
    (tmp_path / f"{name}.py").write_text(
        "import samples\nsamples.script['importing'](None)\n"
        "class Slow:\n    def __init__(self):\n        samples.script['building'](None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    registry = make()
    events: list[Any] = []
    registry.add_build_listener(events.append)
    registry.register("Slow", f"{name}.Slow")
    samples.script["importing"] = lambda _: timer.advance(5.0)
    samples.script["building"] = lambda _: timer.advance(2.0)
    if nested:
        samples.script["Alpha"] = lambda _: (timer.advance(1.0), registry.get_instance("Slow"))
        registry.get_instance("Alpha")
        outer = events.pop()
        assert (outer.seconds, outer.import_seconds, outer.own_seconds) == (8.0, 0.0, 1.0)
    else:
        registry.get_instance("Slow")
    (event,) = events
    assert (event.seconds, event.import_seconds, event.own_seconds) == (2.0, 5.0, 2.0)
    slow = next(entry for entry in registry.stats().entries if entry.class_name == "Slow")
    assert slow.build_seconds == 2.0
    registry.discard("Slow")
    registry.get_instance("Slow")
    assert (events[-1].seconds, events[-1].import_seconds) == (2.0, 0.0)
