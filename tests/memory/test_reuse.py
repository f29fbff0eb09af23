"""Tests of the model of reuse: what it learns from the uses of all classes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from warmset.memory.reuse import ReuseModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def learn(
    gaps: Callable[[], Iterable[float]], *, classes: int = 40, rounds: int = 60
) -> ReuseModel:
    """Have a model observe classes that are used after given gaps, and evicted after each use."""
    model = ReuseModel()
    times = []
    for number in range(classes):
        now = float(number)
        for gap in (gap for _ in range(rounds) for gap in gaps()):
            now += gap
            times.append((now, str(number)))
    for now, name in sorted(times):
        model.density(name, 1, now, now, now)
        model.left(name, 1, now, now)
    return model


def density(model: ReuseModel, idle: float) -> float:
    """Return the density of a class after an idle time; the model does not observe it."""
    record = model._records["0"]
    return model._densities[record.stage].at(idle / record.gap) / record.gap


def test_independent_uses_have_a_constant_density() -> None:
    random_ = random.Random(2)
    model = learn(lambda: [random_.expovariate(0.01)])
    fresh, idle = density(model, 1.0), density(model, 120.0)
    assert fresh == pytest.approx(0.01, rel=0.5)
    assert idle == pytest.approx(fresh, rel=0.5)


def test_in_a_loop_the_density_rises_with_idle_time() -> None:
    """What was used longest ago comes next, so it is the last to be evicted."""
    model = learn(lambda: [100.0])
    assert density(model, 90.0) > 1.5 * density(model, 10.0)


def test_after_a_burst_the_density_falls() -> None:
    """Within it, a class is worth keeping, and afterwards it need not wait for the next one."""
    model = learn(lambda: [1.0, 1.0, 500.0])
    assert density(model, 0.5) > 20.0 * density(model, 30.0)


def test_uses_within_a_residence_are_observed() -> None:
    """As many and as long gaps as if each had been seen."""
    model = ReuseModel()
    for now in range(0, 5_000, 500):
        model.density("A", 1 + now // 50, 0.0, float(now), float(now))
    assert model.mean_gap("A") == pytest.approx(50.0, rel=0.1)


def test_the_window_that_predicts_best_is_used() -> None:
    """A long one where nothing changes, a shorter one where gaps grow and shrink."""
    random_ = random.Random(4)
    steady = learn(lambda: [random_.expovariate(0.01)])
    changing = learn(lambda: [1.0] * 30 + [1_000.0] * 30, rounds=4)
    assert changing._best < steady._best


def test_a_new_class_is_worth_less_than_one_that_is_used_as_usual() -> None:
    """Once is no evidence."""
    model = ReuseModel()
    for now in range(0, 2_000, 100):
        model.density("A", 1 + now // 100, 0.0, float(now), float(now))
    known = model.density("A", 20, 0.0, 1_900.0, 1_901.0)
    assert model.density("B", 1, 1_901.0, 1_901.0, 1_901.0) < known


def test_new_classes_that_return_become_worth_it() -> None:
    """That is learned, too: else each class of a stream of new ones would be built twice."""
    model = ReuseModel()
    for number in range(500):
        now = 10.0 * number
        model.density(str(number), 1, now, now, now)
        model.density(str(number), 3, now, now + 2.0, now + 8.0)
        model.left(str(number), 3, now, now + 2.0)
    assert model.density("new", 1, 5_001.0, 5_001.0, 5_001.0) > 0.3


def test_the_number_of_remembered_classes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used since are remembered longest."""
    monkeypatch.setattr("warmset.memory.reuse._MAX_NAMES", 10)
    model = ReuseModel()
    for number in range(1_000):
        now = float(number)
        for name in ("often", str(number)):
            model.density(name, 1, now, now, now)
            model.left(name, 1, now, now)
        assert len(model._records) <= 12
        assert len(model._ghosts) <= 12
    assert "often" in model._records


def test_cached_classes_are_not_among_the_ghosts_for_long() -> None:
    model = ReuseModel()
    for number in range(100):
        model.left(str(number), 1, 0.0, 0.0)
    for number in range(100):
        model.density(str(number), 1, 1.0, 1.0, 1.0)
    for _ in range(60):
        model.left("other", 1, 2.0, 2.0)
    assert list(model._ghosts) == ["other"]


def test_an_earlier_instance_of_a_class_changes_nothing() -> None:
    """It was replaced while it was held, and is reported when it is released."""
    model = ReuseModel()
    model.density("A", 1, 100.0, 100.0, 100.0)
    model.left("A", 50, 0.0, 101.0)
    assert model._records["A"].cached
    assert model.mean_gap("A") is None


@pytest.mark.parametrize("idle", [0.0, 1e-12, 1.0, 1e6, 1e300])
def test_densities_are_positive_and_finite(idle: float) -> None:
    model = learn(lambda: [100.0], classes=3, rounds=20)
    found = model.density("0", 1, 1e6, 1e6, 1e6 + idle)
    assert math.isfinite(found)
    assert found >= 0.0


def test_clocks_that_stand_or_go_back_do_no_harm() -> None:
    model = ReuseModel()
    for uses, built_at, last_used, now in [
        (1, 5.0, 5.0, 5.0), (9, 5.0, 5.0, 5.0), (1, 5.0, 5.0, 5.0), (3, 5.0, 4.0, 3.0),
        (0, 9.0, 5.0, 9.0), (2, 9.0, 9.0, 9.0), (1, 2.0, 2.0, 2.0),
    ]:  # fmt: skip
        assert model.density("A", uses, built_at, last_used, now) > 0.0
