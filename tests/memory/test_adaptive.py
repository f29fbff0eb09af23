"""Tests of the adaptive TTL: its rule, its explanation, and its use in a registry."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from managers import manager_of

from warmset.memory import adaptive as module
from warmset.memory.adaptive import AdaptiveTtl


@pytest.fixture
def ttl() -> AdaptiveTtl:
    """Between ten seconds and an hour."""
    return AdaptiveTtl(10.0, 3600.0)


def observe(ttl: AdaptiveTtl, uses: int, gap: float, build_seconds: float = 0.0) -> None:
    """Observe a residence in the cache with that many uses, evenly spread."""
    ttl.observe_residence("A", uses, 0.0, (uses - 1) * gap, build_seconds)


# -- the rule ------------------------------------------------------------------------------------


def test_the_upper_bound_applies_without_information(ttl: AdaptiveTtl) -> None:
    """One residence without a second use is not enough."""
    assert ttl.limit("A") == (3600.0, None, 0, 0.0, ttl.limit("A").reason)
    observe(ttl, 1, 0.0, build_seconds=0.5)
    assert ttl.limit("A").seconds == 3600.0
    assert ttl.limit("A").build_seconds == 0.5


def test_the_limit_is_three_usual_gaps(ttl: AdaptiveTtl) -> None:
    """A class that is used every 20 s may be idle for a minute."""
    observe(ttl, 11, 20.0)
    assert ttl.limit("A")[:4] == (60.0, 20.0, 10, 0.0)


def test_the_limit_is_at_least_sixty_build_times(ttl: AdaptiveTtl) -> None:
    """The longer of the two applies."""
    observe(ttl, 11, 20.0, build_seconds=2.0)
    assert ttl.limit("A").seconds == 120.0


@pytest.mark.parametrize(("gap", "limit"), [(1.0, 10.0), (3000.0, 3600.0)])
def test_the_limit_is_within_the_bounds(ttl: AdaptiveTtl, gap: float, limit: float) -> None:
    observe(ttl, 5, gap)
    assert ttl.limit("A").seconds == limit


def test_varying_gaps_give_a_longer_limit(ttl: AdaptiveTtl) -> None:
    """Two mean deviations above the mean."""
    for gap in (10.0, 30.0) * 10:
        observe(ttl, 2, gap)
    limit = ttl.limit("A")
    assert limit.usual_gap_seconds is not None
    assert 35.0 < limit.usual_gap_seconds < 45.0


def test_old_gaps_lose_their_weight(ttl: AdaptiveTtl) -> None:
    """If a class is used more often, its limit decreases to that of the new gaps."""
    observe(ttl, 11, 500.0)
    before = ttl.limit("A").seconds
    for _ in range(40):
        observe(ttl, 11, 20.0)
    assert ttl.limit("A").seconds == pytest.approx(60.0, rel=0.01)
    assert before == 1500.0


def test_a_gap_between_two_residences_counts(ttl: AdaptiveTtl) -> None:
    """It was removed too early: the next limit is longer."""
    observe(ttl, 11, 20.0)
    ttl.observe_return("A", 100.0)
    assert ttl.limit("A").seconds > 60.0


def test_a_gap_above_the_upper_bound_does_not_count(ttl: AdaptiveTtl) -> None:
    """The night is irrelevant to the gaps by day."""
    observe(ttl, 11, 20.0)
    ttl.observe_return("A", 40_000.0)
    assert ttl.limit("A").seconds == 60.0


def test_a_gap_within_a_residence_counts_as_the_upper_bound_at_most(ttl: AdaptiveTtl) -> None:
    """The instance may have been held."""
    observe(ttl, 2, 1e9)
    assert ttl.limit("A").usual_gap_seconds == 3600.0


def test_only_the_build_time_counts_after_residences_with_one_use(ttl: AdaptiveTtl) -> None:
    """Until the class is used twice again."""
    observe(ttl, 11, 200.0, build_seconds=1.0)
    assert ttl.limit("A").seconds == 600.0
    for _ in range(2):
        ttl.observe_return("A", 40_000.0)
        observe(ttl, 1, 0.0, build_seconds=1.0)
    assert ttl.limit("A")[:2] == (60.0, None)
    observe(ttl, 11, 200.0, build_seconds=1.0)
    assert ttl.limit("A").seconds == 600.0


def test_a_short_return_counts_as_a_second_use(ttl: AdaptiveTtl) -> None:
    """The instance was removed for capacity, and is used."""
    for _ in range(5):
        observe(ttl, 1, 0.0)
        ttl.observe_return("A", 50.0)
    assert ttl.limit("A").seconds == 150.0


# -- explanation ---------------------------------------------------------------------------------


def test_the_reason_has_the_numbers(ttl: AdaptiveTtl) -> None:
    """All from which the limit was derived."""
    observe(ttl, 11, 20.0, build_seconds=0.5)
    assert ttl.limit("A").reason == (
        "3 x its usual gap of 20 s is 60 s; 60 x its build of 0.5 s is 30 s; "
        "the longer applies, between 10 s and 3600 s"
    )
    for _ in range(2):
        observe(ttl, 1, 0.0, build_seconds=0.5)
    assert ttl.limit("A").reason == (
        "no second use in its last 2 residences; 60 x its build of 0.5 s is 30 s, "
        "between 10 s and 3600 s"
    )


def test_the_number_of_known_classes_is_bounded(ttl: AdaptiveTtl, monkeypatch: Any) -> None:
    """The class that was observed longest ago is forgotten."""
    monkeypatch.setattr(module, "_MOST_CLASSES", 3)
    for name in ("A", "B", "C", "A", "D"):
        ttl.observe_residence(name, 5, 0.0, 40.0, 0.0)
    assert ttl.limit("B").gaps == 0
    assert [ttl.limit(name).gaps for name in "ACD"] == [8, 4, 4]


def test_observations_by_several_threads() -> None:
    """No gap is lost."""
    ttl = AdaptiveTtl(10.0, 3600.0)

    def learn() -> None:
        for _ in range(2_000):
            ttl.observe_residence("A", 2, 0.0, 20.0, 0.0)

    threads = [threading.Thread(target=learn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert ttl.limit("A")[:3] == (60.0, 20.0, 8_000)


# -- in a registry -------------------------------------------------------------------------------


def used(registry: Any, timer: Any, name: str, gap: float, times: int) -> None:
    """Use a class at regular intervals."""
    for _ in range(times):
        registry.get_instance(name)
        timer.advance(gap)


def test_a_class_that_is_used_often_expires_soon_after_its_last_use(make: Any, timer: Any) -> None:
    """As learnt from its first residence; until then the upper bound applies."""
    registry = make(cache_ttl_seconds=300.0, adaptive_ttl=True)
    registry.get_instance("Beta")
    used(registry, timer, "Alpha", 20.0, 11)
    registry.discard("Alpha")
    used(registry, timer, "Alpha", 20.0, 11)
    timer.advance(39.0)
    assert registry.evict_expired() == 0
    timer.advance(2.0)
    assert registry.evict_expired() == 1
    assert [entry.class_name for entry in registry.stats().entries] == ["Beta"]


def test_the_ttl_of_a_class_takes_precedence(make: Any, timer: Any) -> None:
    registry = make(adaptive_ttl=True)
    registry.register("Alpha", "samples.Alpha", cache_ttl_seconds=7.0)
    used(registry, timer, "Alpha", 5.0, 5)
    registry.discard("Alpha")
    registry.get_instance("Alpha")
    timer.advance(8.0)
    assert registry.evict_expired() == 1


def test_the_explanation_has_the_numbers(make: Any, timer: Any) -> None:
    registry = make(adaptive_ttl=True)
    used(registry, timer, "Alpha", 20.0, 11)
    registry.discard("Alpha")
    registry.get_instance("Alpha")
    assert "3 x its usual gap of 20 s is 60 s" in str(registry.explain("Alpha"))


def test_names_that_are_not_used_again_are_forgotten(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of runs that register their classes anew."""
    registry = make({}, adaptive_ttl=True)
    from warmset.memory import manager

    monkeypatch.setattr(manager, "_MOST_NAMES", 10)
    for number in range(50):
        registry.register(f"Alpha@{number}", "samples.Alpha")
        registry.get_instance(f"Alpha@{number}")
        registry.unregister(f"Alpha@{number}")
    assert list(manager_of(registry)._last_used) == [f"Alpha@{number}" for number in range(40, 50)]
