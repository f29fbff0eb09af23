"""The search for referrers leaves nothing behind, and tells running functions from ended ones."""

from __future__ import annotations

import gc
import importlib
import sys
import weakref
from typing import Any

import pytest
from threads import Gate, in_thread


class Model:
    """Can be referred to weakly."""


@pytest.fixture
def registry(make: Any) -> Any:
    """Three classes, and leaks are tracked."""
    registry = make({})
    for name in "ABC":
        registry.register(name, Model)
    registry.release_memory()
    return registry


def referrers(report: Any) -> dict[str, list[str]]:
    """Class name -> the paths to its survivor."""
    return {each["class_name"]: each["referrers"] for each in report["survivors"]}


def cleared(registry: Any) -> dict[str, list[str]]:
    """Remove everything; the paths to what is alive."""
    return referrers(registry.clear_cache(release=True)["release"])


@pytest.mark.referrers
def test_each_leak_is_reported_without_the_search_itself(registry: Any) -> None:
    """The second and the third, too; and again in the next report."""
    mine = [registry.get_instance(name) for name in "ABC"]
    for paths in (cleared(registry), cleared(registry)):
        for number, name in enumerate("ABC"):
            (path,) = paths[name]
            assert path.startswith("the local variable mine of ")
            assert path.endswith(f"[{number}]")
    del mine
    assert cleared(registry) == {}


@pytest.mark.referrers
def test_variables_that_are_deleted_afterwards_are_free(registry: Any) -> None:
    """Those of the caller, of its callers, and of other threads."""
    gate = Gate()
    seen: list[weakref.ref[Any]] = []

    def other() -> list[bool]:
        theirs = Model()
        mine = weakref.ref(theirs)
        gate()
        del theirs
        return [mine() is None]

    def caller() -> None:
        outer = Model()
        seen.append(weakref.ref(outer))

        def callee() -> None:
            inner = Model()
            seen.append(weakref.ref(inner))
            leak = registry.get_instance("A")
            assert cleared(registry)["A"]
            del inner, leak

        callee()
        del outer
        assert [reference() for reference in seen] == [None, None]

    running = in_thread(other)
    gate.wait()
    caller()
    gate.open()
    assert running.result() == [True]
    assert cleared(registry) == {}


@pytest.mark.referrers
def test_what_locals_returned_stays_as_it_is(registry: Any) -> None:
    """The search does not empty a dict that somebody has."""
    number = 1
    mine = locals()
    leak = registry.get_instance("A")
    assert cleared(registry)["A"]
    assert mine["number"] == number
    assert leak is not None


@pytest.mark.referrers
def test_a_method_that_has_ended(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps its variables is named: the last error of an interactive session."""

    def method(instance: Any) -> None:
        raise ValueError(type(instance).__name__)

    try:
        method(registry.get_instance("A"))
    except ValueError as error:
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    gc.unfreeze()  # the suite excludes the modules from the search
    try:
        (path,) = cleared(registry)["A"]
    finally:
        gc.freeze()
    assert path.startswith("sys.last_value.__traceback__")
    assert "the local variable instance of" in path
    assert path.endswith("which has ended")


@pytest.mark.referrers
def test_a_method_that_runs(registry: Any) -> None:
    """It is a root, and its thread is named."""
    gate = Gate()
    running = in_thread(lambda model: gate(), registry.get_instance("A"), name="at work")
    gate.wait()
    paths = cleared(registry)["A"]
    gate.open()
    running.result()
    assert any("the local variable model of" in path and "in at work" in path for path in paths)
    assert not any("which has ended" in path for path in paths)


@pytest.mark.referrers
def test_a_search_leaves_no_cycle(registry: Any) -> None:
    """What it found is freed with its last reference, and not by the collector."""
    search = importlib.import_module("warmset.memory.referrers").ReferrerSearch()
    holder = [Model()]
    gone = weakref.ref(holder[0])
    gc.disable()
    try:
        assert search.paths_to(holder[0])
        holder.clear()
        assert gone() is None
    finally:
        gc.enable()
