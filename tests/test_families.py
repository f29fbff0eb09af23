"""Families: one factory for many keys."""

from __future__ import annotations

import copy as copy_module
import pickle
import threading
from typing import Any

import pytest
from threads import Gate, in_thread, outcomes

closed: list[Any] = []


class Model:
    def __init__(self, key: Any, size: str = "small") -> None:
        self.key, self.size = key, size

    def predict(self, text: str = "") -> str:
        return f"{self.key}: {text}"

    def stream(self, text: str) -> Any:
        yield from text

    def close(self) -> None:
        closed.append(self.key)


@pytest.fixture(autouse=True)
def _forget_closed() -> None:
    closed.clear()


@pytest.fixture
def models(make: Any) -> Any:
    return make({}).family("Model", Model, max_cache_size=3)


KEYS = ["fr", "", "é\x1b[31m", 1, -5, 2**70, True, ("fr", 1), ("fr", (1, "a")), ()]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_key_has_one_instance(models: Any, key: Any) -> None:
    assert key not in models
    with models.use(key) as model:
        assert model.key == key
        assert type(model.key) is type(key)
        assert models.get(key) is model
        assert key in models
    assert models.bind(key, "predict")("a") == f"{key}: a"
    assert models.get_method(key, "predict")("b") == f"{key}: b"
    assert list(models) == [key]
    assert len(models) == 1
    assert models.discard(key)
    assert not models.discard(key)
    assert key not in models


def test_keys_of_different_types_differ(models: Any, make: Any) -> None:
    models = make({}).family("Model", Model)
    keys = [1, "1", True, (1,), ("1",), (True,), ((1,),)]
    found = [models.get(key) for key in keys]
    assert len({id(model) for model in found}) == len(keys)
    assert [repr(key) for key in models] == [repr(key) for key in keys]


@pytest.mark.parametrize(
    "key", [None, 1.0, b"fr", ["fr"], ("fr", None), type("S", (str,), {})("a")]
)
def test_other_keys_are_refused(models: Any, key: Any) -> None:
    for call in (models.get, models.use, lambda key: models.bind(key, "predict"), models.discard):
        with pytest.raises(TypeError, match="a key of a family must be a str, an int, or a tuple"):
            call(key)
    assert key not in models


def test_what_a_key_is_displayed_as_is_no_name(make: Any, ws: Any) -> None:
    registry = make({"Model[fr]": "samples.Alpha"})
    models = registry.family("Model", Model)
    model = models.get("fr")
    assert model is not registry.get_instance("Model[fr]")
    assert registry.discard("Model[fr]")
    assert models.get("fr") is model
    registry.unregister("Model[fr]")
    with pytest.raises(ws.UnknownClassError):
        registry.get_instance("Model[fr]")
    assert "Model[fr]" not in registry
    assert registry.class_names() == []
    assert len(registry) == 0


def test_names_of_families_and_classes_differ(make: Any) -> None:
    registry = make({"Alpha": "samples.Alpha"})
    with pytest.raises(ValueError, match="'Alpha' is registered as a class"):
        registry.family("Alpha", Model)
    registry.family("Model", Model)
    with pytest.raises(ValueError, match="'Model' is the name of a family"):
        registry.register("Model", "samples.Alpha")


def test_what_is_refused(make: Any, ws: Any) -> None:
    registry = make({})
    with pytest.raises(TypeError, match="do not fit"):
        registry.family("Model", Model, kwargs={"sise": 1})
    with pytest.raises(TypeError, match="has no option 'pin'"):
        registry.family("Model", Model, pin=True)
    with pytest.raises(ValueError, match="max_cache_size of 'Model'"):
        registry.family("Model", Model, max_cache_size=0)
    registry.close()
    with pytest.raises(ws.ClosedError):
        registry.family("Model", Model)


def test_arguments_and_paths(make: Any) -> None:
    registry = make({})
    models = registry.family("Model", Model, kwargs={"size": "large"})
    assert models.get("fr").size == "large"
    by_path = registry.family("Path", f"{__name__}.Model", args=("tiny",))
    assert type(by_path.get("de").key) is str


@pytest.mark.counts
def test_its_bound_counts_within_that_of_the_registry(make: Any) -> None:
    registry = make({"Alpha": "samples.Alpha"}, max_cache_size=4)
    models = registry.family("Model", Model, max_cache_size=2)
    others = registry.family("Other", Model)
    registry.get_instance("Alpha")
    models.get("a")
    models.get("b")
    models.get("a")
    models.get("c")
    assert list(models) == ["a", "c"]
    assert closed == ["b"]
    others.get("x")
    others.get("y")
    assert registry.cached == 4
    assert "Alpha" not in [entry.name for entry in registry.warm_entries()]


def test_the_least_recently_used_key_is_evicted(models: Any, timer: Any) -> None:
    for key in "abcabdaefgaahi":
        models.get(key)
        timer.advance(1.0)
    assert sorted(models) == ["a", "h", "i"]
    models.get("h")
    models.get("a")
    models.get("j")
    assert sorted(models) == ["a", "h", "j"]


def test_held_instances_exceed_the_bound_until_their_release(models: Any) -> None:
    leases = [models.use(key) for key in "abcde"]
    for lease in leases:
        lease.__enter__()
    assert len(models) == 5
    for lease in leases:
        lease.__exit__(None, None, None)
        assert len(models) >= 3
    assert len(models) == 3
    assert sorted(closed) == ["a", "b"]


@pytest.mark.counts
def test_keys_expire(make: Any, timer: Any) -> None:
    models = make({}).family("Model", Model, cache_ttl_seconds=10.0)
    models.get("fr")
    timer.advance(11.0)
    assert models._registry.evict_expired() == 1
    assert list(models) == []
    assert closed == ["fr"]
    models.get("fr")
    timer.advance(11.0)
    models.get("fr")
    assert models.stats().builds == 3


def test_a_key_is_forgotten_with_its_instance(models: Any) -> None:
    registry = models._registry
    slots = len(registry.slots)
    for key in range(2_000):
        models.get(key)
        assert len(registry.slots) <= slots + 3
    models.clear()
    assert len(registry.slots) == slots
    assert registry.cached == 0


def test_failures_are_remembered_and_bounded(make: Any, ws: Any, timer: Any) -> None:
    tried: list[Any] = []

    def load(key: Any) -> Any:
        tried.append(key)
        raise OSError(f"no model {key}")

    registry = make({}, retry_after_seconds=30.0)
    models = registry.family("Model", load)
    for _ in range(3):
        with pytest.raises(ws.BuildError, match=r"'Model\[fr\]'.*no model fr") as caught:
            models.get("fr")
        assert caught.value.class_name == "Model[fr]"
    assert tried == ["fr"]
    assert registry.stats().failed_class_names == ("Model[fr]",)
    timer.advance(31.0)
    with pytest.raises(ws.BuildError):
        models.get("fr")
    assert tried == ["fr", "fr"]
    for key in range(3_000):
        with pytest.raises(ws.BuildError):
            models.get(key)
    assert len(registry.stats().failed_class_names) <= 1_000
    assert len(registry.slots) == 0


def test_one_build_for_all_who_ask_for_a_key(make: Any) -> None:
    gate = Gate()
    built: list[Any] = []

    def load(key: Any) -> Any:
        built.append(key)
        if key == "slow":
            gate()
        return Model(key)

    models = make({}).family("Model", load)
    running = [in_thread(models.get, "slow") for _ in range(3)]
    gate.wait()
    assert models.get("fast").key == "fast"  # another key does not wait
    gate.open()
    found = outcomes(running)
    assert built.count("slow") == 1
    assert len(set(map(id, found))) == 1


def test_a_key_that_needs_itself_is_a_cycle(make: Any, ws: Any) -> None:
    models: Any = None

    def load(key: Any) -> Any:
        return models.get(key if key == "self" else "self")

    models = make({}).family("Model", load)
    with pytest.raises(ws.CycleError) as caught:
        models.get("other")
    assert caught.value.chain == ("Model[self]", "Model[self]")


def test_events_and_statistics_carry_family_and_key(make: Any) -> None:
    registry = make({"Alpha": "samples.Alpha"})
    models = registry.family("Model", Model, max_cache_size=2)
    builds: list[Any] = []
    removals: list[Any] = []
    registry.add_build_listener(builds.append)
    registry.add_listener(removals.append)
    for key in ("fr", ("de", 1), "fr", "it"):
        models.get(key)
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    assert [(each.class_name, each.family, each.key) for each in builds] == [
        ("Model[fr]", "Model", "fr"),
        ("Model[de, 1]", "Model", ("de", 1)),
        ("Model[it]", "Model", "it"),
        ("Alpha", None, None),
    ]
    assert [(each.class_name, each.family, each.key) for each in removals] == [
        ("Model[de, 1]", "Model", ("de", 1)),
        ("Alpha", None, None),
    ]
    (stats,) = registry.stats().families
    assert stats == models.stats()
    assert (stats.name, stats.max_cache_size, stats.keys) == ("Model", 2, ("fr", "it"))
    assert (stats.hits, stats.misses, stats.builds, stats.evictions) == (1, 3, 3, 1)
    assert stats.hit_rate == 0.25
    assert registry.get_stats()["families"]["Model"]["keys"] == ["fr", "it"]
    with models.use("fr"):
        assert [holder.class_name for holder in registry.holders()] == ["Model[fr]"]


def test_a_key_stands_wherever_a_class_name_does(models: Any, ws: Any) -> None:
    registry = models._registry
    key = models.key("fr")
    assert (str(key), key.family, key.key) == ("Model[fr]", "Model", "fr")
    model = registry.get_instance(key)
    assert model is models.get("fr")
    executor = ws.MethodExecutor(method_registry=registry)
    assert executor.execute(key, "predict", text="a") == "fr: a"
    assert list(executor.execute(key, "stream", text="ab")) == ["a", "b"]
    assert registry.has_method(key, "predict")
    assert "Model[fr]" in str(registry.explain(key))
    assert registry.recycle(key)
    assert models.get("fr") is not model
    assert registry.discard(key)
    with pytest.raises(ws.UnknownClassError):
        registry.get_instance(ws.family_keys.FamilyKey("Nothing", "fr"))


def test_warming_up(models: Any, make: Any) -> None:
    assert models.warm_up(["fr", "de"]) == ["fr", "de"]
    assert models.warm_up(range(9)) == [0, 1, 2]

    def load(key: Any) -> Any:
        return Model(1 // key)

    failing = make({}).family("Failing", load)
    assert failing.warm_up([1, 0, 2]) == [1, 2]


@pytest.mark.counts
def test_registering_again_is_the_same_family(models: Any) -> None:
    registry = models._registry
    models.get("fr")
    again = registry.family("Model", Model, max_cache_size=1)
    assert list(again) == ["fr"]

    def load(key: Any) -> Any:
        return [key]

    registry.family("Model", load)
    assert closed == ["fr"]
    assert models.get("fr") == ["fr"]


def test_it_is_pickled_by_its_name_with_its_registry(ws: Any) -> None:
    registry = ws.MethodRegistry({})
    models = registry.family("Model", Model, max_cache_size=2, kwargs={"size": "large"})
    models.get("fr")
    copy = pickle.loads(pickle.dumps(models))
    assert copy.name == "Model"
    assert len(copy) == 0
    assert copy.get("fr").size == "large"
    assert copy.stats().max_cache_size == 2
    handle = pickle.loads(pickle.dumps(models.bind(("fr", 1), "predict")))
    assert handle("a") == "('fr', 1): a"
    for key in (1, "1", ("fr", 1)):
        executor = pickle.loads(pickle.dumps(ws.MethodExecutor(method_registry=registry)))
        assert executor.execute(models.key(key), "predict", text="a") == f"{key}: a"
        for copied in (copy_module.copy(registry), copy_module.deepcopy(registry)):
            assert copied.get_instance(models.key(key)).size == "large"
        assert pickle.loads(pickle.dumps(models.key(key))) == models.key(key)


def test_a_weak_family_forgets_collected_keys(make: Any) -> None:
    import gc

    registry = make({}, enable_weakref=True)
    models = registry.family("Model", Model, closer=None)
    kept = models.get("kept")
    for key in range(1_000):
        models.get(key)
    gc.collect()
    assert len(registry.slots) < 500
    assert models.get("kept") is kept
    assert list(models) == ["kept"]


@pytest.mark.counts
def test_a_dropped_registry_is_not_kept_by_its_families(make: Any) -> None:
    import weakref

    registry = make({})
    registry.family("Model", Model).get("fr")
    gone = weakref.ref(registry)
    del registry
    assert gone() is None
    assert closed == ["fr"]


@pytest.mark.counts
def test_closing_closes_all(models: Any, ws: Any) -> None:
    models.get("fr")
    models.get("de")
    models._registry.close()
    assert sorted(closed) == ["de", "fr"]
    with pytest.raises(ws.ClosedError):
        models.get("fr")


def test_threads_share_a_small_family(models: Any) -> None:
    """More keys than places, under threads: the bound holds and nothing is used after its end."""
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(300):
                key = (seed * 7 + i * 13) % 8
                with models.use(key) as model:
                    assert model.predict("x") == f"{key}: x"
                    assert model.key == key
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(models) <= 3
    stats = models.stats()
    assert stats.hits + stats.misses == 1_200


def test_a_family_of_providers(make: Any) -> None:
    log: list[Any] = []

    def connect(host: str) -> Any:
        yield [host]
        log.append(host)

    connections = make({}).family("Connection", connect, max_cache_size=1)
    with connections.use("a") as connection:
        assert connection == ["a"]
    with connections.use("b"):
        pass
    assert log == ["a"]


def test_asynchronous_factories(make: Any, ws: Any) -> None:
    import asyncio

    from loops import run

    from warmset.aio import AsyncMethodExecutor

    built: list[Any] = []

    async def load(key: str) -> Any:
        built.append(key)
        await asyncio.sleep(0)
        return Model(key)

    models = make({}).family("Model", load, max_cache_size=2)
    with pytest.raises(ws.AsyncRuleError, match=r"'Model\[fr\]'"):
        models.get("fr")  # which does not keep a loop from building it

    async def main() -> None:
        executor = AsyncMethodExecutor(method_registry=models._registry)
        found = await asyncio.gather(*(executor.get_instance(models.key("fr")) for _ in range(3)))
        assert len(set(map(id, found))) == 1
        async with executor.use(models.key("de")) as model:
            assert model.key == "de"
        assert await executor.execute(models.key("fr"), "predict", text="a") == "fr: a"

    run(main())
    assert sorted(set(built)) == ["de", "fr"]


class Client:
    """Belongs to the loop that built it."""

    def __init__(self, key: Any, loop: Any) -> None:
        self.key, self.loop = key, loop

    async def aclose(self) -> None:
        import asyncio

        assert asyncio.get_running_loop() is self.loop
        closed.append(self.key)


@pytest.fixture
def clients(make: Any) -> Any:
    import asyncio

    async def connect(key: Any) -> Any:
        await asyncio.sleep(0)
        return Client(key, asyncio.get_running_loop())

    return make({}).family("Client", connect, max_cache_size=3)


@pytest.mark.counts
def test_an_instance_belongs_to_the_loop_that_built_it(clients: Any, ws: Any) -> None:
    """Each loop has its own, also at the same time; the bound counts all."""
    import asyncio

    from loops import run

    from warmset.aio import AsyncMethodExecutor

    executor = AsyncMethodExecutor(method_registry=clients._registry)

    async def look_up(*keys: Any) -> list[Any]:
        found = [await executor.get_instance(clients.key(key)) for key in keys]
        again = [await executor.get_instance(clients.key(key)) for key in keys]
        assert list(map(id, found)) == list(map(id, again))
        assert all(each.loop is asyncio.get_running_loop() for each in found)
        return found

    async def main() -> None:
        (mine,) = await look_up("fr")
        (other,) = await asyncio.to_thread(run, look_up("fr"))
        assert other is not mine
        assert await look_up("fr") == [mine]
        assert list(clients) == ["fr"]
        assert "fr" in clients
        assert len(clients) == 1
        assert clients.stats().keys == ("fr",)
        with pytest.raises(ws.AsyncRuleError):
            await asyncio.to_thread(clients.get, "fr")
        del mine, other
        assert await executor.discard(clients.key("fr"))
        assert "fr" not in clients
        assert closed == ["fr"]

    run(main())
    assert clients._registry.stats().states["left_open"] == 1  # that of the ended loop


def test_many_keys_of_a_loop_leave_memory_unchanged(clients: Any) -> None:
    from loops import run

    from warmset.aio import AsyncMethodExecutor

    executor = AsyncMethodExecutor(method_registry=clients._registry)

    async def main() -> None:
        closed.clear()
        for key in range(200):
            async with executor.use(clients.key(key)) as client:
                assert client.key == key
            assert clients._registry.cached <= 3
        assert list(clients) == [197, 198, 199]
        assert len(closed) == 197

    run(main())
    run(main())
    loop_slots = clients._registry.classes.loop_slots
    assert len(loop_slots._slots) <= 3
    assert len(loop_slots._loops) <= 2
    assert len(clients._registry.slots) <= 3


ALIKE = ["1", 1, True, "True", ("1",), (1,), "(1,)", "1,", "a, b", ("a", "b"), (("a", "b"),)]
ALIKE += ["", (), "()", " a", "a", "'a'", "-5", -5, 2**70, str(2**70), 2**20_000, 2**20_001]
ALIKE += ["x" * 60, "x" * 99, "x" * 100, ("x" * 50, "y" * 50), ("x" * 50, "y" * 51), "\ud800"]


def test_different_keys_are_displayed_as_different_texts(make: Any) -> None:
    """So each has a row of its own in every report, and in metrics."""
    models = make({}, max_cache_size=1_000).family("Model", Model)
    names = [str(models.key(key)) for key in ALIKE]
    longest = max(names, key=len)
    names.append(str(models.key(longest[len("Model[") : -1])))  # what a long key is displayed as
    assert len(set(names)) == len(ALIKE) + 1
    assert all(name.isprintable() and len(name) <= len("Model[]") + 60 for name in names)
    for key in ALIKE:
        models.get(key)
    stats = models._registry.stats()
    assert len({entry.class_name for entry in stats.entries}) == len(ALIKE)
    assert {entry.slot_key for entry in stats.entries} == set(map(models.key, ALIKE))
