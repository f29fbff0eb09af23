"""A small world of the simulation: what its table says of a large one holds there, too."""

from __future__ import annotations

import pytest
from benchmarks.affinity import Result, World, simulate, table, ways

WORLD = World(workers=40, classes=2_000, calls=20_000, lost=2)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {name: simulate(name, way, WORLD) for name, way in ways(WORLD)}


def test_all_have_the_same_calls(results: dict[str, Result]) -> None:
    assert len({result.called for result in results.values()}) == 1
    assert all(result.builds >= result.called for result in results.values())


def test_affinity_builds_little_more_than_once(results: dict[str, Result]) -> None:
    """Without it a class is built on many workers."""
    ours = results["affinity (warmset)"]
    assert ours.per_class <= 1.5
    assert results["shortest queue"].builds >= 2 * ours.builds
    assert results["random"].builds >= 2 * ours.builds


def test_it_does_not_queue_where_a_class_is_hot(results: dict[str, Result]) -> None:
    """As hashing alone does: the first class alone takes more than one worker can do."""
    ours = results["affinity (warmset)"]
    assert results["consistent hashing alone"].p99 >= 3 * ours.p99
    assert ours.p99 <= 2 * results["shortest queue"].p99


def test_the_same_seed_gives_the_same(results: dict[str, Result]) -> None:
    name, way = ways(WORLD)[0]
    again = simulate(name, way, WORLD)
    assert again[:-1] == results[name][:-1]  # but for the time that choosing took
    assert "seed 7" in table([again], WORLD)
