"""Stack distances give the builds of every bound under LRU: exact, or sampled with an error."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmset.planning.fenwick import PrefixSums
from warmset.planning.forecast import LruCurve
from warmset.planning.simulation import LruCache, simulate
from warmset.planning.stack_distances import COLD, distances, sampled_numbers
from warmset.planning.traces import Trace

numbers = st.lists(st.integers(0, 7), max_size=60)
sizes = st.lists(st.integers(0, 5), min_size=8, max_size=8)


def make_trace(used: list[int], weights: list[int] | None = None, step: float = 1.0) -> Trace:
    names = [f"C{number}" for number in range(max(used, default=0) + 8)]
    known = weights or [1] * len(names)
    known += [1] * (len(names) - len(known))
    costs = [float(number + 1) for number in range(len(names))]
    return Trace(names, [(at * step, number) for at, number in enumerate(used)], costs, known)


def brute_force(
    used: list[int],
    weights: list[int],
    *,
    most: float = 1e9,
    most_bytes: float = 1e9,
    ttl: float = 1e9,
) -> tuple[int, float]:
    """Builds and their seconds, by a list of classes that is searched."""
    warm: list[int] = []  # the most recently used last
    last: dict[int, int] = {}
    builds, seconds = 0, 0.0
    for now, number in enumerate(used):
        if number not in warm or now - last[number] > ttl:
            builds += 1
            seconds += number + 1.0
        if number in warm:
            warm.remove(number)
        if weights[number] <= most_bytes:
            warm.append(number)
        last[number] = now
        while len(warm) > most or sum(weights[each] for each in warm) > most_bytes:
            warm.pop(0)
    return builds, seconds


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(-9, 9)), max_size=50), st.integers(0, 20))
def test_prefix_sums(changes: list[tuple[int, int]], end: int) -> None:
    sums, plain = PrefixSums(20), [0] * 20
    for position, amount in changes:
        sums.add(position, amount)
        plain[position] += amount
    assert sums.before(end) == sum(plain[:end])


def test_a_distance_counts_the_class_and_those_used_since() -> None:
    assert list(distances([0, 1, 0, 0, 2, 1])) == [COLD, COLD, 2, 1, COLD, 3]
    assert list(distances([0, 1, 0, 2, 1], [5, 7, 11])) == [COLD, COLD, 12, COLD, 23]
    assert list(distances([])) == []


@settings(max_examples=300)
@given(numbers, st.integers(1, 9), st.sampled_from([1, 3, 10, 1e9]))
def test_places_are_exact(used: list[int], most: int, ttl: float) -> None:
    trace = make_trace(used)
    curve = LruCurve(trace, by_bytes=False, ttl_seconds=ttl)
    assert curve.at(most) == brute_force(used, [1] * 20, most=most, ttl=ttl)


@settings(max_examples=300)
@given(numbers, sizes, st.integers(1, 20), st.sampled_from([2, 5, 1e9]))
def test_bytes_are_exact(used: list[int], weights: list[int], most: int, ttl: float) -> None:
    """Also where a class exceeds the budget alone, and where one has no size."""
    trace = make_trace(used, weights)
    curve = LruCurve(trace, by_bytes=True, ttl_seconds=ttl)
    assert curve.at(most) == brute_force(used, trace.known_sizes, most_bytes=most, ttl=ttl)


@settings(max_examples=200)
@given(numbers, sizes, st.integers(1, 9), st.integers(1, 20), st.sampled_from([2, 1e9]))
def test_the_simulated_cache_is_lru(
    used: list[int], weights: list[int], most: int, most_bytes: int, ttl: float
) -> None:
    trace = make_trace(used, weights)
    limits: dict[str, Any] = {"max_size": most, "max_bytes": most_bytes, "ttl_seconds": ttl}
    result = simulate(trace, LruCache(trace.known_sizes, **limits))
    expected = brute_force(used, trace.known_sizes, most=most, most_bytes=most_bytes, ttl=ttl)
    assert (result.builds, result.build_seconds) == expected
    assert result.peak_bytes <= most_bytes


def test_samples_are_nested_and_halves_are_disjoint() -> None:
    names = [f"Model[{number}]" for number in range(20_000)]
    some, more = sampled_numbers(names, 0.1), sampled_numbers(names, 0.3)
    assert some < more
    assert len(some) == pytest.approx(2_000, rel=0.1)
    one, other = (sampled_numbers(names, 0.3, part=part) for part in (0, 1))
    assert one | other == more
    assert not one & other
    assert len(one) == pytest.approx(len(other), rel=0.1)
    assert sampled_numbers(names, 1.0) == set(range(20_000))


@pytest.mark.parametrize("by_bytes", [False, True])
def test_the_error_of_a_sample_is_small(by_bytes: bool) -> None:
    """A tenth of 10,000 classes gives the builds within 5 %."""
    choose = random.Random(7)
    ranks = [1.0 / rank**0.7 for rank in range(1, 10_001)]
    used = choose.choices(range(10_000), ranks, k=60_000)
    weights = [choose.randint(1, 9) for _ in range(10_008)]
    trace = make_trace(used, weights)
    sample = sampled_numbers(trace.names, 0.1)
    exact = LruCurve(trace, by_bytes=by_bytes)
    sampled = LruCurve(trace, by_bytes=by_bytes, sample=sample)
    for bound in (500, 2_000, 5_000):
        scaled = bound * 5 if by_bytes else bound
        assert sampled.at(scaled)[0] == pytest.approx(exact.at(scaled)[0], rel=0.05)
