"""Builds: single-flight, failures and their memory, cycles, clears in between, interrupts."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

PATIENCE = 30.0  # seconds until a test gives up on another thread; no test waits for it to pass


class Crowd:
    """Threads that run one call each; what each gave or raised."""

    def __init__(self, calls: list[Any]) -> None:
        self.results: list[Any] = [None] * len(calls)
        self.threads = [
            threading.Thread(target=self._run, args=(i, call)) for i, call in enumerate(calls)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, i: int, call: Any) -> None:
        try:
            self.results[i] = call()
        except BaseException as error:
            self.results[i] = error

    def join(self) -> list[Any]:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
        return self.results


def until(condition: Any) -> None:
    """Wait until something is so, in another thread."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to be")


def test_many_threads_get_one_build(make: Any, samples: Any) -> None:
    """One leads, the others wait, and all get the same instance."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(PATIENCE)

    samples.script["Alpha"] = slow
    crowd = Crowd([lambda: registry.get_instance("Alpha")] * 8)
    assert entered.wait(PATIENCE)
    until(lambda: registry.stats().waits == 7)
    go.set()
    results = crowd.join()
    assert samples.built == ["Alpha"]
    assert len({id(result) for result in results}) == 1
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.builds, stats.waits) == (0, 8, 1, 7)


def test_another_class_is_not_disturbed_by_a_slow_build(make: Any, samples: Any) -> None:
    """Hits and builds of other names go on while a constructor runs."""
    registry = make()
    registry.get_instance("Beta")
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(PATIENCE)

    samples.script["Alpha"] = slow
    crowd = Crowd([lambda: registry.get_instance("Alpha")])
    assert entered.wait(PATIENCE)
    registry.get_instance("Beta")
    registry.get_instance("Gamma")
    assert registry.evict_expired() == 0
    assert registry.stats().cached == 2
    go.set()
    crowd.join()


def test_a_constructor_may_ask_for_other_classes(make: Any, samples: Any) -> None:
    """To any depth."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = lambda _: registry.get_instance("Gamma")
    registry.get_instance("Alpha")
    assert samples.built == ["Alpha", "Beta", "Gamma"]
    assert registry._ring() == ["Alpha", "Beta", "Gamma"], "the inner ones were used first"


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
    with pytest.raises(ws.BuildError, match=r"'Gamma' \(samples.Gamma\) gave None"):
        registry.get_instance("Gamma")


# -- failures ------------------------------------------------------------------------------------


def test_each_stage_has_its_error(ws: Any, make: Any) -> None:
    """The class name, the path and the stage are told, and the cause is chained."""
    registry = make(
        {
            "Import": "no_such_module.Alpha",
            "Attribute": "samples.Alhpa",
            "Class": "samples.not_a_class",
            "Build": "samples.Broken",
        }
    )
    for name, error, builtin, cause in (
        ("Import", ws.ClassImportError, ImportError, ModuleNotFoundError),
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


def test_a_failure_comes_back_at_once_until_it_is_retried(
    ws: Any, make: Any, samples: Any, timer: Any
) -> None:
    """For `retry_after_seconds`; the same error, and no constructor runs."""
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
    """0 tries each time; inf is what the pipeline did."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=retry_after)
    for _ in range(3):
        timer.advance(1e6)
        with pytest.raises(ws.BuildError):
            registry.get_instance("Broken")
    assert len(samples.built) == builds


def test_a_rule_or_another_path_lets_a_failed_class_try_again(
    ws: Any, make: Any, samples: Any
) -> None:
    """What failed was something else."""
    registry = make({"Broken": "samples.Broken"})
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    registry.register_instantiation_rule("Broken", lambda cls: 3)
    assert registry.get_instance("Broken") == 3
    registry.clear_cache()
    registry.register_instantiation_rule("Broken", lambda cls: cls())
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    registry.register_class("Broken", "samples.Beta")
    assert type(registry.get_instance("Broken")) is samples.Beta


def test_a_failed_build_wakes_every_waiter_with_the_same_error(
    ws: Any, make: Any, samples: Any
) -> None:
    """One run for all who waited."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def failing(_: Any) -> None:
        entered.set()
        assert go.wait(PATIENCE)
        raise ValueError("out of memory")

    samples.script["Alpha"] = failing
    crowd = Crowd([lambda: registry.get_instance("Alpha")] * 8)
    assert entered.wait(PATIENCE)
    until(lambda: registry.stats().waits == 7)
    go.set()
    results = crowd.join()
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
    assert caught.value.__cause__.__traceback__ is not None, "it still tells where it was"


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


# -- cycles --------------------------------------------------------------------------------------


def test_a_build_that_asks_for_itself_raises(ws: Any, make: Any, samples: Any) -> None:
    """At once, naming the chain; the other way round works after it."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.get_instance("Alpha")
    with pytest.raises(ws.CycleError, match="Alpha -> Alpha") as caught:
        registry.get_instance("Alpha")
    assert caught.value.chain == ("Alpha", "Alpha")
    assert isinstance(caught.value, RecursionError)


def test_a_cycle_through_others_names_the_chain(ws: Any, make: Any, samples: Any) -> None:
    """In the order in which they asked for each other."""
    registry = make()
    samples.script["Delta"] = lambda _: registry.get_instance("Alpha")
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = lambda _: registry.get_instance("Gamma")
    samples.script["Gamma"] = lambda _: registry.get_instance("Alpha")
    with pytest.raises(ws.CycleError) as caught:
        registry.get_instance("Delta")
    assert caught.value.chain == ("Alpha", "Beta", "Gamma", "Alpha")


def test_a_constructor_may_do_without_what_would_be_a_cycle(
    ws: Any, make: Any, samples: Any
) -> None:
    """It caught the error, so both are built."""
    registry = make()

    def optional(_: Any) -> None:
        with pytest.raises(ws.CycleError):
            registry.get_instance("Alpha")

    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = optional
    registry.get_instance("Alpha")
    assert registry.stats().failed_class_names == ()
    assert registry._ring() == ["Alpha", "Beta"]


@pytest.mark.parametrize("names", [("Alpha", "Beta"), ("Alpha", "Beta", "Gamma", "Delta")])
def test_a_cycle_across_threads_raises(
    ws: Any, make: Any, samples: Any, names: tuple[str, ...]
) -> None:
    """Each thread builds one and wants the next one's: nobody hangs, and the chain is named."""
    registry = make(retry_after_seconds=0)
    barrier = threading.Barrier(len(names))
    for name, wanted in zip(names, (*names[1:], names[0]), strict=True):

        def build(_: Any, wanted: str = wanted) -> None:
            barrier.wait(PATIENCE)
            registry.get_instance(wanted)

        samples.script[name] = build
    results = Crowd([lambda name=name: registry.get_instance(name) for name in names]).join()
    for result in results:
        assert isinstance(result, ws.CycleError)
        chain = result.chain
        assert chain[0] == chain[-1]
        assert set(chain) == set(names)
        at = names.index(chain[0])
        assert chain[:-1] == names[at:] + names[:at]


def test_waiting_for_a_long_chain_is_no_cycle(make: Any, samples: Any) -> None:
    """A diamond: two builds in two threads want the same third."""
    registry = make()
    barrier = threading.Barrier(2)

    def wants_gamma(_: Any) -> None:
        barrier.wait(PATIENCE)
        registry.get_instance("Gamma")

    samples.script["Alpha"] = samples.script["Beta"] = wants_gamma
    results = Crowd(
        [lambda name=name: registry.get_instance(name) for name in ("Alpha", "Beta")]
    ).join()
    assert [type(result).__name__ for result in results] == ["Alpha", "Beta"]
    assert samples.built.count("Gamma") == 1


# -- clears and interrupts in between ------------------------------------------------------------


@pytest.mark.parametrize("removal", ["clear_cache", "discard", "unregister_class"])
def test_a_removal_during_a_build_keeps_its_result_out_of_the_cache(
    make: Any, samples: Any, removal: str
) -> None:
    """It goes to those who waited; who comes after the removal gets a fresh one."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(PATIENCE)

    samples.script["Alpha"] = slow
    before = Crowd([lambda: registry.get_instance("Alpha")] * 2)
    assert entered.wait(PATIENCE)
    until(lambda: registry.stats().waits == 1)
    if removal == "clear_cache":
        registry.clear_cache()
    else:
        getattr(registry, removal)("Alpha")
    if removal == "unregister_class":
        registry.register_class("Alpha", "samples.Alpha")
    samples.script.clear()
    after = Crowd([lambda: registry.get_instance("Alpha")])
    until(lambda: registry.stats().waits == 2)
    go.set()
    stale = before.join()
    fresh = after.join()
    assert stale[0] is stale[1]
    assert fresh[0] is not stale[0]
    assert registry.get_instance("Alpha") is fresh[0]
    assert samples.built == ["Alpha", "Alpha"]


def test_a_clear_by_the_constructor_itself(make: Any, samples: Any) -> None:
    """The same, in one thread."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    instance = registry.get_instance("Alpha")
    assert type(instance) is samples.Alpha
    assert registry.stats().cached == 0
    assert registry.stats().builds == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through_and_a_waiter_takes_over(
    make: Any, samples: Any, interrupt: type[BaseException]
) -> None:
    """It belongs to the thread that was interrupted, and is not remembered."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def interrupted(_: Any) -> None:
        if not entered.is_set():
            entered.set()
            assert go.wait(PATIENCE)
            raise interrupt

    samples.script["Alpha"] = interrupted
    first = Crowd([lambda: registry.get_instance("Alpha")])
    assert entered.wait(PATIENCE)
    others = Crowd([lambda: registry.get_instance("Alpha")] * 3)
    until(lambda: registry.stats().waits == 3)
    go.set()
    assert type(first.join()[0]) is interrupt
    results = others.join()
    assert len({id(result) for result in results}) == 1
    assert type(results[0]) is samples.Alpha
    assert samples.built == ["Alpha", "Alpha"]
    assert registry.stats().failed_class_names == ()


def test_a_build_that_ended_just_before_the_take_off_is_taken(make: Any, samples: Any) -> None:
    """Between a miss and its build another thread may have built: it is not done twice."""
    registry = make()
    builder = registry._builder
    lead = builder._lead

    def late(flight: Any, registry: Any) -> Any:
        builder._lead = lead
        del builder._flights["Alpha"]
        registry.get_instance("Alpha")
        builder._flights["Alpha"] = flight
        return lead(flight, registry)

    builder._lead = late
    registry.get_instance("Alpha")
    assert samples.built == ["Alpha"]
    assert registry.stats().misses == 2
