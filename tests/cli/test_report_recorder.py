"""The recorder of the report: its counts, and its constant size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from reports import Told

from warmset import MethodExecutor, MethodRegistry
from warmset.cli.html_report.recorder import CAUSES, Recorder, Span, join_spans
from warmset.events import RemovalCause
from warmset.testing import FakeTimer


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer(0.0)


def counts(**named: int) -> tuple[int, ...]:
    """A row of removals."""
    return tuple(named.get(cause.name.lower(), 0) for cause in CAUSES)


def test_a_registry_is_recorded(timer: FakeTimer) -> None:
    """Builds, removals by run and cause, and the periods during which classes were warm."""
    registry = MethodRegistry(
        {"A": "io.StringIO", "B": "io.StringIO"},
        cache_ttl_seconds=10.0,
        max_cache_size=1,
        timer=timer,
    )
    lengths = iter([0.25, 0.5])

    def rule(cls: type) -> object:
        timer.advance(next(lengths))
        return cls()

    registry.register_instantiation_rule("B", rule)
    executor = MethodExecutor(method_registry=registry)
    recorder = Recorder(["A", "B"], timer=timer)
    recorder.watch(registry)
    recorder.on_run(1)
    timer.advance(1.0)
    executor.execute("A", "getvalue")
    timer.advance(2.0)
    executor.execute("B", "getvalue")  # evicts A
    timer.advance(11.0)
    registry.evict_expired()
    recorder.on_run(2)
    executor.execute("A", "getvalue")
    executor.execute("A", "getvalue")
    timer.advance(4.0)
    registry.clear_cache()
    executor.execute("B", "getvalue")
    timer.advance(1.0)
    registry.close()
    assert recorder.removals_by_run() == [counts(size=1, idle=1), counts(cleared=1, shutdown=1)]
    assert recorder.run_begins() == [0.0, 14.25]
    assert recorder.seconds() == 19.75
    a, b = recorder.class_tallies()
    assert (a.builds, a.uses, a.warm_seconds) == (2, 3, 6.25)
    assert a.removals == counts(size=1, cleared=1)
    assert (b.builds, b.removals) == (2, counts(idle=1, shutdown=1))
    assert (a.build_seconds, b.build_seconds, b.longest_build_seconds) == (0.0, 0.75, 0.5)
    spans, gap = recorder.spans(100, only=(0, 1))
    assert gap == 0.0
    assert spans == [
        Span(0, 1.0, 3.25),  # B is built before A is evicted for it
        Span(0, 14.25, 18.25),
        Span(1, 3.25, 14.25),
        Span(1, 18.75, 19.75),
    ]
    assert recorder.spans(100, only=(1,))[0] == spans[2:]


def test_an_instance_that_is_removed_while_held_has_a_successor(timer: FakeTimer) -> None:
    registry = MethodRegistry({"A": "io.StringIO"}, timer=timer)
    recorder = Recorder(["A"], timer=timer)
    recorder.watch(registry)
    recorder.on_run(1)
    with registry.use("A") as held:
        timer.advance(1.0)
        registry.clear_cache()
        timer.advance(1.0)
        with registry.use("A") as other:
            assert other is not held
        timer.advance(1.0)
    registry.close()
    (tally,) = recorder.class_tallies()
    assert tally.builds == 2
    assert sum(tally.removals) == 2
    assert recorder.spans(10, only=(0,))[0] == [Span(0, 0.0, 1.0), Span(0, 2.0, 3.0)]


def test_class_names_of_different_runs_are_one_class(timer: FakeTimer) -> None:
    registry = Told()
    recorder = Recorder(["A@x"], per_run=True, timer=timer)
    recorder.watch(registry)  # type: ignore[arg-type]
    for run in (1, 2):
        recorder.on_run(run)
        timer.advance(5.0)
        registry.remove(f"A@x@{run}", age=4.0)
    assert recorder.class_tallies()[0].builds == 2
    registry.remove("Other@1")  # not a class of the pipeline
    assert [sum(row) for row in recorder.removals_by_run()] == [1, 1]


def test_the_size_of_the_recorder_is_constant(timer: FakeTimer) -> None:
    """It does not depend on the number of instances."""
    registry = Told()
    recorder = Recorder(["A", "B"], timer=timer, spans_kept=64)
    recorder.watch(registry)  # type: ignore[arg-type]
    recorder.on_run(1)
    arrays = {key: value for key, value in vars(recorder).items() if hasattr(value, "itemsize")}
    sizes = {key: len(value) for key, value in arrays.items()}
    for at in range(5_000):
        timer.advance(1.0 if at % 100 else 50.0)
        registry.remove("AB"[at % 2], RemovalCause.IDLE, age=0.5)
    assert {key: len(value) for key, value in arrays.items()} == sizes
    a, b = recorder.class_tallies()
    assert a.builds + b.builds == 5_000
    assert (a.warm_seconds, a.uses) == (1_250.0, 7_500)
    spans, gap = recorder.spans(64, only=(0, 1))
    assert 2 <= len(spans) <= 64
    assert gap > 0.0
    # Joined spans still cover the time from the first to the last.
    assert min(span.begin for span in spans) == pytest.approx(49.5)
    assert max(span.end for span in spans) == pytest.approx(recorder.seconds())


def test_an_empty_recorder() -> None:
    recorder = Recorder(["A"])
    assert recorder.run_begins() == recorder.removals_by_run() == []
    assert recorder.spans(10, only=(0,)) == ([], 0.0)
    assert recorder.seconds() == 0.0


times = st.floats(0, 1_000, allow_nan=False)
span = st.builds(
    lambda at, begin, length: Span(at, begin, begin + length), st.integers(0, 3), times, times
)


@given(st.lists(span, max_size=60), st.integers(4, 20))
def test_joined_spans_cover_the_original_spans(spans: list[Span], most: int) -> None:
    joined, gap = join_spans(spans, most, 0.0)
    assert len(joined) <= most
    for one in spans:
        assert any(
            one.class_index == other.class_index
            and other.begin <= one.begin
            and one.end <= other.end
            for other in joined
        )
    for before, after in pairwise(joined):
        if before.class_index == after.class_index:
            assert after.begin - before.end > gap
    covered: Any = {(s.class_index, s.begin) for s in spans}
    assert {(s.class_index, s.begin) for s in joined} <= covered
