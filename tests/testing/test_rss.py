"""Tests of `assert_bounded_rss`."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from warmset.testing import assert_bounded_rss, rss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MB = 1_000_000
BLOCK = 10 * MB


def test_memory_of_one_run_passes() -> None:
    kept: list[bytes] = []

    def run() -> None:
        kept[:] = [b"x" * BLOCK]  # replaces the block of the previous run

    growth = assert_bounded_rss(run, runs=5)
    assert len(growth.rss_bytes) == 5
    assert growth.largest_growth_bytes <= 20 * MB


def test_a_leak_fails_with_a_table() -> None:
    kept: list[bytes] = []
    with pytest.raises(AssertionError) as caught:
        assert_bounded_rss(lambda: kept.append(b"x" * BLOCK), runs=11, growth_mb=20)
    first, *table = str(caught.value).splitlines()
    assert first.startswith("RSS grew by ")
    assert first.endswith("MB from run 1 to run 11, more than the bound of 20 MB")
    assert float(first.split()[3]) == pytest.approx(100, abs=15)
    assert table[0].split() == ["run", "RSS", "MB", "growth", "MB"]
    assert table[1].split()[::2] == ["1", "-"]
    assert table[11].endswith("<- largest")
    assert len(table) == 12


def test_garbage_in_cycles_does_not_count() -> None:
    def run() -> None:
        cycle: list[Any] = [b"x" * BLOCK]
        cycle.append(cycle)

    gc.disable()
    try:
        assert_bounded_rss(run, runs=6)
    finally:
        gc.enable()


def measured(monkeypatch: pytest.MonkeyPatch, sizes_mb: list[float]) -> None:
    """Replace the measurement of RSS with these values."""
    sizes: Iterator[float] = iter(sizes_mb)
    monkeypatch.setattr(rss, "resident_bytes", lambda: round(next(sizes) * MB))


@pytest.mark.parametrize(
    ("sizes", "bound", "largest"),
    [
        ([100, 120, 100], 20, (20, 2)),
        ([100, 90, 95], 0, (-5, 3)),
        ([100, 107, 107], 7, (7, 2)),
    ],
)
def test_the_largest_growth_is_checked_and_the_bound_is_inclusive(
    monkeypatch: pytest.MonkeyPatch, sizes: list[float], bound: float, largest: tuple[int, int]
) -> None:
    measured(monkeypatch, sizes)
    growth = assert_bounded_rss(lambda: None, runs=3, growth_mb=bound)
    assert (growth.largest_growth_bytes, growth.largest_run) == (largest[0] * MB, largest[1])


def test_a_peak_before_the_last_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, [100, 120.1, 100])
    with pytest.raises(AssertionError, match=r"by 20\.1 MB from run 1 to run 2"):
        assert_bounded_rss(lambda: None, runs=3)


def test_warm_up_runs_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    measured(monkeypatch, [1, 1])
    assert_bounded_rss(lambda: calls.append(1), runs=2, warm_up_runs=3)
    assert len(calls) == 5


async def coroutine() -> None:
    pass


def generator() -> Iterator[None]:
    yield


async def asynchronous_generator() -> Any:
    yield


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (coroutine, "coroutine"),
        (generator, "generator"),
        (asynchronous_generator, "async_generator"),
    ],
)
def test_a_coroutine_or_generator_function_raises(run: Callable[[], Any], kind: str) -> None:
    """Calling it executes no code, so any leak would go unnoticed."""
    with pytest.raises(TypeError, match=f"run returned a {kind}, which has not executed"):
        assert_bounded_rss(run)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"run": None}, TypeError, "run must be a callable without arguments, got None"),
        ({"runs": 1}, ValueError, "runs must be at least 2, got 1"),
        ({"runs": 2.0}, TypeError, r"runs must be an int, got 2\.0"),
        ({"runs": True}, TypeError, "runs must be an int, got True"),
        ({"growth_mb": -1}, ValueError, "growth_mb must be a finite number, 0 or more, got -1"),
        ({"growth_mb": float("nan")}, ValueError, "growth_mb .* got nan"),
        ({"warm_up_runs": -1}, ValueError, "warm_up_runs must be at least 0, got -1"),
    ],
)
def test_invalid_arguments_raise(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    calls: list[int] = []
    with pytest.raises(error, match=text):
        assert_bounded_rss(**{"run": lambda: calls.append(1), **options})
    assert calls == []


def test_errors_of_the_run_propagate() -> None:
    with pytest.raises(ZeroDivisionError):
        assert_bounded_rss(lambda: 1 / 0)
