"""Look-ups: hits and misses, idle TTL, size bound, weak references, methods, counters."""

from __future__ import annotations

import functools
import gc
from typing import Any, ClassVar

import pytest
from threads import in_threads

from warmset.testing.structure import check_structure, eviction_order


def test_the_first_use_builds_and_later_ones_return_the_same(make: Any, samples: Any) -> None:
    """One build, then hits."""
    registry = make()
    first = registry.get_instance("Alpha")
    assert type(first) is samples.Alpha
    assert registry.get_instance("Alpha") is first
    assert registry.get_instance(class_name="Alpha") is first
    assert samples.built == ["Alpha"]
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.builds) == (2, 1, 1)


def test_a_name_that_is_equal_and_not_the_same_object(make: Any, timer: Any, samples: Any) -> None:
    """It hits, holds, expires and misses as the name that was registered."""
    registry = make(cache_ttl_seconds=10.0)
    name = "".join(["Al", "pha"])
    assert name is not next(iter(registry.slots))
    first = registry.get_instance(name)
    assert registry.get_instance(name) is registry.get_instance("Alpha") is first
    assert registry.get_method(name, "echo").__self__ is first
    with registry.use(name) as held:
        assert held is first
        assert [holder.class_name for holder in registry.holders()] == ["Alpha"]
        timer.advance(20)
        assert registry.get_instance(name) is first
    timer.advance(10.001)
    assert registry.get_instance(name) is not first
    registry.discard(name)
    registry.get_instance(name)
    stats = registry.stats()
    assert (stats.builds, stats.misses, stats.hits) == (3, 3, 5)
    check_structure(registry)


def test_many_names_in_turn_while_others_come_and_go(make: Any) -> None:
    """Each finds its own instance, also where addresses are hints, which displace one another."""
    registry = make({}, max_cache_size=1000)
    used = [f"Used{number}" for number in range(64)]
    for name in used:
        registry.register(name, dict)
    instances = [registry.get_instance(name) for name in used]
    for number in range(600):
        name = f"Other{number}"
        registry.register(name, dict)
        registry.get_instance(name)
        if number % 3:
            registry.unregister(name)
        assert registry.get_instance(used[number % 64]) is instances[number % 64]
    for _ in range(20):
        for name, instance in zip(used, instances, strict=True):
            assert registry.get_instance(name) is instance
    assert registry.stats().builds == 664


@pytest.mark.parametrize(("idle", "evicted"), [(9.999, 0), (10.0, 0), (10.001, 1)])
def test_idle_ttl_counts_from_the_last_use(
    make: Any, timer: Any, samples: Any, idle: float, evicted: int
) -> None:
    """The next look-up evicts an instance that was idle for longer than the TTL."""
    registry = make(cache_ttl_seconds=10.0)
    registry.get_instance("Alpha")
    timer.advance(8)
    registry.get_instance("Alpha")
    timer.advance(idle)
    registry.get_instance("Alpha")
    stats = registry.stats()
    assert stats.evictions == evicted
    assert stats.as_dict()["removals"]["idle"] == evicted
    assert len(samples.built) == 1 + evicted


def test_ttl_of_zero_never_expires(make: Any, timer: Any, samples: Any) -> None:
    """0 switches expiry off."""
    registry = make(cache_ttl_seconds=0)
    registry.get_instance("Alpha")
    timer.advance(1e9)
    registry.get_instance("Alpha")
    assert registry.evict_expired() == 0
    assert samples.built == ["Alpha"]


def test_evict_expired_takes_the_idle_ones_only(make: Any, timer: Any) -> None:
    """From the oldest to the first one that has not expired."""
    registry = make(cache_ttl_seconds=10.0)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
        timer.advance(2)
    registry.get_instance("Alpha")
    timer.advance(9)
    assert registry.evict_expired() == 2
    assert eviction_order(registry) == ["Alpha"]
    assert registry.evict_expired() == 0
    assert registry.stats().evictions == 2


def test_recency_is_the_order_of_use(make: Any, timer: Any) -> None:
    """Each use makes it the last to be evicted, from wherever it stood."""
    registry = make()
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    for name, expected in (
        ("Gamma", ["Alpha", "Beta", "Gamma"]),
        ("Alpha", ["Beta", "Gamma", "Alpha"]),
        ("Gamma", ["Beta", "Alpha", "Gamma"]),
    ):
        registry.get_instance(name)
        assert eviction_order(registry) == expected


def test_the_least_recently_used_is_evicted_when_full(make: Any, samples: Any) -> None:
    """A build evicts for itself, so the bound is never exceeded by one."""
    seen = []
    registry = make(max_cache_size=2)
    samples.script["Gamma"] = lambda _: seen.append(registry.stats().cached)
    for name in ("Alpha", "Beta", "Alpha", "Gamma"):
        registry.get_instance(name)
        assert registry.stats().cached <= 2
    assert eviction_order(registry) == ["Alpha", "Gamma"]
    stats = registry.stats()
    assert stats.evictions == 1
    assert stats.as_dict()["removals"]["size"] == 1
    assert seen == [2], "a build that may fail does not cost a victim before it succeeded"


def test_a_size_of_one_keeps_the_newest(make: Any) -> None:
    """The smallest bound there is."""
    registry = make(max_cache_size=1)
    for name in ("Alpha", "Beta", "Alpha"):
        registry.get_instance(name)
        assert eviction_order(registry) == [name]
    assert registry.stats().evictions == 2


def test_an_evicted_instance_is_dropped_at_once(make: Any, samples: Any) -> None:
    """The registry has no reference to it."""
    import weakref

    registry = make(max_cache_size=1)
    gone = weakref.ref(registry.get_instance("Alpha"))
    registry.get_instance("Beta")
    assert gone() is None


def test_names_of_str_subclasses_are_the_same_names(make: Any) -> None:
    """A subclass is normalised, and none of its methods is called."""

    class Name(str):
        def __hash__(self) -> int:
            raise AssertionError("foreign code in a look-up")

        __eq__ = __hash__  # type: ignore[assignment]
        __str__ = __hash__  # type: ignore[assignment]

    registry = make()
    assert registry.get_instance(Name("Alpha")) is registry.get_instance("Alpha")
    assert registry.get_method(Name("Alpha"), "echo")("x") == "x"
    assert registry.stats().misses == 1


@pytest.mark.parametrize("name", [None, 3, b"Alpha", ("Alpha",), object()])
def test_a_name_that_is_no_string_is_a_type_error(ws: Any, make: Any, name: Any) -> None:
    """It is no unknown class, and nothing is counted."""
    registry = make()
    for call in (
        lambda: registry.get_instance(name),
        lambda: registry.get_method(name, "echo"),
        lambda: registry.use(name),
        lambda: registry.bind(name, "echo"),
        lambda: registry.has_method(name, "echo"),
        lambda: registry.discard(name),
        lambda: ws.MethodExecutor(method_registry=registry).execute(name, "echo"),
    ):
        with pytest.raises(TypeError, match="class name must be a str"):
            call()
    assert registry.stats().lookups == 0


def test_an_empty_name_is_a_value_error(make: Any) -> None:
    """On both cores."""
    with pytest.raises(ValueError, match="non-empty"):
        make().get_instance("")


def test_an_unknown_name_is_a_miss_and_names_the_nearest(ws: Any, make: Any) -> None:
    """hits + misses = look-ups, also if they fail."""
    registry = make()
    with pytest.raises(ws.UnknownClassError, match="'Alpha'") as caught:
        registry.get_instance("Alhpa")
    assert caught.value.suggestions[0] == "Alpha"
    assert (caught.value.class_name, caught.value.stage) == ("Alhpa", "name")
    assert isinstance(caught.value, ws.MethodRegistryError)
    assert isinstance(caught.value, LookupError)
    assert registry.stats().misses == 1


# -- weak references -------------------------------------------------------------------------------


def test_weak_mode_returns_the_instance_while_it_is_referred_to(make: Any, samples: Any) -> None:
    """Its end is counted as an eviction, and the next look-up builds."""
    registry = make(enable_weakref=True)
    instance = registry.get_instance("Alpha")
    assert registry.get_instance("Alpha") is instance
    assert registry.stats().weakly_kept == 1
    assert registry.stats().cached == 0
    del instance
    gc.collect()
    assert registry.stats().weakly_kept == 0
    assert registry.stats().evictions == 0, "reading changes nothing"
    registry.get_instance("Alpha")
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.evictions) == (1, 2, 1)
    assert stats.as_dict()["removals"]["collected"] == 1
    assert samples.built == ["Alpha", "Alpha"]


def test_weak_mode_has_neither_ttl_nor_bound(make: Any, timer: Any) -> None:
    """A weak reference keeps nothing alive, so there is nothing to bound."""
    registry = make(enable_weakref=True, max_cache_size=1, cache_ttl_seconds=1)
    kept = [registry.get_instance(name) for name in ("Alpha", "Beta", "Gamma")]
    timer.advance(100)
    assert registry.get_instance("Alpha") is kept[0]
    assert registry.evict_expired() == 0
    assert registry.stats().weakly_kept == 3


def test_weak_mode_and_classes_without_weak_references(make: Any, timer: Any) -> None:
    """Their instances are kept strongly, with TTL and size bound."""
    registry = make({"Slotted": "samples.Slotted"}, enable_weakref=True, cache_ttl_seconds=10)
    registry.get_instance("Slotted")
    assert registry.stats().cached == 1
    timer.advance(11)
    assert registry.evict_expired() == 1


# -- methods ---------------------------------------------------------------------------------------


def test_get_method_returns_the_bound_method(make: Any) -> None:
    """It is bound to the warm instance."""
    registry = make()
    assert registry.get_method("Alpha", "itself")() is registry.get_instance("Alpha")
    assert registry.get_method(class_name="Alpha", method_name="echo")("x") == "x"


def test_a_missing_method_is_reported_with_its_cause(ws: Any, make: Any) -> None:
    """It is an AttributeError, too."""
    registry = make()
    with pytest.raises(
        ws.MethodNotFoundError, match="of type Alpha, has no method 'tga'"
    ) as caught:
        registry.get_method("Alpha", "tga")
    assert isinstance(caught.value, AttributeError)
    assert isinstance(caught.value.__cause__, AttributeError)
    assert (caught.value.class_name, caught.value.method_name) == ("Alpha", "tga")
    with pytest.raises(ws.MethodNotFoundError, match="label is not callable, it is of type str"):
        registry.get_method("Alpha", "label")


def test_an_injected_method_takes_precedence_and_needs_no_class(
    ws: Any, make: Any, samples: Any
) -> None:
    """It is found first, builds nothing and is no look-up."""
    registry = make()
    registry.inject_method("Virtual", "score", lambda x: x + 1)
    registry.inject_method("Alpha", "echo", lambda text: text.upper())
    assert registry.get_method("Virtual", "score")(1) == 2
    assert registry.get_method("Alpha", "echo")("x") == "X"
    assert registry.has_method("Virtual", "score")
    assert samples.built == []
    assert registry.stats().lookups == 0
    assert registry.stats().methods_injected == 2
    with pytest.raises(ws.UnknownClassError):
        registry.get_method("Virtual", "other")
    with pytest.raises(TypeError, match=r"Alpha\.echo must be callable, got 3"):
        registry.inject_method("Alpha", "echo", 3)


def test_has_method_never_builds(ws: Any, make: Any, samples: Any) -> None:
    """Unknown and failed names have none; a cold class counts if it is imported already."""
    registry = make(
        {"Alpha": "samples.Alpha", "Broken": "samples.Broken", "Far": "not_imported_yet.Far"}
    )
    assert registry.has_method("Alpha", "echo")
    assert not registry.has_method("Alpha", "tga")
    assert not registry.has_method("Alpha", "label")
    assert not registry.has_method("Nobody", "echo")
    assert registry.has_method("Far", "anything"), "nothing is known against it"
    registry.register_instantiation_rule("Alpha", lambda cls: cls())
    assert registry.has_method("Alpha", "tga"), "a rule may build anything"
    assert samples.built == []
    assert registry.stats().lookups == 0
    registry.get_instance("Alpha")
    assert not registry.has_method("Alpha", "tga")
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    assert not registry.has_method("Broken", "fail")


# -- removals --------------------------------------------------------------------------------------


def test_clear_cache_removes_all_and_resets_nothing(make: Any, samples: Any) -> None:
    """It returns the numbers of removed entries and the counters so far."""
    registry = make(max_cache_size=2)
    for name in ("Alpha", "Beta", "Beta", "Gamma"):
        registry.get_instance(name)
    assert registry.clear_cache() == {
        "entries_cleared": 2,
        "weakrefs_cleared": 0,
        "total_hits": 1,
        "total_misses": 3,
        "total_evictions": 1,
        "total_instantiations": 3,
    }
    stats = registry.stats()
    assert stats.cached == 0
    assert stats.evictions == 1, "a clear is a removal, no eviction"
    assert stats.as_dict()["removals"]["cleared"] == 2
    registry.get_instance("Alpha")
    assert samples.built[-1] == "Alpha"


def test_clear_cache_counts_weak_references_separately(make: Any) -> None:
    """Dead ones, too."""
    registry = make(enable_weakref=True)
    kept = registry.get_instance("Alpha")
    registry.get_instance("Beta")
    cleared = registry.clear_cache()
    assert (cleared["entries_cleared"], cleared["weakrefs_cleared"]) == (0, 2)
    assert registry.get_instance("Alpha") is not kept


def test_discard_removes_one(make: Any) -> None:
    """It returns whether there was an instance."""
    registry = make()
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    assert registry.discard("Alpha")
    assert not registry.discard("Alpha")
    assert not registry.discard("Nobody")
    assert eviction_order(registry) == ["Beta"]
    stats = registry.stats()
    assert (stats.evictions, stats.as_dict()["removals"]["discarded"]) == (0, 1)


def test_a_closed_registry_builds_nothing(ws: Any, make: Any) -> None:
    """Every kind of look-up raises, and closing twice does nothing."""
    with make() as registry:
        handle = registry.bind("Alpha", "echo")
        handle("x")
        registry.inject_method("Virtual", "score", len)
    registry.close()
    assert registry.stats().cached == 0
    for call in (
        lambda: registry.get_instance("Alpha"),
        lambda: registry.get_method("Virtual", "score"),
        lambda: handle("x"),
        lambda: registry.use("Alpha").__enter__(),
    ):
        with pytest.raises(ws.ClosedError, match="the registry is closed"):
            call()


# -- registration ----------------------------------------------------------------------------------


def test_registering_another_path_replaces_the_instance(make: Any, samples: Any) -> None:
    """The next look-up builds the new class; the same path changes nothing."""
    registry = make()
    first = registry.get_instance("Alpha")
    registry.register("Alpha", "samples.Alpha")
    assert registry.get_instance("Alpha") is first
    registry.register("Alpha", "samples.Beta")
    assert type(registry.get_instance("Alpha")) is samples.Beta
    assert registry.stats().as_dict()["removals"]["replaced"] == 1
    assert registry.stats().classes_registered == 4


def test_unregistering_forgets_the_name(ws: Any, make: Any) -> None:
    """A handle finds the name again when it is registered anew."""
    registry = make()
    handle = registry.bind("Alpha", "itself")
    first = handle()
    assert "Alpha" in registry
    assert registry.unregister("Alpha")
    assert not registry.unregister("Alpha")
    assert "Alpha" not in registry
    assert len(registry) == 3
    with pytest.raises(ws.UnknownClassError):
        handle()
    registry.register("Alpha", "samples.Alpha")
    assert handle() is not first
    assert registry.class_names()[-1] == "Alpha"


def test_an_empty_registry_is_true(ws: Any) -> None:
    """`registry or default` must not drop it."""
    assert ws.MethodRegistry({})


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("cache_ttl_seconds", -1, ValueError),
        ("cache_ttl_seconds", float("nan"), ValueError),
        ("cache_ttl_seconds", "300", TypeError),
        ("max_cache_size", 0, ValueError),
        ("max_cache_size", 2.5, TypeError),
        ("enable_weakref", 1, TypeError),
        ("retry_after_seconds", -0.1, ValueError),
        ("timer", 3, TypeError),
    ],
)
def test_bad_settings_are_refused_at_construction(
    ws: Any, setting: str, value: Any, error: type[Exception]
) -> None:
    """The setting and the value are named."""
    with pytest.raises(error, match=setting):
        ws.MethodRegistry({}, **{setting: value})


@pytest.mark.parametrize(
    ("paths", "error"),
    [
        ({"A": "NoDot"}, ValueError),
        ({"A": ".relative.A"}, ValueError),
        ({"A": 3}, TypeError),
        ({3: "a.B"}, TypeError),
        ({"": "a.B"}, ValueError),
    ],
)
def test_bad_paths_are_refused_at_construction(ws: Any, paths: Any, error: type[Exception]) -> None:
    """Their shape is checked when they are registered, not at first use."""
    with pytest.raises(error):
        ws.MethodRegistry(paths)


def test_registered_names_are_counted_under_threads(make: Any) -> None:
    """Each change and its count are one step."""
    registry = make({})

    def work() -> None:
        for _ in range(300):
            registry.register("Alpha", "samples.Alpha")
            registry.unregister("Alpha")

    assert in_threads(*[work] * 4) == [None] * 4
    assert len(registry) == len(registry.class_names()) == 0


def test_a_registry_is_initialised_once(make: Any) -> None:
    """A second call of its constructor is refused."""
    registry = make()
    with pytest.raises(RuntimeError, match="initialised already"):
        registry.__init__({})
    check_structure(registry)


def test_has_method_ignores_methods_of_the_metaclass(make: Any) -> None:
    """They are methods of the class, not of its instances."""
    assert not make().has_method("Alpha", "mro")


class Refusing(type):
    """As stand-ins for classes whose backend is missing."""

    def __getattribute__(cls, name: str) -> Any:
        if not name.startswith("_"):
            raise ImportError("needs a backend")
        return super().__getattribute__(name)


class Lazy:
    """Its attributes do more than one expects."""

    __slots__ = ("__dict__", "kept", "label")
    loaded: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.own = len
        self.plain = len
        self.kept = len
        self.label = "text"

    @functools.cached_property
    def model(self) -> Any:
        self.loaded.append("2 GB")
        return len

    @property
    def remote(self) -> Any:
        raise ConnectionError("no server")

    @staticmethod
    def static() -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @functools.singledispatchmethod
    def dispatched(self, source: Any) -> None: ...

    partial = functools.partialmethod(remote)  # type: ignore[arg-type]
    text = "text"


class Bert(metaclass=Refusing):
    """A class that refuses to be looked at."""

    def forward(self) -> None: ...


class Answering:
    """Answers to every name, at a price."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(name)


@pytest.mark.parametrize(
    ("kind", "method", "expected"),
    [
        (Lazy, "model", True),
        (Lazy, "remote", True),
        (Lazy, "static", True),
        (Lazy, "of_class", True),
        (Lazy, "dispatched", True),
        (Lazy, "partial", True),
        (Lazy, "text", False),
        (Lazy, "nothing", False),
        (Bert, "forward", True),
        (Bert, "nothing", False),
        (Answering, "anything", True),
    ],
)
def test_has_method_runs_no_property(
    make: Any, timer: Any, kind: type, method: str, expected: bool
) -> None:
    """Nor anything else of a class or an instance; the answer is the same cold and warm."""
    registry = make({"X": kind})
    Lazy.loaded.clear()
    assert registry.has_method("X", method) is expected
    registry.get_instance("X")
    assert registry.has_method("X", method) is expected
    assert Lazy.loaded == []


def test_has_method_of_a_warm_instance_knows_its_attributes(make: Any) -> None:
    """Those that its constructor has set, also in slots."""
    registry = make({"X": Lazy})
    registry.get_instance("X").text = len
    for method, expected in (("own", True), ("kept", True), ("text", True), ("label", False)):
        assert registry.has_method("X", method) is expected
