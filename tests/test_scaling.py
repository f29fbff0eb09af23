"""What an operation costs does not grow with what is cached: counted in lines that are run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, MANY = 64, 512
MARGIN = 1.5


class Kept:
    """Something refers to each of its instances."""

    everything: ClassVar[list[Any]] = []

    def __init__(self, key: Any = None) -> None:
        self.everything.append(self)
        self.closings = 0

    def close(self) -> None:
        self.closings += 1


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    Kept.everything.clear()


def _itself(instance: Kept) -> Kept:
    return instance


def lines_of(work: Callable[[], Any]) -> int:
    """Return how many lines a call runs; each turn of a loop counts."""
    lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def assert_flat(few: float, many: float) -> None:
    assert few * MARGIN > many > 0, (few, many)


def filled(make: Any, count: int) -> Any:
    registry = make({}, max_cache_size=count)
    for number in range(count):
        registry.register(f"K{number}", Kept)
        registry.get_instance(f"K{number}")
    return registry


def test_clearing_instances_that_others_refer_to(make: Any) -> None:
    costs = []
    for count in (FEW, MANY):
        registry = filled(make, count)
        costs.append(lines_of(registry.clear_cache) / count)
    assert_flat(*costs)


def test_evicting_an_instance_that_others_refer_to(make: Any) -> None:
    costs = []
    for count in (FEW, MANY):
        registry = filled(make, count)
        for number in range(2 * count):
            registry.register(f"L{number}", Kept)
        names = [f"L{number}" for number in range(2 * count)]
        costs.append(lines_of(lambda r=registry, n=names: [*map(r.get_instance, n)]) / len(names))
    assert_flat(*costs)


def test_a_miss_of_a_family_at_its_bound(make: Any) -> None:
    costs = []
    for count in (FEW, MANY):
        family = make({}, max_cache_size=2 * count).family("Model", Kept, max_cache_size=count)
        for key in range(count):
            family.get((str(key), key))
        keys = [(str(key), key) for key in range(count, 3 * count)]
        costs.append(lines_of(lambda f=family, k=keys: [*map(f.get, k)]) / len(keys))
        assert len(list(family)) == count
    assert_flat(*costs)


def test_an_instance_of_two_names_is_closed_by_the_last_one(make: Any) -> None:
    registry = make({}, max_cache_size=MANY)
    shared = [Kept() for _ in range(2 * FEW)]
    for number, instance in enumerate(shared):
        for name in ("a", "b"):
            registry.register(
                f"{name}{number}", lambda each=instance: each, close_when_removed=True
            )
    for number in range(FEW):
        registry.get_instance(f"a{number}")
        registry.get_instance(f"b{number}")
    for number, instance in enumerate(shared):
        if number >= FEW:  # built after the others were searched
            registry.get_instance(f"a{number}")
            registry.get_instance(f"b{number}")
        registry.discard(f"a{number}")
        assert instance.closings == 0
        registry.discard(f"b{number}")
        assert instance.closings == 1
