"""Tests of the replay of traces: it behaves as a registry, and its lower bound is valid."""

from __future__ import annotations

import hashlib
import math
import sys
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmset.testing import FakeTimer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of the benchmark."""
    if not (ROOT / "benchmarks" / "policies").is_dir():
        pytest.skip("the benchmarks are not here")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.policies import replay, traces

    yield replay, traces
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


class Built:
    """An instance of the size that the trace gives."""

    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_the_replay_builds_what_a_registry_builds(
    ws: Any, timer: Any, replay: Any, policy: str
) -> None:
    """For each request of a part of a trace."""
    module, traces = replay
    trace = next(traces.traces(["drift, related"]))
    requests = list(islice(trace.requests, 1_500))
    trace = trace._replace(requests=requests)
    budget = int(trace.bytes * 0.2)
    from warmset.memory.policies import policy_of

    ours = module.Ours(trace, budget, policy_of(policy))
    registry = ws.MethodRegistry(
        {},
        cache_ttl_seconds=0,
        max_cache_size=10_000,
        max_cache_bytes=budget,
        sizer=lambda instance: instance.size,
        policy=policy,
        timer=timer,
    )
    # Builds have the cost that the trace gives, and take no time on its clock.
    registry.builder.stopwatch = stopwatch = FakeTimer()
    built: list[int] = []

    for number, (seconds, size) in enumerate(zip(trace.build_seconds, trace.sizes, strict=True)):

        def rule(
            cls: type, number: int = number, seconds: float = seconds, size: int = size
        ) -> Any:
            built.append(number)
            stopwatch.advance(seconds)
            return Built(size)

        registry.register(str(number), "builtins.object")
        registry.register_instantiation_rule(str(number), rule)
    begin, expected = timer.now, []
    for now, number in requests:
        now += begin
        timer.advance(max(0.0, now - timer.now))
        if not ours.get(number, now):
            expected.append(number)
            ours.put(number, now)
        with registry.use(str(number)):
            pass
        assert built == expected, f"at {now}"


def test_no_result_is_below_the_lower_bound(replay: Any) -> None:
    """Neither that of the rule that knows the future, nor that of a cache in which all fits."""
    module, traces = replay
    for name in ("drift", "demo"):
        trace = next(traces.traces([name]))
        trace = trace._replace(requests=list(islice(trace.requests, 3_000)))
        known = module.offline(trace, trace.bytes // 5).build_seconds
        assert 0.0 < module.lower_bound(trace, trace.bytes // 5, known) <= known
        asked = {number for _, number in trace.requests}
        everything = sum(trace.build_seconds[number] for number in asked)
        assert module.lower_bound(trace, trace.bytes, everything) == pytest.approx(everything)
        assert module.offline(trace, trace.bytes).build_seconds == pytest.approx(everything)


def best_of_all(trace: Any, budget: int) -> float:
    """Return the least possible build seconds, by trying every choice."""
    kept: dict[frozenset[int], float] = {frozenset(): 0.0}
    for _, number in trace.requests:
        following: dict[frozenset[int], float] = {}
        for had, seconds in kept.items():
            needed = seconds + (0.0 if number in had else trace.build_seconds[number])
            for count in range(len(had | {number}) + 1):
                for some in map(frozenset, combinations(had | {number}, count)):
                    if sum(trace.sizes[one] for one in some) <= budget:
                        following[some] = min(following.get(some, math.inf), needed)
        kept = following
    return min(kept.values())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(st.integers(0, 3), min_size=2, max_size=14),
    costs=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    budget=st.integers(1, 30),
)
def test_the_lower_bound_is_below_the_optimum(
    replay: Any, requests: list[int], costs: list[int], sizes: list[int], budget: int
) -> None:
    """And the optimum below the greedy rule."""
    module, traces = replay
    numbered = [(float(at), number) for at, number in enumerate(requests)]
    trace = traces.Trace("small", "", True, numbered, list(map(float, costs)), sizes)
    best = best_of_all(trace, budget)
    greedy = module.offline(trace, budget).build_seconds
    assert module.lower_bound(trace, budget, greedy) <= best + 1e-9
    assert best <= greedy + 1e-9


FIXED = {
    "drift": "1ad8d0bc96550611",
    "drift, related": "607d0f1e2eca7f93",
    "drift, alike": "77a73aadb2d3c34b",
    "loop": "403ebd2c11ab4060",
    "loop, alike": "0c8d8178d52c7c63",
    "scans": "b980b702f90c4811",
    "scans, related": "c79dc9c5683b42c4",
    "scans, alike": "d87ac62bbba75ecf",
    "day and night": "4ca1f362201299fa",
    "day and night, related": "867b1b824cd457aa",
    "all": "5d67b9ae9e1ba339",
    "all, related": "ad0b1c64521026c9",
    "day and night, alike": "ee19ff57b5cc4ed3",
    "bursts": "a6b6b4d861bba34e",
    "bursts, related": "b11b2e4fadfc608e",
    "bursts, alike": "351de6ce2be36111",
    "shift": "4fd3d5746e0c952e",
    "shift, alike": "3b493ecefc50c769",
    "hot and loop": "8cd058cfb80bbd80",
    "hot and loop, alike": "088489698ecce78f",
    "come and go": "fc137126058ac747",
    "come and go, alike": "fdebdd04b922bb47",
    "demo": "8839d58c8f435414",
}


def test_published_traces_never_change(replay: Any) -> None:
    """Policies were tuned after them; a new trace gets a new name."""
    _, traces = replay
    assert {trace.name: digest(trace) for trace in traces.traces()} == FIXED


def digest(trace: Any) -> str:
    """Return a digest of a trace, with nine digits of each number."""
    result = hashlib.sha256()
    for seconds, size in zip(trace.build_seconds, trace.sizes, strict=True):
        result.update(f"{seconds:.9g} {size}\n".encode())
    for at, number in trace.requests:
        result.update(f"{at:.9g} {number}\n".encode())
    return result.hexdigest()[:16]


def test_a_missing_peer_is_reported(replay: Any, monkeypatch: Any) -> None:
    """In its cells; the others are measured."""
    from benchmarks.policies import __main__ as command
    from benchmarks.policies import contestants

    def version(package: str) -> str:
        raise contestants.PackageNotFoundError(package)

    monkeypatch.setattr(contestants, "version", version)
    for contestant in contestants.CONTESTANTS:
        if contestant.package != "warmset":
            assert contestant.missing == f"{contestant.package} is not installed"
    module, traces = replay
    trace = next(traces.traces(["demo"]))
    done = module.replay(trace, contestants.CONTESTANTS[0].make(trace, trace.bytes))
    ours = {"warmset lru": done, "warmset cost": done}
    row = command.Row(trace, 1.0, trace.bytes, ours, done, 1.0)
    assert "theine is not installed" in command.table([row])
    assert row.best_peer is None


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_the_replay_keeps_within_the_budget(replay: Any, policy: str) -> None:
    """At every request, and with instances that exceed it alone."""
    from warmset.memory.policies import policy_of

    module, traces = replay
    trace = next(traces.traces(["bursts"]))
    for part in (0.02, 0.3):
        budget = int(trace.bytes * part)
        ours = module.Ours(trace, budget, policy_of(policy))
        for now, number in islice(trace.requests, 2_000):
            if not ours.get(number, now):
                ours.put(number, now)
            assert ours.bytes <= budget


BEHIND = [
    ("drift, alike", 6_000), ("loop, alike", 5_000), ("scans, alike", 5_000),
    ("bursts, alike", 5_000), ("shift, alike", 6_000), ("hot and loop, alike", 5_000),
    ("come and go, alike", 6_000), ("demo", 5_000), ("drift, related", 4_000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), BEHIND)
@pytest.mark.parametrize("part", [0.1, 0.3])
def test_cost_is_never_far_behind(replay: Any, name: str, count: int, part: float) -> None:
    """At most 2 % behind the better of least recently and least frequently used, and 5 % at
    the beginning of a trace, where there is little to learn from."""
    from warmset.memory.policies import policy_of

    module, traces = replay
    trace = next(traces.traces([name], draw=0 if name == "demo" else 5))
    trace = trace._replace(requests=list(islice(trace.requests, count)))
    budget = int(trace.bytes * part)

    class LeastFrequent:
        def worth(self, entry: Any, now: float) -> float:
            return float(entry.uses)

    lru, frequency, cost = (
        module.replay(trace, module.Ours(trace, budget, policy)).build_seconds
        for policy in (policy_of("lru"), LeastFrequent(), policy_of("cost"))
    )
    assert cost <= 1.05 * min(lru, frequency)


def test_cost_builds_the_same_at_each_replay(replay: Any) -> None:
    """It draws no lots."""
    from warmset.memory.policies import policy_of

    module, traces = replay
    trace = next(traces.traces(["bursts"]))
    trace = trace._replace(requests=list(islice(trace.requests, 3_000)))
    evicted = []
    for _ in range(2):
        ours = module.Ours(trace, trace.bytes // 10, policy_of("cost"))
        module.replay(trace, ours)
        evicted.append(ours.evicted)
    assert evicted[0] == evicted[1]


def test_missed_goals_come_first(replay: Any) -> None:
    from benchmarks.policies import __main__ as command

    module, traces = replay
    trace = next(traces.traces(["demo"]))
    few, many = (module.Replayed(seconds, 1, 1) for seconds in (10.0, 17.0))
    results = {"warmset lru": few, "warmset cost": many, "cachetools LFUCache": many}
    row = command.Row(trace, 0.1, trace.bytes, results, few, 10.0)
    missed = "demo at 10%: 1.70 x the better of lru and the best peer; 1.70 x greedy"
    assert f"Missed in 1 of 1: {missed}" in command.goals([row])[0]
    assert "| 1.700 | 1.70 | missed |" in command.table([row])
    results["warmset cost"] = few
    assert command.goals([row])[0].endswith("Met.")


def test_cost_is_not_much_worse_than_lru(replay: Any) -> None:
    """If all have the same cost and size, and requests come in bursts."""
    from warmset.memory.policies import policy_of

    module, traces = replay
    trace = next(traces.traces(["bursts, alike"]))
    trace = trace._replace(requests=list(islice(trace.requests, 6_000)))
    budget = trace.bytes // 10
    lru, cost = (
        module.replay(trace, module.Ours(trace, budget, policy_of(name))).build_seconds
        for name in ("lru", "cost")
    )
    assert cost <= 1.05 * lru


def test_traces_are_reproducible(replay: Any) -> None:
    """By their seeds."""
    _, traces = replay
    one, other = (next(traces.traces(["scans"])) for _ in range(2))
    assert one == other
    assert next(traces.traces(["scans"], draw=1)).requests != one.requests
