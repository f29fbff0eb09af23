"""The option `validate`: a check at most once per interval, by one thread."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from threads import Gate, in_thread


class Connection:
    alive = True
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def register(registry: Any, validate: Any, **options: Any) -> None:
    registry.register(
        "db", Connection, validate=validate, validate_interval_seconds=10.0, **options
    )


def test_it_is_checked_at_most_once_per_interval(make: Any, timer: Any) -> None:
    checked: list[Any] = []
    registry = make({})
    register(registry, lambda db: checked.append(db) or True)
    first = registry.get_instance("db")
    for _ in range(3):
        timer.advance(9.0)
        registry.get_instance("db")
    assert checked == [first]
    timer.advance(11.0)
    with registry.use("db"):
        pass
    registry.get_instance("db")
    assert checked == [first, first]
    assert registry.stats().builds == 1


def test_an_invalid_instance_is_removed_and_built_anew(make: Any, timer: Any, ws: Any) -> None:
    removals: list[Any] = []
    registry = make({})
    register(registry, lambda db: db.alive, close_when_removed=True)
    registry.add_listener(removals.append)
    first = registry.get_instance("db")
    first.alive = False
    assert registry.get_instance("db") is first
    timer.advance(11.0)
    second = registry.get_instance("db")
    assert second is not first
    assert first.is_closed
    assert [each.cause.name for each in removals] == ["INVALID"]
    assert removals[0].cause.evicted
    assert registry.get_stats()["removals"]["invalid"] == 1
    stats = registry.stats()
    assert (stats.evictions, stats.builds, stats.hits, stats.misses) == (1, 2, 1, 2)


def test_raising_counts_as_invalid(make: Any, timer: Any, caplog: Any) -> None:
    registry = make({})

    def validate(db: Any) -> bool:
        raise SystemExit("gone")

    register(registry, validate)
    first = registry.get_instance("db")
    timer.advance(11.0)
    with caplog.at_level(logging.WARNING, "warmset"):
        assert registry.get_instance("db") is not first
    assert "counts as invalid" in caplog.text


@pytest.mark.parametrize("valid", [True, False])
def test_others_use_the_previous_answer_meanwhile(make: Any, timer: Any, valid: bool) -> None:
    gate = Gate()
    registry = make({})

    def validate(db: Any) -> bool:
        gate()
        return valid

    register(registry, validate)
    first = registry.get_instance("db")
    timer.advance(11.0)
    running = in_thread(registry.get_instance, "db")
    gate.wait()
    assert registry.get_instance("db") is first
    timer.advance(11.0)  # the check takes longer than the interval: no second one begins
    assert registry.get_instance("db") is first
    gate.open()
    assert (running.outcome() is first) is valid


def test_maximum_age_and_idle_ttl_apply_as_before(make: Any, timer: Any) -> None:
    checked: list[Any] = []
    registry = make({})
    register(registry, lambda db: checked.append(db) or True, max_age_seconds=25.0)
    first = registry.get_instance("db")
    timer.advance(11.0)
    assert registry.evict_expired() == 0
    assert registry.get_instance("db") is first
    timer.advance(15.0)
    assert registry.get_instance("db") is not first
    assert len(checked) == 1
    assert registry.get_stats()["removals"]["aged"] == 1


def test_a_held_instance_that_is_invalid_is_closed_at_its_release(make: Any, timer: Any) -> None:
    registry = make({})
    register(registry, lambda db: False)
    with registry.use("db") as first:
        timer.advance(11.0)
        with registry.use("db") as second:
            assert second is not first
        assert not first.is_closed
    assert first.is_closed


def test_it_works_in_families(make: Any, timer: Any) -> None:
    registry = make({})
    models = registry.family(
        "Model", lambda key: Connection(), validate=lambda m: m.alive, validate_interval_seconds=5.0
    )
    first = models.get("fr")
    timer.advance(6.0)
    assert models.get("fr") is first
    first.alive = False
    timer.advance(6.0)
    assert models.get("fr") is not first


@pytest.mark.counts
def test_health_reports_invalid_instances(make: Any, timer: Any) -> None:
    registry = make({})
    register(registry, lambda db: False)
    assert registry.health() == ()
    registry.get_instance("db")
    timer.advance(11.0)
    registry.get_instance("db")
    assert [each.kind.value for each in registry.health()] == ["instances_invalid"]


ZERO: dict[str, Any] = {"validate_interval_seconds": 0.0}


def look_up(ws: Any, registry: Any, way: str) -> None:
    if way == "use":
        with registry.use("db"):
            pass
    elif way == "bind":
        registry.bind("db", "close")()
    elif way == "execute":
        ws.MethodExecutor(registry).execute("db", "close")
    elif way == "get_method":
        registry.get_method("db", "close")
    else:
        registry.get_instance("db")


@pytest.mark.parametrize("way", ["get_instance", "get_method", "use", "bind", "execute"])
def test_an_interval_of_zero_checks_at_every_look_up(ws: Any, way: str, make: Any) -> None:
    """However often within one tick of the clock, and by the real clocks of both cores."""
    for registry in (make({}), ws.MethodRegistry({})):
        checked: list[Any] = []
        registry.register(
            "db", Connection, validate=lambda db, to=checked: not to.append(db), **ZERO
        )
        look_up(ws, registry, way)
        assert not checked  # it was built just now
        for _ in range(5):
            look_up(ws, registry, way)
        assert len(checked) == 5
        registry.close()


def test_changed_limits_do_not_end_the_checks(make: Any, timer: Any) -> None:
    registry = make({})
    register(registry, lambda db: db.alive)
    registry.get_instance("db").alive = False
    registry._cache_ttl_seconds = 500.0
    timer.advance(11.0)
    assert registry.get_instance("db").alive


def test_the_next_check_is_no_expiry(make: Any, timer: Any) -> None:
    registry = make({}, cache_ttl_seconds=100.0)
    register(registry, lambda db: True)
    registry.get_instance("db")
    assert registry.expires_in(registry.slots["db"].entry) == 100.0
    timer.advance(60.0)
    assert registry.expires_in(registry.slots["db"].entry) == 40.0
