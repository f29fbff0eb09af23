"""What the memory manager does for classes, it does for the instances of families."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from managers import manager_of

closed: list[Any] = []
HUNDRED = 100


class Model:
    def __init__(self, key: Any) -> None:
        self.key, self.size = key, HUNDRED

    def __call__(self) -> Any:
        return self.key

    def close(self) -> None:
        closed.append(self.key)


def size_of(model: Any) -> int:
    return int(model.size)


@pytest.fixture(autouse=True)
def _forget_closed() -> None:
    closed.clear()


KEYS = ("1", 1, True, ("1",), "(1)", "a" * 100, "a" * 101)  # some looked alike as text


def swept(registry: Any) -> None:
    registry.sweep()
    recycling = manager_of(registry).recycling
    assert recycling is None or recycling.wait(30.0)


@pytest.mark.counts
def test_a_budget_of_bytes_counts_all_keys(make: Any) -> None:
    registry = make({}, max_cache_bytes=3 * HUNDRED, sizer=size_of)
    models = registry.family("Model", Model)
    for key in KEYS:
        models.get(key)
        assert registry.known_bytes <= 3 * HUNDRED
    assert [repr(key) for key in models] == [repr(key) for key in KEYS[-3:]]
    assert registry.stats().bytes == 3 * HUNDRED
    assert closed == list(KEYS[:-3])


def test_a_key_that_exceeds_the_budget_alone_is_evicted(make: Any) -> None:
    registry = make({}, max_cache_bytes=3 * HUNDRED, sizer=size_of)
    models = registry.family("Model", lambda key: Model(key))
    models.get("small")

    class Large(Model):
        def __init__(self, key: Any) -> None:
            super().__init__(key)
            self.size = 10 * HUNDRED

    others = registry.family("Large", Large)
    with others.use("x"):
        assert list(models) == ["small"]  # nothing else is evicted for it
    registry.sweep()
    assert list(others) == []
    assert list(models) == ["small"]


@pytest.mark.parametrize(
    "option", ["recycle_after_uses", "recycle_after_seconds", "recycle_after_growth_bytes"]
)
def test_each_key_is_recycled(make: Any, timer: Any, option: str) -> None:
    limits = {
        "recycle_after_uses": 2,
        "recycle_after_seconds": 10.0,
        "recycle_after_growth_bytes": 1,
    }
    registry = make({}, sizer=size_of)
    models = registry.family("Model", Model, **{option: limits[option]})
    old = [models.get(key) for key in KEYS]
    swept(registry)  # measured
    assert [models.get(key) for key in KEYS] == old
    for model in old:
        model.size += 1
    timer.advance(10.0)
    swept(registry)
    new = [models.get(key) for key in KEYS]
    assert [repr(model.key) for model in new] == [repr(key) for key in KEYS]
    assert not set(map(id, old)) & set(map(id, new))
    assert models.stats().keys == KEYS


def test_a_failed_recycling_is_tried_again_later(make: Any, timer: Any) -> None:
    fails: list[Any] = []

    def load(key: Any) -> Any:
        if key in fails:
            raise OSError(key)
        return Model(key)

    registry = make({}, retry_after_seconds=30.0)
    models = registry.family("Model", load, recycle_after_seconds=10.0)
    old = models.get("fr")
    fails.append("fr")
    timer.advance(10.0)
    swept(registry)
    assert models.get("fr") is old
    fails.clear()
    swept(registry)
    assert models.get("fr") is old
    timer.advance(30.0)
    swept(registry)
    assert models.get("fr") is not old


def test_sizes_and_explanations_are_of_one_key(make: Any) -> None:
    registry = make({"Model[1]": f"{__name__}.Named"}, sizer=size_of, max_cache_size=3)
    models = registry.family("Model", Model)
    registry.get_instance("Model[1]")
    models.get(1).size = 1
    models.get("1").size = 2
    assert registry.measure("Model[1]").bytes == HUNDRED
    assert registry.measure(models.key(1)).bytes == 1
    assert registry.measure(models.key("1")).bytes == 2
    for rank, key in enumerate(["Model[1]", models.key(1), models.key("1")], 1):
        assert registry.explain(key).eviction_rank == rank
    assert registry.explain(models.key(1)).bytes == 1
    models.discard("1")
    assert "the cache was cleared" not in str(registry.explain(models.key("1")))
    assert "it was discarded" in str(registry.explain(models.key("1")))
    assert registry.explain(models.key("never")).state == "cold"
    assert registry.explain(models.key(1)).state == "warm"


class Named(Model):
    def __init__(self) -> None:
        super().__init__("named")


def test_priorities_and_policies(make: Any) -> None:
    registry = make({"Named": f"{__name__}.Named"}, max_cache_size=3, policy="cost")
    low = registry.family("Low", Model, priority=-1)
    registry.get_instance("Named")
    for key in KEYS:
        low.get(key)
    assert registry.cached <= 3
    assert "Named" in [entry.name for entry in registry.warm_entries()]


def test_an_adaptive_ttl_is_of_one_key(make: Any, timer: Any) -> None:
    registry = make({}, adaptive_ttl=True, adaptive_ttl_min_seconds=1.0)
    models = registry.family("Model", Model)
    for _ in range(5):
        for key in ("1", 1):
            models.get(key)
            models.get(key)
        timer.advance(1.0)
        models.get(1)
        registry.clear_cache()
    models.get(1)
    models.get("1")
    limits = {key.key: slot.idle_limit for key, slot in models._record.slots.items()}
    assert limits["1"] != limits[1]


def test_a_pinned_key_stays(make: Any) -> None:
    registry = make({})
    models = registry.family("Model", Model, max_cache_size=2)
    models.get("pinned")
    registry.pin(models.key("pinned"))
    for key in range(5):
        models.get(key)
    assert list(models) == ["pinned", 4]


def test_warming_up_keys_and_classes(make: Any) -> None:
    registry = make({})
    registry.register(Named)
    models = registry.family("Model", Model)
    wanted = [models.key("1"), Named, models.key(1), models.key(("fr", 1))]
    report = registry.warm_up(wanted, workers=1)
    assert [name for name, _ in report.built] == ["Model['1']", "Named", "Model[1]", "Model[fr, 1]"]
    assert set(registry.warm_up(wanted).warm) == set(map(str, ("Named", *wanted[:1], *wanted[2:])))
    assert list(models) == ["1", 1, ("fr", 1)]


TEXTS = [
    "fr",
    1,
    "1",
    True,
    "True",
    (),
    ("fr", 1),
    (1,),
    ("a", ("b", "c, d")),
    "it's",
    'a "b"',
    "a\\n",
]
TEXTS += ["\n", " x", "", -3, ((),), ((1,), "2"), "a b", "user@host", 10**20, ("1", "-1", -1)]


@pytest.mark.parametrize("key", TEXTS, ids=repr)
def test_a_key_is_found_by_its_text(ws: Any, key: Any) -> None:
    from warmset.memory.key_texts import key_named

    wanted = ws.FamilyKey("Model", key)
    assert key_named(["Mod", "Model"], str(wanted)) == wanted
    assert key_named(["Mod"], str(wanted)) is None


@pytest.mark.parametrize(
    "text", ["Model", "Model[", "Model[a", "Model[(]", "Model[a,b]", "Model['a]"]
)
def test_other_texts_are_no_keys(ws: Any, text: str) -> None:
    from warmset.memory.key_texts import key_named

    assert key_named(["Model"], text) is None


def test_a_profile_warms_keys_up(make: Any, tmp_path: Any, ws: Any) -> None:
    def used(registry: Any) -> Any:
        return registry.family("Model", Model)

    registry = make({"Named": f"{__name__}.Named"})
    recorder = registry.record_profile()
    for key in ("fr", "1", 1, ("de", 1), "x" * 100):
        for _ in range(2):
            used(registry).get(key)
    registry.get_instance("Named")
    recorder.profile().save(tmp_path / "profile.json")
    other = make({"Named": f"{__name__}.Named"})
    models = used(other)
    from warmset.memory.profiles import Profile

    report = other.warm_up(Profile.load(tmp_path / "profile.json"))
    assert sorted(map(repr, models)) == sorted(map(repr, ("fr", "1", 1, ("de", 1))))
    assert len(report.built) == 5
    assert len(report.skipped) == 1  # the long key, which its text does not tell


def test_a_recording_of_keys_without_number_is_bounded(make: Any, monkeypatch: Any) -> None:
    registry = make({"Named": f"{__name__}.Named"})
    models = registry.family("Model", Model, max_cache_size=5)
    recorder = registry.record_profile()
    recording = sys.modules[type(recorder).__module__]
    monkeypatch.setattr(recording, "_MOST_NAMES", 50)
    registry.get_instance("Named")
    for _ in range(10):
        models.get("often")
    for key in range(500):
        models.get(key)
        models.get("often")
    found = recorder.profile().classes
    assert len(found) <= 51
    assert {"Named", "Model[often]"} <= found.keys()
