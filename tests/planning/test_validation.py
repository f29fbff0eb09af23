"""The benchmark that validates predictions: it drives registries, and writes what it finds."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark_modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not (ROOT / "benchmarks" / "planning").is_dir():
        pytest.skip("the benchmarks are not here")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.planning import __main__ as command
    from benchmarks.policies import traces

    yield command, traces
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture
def short(benchmark_modules: Any) -> Any:
    """The beginning of a trace."""
    _, traces = benchmark_modules
    trace = next(traces.traces(["drift"]))
    return trace._replace(requests=list(islice(trace.requests, 2_500)))


@pytest.mark.parametrize("setting", ["max_cache_bytes", "max_cache_size"])
def test_predictions_under_lru_are_exact(benchmark_modules: Any, short: Any, setting: str) -> None:
    command, _ = benchmark_modules
    row = command.validate(short, "lru", setting, 0.1)
    assert all(builds == real for builds, real, _, _ in row["points"])
    assert all(seconds == pytest.approx(real) for _, _, seconds, real in row["points"])


def test_predictions_by_cost_are_close(benchmark_modules: Any, short: Any) -> None:
    command, _ = benchmark_modules
    row = command.validate(short, "cost", "max_cache_size", 0.3)
    assert all(abs(error) < 0.15 for error in command.errors(row))


def test_predictions_by_cost_see_that_a_loop_is_kept_in_part(benchmark_modules: Any) -> None:
    """What a larger bound keeps of a loop is decided by the learned density, also for ghosts."""
    command, traces = benchmark_modules
    trace = next(traces.traces(["loop, alike"]))
    row = command.validate(
        trace._replace(requests=list(islice(trace.requests, 6_000))), "cost", "max_cache_size", 0.3
    )
    assert all(abs(error) < 0.1 for error in command.errors(row))


def test_autosize_keeps_its_promise(benchmark_modules: Any, short: Any) -> None:
    command, _ = benchmark_modules
    row = command.size_itself(short, 0.1)
    assert row["seconds"] <= 1.1 * row["best_seconds"]
    assert row["bytes"] < row["best_bytes"]


def test_missed_goals_are_named(benchmark_modules: Any) -> None:
    command, _ = benchmark_modules
    row = {
        "kind": "prediction", "trace": "demo", "policy": "lru", "setting": "max_cache_size",
        "part": 0.3, "builds": 100, "points": [[110, 100, 1.0, 1.0], [90, 90, 1.0, 1.0]],
    }  # fmt: skip
    (said,) = command.goals([row])
    assert "met by 1. Not by: demo, 30% of the classes" in said
    assert "| demo | 30% of the classes | 100 | 110 / 100 | +10.0% |" in command.tables([row])
