"""Forecasts: the table, the recommended bound, what does not fit, and what displaces what."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from warmset.memory.forecasting import forecast_trace, trace_of
from warmset.memory.profiles import ClassProfile, Profile
from warmset.planning.forecast import forecast
from warmset.planning.traces import Trace, TraceError, load_trace
from warmset.planning.uses import MOST_USES, UseLog, UseSequence

MB = 1_000_000


def loop(classes: int, rounds: int, *, size: int = MB, cost: float = 1.0) -> Trace:
    """The same classes in the same order, again and again."""
    requests = [(float(at), at % classes) for at in range(classes * rounds)]
    names = [f"C{number}" for number in range(classes)]
    return Trace(names, requests, [cost] * classes, [size] * classes)


def test_a_loop_needs_all_its_classes() -> None:
    """LRU builds each time until the last class fits."""
    found = forecast_trace(loop(5, 10), max_size=4)
    assert [(row.bound, row.builds, row.peak_bytes) for row in found.rows] == [
        (1, 50, MB),
        (2, 50, 2 * MB),
        (3, 50, 3 * MB),
        (4, 50, 4 * MB),
        (5, 5, 5 * MB),
    ]
    assert found.recommended.bound == 5
    assert (found.missing, found.roster_bytes, found.first_builds) == (1, 5 * MB, 5)
    assert found.relative_error == 0.0
    assert {pair.times for pair in found.displacements} == {9}
    assert json.loads(json.dumps(found.as_dict()))["recommended"]["bound"] == 5


def test_a_budget_of_bytes() -> None:
    found = forecast_trace(loop(5, 10), max_bytes=3 * MB)
    assert found.setting == "max_cache_bytes"
    assert found.missing == 2 * MB
    at = {row.bound: row for row in found.rows}
    assert (at[3 * MB].builds, at[3 * MB].peak_bytes) == (50, 3 * MB)
    assert (at[5 * MB].builds, at[5 * MB].peak_bytes) == (5, 5 * MB)
    # No budget up to the given one saves anything, so the smallest will do.
    assert found.recommended.bound < MB


def test_the_recommended_bound_is_the_smallest_within_five_percent() -> None:
    requests = [(float(at), 0 if at % 50 else 1 + at // 50) for at in range(1000)]
    trace = Trace([f"C{n}" for n in range(21)], requests, [1.0] * 21, [-1] * 21)
    found = forecast_trace(trace)
    assert found.recommended.bound == 2
    assert found.unknown_sizes == tuple(trace.names)
    assert found.displacements == ()


def test_the_policy_is_replayed() -> None:
    """Cost keeps what is expensive; LRU cannot."""
    trace = loop(6, 20)._replace(build_seconds=[9.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    lru, cost = (forecast_trace(trace, max_size=3, policy=policy) for policy in ("lru", "cost"))
    seconds = [{row.bound: row.build_seconds for row in each.rows}[3] for each in (lru, cost)]
    assert seconds[1] < seconds[0] / 2
    assert cost.policy == "cost"


def test_an_idle_ttl_is_respected() -> None:
    slow = Trace(["A"], [(0.0, 0), (100.0, 0), (500.0, 0)], [1.0], [1])
    assert forecast_trace(slow).recommended.builds == 1
    assert forecast_trace(slow, ttl_seconds=200.0).recommended.builds == 2
    assert forecast_trace(slow, ttl_seconds=50.0, policy="cost").recommended.builds == 3


def test_a_long_trace_is_sampled_and_states_its_error(monkeypatch: Any) -> None:
    import warmset.planning.forecast as module

    monkeypatch.setattr(module, "_EXACT_USES", 1_000)
    monkeypatch.setattr(module, "_SAMPLED_CLASSES", 300)
    trace = loop(1_000, 3)
    found = forecast_trace(trace, max_size=2_000)
    assert found.recommended.builds == 1_000
    assert 0.0 <= found.relative_error < 0.2


def test_what_cannot_be_forecast() -> None:
    with pytest.raises(ValueError, match="the trace has no use"):
        forecast(Trace([], [], [], []))
    with pytest.raises(ValueError, match="got both"):
        forecast(loop(2, 2), max_size=1, max_bytes=1)


# -- traces from files ---------------------------------------------------------------------------


def test_a_trace_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "log.csv"
    path.write_text("seconds,class_name,build_seconds,bytes\n5,B,,\n1,A,2.5,100\n3,A,,\n")
    trace = load_trace(path)
    assert trace.names == ("B", "A")
    assert trace.requests == [(1.0, 1), (3.0, 1), (5.0, 0)]
    assert (trace.build_seconds, trace.sizes) == ([0.0, 2.5], [-1, 100])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("when,what\n1,A\n", "the header is"),
        ("seconds,class_name\nsoon,A\n", "line 2: seconds = 'soon'; expected a number"),
        ("seconds,class_name\nnan,A\n", "line 2: seconds = 'nan'"),
        ("seconds,class_name\n1\n", "no class_name"),
        ("seconds,class_name,bytes\n1,A,-5\n", "bytes = '-5'"),
        ("", "the header is"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path: Any, text: str, problem: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=problem):
        load_trace(path)
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(tmp_path / "none.csv")


def test_a_file_that_cannot_be_a_trace(tmp_path: Any, monkeypatch: Any) -> None:
    import warmset.planning.traces as module

    with pytest.raises(TraceError, match="not a regular file"):
        load_trace("/dev/zero")
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace("log\0.csv")
    path = tmp_path / "log.csv"
    path.write_bytes(b"seconds,class_name\n1,\xff\n")
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(path)
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    with pytest.raises(TraceError, match="more than 10 bytes"):
        load_trace(path)


# -- the recorded order of uses ------------------------------------------------------------------


def test_a_long_recording_is_thinned_out_evenly() -> None:
    log = UseLog()
    uses = 5 * MOST_USES
    for at in range(uses):
        log.add(float(at), f"C{at % 7}", 1)
    found = log.sequence()
    assert found.total == uses
    assert MOST_USES / 4 < found.kept <= MOST_USES
    starts = [stretch[0][0] / 1000.0 for stretch in found.stretches]
    assert starts[0] == 0.0
    assert starts[-1] > 0.9 * uses
    assert len({later - earlier for earlier, later in pairwise(starts)}) == 1


def test_data_of_a_sequence() -> None:
    uses = UseSequence((((0, "A", 1), (1500, "B", 3)), ((9000, "A", 1),)), 12)
    data = json.loads(json.dumps(uses.as_data()))
    assert data["stretches"] == ["0:0 1500:1x3", "9000:0"]
    assert UseSequence.from_data(data) == uses
    both = uses.merge(uses)
    assert both.total == 24
    assert both.stretches[2][0] == (10_000, "A", 1)


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"total": -1, "names": [], "stretches": []},
        {"total": 1, "names": [1], "stretches": []},
        {"total": 1, "names": ["A"], "stretches": ["0:1"]},
        {"total": 1, "names": ["A"], "stretches": ["0:0x"]},
        {"total": 1, "names": ["A"], "stretches": [5]},
        {"total": 1, "names": ["A"], "stretches": ["0:0"] * 1000},
        {"total": 1, "names": ["A"], "stretches": [" ".join(["0:0"] * 1000)]},
    ],
)
def test_invalid_data_of_a_sequence(data: Any, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"not a|more than"):
        UseSequence.from_data(data)
    path = tmp_path / "profile.json"
    Profile({"A": ClassProfile(uses=1)}).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "uses": data}))
    profile = Profile.load(path)
    assert profile.uses is None
    assert "the order of uses is not known" in profile.skipped[0]
    assert profile.classes["A"].uses == 1


def test_a_profile_becomes_a_trace() -> None:
    uses = UseSequence((((0, "A", 1), (2000, "B", 100)),), 202)
    profile = Profile({"A": ClassProfile(builds=2, own_build_seconds=3.0, bytes=7)}, uses=uses)
    trace = trace_of(profile)
    assert trace.names == ("A", "B")
    assert len(trace.requests) == 65
    assert (trace.build_seconds, trace.sizes, trace.represented) == ([1.5, 0.0], [7, -1], 2.0)
    assert trace_of(Profile({})).requests == []


# -- recording -----------------------------------------------------------------------------------


def test_a_registry_records_the_order_of_uses(make: Any, timer: Any, tmp_path: Any) -> None:
    """Exactly, if it is asked after each use; and through a file."""
    registry = make()
    registry.get_instance("Gamma")
    recorder = registry.record_profile()
    order = ["Alpha", "Beta", "Alpha", "Alpha", "Gamma", "Beta"]
    for name in order:
        timer.advance(1.0)
        registry.get_instance(name)
        recorder.note_uses()
    registry.discard("Alpha")
    path = tmp_path / "profile.json"
    registry.profile().save(path)
    uses = Profile.load(path).uses
    assert uses is not None
    assert [(at, name) for stretch in uses.stretches for at, name, _ in stretch] == [
        (1000 * (at + 1), name) for at, name in enumerate(order)
    ]
    assert uses.total == len(order)


def test_without_notes_uses_between_two_builds_are_in_a_row(make: Any, timer: Any) -> None:
    registry = make()
    registry.record_profile()
    for name in ("Alpha", "Beta", "Alpha", "Beta", "Alpha", "Gamma"):
        registry.get_instance(name)
        timer.advance(1.0)
    uses = registry.profile().uses
    assert uses.stretches == (
        ((0, "Alpha", 1), (1000, "Beta", 1), (3000, "Beta", 1), (4000, "Alpha", 2),
         (5000, "Gamma", 1)),
    )  # fmt: skip
    assert uses.total == 6


def test_sweeps_and_evictions_are_noted(make: Any, timer: Any) -> None:
    registry = make(max_cache_size=1)
    recorder = registry.record_profile()
    for name in ("Alpha", "Alpha", "Beta"):
        registry.get_instance(name)
        timer.advance(1.0)
        registry.sweep()
    registry.get_instance("Alpha")
    uses = recorder.stop().uses
    assert [use[1] for stretch in uses.stretches for use in stretch] == [
        "Alpha", "Alpha", "Beta", "Alpha",
    ]  # fmt: skip


def test_a_warm_up_is_no_use(make: Any, timer: Any) -> None:
    registry = make()
    registry.record_profile()
    registry.warm_up(["Alpha"], workers=1)
    timer.advance(1.0)
    registry.get_instance("Alpha")
    uses = registry.profile().uses
    assert uses.stretches == (((1000, "Alpha", 1),),)
