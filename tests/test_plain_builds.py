"""
Builds that only call a class: `PlainBuilds` makes them, and the builder makes all others.

What a build may involve is in other tests, most of which run through both. These compare the two,
and check that each is taken where it has to be.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from threads import Gate, in_thread, until

from warmset.testing.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Callable

# Without an interpreter lock the builder makes all.
has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
needs_lock = pytest.mark.skipif(not has_lock, reason="the builder makes all of them")


@pytest.fixture
def by_builder(monkeypatch: pytest.MonkeyPatch, ws: Any) -> list[str]:
    """The names of what the builder was to build."""
    builder = type(ws.MethodRegistry({}).builder)
    obtain = builder.obtain
    names: list[str] = []

    def noted(self: Any, constructor: Any, class_name: str, holder: Any) -> Any:
        names.append(class_name)
        return obtain(self, constructor, class_name, holder)

    monkeypatch.setattr(builder, "obtain", noted)
    return names


@pytest.fixture(params=["plain", "general"])
def registry_of(request: Any, make: Any) -> Callable[..., Any]:
    """Makes registries whose builds are plain, or made by the builder."""

    def make_one(*args: Any, **options: Any) -> Any:
        registry = make(*args, **options)
        if request.param == "general":
            registry.plain_builds = None
        return registry

    return make_one


WAYS: dict[str, Callable[[Any], Any]] = {
    "get_instance": lambda registry: registry.get_instance("Alpha"),
    "get_method": lambda registry: registry.get_method("Alpha", "echo").__self__,
    "use": lambda registry: registry.use("Alpha").__enter__(),
}


@needs_lock
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["path", "class"])
def test_a_class_is_called(make: Any, samples: Any, by_builder: Any, way: str, target: str) -> None:
    registry = make({"Alpha": "samples.Alpha" if target == "path" else samples.Alpha})
    instance = WAYS[way](registry)
    assert type(instance) is samples.Alpha
    assert registry.get_instance("Alpha") is instance
    assert samples.built == ["Alpha"]
    stats = registry.stats()
    assert (stats.builds, stats.misses, stats.hits, stats.cached) == (1, 1, 1, 1)
    assert by_builder == []


def _with_rule(registry: Any) -> None:
    registry.register_instantiation_rule("Alpha", lambda cls: cls())


def _with_listener(registry: Any) -> None:
    registry.add_build_listener(lambda event: None)


def _with_hook(registry: Any) -> None:
    registry._instantiate_class = lambda name, cls: cls()


def _with_recycling(registry: Any) -> None:
    registry.register("Alpha", "samples.Alpha", recycle_after_uses=3)


def _with_factory(registry: Any) -> None:
    import samples

    registry.register("Alpha", lambda: samples.Alpha())


INVOLVED = [_with_rule, _with_listener, _with_hook, _with_recycling, _with_factory]


@pytest.mark.parametrize("involve", INVOLVED)
def test_the_builder_makes_what_involves_more(
    make: Any, samples: Any, by_builder: Any, involve: Any
) -> None:
    registry = make()
    involve(registry)
    assert type(registry.get_instance("Alpha")) is samples.Alpha
    assert by_builder == ["Alpha"]


class Given:
    """Has what it was called with."""

    def __init__(self, *args: int, size: int = 0, **more: Any) -> None:
        self.given = args, size, more


OPTIONS: list[tuple[dict[str, Any], Any]] = [
    ({"args": (1, 2)}, ((1, 2), 0, {})),
    ({"kwargs": {"size": 3}}, ((), 3, {})),
    ({"args": [1], "kwargs": {"size": 3, "name": "a"}}, ((1,), 3, {"name": "a"})),
    ({"pin": True, "cache_ttl_seconds": 5.0, "after_fork": "drop"}, ((), 0, {})),
    ({"closer": "".join(["au", "to"])}, ((), 0, {})),
    ({"closer": None, "kwargs": {"size": 3}}, ((), 3, {})),
]


@needs_lock
@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_that_no_capability_serves(
    registry_of: Any, by_builder: Any, options: Any, expected: Any, request: Any
) -> None:
    registry = registry_of({})
    registry.register("Given", Given, **options)
    for _ in range(2):
        instance = registry.get_instance("Given")
        assert instance.given == expected
        reference = weakref.ref(instance)
        del instance
        registry.discard("Given")
        assert reference() is None
    stats = registry.stats()
    assert (stats.builds, stats.states["nothing_to_close"]) == (2, 2)
    plain = "plain" in request.node.callspec.id
    assert by_builder == ([] if plain else ["Given", "Given"])


def test_keyword_arguments_are_copied(registry_of: Any) -> None:
    """A class that changes them changes those of one build."""

    class Changing:
        def __init__(self, **given: Any) -> None:
            assert given.pop("size") == 3

    registry = registry_of({})
    registry.register("Changing", Changing, kwargs={"size": 3})
    for _ in range(2):
        registry.get_instance("Changing")
        registry.clear_cache()
    assert registry.stats().builds == 2


def test_a_closer_of_the_options_closes(registry_of: Any) -> None:
    closed: list[Any] = []
    registry = registry_of({})
    registry.register("Given", Given, kwargs={"size": 3}, closer=closed.append)
    with registry.use("Given") as instance:
        pass
    registry.clear_cache()
    assert closed == [instance]
    assert registry.stats().states["closed"] == 1


@pytest.mark.parametrize("path", [True, False])
def test_arguments_that_do_not_fit(
    registry_of: Any, ws: Any, samples: Any, monkeypatch: pytest.MonkeyPatch, path: bool
) -> None:
    """The error shows the signature, and the nearest name."""

    class Strict:
        def __init__(self, *, size: int, fails: bool = False) -> None:
            raise TypeError("of its own")

    monkeypatch.setattr(samples, "Strict", Strict, raising=False)
    registry = registry_of({"Strict": "samples.Strict"})
    registry.register("Strict", "samples.Strict", kwargs={"siz": 3})
    with pytest.raises(ws.BuildError, match=r"Strict\(\*, size.*did you mean 'size'") as caught:
        registry.get_instance("Strict")
    assert type(caught.value.__cause__) is TypeError
    registry.register("Strict", "samples.Strict" if path else Strict, kwargs={"size": 3})
    with pytest.raises(ws.BuildError, match="raised TypeError: of its own"):
        registry.get_instance("Strict")


@pytest.mark.parametrize(
    "settings",
    [{"block_when_full": True}, {"policy": "cost"}, {"max_cache_bytes": 10**9}, {"plan": True}],
)
def test_what_settings_ask_for_is_done(make: Any, samples: Any, settings: Any) -> None:
    registry = make(max_cache_size=2, **settings)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    stats = registry.stats()
    assert (stats.builds, stats.cached) == (3, 2)


def test_a_class_that_asks_for_another_one(registry_of: Any, samples: Any, by_builder: Any) -> None:
    """The inner build knows the outer one."""
    registry = registry_of()
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    registry.get_instance("Alpha")
    assert samples.built == ["Alpha", "Beta"]
    assert "Beta" in by_builder


def test_a_cycle(registry_of: Any, ws: Any, samples: Any) -> None:
    registry = registry_of()
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    samples.script["Beta"] = lambda _: registry.get_instance("Alpha")
    with pytest.raises(ws.CycleError) as caught:
        registry.get_instance("Alpha")
    assert caught.value.chain == ("Alpha", "Beta", "Alpha")
    assert registry.stats().failed_builds == 2


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), StopIteration(), None])
def test_a_class_that_fails(registry_of: Any, ws: Any, samples: Any, error: Any) -> None:
    """It raises, counts, logs and remembers the same."""

    class Failing:
        def __new__(cls) -> Any:
            if error is not None:
                raise error
            return None

    registry = registry_of({"Failing": Failing})
    expected = SystemExit if isinstance(error, SystemExit) else ws.BuildError
    with pytest.raises(expected) as caught:
        registry.get_instance("Failing")
    with pytest.raises(ws.BuildError) as again:
        registry.get_instance("Failing")
    text = "returned None" if error is None else type(error).__name__
    assert text in str(again.value)
    if expected is ws.BuildError:
        assert str(again.value) == str(caught.value)
        assert type(again.value.__cause__) is type(caught.value.__cause__)
    stats = registry.stats()
    assert (stats.builds, stats.failed_builds, stats.failed_class_names) == (0, 1, ("Failing",))
    check_structure(registry)


def test_others_wait_for_it(registry_of: Any, samples: Any) -> None:
    registry = registry_of()
    gate = samples.script["Alpha"] = Gate()
    first = in_thread(lambda: registry.get_instance("Alpha"))
    gate.wait()
    others = [in_thread(lambda: registry.get_instance("Alpha")) for _ in range(3)]
    until(lambda: registry.builder.waiting() == 3)
    assert registry.builder.in_progress()[0][0] == "Alpha"
    gate.open()
    instances = {id(each.outcome()) for each in (first, *others)}
    assert len(instances) == 1
    assert samples.built == ["Alpha"]
    assert registry.stats().waits == 3


def test_what_is_cleared_meanwhile_is_not_cached(registry_of: Any, samples: Any) -> None:
    registry = registry_of()
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    instance = registry.get_instance("Alpha")
    assert registry.stats().cached == 0
    del samples.script["Alpha"]
    assert registry.get_instance("Alpha") is not instance


def test_a_registry_that_is_closed_meanwhile(registry_of: Any, ws: Any, samples: Any) -> None:
    registry = registry_of()
    samples.script["Alpha"] = lambda _: registry.close()
    assert type(registry.get_instance("Alpha")) is samples.Alpha
    with pytest.raises(ws.ClosedError):
        registry.get_instance("Beta")


def test_it_evicts_for_itself(registry_of: Any, samples: Any) -> None:
    registry = registry_of(max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        with registry.use(name):
            pass
    assert samples.closed == ["Alpha", "Beta"]
    assert registry.stats().evictions == 2


def test_it_is_logged(registry_of: Any, samples: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "warmset.builds")
    registry_of().get_instance("Alpha")
    assert [record.class_name for record in caplog.records] == ["Alpha"]


def test_a_patched_class_is_found(
    make: Any, samples: Any, monkeypatch: pytest.MonkeyPatch, by_builder: Any
) -> None:
    """The path means what its module has at the time of the build."""
    registry = make()
    registry.get_instance("Alpha")
    monkeypatch.setattr(samples, "Alpha", samples.Beta)
    registry.clear_cache()
    assert type(registry.get_instance("Alpha")) is samples.Beta
    monkeypatch.setattr(samples, "Alpha", 3)
    registry.clear_cache()
    with pytest.raises(Exception, match="Alpha"):
        registry.get_instance("Alpha")
    assert by_builder[-1] == "Alpha"


def test_what_a_registry_closed_is_not_returned_again(registry_of: Any, ws: Any) -> None:
    class Single:
        made: Any = None

        def __new__(cls) -> Any:
            cls.made = cls.made or super().__new__(cls)
            return cls.made

        def close(self) -> None:
            pass

    registry = registry_of({"Single": Single})
    with registry.use("Single"):
        pass
    registry.discard("Single")
    assert registry.stats().states["closed"] == 1
    with pytest.raises(ws.BuildError, match="closed"):
        registry.get_instance("Single")


def test_nothing_keeps_the_instance(registry_of: Any) -> None:
    """Neither the record of the build nor a frame."""

    class Plain:
        pass

    registry = registry_of({"Plain": Plain})
    reference = weakref.ref(registry.get_instance("Plain"))
    registry.clear_cache()
    assert reference() is None
    assert registry.stats().states["nothing_to_close"] == 1


def test_threads_that_build_at_once(registry_of: Any, samples: Any) -> None:
    """Many threads, few names, removals in between: the accounts balance."""
    registry = registry_of(max_cache_size=2)
    names = ("Alpha", "Beta", "Gamma", "Delta")
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for turn in range(200):
            with registry.use(names[turn % 4]) as instance:
                assert not instance.is_closed
            if turn % 50 == 0:
                registry.clear_cache()

    for each in [in_thread(work) for _ in range(4)]:
        each.outcome()
    check_structure(registry)
    stats = registry.stats()
    assert stats.builds == len(samples.built) == stats.cached + len(samples.closed)
