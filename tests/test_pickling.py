"""Copies of registries, handles and executors: the same, or an error that says what to do."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import travelling


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def by_old_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, 2))


COPIES = (by_pickle, by_old_pickle, copy.copy, copy.deepcopy)


@pytest.fixture
def registry(ws: Any) -> Any:
    """A registry with everything that travels."""
    registry = ws.MethodRegistry({"C": "travelling.Classifier"}, 5.0, max_cache_size=7)
    registry.register_instantiation_rule("C", travelling.load_trained, version="2")
    registry.register(
        "Options",
        travelling.make_classifier,
        args=("by factory",),
        kwargs={"scale": 2},
        closer=travelling.close,
        pin=True,
        cache_ttl_seconds=9.0,
    )
    registry.register(travelling.Classifier)
    registry.pin("C")
    registry.inject_method("Virtual", "double", travelling.double)
    registry.register_instantiation_rule("Later", travelling.load_trained)
    return registry


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.counts
def test_a_copy_builds_the_same(registry: Any, copied: Any) -> None:
    """It has settings, targets, options, rules, injected methods and pins, and no instances."""
    registry.get_instance("C")
    registry.get_instance("Options")
    other = copied(registry)
    assert type(other) is type(registry)
    assert other.settings == registry.settings
    assert other.class_names() == registry.class_names()
    assert (other.stats().cached, other.stats().lookups) == (0, 0)
    assert other.get_instance("C").predict() == "trained"
    assert other.get_instance("Classifier").predict() == "random"
    assert other.get_method("Virtual", "double")(2) == 4
    assert other.classes.rule_versions["C"][1] == "2"
    assert other.pinned() == ["C", "Options"]
    options = other.slots["Options"].options
    assert (options.cache_ttl_seconds, options.closer) == (9.0, travelling.close)
    made = other.get_instance("Options")
    assert made.predict() == "by factoryby factory"
    del made
    other.clear_cache()
    assert other.stats().closed == 1
    other.register("Later", "travelling.Classifier")
    assert other.get_instance("Later").predict() == "trained"
    assert registry.get_instance("C") is not other.get_instance("C")


@pytest.mark.parametrize("copied", COPIES)
def test_handles_and_executors_take_their_registry_along(
    ws: Any, registry: Any, copied: Any
) -> None:
    """And their own settings."""
    assert copied(registry.bind("C", "predict"))() == "trained"
    assert copied(registry.bind("Virtual", "double"))(4) == 8
    executor = ws.MethodExecutor(method_registry=registry, arguments="names")
    other = copied(executor)
    assert type(other) is type(executor)
    assert other.execute("C", "predict") == "trained"
    assert (other.arguments, other.degraded_mode) == ("names", False)
    aio = importlib.import_module("warmset.aio").AsyncMethodExecutor(
        method_registry=registry, max_threads=2, arguments="off"
    )
    other = copied(aio)
    assert other.sync.execute("C", "predict") == "trained"
    assert (other.arguments, other.max_threads) == ("off", 2)


@pytest.mark.parametrize("copied", COPIES)
def test_a_rule_that_refers_to_its_registry(ws: Any, copied: Any) -> None:
    """The copy's rule refers to the copy, except in a shallow one."""
    registry = ws.MethodRegistry({"C": "travelling.Classifier", "Shared": "travelling.Classifier"})
    registry.register_instantiation_rule("C", travelling.Owner(registry).build)
    registry.register_instantiation_rule("Shared", travelling.load_trained)
    other = copied(registry)
    assert other.get_instance("C").predict() == "trained"
    owner = other.classes.rules["C"].__self__
    assert owner.registry is (registry if copied is copy.copy else other)
    assert registry.stats().builds == (1 if copied is copy.copy else 0)


def break_rule(registry: Any) -> None:
    registry.register_instantiation_rule("C", lambda cls: cls())


def break_closer(registry: Any) -> None:
    registry.register("C", "travelling.Classifier", closer=lambda instance: None)


def break_target(registry: Any) -> None:
    registry.register("C", lambda: travelling.Classifier())


def break_kwargs(registry: Any) -> None:
    registry.register("C", travelling.make_classifier, kwargs={"weights": lambda: 1})


def break_injected(registry: Any) -> None:
    registry.inject_method("Virtual", "double", lambda x: 2 * x)


def break_attribute(registry: Any) -> None:
    registry._load_class = lambda class_name: travelling.Classifier


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (break_rule, "the rule of 'C'"),
        (break_closer, "closer of 'C'"),
        (break_target, "the target of 'C'"),
        (break_kwargs, "kwargs of 'C'"),
        (break_injected, "the method injected as Virtual.double"),
        (break_attribute, "the attribute '_load_class' of the registry"),
    ],
)
def test_what_cannot_be_pickled_is_refused(registry: Any, spoil: Any, what: str) -> None:
    """With its name and what to do; copies within the process share it."""
    spoil(registry)
    handle = registry.bind("C", "predict")
    for value in (registry, handle):
        with pytest.raises(pickle.PicklingError) as caught:
            pickle.dumps(value)
        assert str(caught.value).startswith(f"{what} cannot be pickled (")
        assert "define it at the top level of a module" in str(caught.value)
        assert caught.value.__cause__ is not None
    assert copy.copy(registry).class_names() == copy.deepcopy(registry).class_names()
    assert registry.copying == set()


def test_a_setting_that_cannot_be_pickled(ws: Any) -> None:
    """Is named, too."""
    registry = ws.MethodRegistry({}, sizer=lambda instance: 1)
    with pytest.raises(pickle.PicklingError, match="the setting sizer of the registry cannot"):
        pickle.dumps(registry)


@pytest.mark.parametrize("copied", COPIES)
def test_a_closed_registry(ws: Any, registry: Any, copied: Any) -> None:
    """Its copy is closed."""
    registry.close()
    with pytest.raises(ws.ClosedError):
        copied(registry).get_instance("C")


@pytest.mark.parametrize("copied", COPIES)
def test_a_subclass_with_a_constructor_of_its_own(ws: Any, twin: str, copied: Any) -> None:
    """Its constructor is not called, and what it has set is there."""
    module = importlib.reload(travelling)  # its subclass is one of the core under test
    assert issubclass(module.Table, ws.MethodRegistry)
    other = copied(module.Table("x"))
    assert (type(other), other.where, other.label) == (module.Table, "x", "at x")
    assert other.get_instance("C").predict() == "x"


def test_a_lease_is_not_pickled(ws: Any, registry: Any) -> None:
    """Its hold exists in this process only."""
    lease = registry.use("C")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            attempt(lease)


def test_a_worker_process_builds_the_same(registry: Any) -> None:
    """A handle that is sent to a spawned process."""
    handle = registry.bind("C", "predict")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(travelling.call, handle).result(60) == "trained"
