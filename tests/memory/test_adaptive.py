"""The adaptive TTL: its rule, what it says of it, and what a registry does with it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from warmset.memory import adaptive as module
from warmset.memory.adaptive import AdaptiveTtl


@pytest.fixture
def ttl() -> AdaptiveTtl:
    """Between ten seconds and an hour."""
    return AdaptiveTtl(10.0, 3600.0)


def stay(ttl: AdaptiveTtl, uses: int, gap: float, build_seconds: float = 0.0) -> None:
    """A stay in the cache with that many uses, evenly spread."""
    ttl.observe_residence("A", uses, 0.0, (uses - 1) * gap, build_seconds)


# -- the rule ------------------------------------------------------------------------------------


def test_of_what_nothing_is_known_has_the_most(ttl: AdaptiveTtl) -> None:
    """One stay without a second use tells nothing either."""
    assert ttl.limit("A") == (3600.0, None, 0, 0.0, ttl.limit("A").reason)
    stay(ttl, 1, 0.0, build_seconds=0.5)
    assert ttl.limit("A").seconds == 3600.0
    assert ttl.limit("A").build_seconds == 0.5


def test_three_usual_gaps(ttl: AdaptiveTtl) -> None:
    """A class that is used every 20 s may be idle for a minute."""
    stay(ttl, 11, 20.0)
    assert ttl.limit("A")[:4] == (60.0, 20.0, 10, 0.0)


def test_sixty_seconds_for_a_second_of_building(ttl: AdaptiveTtl) -> None:
    """Whichever is longer."""
    stay(ttl, 11, 20.0, build_seconds=2.0)
    assert ttl.limit("A").seconds == 120.0


@pytest.mark.parametrize(("gap", "limit"), [(1.0, 10.0), (3000.0, 3600.0)])
def test_within_the_bounds(ttl: AdaptiveTtl, gap: float, limit: float) -> None:
    """Both."""
    stay(ttl, 5, gap)
    assert ttl.limit("A").seconds == limit


def test_gaps_that_differ_give_a_longer_limit(ttl: AdaptiveTtl) -> None:
    """Two mean deviations above the mean."""
    for gap in (10.0, 30.0) * 10:
        stay(ttl, 2, gap)
    limit = ttl.limit("A")
    assert limit.usual_gap_seconds is not None
    assert 35.0 < limit.usual_gap_seconds < 45.0


def test_old_gaps_fade(ttl: AdaptiveTtl) -> None:
    """A class that is used faster than it was gets a shorter limit, in the end the new one."""
    stay(ttl, 11, 500.0)
    before = ttl.limit("A").seconds
    for _ in range(40):
        stay(ttl, 11, 20.0)
    assert ttl.limit("A").seconds == pytest.approx(60.0, rel=0.01)
    assert before == 1500.0


def test_a_gap_between_two_stays_counts(ttl: AdaptiveTtl) -> None:
    """It left too early: the next limit is longer."""
    stay(ttl, 11, 20.0)
    ttl.observe_return("A", 100.0)
    assert ttl.limit("A").seconds > 60.0


def test_a_gap_that_no_limit_could_bridge_does_not_count(ttl: AdaptiveTtl) -> None:
    """The night says nothing of the gaps by day."""
    stay(ttl, 11, 20.0)
    ttl.observe_return("A", 40_000.0)
    assert ttl.limit("A").seconds == 60.0


def test_a_held_instance_is_no_long_gap(ttl: AdaptiveTtl) -> None:
    """No gap counts for more than the upper bound."""
    stay(ttl, 2, 1e9)
    assert ttl.limit("A").usual_gap_seconds == 3600.0


def test_what_is_used_once_a_stay_goes_by_its_cost(ttl: AdaptiveTtl) -> None:
    """Until it is used twice again."""
    stay(ttl, 11, 200.0, build_seconds=1.0)
    assert ttl.limit("A").seconds == 600.0
    for _ in range(2):
        ttl.observe_return("A", 40_000.0)
        stay(ttl, 1, 0.0, build_seconds=1.0)
    assert ttl.limit("A")[:2] == (60.0, None)
    stay(ttl, 11, 200.0, build_seconds=1.0)
    assert ttl.limit("A").seconds == 600.0


def test_a_short_return_is_a_second_use(ttl: AdaptiveTtl) -> None:
    """It left for room and came back: it is used."""
    for _ in range(5):
        stay(ttl, 1, 0.0)
        ttl.observe_return("A", 50.0)
    assert ttl.limit("A").seconds == 150.0


# -- what it says --------------------------------------------------------------------------------


def test_the_reason_has_the_numbers(ttl: AdaptiveTtl) -> None:
    """All from which the limit came."""
    stay(ttl, 11, 20.0, build_seconds=0.5)
    assert ttl.limit("A").reason == (
        "3 x its usual gap of 20 s is 60 s, 60 x its build of 0.5 s is 30 s, "
        "the longer one within 10 s and 3600 s"
    )
    for _ in range(2):
        stay(ttl, 1, 0.0, build_seconds=0.5)
    assert ttl.limit("A").reason == (
        "its last 2 stays saw no second use; 60 x its build of 0.5 s is 30 s, "
        "within 10 s and 3600 s"
    )


def test_what_is_known_is_bounded(ttl: AdaptiveTtl, monkeypatch: Any) -> None:
    """The class that was looked at longest ago is forgotten."""
    monkeypatch.setattr(module, "_MOST_CLASSES", 3)
    for name in ("A", "B", "C", "A", "D"):
        ttl.observe_residence(name, 5, 0.0, 40.0, 0.0)
    assert ttl.limit("B").gaps == 0
    assert [ttl.limit(name).gaps for name in "ACD"] == [8, 4, 4]


def test_threads_learn_at_once() -> None:
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
    """Use a class at even gaps."""
    for _ in range(times):
        registry.get_instance(name)
        timer.advance(gap)


def test_a_class_that_is_used_often_leaves_soon_after_its_last_use(make: Any, timer: Any) -> None:
    """By what was learnt from the stay before; until then it has the most."""
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


def test_a_ttl_of_its_own_stays(make: Any, timer: Any) -> None:
    """Adaptive is what has no other."""
    registry = make(adaptive_ttl=True)
    registry.register_class("Alpha", "samples.Alpha", cache_ttl_seconds=7.0)
    used(registry, timer, "Alpha", 5.0, 5)
    registry.discard("Alpha")
    registry.get_instance("Alpha")
    timer.advance(8.0)
    assert registry.evict_expired() == 1


def test_explain_tells_the_numbers(make: Any, timer: Any) -> None:
    """In words."""
    registry = make(adaptive_ttl=True)
    used(registry, timer, "Alpha", 20.0, 11)
    registry.discard("Alpha")
    registry.get_instance("Alpha")
    assert "3 x its usual gap of 20 s is 60 s" in str(registry.explain("Alpha"))


def test_names_that_never_come_back_are_forgotten(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of runs that register their classes anew."""
    registry = make({}, adaptive_ttl=True)
    from warmset.memory import manager

    monkeypatch.setattr(manager, "_MOST_NAMES", 10)
    for number in range(50):
        registry.register_class(f"Alpha@{number}", "samples.Alpha")
        registry.get_instance(f"Alpha@{number}")
        registry.unregister_class(f"Alpha@{number}")
    assert list(registry._memory._last_used) == [f"Alpha@{number}" for number in range(40, 50)]
