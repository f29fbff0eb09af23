"""Every line here must pass under strict type checking."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from typing_extensions import assert_type

from warmset import FamilyKey, Handle, Lease, MethodExecutor, MethodRegistry
from warmset.aio import AsyncMethodExecutor
from warmset.families import Family


class Tagger:
    def __init__(self, model: str = "small") -> None:
        self.model = model

    def tag(self, text: str, *, limit: int = 3) -> list[str]:
        return [text][:limit]


class Model:
    def __init__(self, language: str) -> None:
        self.language = language


registry = MethodRegistry({"Tagger": "pkg.nlp.Tagger"}, max_cache_size=3)
registry.register(Tagger, kwargs={"model": "large"}, pin=True)
registry.register("other", Tagger, priority=2)
registry.register("path", "pkg.nlp.Tagger")

assert_type(registry.get_instance(Tagger), Tagger)
assert_type(registry.get_instance("Tagger"), Any)
with registry.use(Tagger) as tagger:
    assert_type(tagger, Tagger)
assert_type(registry.use(Tagger), Lease[Tagger])
assert_type(registry.use("Tagger"), Lease[Any])

handle = registry.bind(Tagger.tag)
assert_type(handle("text"), list[str])
assert_type(handle("text", limit=2), list[str])
by_name: Handle[..., Any] = registry.bind("Tagger", "tag")
by_class: Handle[..., Any] = registry.bind(Tagger, "tag")

registry.pin(Tagger)
registry.discard(Tagger)
registry.has_method(Tagger, "tag")
assert_type(Tagger in registry, bool)
MethodExecutor(method_registry=registry).execute("Tagger", "tag", text="a")


@registry.provider
def connection() -> Iterator[Tagger]:
    yield Tagger()


@registry.provider("scorer", pin=True)
class Scorer:
    def score(self) -> float:
        return 1.0


assert_type(Scorer().score(), float)


def load(key: int) -> Model:
    return Model(str(key))


def generate(key: str) -> Iterator[Model]:
    yield Model(key)


async def load_later(key: str) -> Model:
    return Model(key)


async def generate_later(key: str) -> AsyncIterator[Model]:
    yield Model(key)


assert_type(registry.family("Model", Model), Family[str, Model])
assert_type(registry.family("ByNumber", load, max_cache_size=3), Family[int, Model])
assert_type(registry.family("Generated", generate), Family[str, Model])
assert_type(registry.family("Later", load_later), Family[str, Model])
assert_type(registry.family("GeneratedLater", generate_later), Family[str, Model])
assert_type(registry.family("ByPath", "pkg.nlp.Model"), Family[Any, Any])

models = registry.family("Model", Model)
assert_type(models.get("fr"), Model)
with models.use("fr") as model:
    assert_type(model, Model)
assert_type(list(models), list[str])

executor = MethodExecutor(method_registry=registry)
executor.execute(models.key("fr"), "predict", text="a")
executor.execute(Tagger, "tag", text="a")
executor.has_method(Tagger, "tag")
assert_type(models.key("fr"), FamilyKey)
assert_type(registry.get_instance(FamilyKey("Model", ("fr", 1))), Any)
registry.explain(models.key("fr"))
registry.warm_up([Tagger, "Scorer", models.key("fr")])


async def serve() -> None:
    async with AsyncMethodExecutor(registry) as shared:
        assert_type(await shared.get_instance(Tagger), Tagger)
        async with shared.use(Tagger) as tagger:
            assert_type(tagger, Tagger)
        async with shared.use(models.key("fr")) as model:
            assert_type(model, Any)
        await shared.execute(Tagger, "tag", text="a")
