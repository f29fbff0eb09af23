"""Several names have one instance, and several threads, or a closer, remove them at once."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from threads import in_thread

from warmset.testing.structure import check_accounts, check_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 150


class Shared:
    """Counts how often it is closed; others can refer to it weakly."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Slotted:
    """As `Shared`; nobody can refer to it weakly, so a registry cannot know that it closed it."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def fast_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(*calls: Callable[[], Any]) -> None:
    """Make each call in a thread of its own, and begin them together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        call()

    for thread in [in_thread(run, call) for call in calls]:
        thread.result()


@pytest.mark.counts
@pytest.mark.usefixtures("fast_switches")
@pytest.mark.parametrize("kind", [Shared, Slotted])
@pytest.mark.parametrize("names", ["AB", "ABCD"])
def test_threads_that_remove_it(make: Any, kind: Any, names: str) -> None:
    """It is closed exactly once, whoever is the last."""
    for _ in range(ROUNDS):
        shared = kind()
        registry = make({name: lambda shared=shared: shared for name in names})
        for name in names:
            with registry.use(name):
                pass
        at_once(*[partial(registry.discard, name) for name in names])
        registry.sweep()
        assert shared.closed == 1
        check_structure(registry)
        states = registry.stats().states
        assert (states["closed"], states["nothing_to_close"]) == (1, len(names) - 1)


@pytest.mark.counts
@pytest.mark.usefixtures("fast_switches")
def test_threads_that_end_its_leases(make: Any) -> None:
    for _ in range(ROUNDS):
        shared = Shared()
        registry = make({name: lambda shared=shared: shared for name in "AB"})
        leases = [registry.use(name) for name in "AB"]
        for lease in leases:
            lease.__enter__()
        registry.clear_cache()
        at_once(*[partial(lease.__exit__, None, None, None) for lease in leases])
        registry.sweep()
        assert shared.closed == 1
        check_accounts(registry)


@pytest.mark.counts
@pytest.mark.parametrize("kind", [Shared, Slotted])
def test_a_closer_that_removes_it_under_another_name(make: Any, kind: Any) -> None:
    shared = kind()
    registry = make({})
    calls: list[str] = []

    def close(instance: Any) -> None:
        calls.append("A")
        registry.register("B", lambda: shared)
        with registry.use("B"):
            pass
        registry.discard("B")

    registry.register("A", lambda: shared, closer=close)
    with registry.use("A"):
        pass
    registry.discard("A")
    assert calls == ["A"]
    assert shared.closed == 0
    check_structure(registry)
    assert sum(registry.stats().states.values()) == 2


@pytest.mark.counts
def test_each_generator_is_resumed(make: Any) -> None:
    """What it does after the yield is its own, whoever else has yielded the instance."""
    shared = object()
    ended: list[str] = []
    registry = make({})

    def provider(name: str) -> Callable[[], Any]:
        def provide() -> Any:
            yield shared
            ended.append(name)

        return provide

    for name in "AB":
        registry.register(name, provider(name))
        with registry.use(name):
            pass
    at_once(*[partial(registry.discard, name) for name in "AB"])
    registry.sweep()
    assert sorted(ended) == ["A", "B"]


@pytest.mark.counts
def test_a_closer_that_is_none_does_not_keep_the_other_one_from_closing(make: Any) -> None:
    shared = Shared()
    registry = make({"B": lambda: shared})
    registry.register("A", lambda: shared, closer=None)
    for name in "AB":
        with registry.use(name):
            pass
    at_once(*[partial(registry.discard, name) for name in "AB"])
    registry.sweep()
    assert shared.closed <= 1
    check_structure(registry)
