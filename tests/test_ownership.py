"""Each instance is closed once, by the closer of the class that built it, and not used again."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest


class Shared:
    """A client of which there is one."""

    def __init__(self) -> None:
        self.closings = 0

    def close(self) -> None:
        self.closings += 1


class Slotted:
    """Has no weak references."""

    __slots__ = ("closings",)

    def __init__(self) -> None:
        self.closings = 0

    def close(self) -> None:
        self.closings += 1


def removals() -> list[Any]:
    """Ways to replace or remove a class while its instance is held."""
    return [
        pytest.param(lambda r, new: r.register("A", Shared, closer=new), id="same class"),
        pytest.param(lambda r, new: r.register("A", Slotted, closer=new), id="other class"),
        pytest.param(lambda r, new: r.register("A", Slotted, closer=None), id="no closer"),
        pytest.param(lambda r, new: (r.unregister("A"), r.register("A", Slotted)), id="anew"),
        pytest.param(lambda r, new: r.unregister("A"), id="unregistered"),
    ]


@pytest.mark.parametrize("register", removals())
def test_the_closer_is_the_one_of_the_class_that_built(make: Any, register: Any) -> None:
    """A registration that comes later does not count for what was built before."""
    registry = make({})
    old: list[Any] = []
    new: list[Any] = []
    registry.register("A", Shared, closer=old.append)
    with registry.use("A") as instance:
        register(registry, new.append)
        assert old == []
    registry.clear_cache()
    assert old == [instance]
    assert new == []
    assert registry.stats().closed == 1


@pytest.mark.parametrize("way", ["rule", "factory", "path"])
def test_a_closed_instance_is_not_returned_again(ws: Any, make: Any, way: str) -> None:
    """The error tells what to do; with closer=None it works."""
    shared = Shared()
    registry = make({}, retry_after_seconds=0.0)
    target = (lambda: shared) if way != "rule" else Shared
    registry.register("A", target)
    if way == "rule":
        registry.register_instantiation_rule("A", lambda cls: shared)
    with registry.use("A"):
        pass
    registry.discard("A")
    assert shared.closings == 1
    for look_up in (registry.get_instance, lambda name: registry.use(name).__enter__()):
        with pytest.raises(ws.errors.BuildError, match=r"closed when it was removed.*closer=None"):
            look_up("A")
    assert shared.closings == 1
    registry.register("A", target, closer=None)
    if way == "rule":
        registry.register_instantiation_rule("A", lambda cls: shared)
    other = Shared()
    shared = other
    for _ in range(2):
        with registry.use("A") as instance:
            assert instance is other
        registry.discard("A")
    assert other.closings == 0


def test_an_instance_of_two_classes_is_closed_once(make: Any) -> None:
    """By the first that is removed; the other one counts as nothing to close."""
    shared = Shared()
    registry = make({})
    for name in "AB":
        registry.register(name, lambda: shared)
        with registry.use(name):
            pass
    registry.clear_cache()
    assert shared.closings == 1
    stats = registry.stats()
    assert (stats.closed, stats.states["nothing_to_close"]) == (1, 1)


def test_what_was_closed_is_not_kept(make: Any) -> None:
    """Neither the instance nor a record of it, once it is gone."""
    registry = make({})
    mine: list[Any] = []
    registry.register("A", lambda: mine[-1])
    for _ in range(5):
        mine.append(Shared())
        with registry.use("A"):
            pass
        registry.discard("A")
    assert len(registry.closed_instances.by_id) == 5
    gone = [weakref.ref(instance) for instance in mine]
    mine.clear()
    gc.collect()
    assert {reference() for reference in gone} == {None}
    assert len(registry.closed_instances.by_id) == 0


def test_another_instance_at_the_same_address(make: Any) -> None:
    """It is not mistaken for the one that was closed."""
    registry = make({})
    made = Shared()
    registry.register("A", lambda: made)
    known = registry.closed_instances.by_id
    known[id(made)] = weakref.ref(Shared)  # as if that had been closed at this address
    assert registry.get_instance("A") is made
    known[id(made)] = weakref.ref(Shared())  # one that is gone
    registry.discard("A")
    assert registry.get_instance("A") is made


def test_without_weak_references_it_cannot_be_known(make: Any) -> None:
    """As for a connection of sqlite3."""
    shared = Slotted()
    registry = make({})
    registry.register("A", lambda: shared)
    for count in (1, 2):
        with registry.use("A"):
            pass
        registry.discard("A")
        assert shared.closings == count


def test_a_name_of_a_subclass_of_str(make: Any, samples: Any) -> None:
    """It is the same name everywhere, and its methods are not called."""

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    registry = make()
    assert Name("Alpha") in registry
    assert Name("Nobody") not in registry
    assert 3 not in registry
    assert registry.get_instance(Name("Alpha")) is registry.get_instance("Alpha")


def test_the_cache_is_listed_in_build_order(make: Any, samples: Any, timer: Any) -> None:
    """Whatever was used since, or registered first."""
    registry = make()
    for name in ("Gamma", "Alpha", "Beta"):
        registry.get_instance(name)
        timer.advance(1)
    registry.get_instance("Gamma")
    assert list(registry._cache) == ["Gamma", "Alpha", "Beta"]
    registry.discard("Alpha")
    registry.get_instance("Alpha")
    assert list(registry._cache) == ["Gamma", "Beta", "Alpha"]
    assert registry.recycle("Gamma")
    assert list(registry._cache) == ["Beta", "Alpha", "Gamma"]


WAYS_TO_HAVE_IT = ["cached", "leased", "leased and removed"]


@pytest.mark.parametrize("way", WAYS_TO_HAVE_IT)
def test_an_instance_of_two_names_is_closed_with_the_last_one(make: Any, way: str) -> None:
    """Not while the other name has it."""
    closed: list[str] = []

    class Shared:
        def close(self) -> None:
            closed.append("closed")

    shared = Shared()
    registry = make()
    for name in ("Alpha", "Beta"):
        registry.register(name, lambda: shared, close_when_removed=True)
    with registry.use("Alpha") as first, registry.use("Beta") as second:
        assert first is second
    lease = registry.use("Beta")
    if way != "cached":
        lease.__enter__()
    if way == "leased and removed":
        registry.discard("Beta")
    registry.discard("Alpha")
    assert closed == []
    if way != "cached":
        lease.__exit__(None, None, None)
    registry.discard("Beta")
    assert closed == ["closed"]
    states = registry.stats().states
    assert (states["closed"], states["nothing_to_close"]) == (1, 1)


def test_a_clear_closes_an_instance_of_two_names_once(make: Any) -> None:
    """Whichever of its entries is closed first."""
    closed: list[str] = []

    class Shared:
        def close(self) -> None:
            closed.append("closed")

    shared = Shared()
    registry = make()
    for name in ("Alpha", "Beta"):
        registry.register(name, lambda: shared, close_when_removed=True)
        with registry.use(name):
            pass
    registry.clear_cache()
    assert closed == ["closed"]
