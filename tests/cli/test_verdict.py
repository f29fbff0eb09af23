"""The verdict on the runs: calls, survivors, the bound of the growth, and its slope."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from reports import MB, outcome, record

from warmset.cli import report
from warmset.cli.python_heap import free_heap_bytes
from warmset.cli.verdict import judge, measure_growth

if TYPE_CHECKING:
    from collections.abc import Sequence


def runs(sizes: Sequence[float], **changes: Any) -> Any:
    first = sizes[0] if sizes else 0.0
    return outcome([record(run, size, first) for run, size in enumerate(sizes, 1)], **changes)


SETTLING = [100, 108, 114, 117, 118.5]  # a heap that needs some runs
SOUND = [*SETTLING, 119, 119, 118.5, 119, 119]


@pytest.mark.parametrize(
    ("sizes", "bound", "status", "text"),
    [
        (
            (100, 103.1, 102),
            20,
            "pass",
            "PASS: RSS grew by 2.0 MB from run 1 to run 3, at worst +3.1 MB at run 2"
            " (bound 20.0 MB)",
        ),
        ((100, 120, 100), 20, "pass", "at worst +20.0 MB at run 2"),
        ((100, 120.1, 100), 20, "fail", "FAIL: RSS grew by 0.0 MB from run 1 to run 3"),
        ((100, 90), 0, "pass", "PASS: RSS shrank by 10.0 MB from run 1 to run 2, at worst -10.0"),
        ((100,), 20, "none", "NO VERDICT"),
        ((), 20, "none", "NO VERDICT"),
        # From four runs on, growth is counted from the median of the first half.
        ((100, 117, 118, 119), 5, "pass", "RSS grew by 2.0 MB from the median of runs 1 to 2"),
        (
            SOUND,
            20,
            "pass",
            "PASS: RSS grew by 5.0 MB from the median of runs 1 to 5 to run 10, at worst +5.0 MB at"
            " run 6 (bound 20.0 MB), in use by the slope of runs 6 to 10 +0.0 MB (bound 5.0 MB)",
        ),
    ],
)
def test_growth(sizes: Sequence[float], bound: float, status: str, text: str) -> None:
    verdict = judge(runs(sizes), bound)
    assert verdict.status == status
    assert text in verdict.text


@pytest.mark.parametrize("first", [70, 100, 150])
@pytest.mark.parametrize(("rate", "status"), [(0.0, "pass"), (1.0, "pass"), (2.0, "fail")])
def test_a_first_run_that_has_not_settled_decides_nothing(
    first: float, rate: float, status: str
) -> None:
    """Too small, it fails no sound pipeline; too large, it hides no leak."""
    sizes = [first, *(100 + rate * run for run in range(1, 10))]
    verdict = judge(runs(sizes), 20)
    assert verdict.status == status, verdict.text
    assert verdict.reasons == (() if status == "pass" else ("slope",))
    assert verdict.slope_bytes == 4 * rate * MB
    assert verdict.slope_bound_bytes == 5 * MB


def test_more_runs_find_a_smaller_leak() -> None:
    """A third of a MB for each run is not seen in 10 runs, and is in 40."""
    generator = random.Random(4)
    sizes = [100 + run / 3 + generator.uniform(-1, 1) for run in range(40)]
    assert judge(runs(sizes[:10]), 20).status == "pass"
    assert judge(runs(sizes), 20).reasons == ("slope",)


def test_one_run_that_stands_out_has_no_slope() -> None:
    """The bound judges it."""
    sizes = [*SETTLING, 119, 119, 119, 119, 135]
    verdict = judge(runs(sizes), 20)
    assert (verdict.reasons, verdict.max_growth_run, verdict.slope_bytes) == (("bound",), 10, 0)


def test_free_memory_inside_the_heap_is_no_leak() -> None:
    """The bound counts it, the slope does not."""
    records = [record(run, 100 + run, 100, heap_free_bytes=(10 + run) * MB) for run in range(1, 17)]
    verdict = judge(outcome(records), 20)
    assert (verdict.status, verdict.slope_bytes) == ("pass", 0)
    assert judge(outcome(records), 5).reasons == ("bound",)
    leaking = [record(run, 100 + run, 100, heap_free_bytes=10 * MB) for run in range(1, 17)]
    assert judge(outcome(leaking), 20).reasons == ("slope",)


def test_the_free_memory_inside_the_heap_is_measured(capfd: pytest.CaptureFixture[str]) -> None:
    """It grows when objects are freed next to one that is kept; nothing is printed."""
    before = free_heap_bytes()
    objects = [str(at) * 8 for at in range(200_000)]
    del objects[1::2]
    freed = free_heap_bytes() - before
    assert freed > 2 * MB or free_heap_bytes() == 0
    assert capfd.readouterr().err == ""


def test_many_runs_take_a_sample_of_them() -> None:
    growth = measure_growth([(run, run * MB) for run in range(1, 20_001)])
    assert growth.slope == 9999 * MB


def test_a_run_that_did_not_complete_is_not_judged() -> None:
    sizes = outcome([record(1, 100), record(2, 101), record(3, 900, complete=False)])
    verdict = judge(sizes, 20)
    assert (verdict.status, verdict.max_growth_run) == ("pass", 2)


@pytest.mark.parametrize(
    ("failed", "allowed", "status"),
    [(0, 0.0, "pass"), (1, 0.0, "fail"), (1, 0.05, "pass"), (2, 0.05, "fail"), (20, 1.0, "fail")],
)
def test_failed_calls(failed: int, allowed: float, status: str) -> None:
    """At most a share of them; a PASS needs a call that succeeded."""
    verdict = judge(runs((100, 101), failed=failed, calls=20), 20, max_failures=allowed)
    assert (verdict.status, verdict.failed_share) == (status, failed / 20)
    if status == "fail":
        assert verdict.reasons == ("calls",)
        assert verdict.text.startswith(f"FAIL: {failed} of 20 calls failed (")


def test_survivors() -> None:
    """Instances that outlive their removal; whether they were searched for is stated."""
    leaked = runs((100, 101), survivors=("A (m.A), cleared: referenced by\n    m.kept[0]",))
    verdict = judge(leaked, 20)
    assert (verdict.status, verdict.reasons, verdict.survivors) == ("fail", ("survivors",), 1)
    assert verdict.text.startswith("FAIL: 1 removed instance is still referenced (bound 0); RSS")
    assert judge(leaked, 20, max_survivors=1).status == "pass"
    verdict = judge(runs((100, 101)), 20, searched=False)
    assert (verdict.status, verdict.survivors) == ("pass", None)
    assert "removed instances were not searched for (--no-trim)" in verdict.text


def test_failures_are_a_verdict_without_a_second_run() -> None:
    verdict = judge(runs((100,), failed=1), 20)
    assert verdict.status == "fail"
    assert verdict.text == (
        "FAIL: 1 of 10 calls failed (10.0%, bound 0); growth needs two complete runs"
    )


@pytest.mark.parametrize(
    ("sizes", "changes", "status"),
    [
        ((100, 101), {}, 0),
        ((100, 200), {}, 1),
        ((100, 101), {"failed": 9, "calls": 10}, 1),
        ((100, 101), {"failed": 10, "calls": 10}, 3),
        ((100, 101), {"survivors": ("A",)}, 1),
        ((100, 200), {"ended": "stopped"}, 3),
        ((100, 200), {"ended": "interrupted"}, 130),
        ((), {"calls": 0}, 0),
    ],
)
def test_the_exit_status(sizes: tuple[float, ...], changes: dict[str, Any], status: int) -> None:
    result = runs(sizes, **changes)
    assert report.exit_status(result, judge(result, 20)) == status
