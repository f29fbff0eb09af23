"""Tests of the affinity simulation in `benchmarks`, on a small cluster."""

from __future__ import annotations

import pytest
from benchmarks import batching
from benchmarks.affinity import Result, World, simulate, table, ways

WORLD = World(workers=40, classes=2_000, calls=20_000, lost=2)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {name: simulate(name, way, WORLD) for name, way in ways(WORLD)}


def test_all_strategies_get_the_same_calls(results: dict[str, Result]) -> None:
    assert len({result.called for result in results.values()}) == 1
    assert all(result.builds >= result.called for result in results.values())


def test_affinity_builds_each_class_about_once(results: dict[str, Result]) -> None:
    """Without affinity, a class is built on many workers."""
    ours = results["affinity (warmset)"]
    assert ours.per_class <= 1.5
    assert results["shortest queue"].builds >= 2 * ours.builds
    assert results["random"].builds >= 2 * ours.builds


def test_a_hot_class_does_not_queue_on_one_worker(results: dict[str, Result]) -> None:
    """With hashing alone it does: the calls of the first class exceed what one worker can serve."""
    ours = results["affinity (warmset)"]
    assert results["consistent hashing alone"].p99 >= 3 * ours.p99
    assert ours.p99 <= 2 * results["shortest queue"].p99


def test_the_same_seed_gives_the_same_result(results: dict[str, Result]) -> None:
    name, way = ways(WORLD)[0]
    again = simulate(name, way, WORLD)
    assert again[:-1] == results[name][:-1]  # the last field is measured time
    assert "seed 7" in table([again], WORLD)


def test_batches_spare_the_client() -> None:
    """Fewer messages, and texts and results do not travel through it."""
    load = batching.Load(workers=20, documents=400)
    before, after = batching.one_call_for_each_step(load), batching.chains_and_batches(load)
    assert before.tasks == 400 * len(batching.STEPS)
    assert after.messages <= before.messages / 4
    assert after.megabytes <= before.megabytes / 10
    assert after.seconds <= before.seconds
    assert "20 workers" in batching.table(load)
