"""Each line that ends in a marker must be an error, and no other."""

from __future__ import annotations

from warmset import MethodExecutor, MethodRegistry, RegistrySettings
from warmset.aio import AsyncMethodExecutor


class Tagger:
    def tag(self, text: str) -> list[str]:
        return [text]


registry = MethodRegistry({"Tagger": "pkg.nlp.Tagger"})

registry.get_instance(3)  # error
registry.get_instance(Tagger).tga("a")  # error
registry.get_instance(Tagger).tag(3)  # error
with registry.use(Tagger) as tagger:
    tagger.tag()  # error
number: int = registry.get_instance(Tagger)  # error

handle = registry.bind(Tagger.tag)
handle(3)  # error
handle("text", limit=2)  # error
wrong: int = handle("text")  # error
registry.bind("Tagger")  # error

registry.register("Tagger", Tagger, prioritty=3)  # error
registry.register("Tagger", Tagger, pin="yes")  # error
registry.register("Tagger", Tagger, after_fork="forget")  # error
MethodRegistry({}, max_cach_size=3)  # error
MethodRegistry({}, max_cache_size="3")  # error
MethodRegistry({}, policy="oldest")  # error
RegistrySettings(cache_ttl=3)  # error


def load(key: int) -> Tagger:
    return Tagger()


models = registry.family("Model", load)
models.get("fr")  # error
models.use("fr")  # error
models.get(1).tga("a")  # error
registry.family("Model", load, max_cache_sise=3)  # error
executor = MethodExecutor(method_registry=registry)
executor.execute(3, "tag")  # error


async def serve() -> None:
    async with AsyncMethodExecutor(registry).use(Tagger) as tagger:
        tagger.tga("a")  # error
