"""Tasks of one asynchronous rule that ask for the same classes are no cycle."""

from __future__ import annotations

import asyncio
import importlib
import itertools
from typing import Any

import pytest
from loops import run


@pytest.fixture
def registry(make: Any) -> Any:
    """A registry of the sample classes that remembers no failure."""
    return make(retry_after_seconds=0)


@pytest.fixture
def executor(ws: Any, registry: Any) -> Any:
    return importlib.import_module("warmset.aio").AsyncMethodExecutor(method_registry=registry)


NEEDS = {
    "diamond": {"Alpha": ("Beta", "Gamma"), "Beta": ("Delta",), "Gamma": ("Delta",)},
    "one above the other": {"Alpha": ("Beta", "Gamma"), "Beta": ("Gamma",), "Gamma": ("Delta",)},
    "all": {"Alpha": ("Beta", "Gamma", "Delta"), "Beta": ("Gamma", "Delta"), "Gamma": ("Delta",)},
    "twice": {"Alpha": ("Beta", "Beta"), "Beta": ("Gamma", "Gamma")},
}


@pytest.mark.parametrize("is_last_sync", [False, True])
@pytest.mark.parametrize("needs", NEEDS)
def test_tasks_that_ask_for_the_same(
    executor: Any, registry: Any, samples: Any, needs: str, is_last_sync: bool
) -> None:
    """In whichever order they ask; each class is built once."""

    def rule(names: tuple[str, ...]) -> Any:
        async def awaiting(cls: type) -> Any:
            await asyncio.sleep(0)
            made = cls()
            made.parts = await asyncio.gather(*[executor.get_instance(name) for name in names])
            return made

        return awaiting

    classes = sorted({"Alpha", *itertools.chain(*NEEDS[needs].values())})
    for order in itertools.permutations(classes):
        registry.clear_cache()
        samples.built.clear()
        for name in classes:
            if name != classes[-1] or not is_last_sync:
                registry.register_instantiation_rule(name, rule(NEEDS[needs].get(name, ())))

        async def main(order: tuple[str, ...] = order) -> None:
            await asyncio.wait_for(
                asyncio.gather(*[executor.get_instance(name) for name in order]), 30
            )
            await executor.clear_instance_cache()

        run(main())
        assert sorted(samples.built) == classes


def test_a_cycle_among_such_tasks_is_found(ws: Any, executor: Any, registry: Any) -> None:
    """One of two tasks closes it."""

    async def alpha(_: type) -> Any:
        return await asyncio.gather(
            executor.get_instance("Delta"), executor.get_instance("Beta"), return_exceptions=True
        )

    async def beta(_: type) -> Any:
        return [await executor.get_instance("Alpha")]

    registry.register_instantiation_rule("Alpha", alpha)
    registry.register_instantiation_rule("Beta", beta)

    async def main() -> None:
        delta, error = await asyncio.wait_for(executor.get_instance("Alpha"), 30)
        assert type(delta).__name__ == "Delta"
        assert isinstance(error, ws.CycleError)
        assert error.chain == ("Alpha", "Beta", "Alpha")

    run(main())
