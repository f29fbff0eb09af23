"""Tests of `FakeTimer`."""

from __future__ import annotations

import math
import threading

import pytest

from warmset.testing import FakeTimer


def test_time_passes_only_by_advance() -> None:
    timer = FakeTimer()
    assert timer() == timer() == timer.now == 1000.0
    assert timer.advance(2.5) == 1002.5
    assert timer.advance(0) == timer() == 1002.5
    assert FakeTimer(5)() == 5.0
    assert repr(timer) == "<FakeTimer: 1002.5 s>"


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf])
def test_a_negative_or_infinite_step_raises(seconds: float) -> None:
    timer = FakeTimer()
    with pytest.raises(ValueError, match="seconds must be a finite number, 0 or more, got"):
        timer.advance(seconds)
    assert timer() == 1000.0


def test_the_start_must_be_a_finite_number() -> None:
    with pytest.raises(ValueError, match="start_seconds must be a finite number, got nan"):
        FakeTimer(math.nan)


def test_no_advance_is_lost_under_threads() -> None:
    timer = FakeTimer(0.0)
    begin = threading.Barrier(4)

    def work() -> None:
        begin.wait()
        for _ in range(5_000):
            timer.advance(1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timer() == 20_000.0
