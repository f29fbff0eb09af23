"""The private names that the pipeline's own code and tests use."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any
from unittest.mock import Mock, patch

import pytest
from threads import until

from warmset.testing.structure import eviction_order

PATHS = {"TestClass": "tests.fixtures.TestClass"}


def entry(ws: Any, ago: float = 0.0, count: int = 1) -> Any:
    """An entry that was used some seconds ago."""
    then = time.time() - ago
    return ws.CacheEntry(instance=Mock(), created_at=then, last_accessed=then, access_count=count)


# -- CacheEntry ------------------------------------------------------------------------------------


def test_an_entry_is_a_value(ws: Any) -> None:
    """Made by position or by name, compared by its fields."""
    instance = object()
    made = ws.CacheEntry(instance, 1.0, 2.0)
    assert (made.instance, made.created_at, made.last_accessed) == (instance, 1.0, 2.0)
    assert made.access_count == 0
    assert made == ws.CacheEntry(
        instance=instance, created_at=1.0, last_accessed=2.0, access_count=0
    )
    assert made != ws.CacheEntry(instance, 1.0, 3.0)
    assert made != 3
    assert "access_count=0" in repr(made)


def test_an_entry_expires_by_its_last_use(ws: Any) -> None:
    """It never expires with a TTL of 0."""
    old = entry(ws, ago=10)
    assert old.is_expired(5.0) is True
    assert old.is_expired(15.0) is False
    assert old.is_expired(0.0) is False
    assert old.is_expired(-1.0) is False


def test_touch_counts_a_use(ws: Any) -> None:
    """At the present time."""
    old = entry(ws, ago=10, count=0)
    before = old.last_accessed
    old.touch()
    assert old.access_count == 1
    assert old.last_accessed > before


# -- _cache ----------------------------------------------------------------------------------------


def test_a_written_entry_takes_part_in_everything(ws: Any, make: Any) -> None:
    """In hits, statistics, recency and clears; also under a name that has no path."""
    registry = make({})
    registry._cache["Class1"] = entry(ws, ago=3, count=5)
    assert registry.get_instance("Class1") is registry._cache["Class1"].instance
    assert registry._cache["Class1"].access_count == 6
    stats = registry.get_stats()
    assert stats["total_classes_registered"] == 0
    assert stats["cached_instances"] == 1
    assert stats["cache_entries"][0]["class_name"] == "Class1"
    assert registry.clear_cache()["entries_cleared"] == 1
    with pytest.raises(ws.UnknownClassError):
        registry.get_instance("Class1")
    assert "Class1" not in registry


def test_evict_expired_evicts_written_entries(ws: Any) -> None:
    """By the system's clock, as in the pipeline's test."""
    registry = ws.MethodRegistry(class_paths={}, cache_ttl_seconds=50.0)
    registry._cache["Class1"] = entry(ws, ago=100.0)
    registry._cache["Class2"] = entry(ws, ago=10.0)
    assert registry.evict_expired() == 1
    assert "Class1" not in registry._cache
    assert "Class2" in registry._cache
    assert registry._evictions == 1


def test_writing_does_not_evict_but_evict_if_full_does(ws: Any, make: Any) -> None:
    """Down to the bound, the least recently used first, in any order of writing."""
    registry = make({}, cache_ttl_seconds=0.0, max_cache_size=2)
    registry._cache["Class2"] = entry(ws, ago=2)
    registry._cache["Class1"] = entry(ws, ago=3)
    registry._evict_if_full()
    assert len(registry._cache) == 2
    registry._cache["Class3"] = entry(ws)
    assert len(registry._cache) == 3
    assert eviction_order(registry) == ["Class1", "Class2", "Class3"]
    registry._evict_if_full()
    assert set(registry._cache) == {"Class2", "Class3"}
    assert registry._evictions == 1


def test_the_next_build_evicts_written_entries(ws: Any, make: Any) -> None:
    """However many exceed the bound."""
    registry = make(max_cache_size=2)
    for i in range(5):
        registry._cache[f"Class{i}"] = entry(ws, ago=10 - i)
    registry.get_instance("Alpha")
    assert eviction_order(registry) == ["Class4", "Alpha"]


def test_the_mapping_behaves_as_a_dict(ws: Any, make: Any) -> None:
    """Read, written, deleted from, counted, tested with `in`, iterated, popped, cleared."""
    registry = make({})
    cache = registry._cache
    first = entry(ws)
    cache["A"] = first
    cache.update({"B": entry(ws), "C": entry(ws)})
    assert set(cache) == set(cache.keys()) == {"A", "B", "C"}
    assert cache["A"] == first
    assert cache.get("A").instance is first.instance
    assert cache.get("D") is None
    assert {name: e.access_count for name, e in cache.items()} == {"A": 1, "B": 1, "C": 1}
    del cache["A"]
    assert "A" not in cache
    assert 3 not in cache
    for missing in (lambda: cache["A"], lambda: cache.pop("A"), lambda: cache.__delitem__("A")):
        with pytest.raises(KeyError):
            missing()
    cache.pop("B")
    cache.clear()
    assert len(cache) == 0
    assert registry._evictions == 0, "what the caller removes is no eviction"
    with pytest.raises(TypeError, match="takes a CacheEntry"):
        cache["A"] = Mock()


def test_iteration_is_in_build_order_with_written_entries_between(ws: Any, make: Any) -> None:
    """No two entries have the same serial number, built or written."""
    registry = make()
    registry.get_instance("Delta")
    registry._cache["Gamma"] = entry(ws)
    registry._cache["Written"] = entry(ws)
    registry.get_instance("Alpha")
    assert list(registry._cache) == ["Delta", "Gamma", "Written", "Alpha"]


def test_overwriting_an_entry_replaces_the_instance(ws: Any, make: Any) -> None:
    """The old one is dropped."""
    registry = make()
    gone = weakref.ref(registry.get_instance("Alpha"))
    registry._cache["Alpha"] = entry(ws)
    assert gone() is None
    assert len(registry._cache) == 1
    assert registry.stats().as_dict()["removals"]["replaced"] == 1


def test_an_entry_that_was_read_is_live(make: Any, timer: Any, samples: Any) -> None:
    """It has the values of later uses, and assignments to it take effect."""
    registry = make(cache_ttl_seconds=10)
    registry.get_instance("Alpha")
    seen = registry._cache["Alpha"]
    assert seen.access_count == 1
    registry.get_instance("Alpha")
    assert seen.access_count == 2
    registry.get_instance("Beta")
    seen.last_accessed -= 5
    assert eviction_order(registry) == ["Alpha", "Beta"]
    timer.advance(6)
    registry.get_instance("Beta")
    assert registry.evict_expired() == 1
    assert eviction_order(registry) == ["Beta"]
    last = seen.last_accessed
    registry.get_instance("Alpha")
    assert seen.last_accessed == last, "it keeps its last values"
    assert seen.access_count == 2


def test_assigning_a_time_changes_the_eviction_order(make: Any) -> None:
    """Towards both ends."""
    registry = make(cache_ttl_seconds=0)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    registry._cache["Beta"].last_accessed -= 10
    registry._cache["Alpha"].last_accessed -= 5
    assert eviction_order(registry) == ["Beta", "Alpha", "Gamma"]
    registry._cache["Beta"].touch()
    assert eviction_order(registry)[-1] == "Beta"
    registry._cache["Beta"].created_at -= 100
    assert registry._cache["Beta"].access_count == 2
    assert registry.get_stats()["cache_entries"][0]["age_seconds"] >= 100


def test_an_entry_written_during_a_build_stays(ws: Any, make: Any, samples: Any) -> None:
    """The result of the build does not replace it."""
    registry = make()
    written = entry(ws)

    def write(_: Any) -> None:
        registry._cache["Alpha"] = written

    samples.script["Alpha"] = write
    assert type(registry.get_instance("Alpha")) is samples.Alpha
    assert registry.get_instance("Alpha") is written.instance


# -- _weakref_cache --------------------------------------------------------------------------------


def test_weak_references_are_in_their_own_mapping(make: Any) -> None:
    """Dead ones included, until they are looked up or cleared."""
    registry = make(enable_weakref=True)
    alpha = registry.get_instance("Alpha")
    assert "Alpha" in registry._weakref_cache
    assert "Alpha" not in registry._cache
    assert registry._weakref_cache["Alpha"]() is alpha
    registry._weakref_cache["Class1"] = weakref.ref(Mock())
    gc.collect()
    assert len(registry._weakref_cache) == 2
    assert registry._weakref_cache["Class1"]() is None
    del registry._weakref_cache["Alpha"]
    with pytest.raises(KeyError):
        registry._weakref_cache["Alpha"]
    assert registry.clear_cache()["weakrefs_cleared"] == 1
    assert len(registry._weakref_cache) == 0
    with pytest.raises(TypeError, match=r"takes a weakref\.ref"):
        registry._weakref_cache["Alpha"] = alpha
    kept = Mock()
    registry._weakref_cache["Beta"] = weakref.ref(kept)
    assert registry.get_instance("Beta") is kept


# -- the hooks -------------------------------------------------------------------------------------


def test_hooks_replaced_on_the_instance(ws: Any) -> None:
    """As in the pipeline's tests, without a TTL."""
    registry = ws.MethodRegistry(class_paths=PATHS, cache_ttl_seconds=0.0)
    made = Mock()
    with (
        patch.object(registry, "_load_class") as load,
        patch.object(registry, "_instantiate_class", return_value=made) as instantiate,
    ):
        assert registry._get_instance("TestClass") is made
        assert (registry._cache_misses, registry._cache_hits) == (1, 0)
        assert registry._get_instance("TestClass") is made
        assert (registry._cache_misses, registry._cache_hits) == (1, 1)
        load.assert_called_once_with("TestClass")
        instantiate.assert_called_once_with("TestClass", load.return_value)


def test_a_replaced_loader_may_know_names_without_a_path(ws: Any) -> None:
    """The registry passes such names to the loader."""
    registry = ws.MethodRegistry(class_paths={})
    with patch.object(registry, "_load_class", return_value=Mock):
        assert isinstance(registry._get_instance("Anything"), Mock)
    with pytest.raises(ws.UnknownClassError):
        registry._get_instance("Other")


def test_hooks_overridden_in_a_subclass(ws: Any, samples: Any) -> None:
    """They may call the original ones."""

    class Mine(ws.MethodRegistry):  # type: ignore[misc, name-defined]
        def _instantiate_class(self, class_name: str, cls: type) -> Any:
            return [super()._instantiate_class(class_name, cls)]

    registry = Mine({"Alpha": "samples.Alpha"})
    assert type(registry.get_instance("Alpha")[0]) is samples.Alpha


def test_the_original_hooks(ws: Any, make: Any, samples: Any) -> None:
    """They load, and build by rule or constructor."""
    registry = make()
    assert registry._load_class("Alpha") is samples.Alpha
    assert type(registry._instantiate_class("Alpha", samples.Alpha)) is samples.Alpha
    registry._special_instantiation["Alpha"] = lambda cls: (cls, "special")
    assert registry._instantiate_class("Alpha", samples.Alpha) == (samples.Alpha, "special")
    assert registry.get_instance("Alpha") == (samples.Alpha, "special")
    with pytest.raises(ws.UnknownClassError):
        registry._load_class("Nobody")


def test_one_build_for_ten_threads_with_a_replaced_hook(ws: Any) -> None:
    """As in the pipeline's test."""
    registry = ws.MethodRegistry(class_paths=PATHS, cache_ttl_seconds=0.0)
    made, calls, go = Mock(), [], threading.Event()

    def instantiate(class_name: str, cls: type) -> Any:
        calls.append(class_name)
        go.wait(10)
        return made

    results: list[Any] = []
    with (
        patch.object(registry, "_load_class"),
        patch.object(registry, "_instantiate_class", side_effect=instantiate),
    ):
        threads = [
            threading.Thread(target=lambda: results.append(registry._get_instance("TestClass")))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join()
    assert calls == ["TestClass"]
    assert results == [made] * 10


# -- paths, failures, counters ---------------------------------------------------------------------


def test_class_paths_is_a_live_mapping(ws: Any, make: Any, samples: Any) -> None:
    """Writing to it registers a class."""
    registry = make()
    paths = registry._class_paths
    assert dict(paths)["Alpha"] == "samples.Alpha"
    paths["New"] = "samples.Beta"
    assert type(registry.get_instance("New")) is samples.Beta
    del paths["New"]
    assert "New" not in registry
    assert len(paths) == 4
    with pytest.raises(KeyError):
        paths["New"]
    with pytest.raises(KeyError):
        del paths["New"]
    with pytest.raises(ws.ClassPathError):
        paths["New"] = "NoDot"


def test_failed_classes_is_a_live_set(ws: Any, make: Any) -> None:
    """A name that is added fails at once; one that is removed is tried again."""
    registry = make({"Alpha": "samples.Alpha", "Broken": "samples.Broken"})
    assert registry._failed_classes == set()
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    assert "Broken" in registry._failed_classes
    registry._failed_classes.add("Alpha")
    assert registry._failed_classes == {"Alpha", "Broken"}
    with pytest.raises(ws.MethodRegistryError, match="marked as failed"):
        registry.get_instance("Alpha")
    assert not registry.has_method("Alpha", "echo")
    registry._failed_classes.discard("Alpha")
    registry.get_instance("Alpha")
    registry._failed_classes.clear()
    assert len(registry._failed_classes) == 0


def test_counters_are_read_and_assigned(ws: Any, make: Any) -> None:
    """The statistics report the assigned values."""
    registry = make({"TestClass": "tests.fixtures.TestClass"}, max_cache_size=50)
    registry._cache["Class1"] = entry(ws, count=5)
    registry._cache_hits = 10
    registry._cache_misses = 5
    registry._evictions = 2
    registry._total_instantiations = 5
    stats = registry.get_stats()
    assert stats["total_classes_registered"] == 1
    assert stats["cache_hits"] == 10
    assert stats["cache_misses"] == 5
    assert stats["cache_hit_rate"] == 10 / 15
    assert stats["evictions"] == 2
    assert stats["total_instantiations"] == 5
    assert stats["cache_entries"][0]["access_count"] == 5
    cleared = registry.clear_cache()
    assert (cleared["total_hits"], cleared["total_misses"]) == (10, 5)


def test_the_executor_takes_the_pipelines_arguments(ws: Any, make: Any) -> None:
    """It reports metrics under the names that the pipeline's report reads."""
    registry = make()
    executor = ws.MethodExecutor(None, "signals", registry)
    assert executor.signal_registry == "signals"
    assert executor._method_registry is registry
    executor.execute("Alpha", "echo")
    metrics = executor.get_routing_metrics()
    assert metrics["default_routes_hit"] == metrics["total_routes"] == 1
    assert metrics["special_routes_hit"] == 0
    assert metrics["special_route_hit_rate"] == 0.0


def test_the_set_of_failed_classes_takes_part_in_set_operations(make: Any) -> None:
    """Their results are sets."""
    registry = make()
    registry._failed_classes.add("Alpha")
    assert registry._failed_classes & {"Alpha", "Beta"} == {"Alpha"}
    assert registry._failed_classes | {"Beta"} == {"Alpha", "Beta"}
    assert registry._failed_classes - {"Alpha"} == set()


def test_assigning_an_instance_to_a_live_entry(ws: Any, make: Any) -> None:
    """It replaces the cached one."""
    registry = make()
    registry.get_instance("Alpha")
    entry = registry._cache["Alpha"]
    other = object()
    entry.instance = other
    assert registry.get_instance("Alpha") is other
    for nonsense in (-1, 2.5, "3"):
        with pytest.raises(ValueError, match="access_count must be an int of 0 or more"):
            entry.access_count = nonsense


def test_unknown_names_make_no_slot_with_a_replaced_loader(ws: Any, make: Any) -> None:
    """However many unknown names are looked up."""
    registry = make({})

    def load(class_name: str) -> type:
        if class_name != "Known":
            raise KeyError(class_name)
        return dict

    registry._load_class = load
    for i in range(5):
        with pytest.raises(ws.MethodRegistryError):
            registry.get_instance(f"junk {i}")
    assert list(registry.slots) == []
    assert registry.has_method("Known", "get")
    assert registry.get_instance("Known") == {}


# -- limits that are assigned ----------------------------------------------------------------------


def test_an_assigned_ttl_takes_effect(make: Any, timer: Any) -> None:
    """For what is warm already, for classes that are registered later, and in the statistics."""
    registry = make(cache_ttl_seconds=300.0)
    registry.register("Beta", "samples.Beta", cache_ttl_seconds=1000.0)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    assert registry._cache_ttl_seconds == 300.0
    registry._cache_ttl_seconds = 10
    assert (registry._cache_ttl_seconds, registry.get_stats()["cache_ttl_seconds"]) == (10.0, 10.0)
    registry.register("Late", "samples.Gamma")
    registry.register("Aged", "samples.Delta", max_age_seconds=500.0)
    registry.get_instance("Late")
    registry.get_instance("Aged")
    timer.advance(11.0)
    assert registry.evict_expired() == 3
    assert list(registry._cache) == ["Beta"]
    registry._cache_ttl_seconds = 0
    registry.get_instance("Late")
    timer.advance(900.0)
    assert registry.evict_expired() == 0
    timer.advance(100.0)
    assert registry.evict_expired() == 1
    assert list(registry._cache) == ["Late"]
    with pytest.raises(ValueError, match="cache_ttl_seconds must be a finite number of seconds"):
        registry._cache_ttl_seconds = -1.0


def test_an_assigned_size_takes_effect(make: Any) -> None:
    """At once: no more than that are cached afterwards."""
    registry = make()
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    registry._max_cache_size = 2
    assert list(registry._cache) == ["Beta", "Gamma"]
    assert (registry._max_cache_size, registry.get_stats()["max_cache_size"]) == (2, 2)
    registry.get_instance("Delta")
    assert list(registry._cache) == ["Gamma", "Delta"]
    assert registry._evictions == 2
    registry._max_cache_size = 3
    registry.get_instance("Alpha")
    assert len(registry._cache) == 3
    with pytest.raises(ValueError, match="max_cache_size must be a whole number, 1 or more"):
        registry._max_cache_size = 0


def test_a_larger_size_lets_a_waiting_build_go_on(make: Any) -> None:
    """With `block_when_full`, a build that waits for capacity gets it."""
    registry = make(max_cache_size=1, block_when_full=True, timer=None)
    found: list[Any] = []
    with registry.use("Alpha"):
        thread = threading.Thread(target=lambda: found.append(registry.get_instance("Beta")))
        thread.start()
        until(lambda: registry.waiting_threads() == 1)
        registry._max_cache_size = 2
        thread.join(10.0)
        assert len(found) == 1
        assert len(registry._cache) == 2
