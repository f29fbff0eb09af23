"""The replay of traces: it does what a registry does, and its bound is one."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from warmset.testing import FakeTimer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules, which stand beside the tests."""
    if not (ROOT / "benchmarks" / "policies").is_dir():
        pytest.skip("the benchmarks are not here")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.policies import replay, traces

    yield replay, traces
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


class Built:
    """What the registry below builds: as big as its trace says."""

    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_the_replay_builds_what_a_registry_builds(
    ws: Any, timer: Any, replay: Any, policy: str
) -> None:
    """Request by request, over a part of a trace."""
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
    # Builds cost what the trace says, and take no time of its clock.
    registry._builder._stopwatch = stopwatch = FakeTimer()
    built: list[int] = []

    def build(number: int, seconds: float, size: int, cls: type) -> Built:
        built.append(number)
        stopwatch.advance(seconds)
        return Built(size)

    for number, (seconds, size) in enumerate(zip(trace.build_seconds, trace.sizes, strict=True)):

        def rule(
            cls: type, number: int = number, seconds: float = seconds, size: int = size
        ) -> Any:
            built.append(number)
            stopwatch.advance(seconds)
            return Built(size)

        registry.register_class(str(number), "builtins.object")
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


def test_the_bound_is_one(replay: Any) -> None:
    """Nothing is below it: not the rule that knows the future, nor a cache that fits all."""
    module, traces = replay
    for name in ("drift", "demo"):
        trace = next(traces.traces([name]))
        trace = trace._replace(requests=list(islice(trace.requests, 3_000)))
        budget = trace.bytes // 5
        least = module.lower_bound(trace, budget)
        assert least <= module.offline(trace, budget).build_seconds
        everything = module.lower_bound(trace, trace.bytes)
        asked = {number for _, number in trace.requests}
        assert everything == pytest.approx(sum(trace.build_seconds[n] for n in asked))
        assert module.offline(trace, trace.bytes).build_seconds == pytest.approx(everything)


def test_traces_are_fixed(replay: Any) -> None:
    """By their seeds: made twice, they are the same."""
    _, traces = replay
    one, other = (next(traces.traces(["scans"])) for _ in range(2))
    assert one == other
