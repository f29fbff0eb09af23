"""Generators as providers: the code after the yield closes the instance, once."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest


class Connection:
    """Notes what is done to it."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.log = [] if log is None else log
        self.log.append("open")

    def end(self) -> None:
        self.log.append("end")

    def close(self) -> None:
        raise AssertionError("the code after the yield closes it")

    def echo(self, text: str) -> str:
        assert self.log[-1] != "end", "used after its end"
        return text


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def provided(make: Any, log: list[str]) -> Any:
    """A registry with a provider ``db``, which notes in `log`."""
    registry = make({})

    @registry.provider
    def db() -> Any:
        connection = Connection(log)
        yield connection
        connection.end()

    return registry


def build(registry: Any, name: str = "db") -> None:
    """Build an instance that is only leased."""
    with registry.use(name):
        pass


def states(registry: Any) -> dict[str, int]:
    return {state: count for state, count in registry.stats().states.items() if count}


REMOVALS: dict[str, Any] = {
    "discard": lambda registry, timer: registry.discard("db"),
    "clear": lambda registry, timer: registry.clear_cache(),
    "expiry": lambda registry, timer: (timer.advance(301.0), registry.evict_expired()),
    "replacement": lambda registry, timer: registry.register("db", dict),
    "unregister": lambda registry, timer: registry.unregister("db"),
    "close": lambda registry, timer: registry.close(),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_the_code_after_the_yield_runs_once_when_the_instance_is_closed(
    provided: Any, log: list[str], timer: Any, removal: str
) -> None:
    build(provided)
    assert log == ["open"]
    REMOVALS[removal](provided, timer)
    assert log == ["open", "end"]
    provided.close()
    assert log == ["open", "end"]
    assert states(provided) == {"closed": 1}


def test_the_yielded_object_is_the_instance(provided: Any, log: list[str], ws: Any) -> None:
    with provided.use("db") as connection:
        assert type(connection) is Connection
        assert provided.get_instance("db") is connection
    assert ws.MethodExecutor(method_registry=provided).execute("db", "echo", text="a") == "a"
    assert provided.bind("db", "echo")("b") == "b"
    assert log == ["open"]


def test_it_is_not_ended_while_it_is_held(provided: Any, log: list[str]) -> None:
    with provided.use("db") as connection:
        provided.clear_cache()
        assert connection.echo("a") == "a"
    del connection
    assert log == ["open", "end"]


def test_eviction_ends_it(ws: Any, make: Any, log: list[str]) -> None:
    registry = make({"Alpha": "samples.Alpha"}, max_cache_size=1)

    def db() -> Any:
        yield Connection(log)
        log.append("end")

    registry.register("db", db)
    build(registry)
    registry.get_instance("Alpha")
    assert log == ["open", "end"]


@pytest.mark.referrers
def test_it_is_left_open_while_a_caller_without_a_lease_has_it(
    provided: Any, log: list[str]
) -> None:
    """The suspended frame refers to it, too, and does not count as a caller."""
    connection = provided.get_instance("db")
    provided.discard("db")
    assert log == ["open"]
    assert states(provided) == {"left_open": 1}
    assert connection.echo("a") == "a"
    provided.sweep()
    assert log == ["open"]
    del connection
    provided.sweep()
    assert log == ["open", "end"]


@pytest.mark.referrers
def test_it_is_ended_when_no_caller_has_it_any_more(provided: Any, log: list[str]) -> None:
    assert provided.get_instance("db").echo("a") == "a"
    provided.discard("db")
    assert log == ["open", "end"]
    assert states(provided) == {"closed": 1}


@pytest.mark.referrers
def test_what_the_provider_itself_keeps_is_no_caller(make: Any, log: list[str]) -> None:
    registry = make({})
    pool: list[Any] = []

    @registry.provider
    def db() -> Any:
        first = second = Connection(log)
        pool.append(first)
        yield second
        first.end()

    registry.get_instance("db")
    registry.discard("db")
    assert log == ["open", "end"]


def test_it_is_ended_regardless_of_callers_where_that_is_asked_for(
    make: Any, log: list[str]
) -> None:
    registry = make({})

    @registry.provider(close_when_removed=True)
    def db() -> Any:
        connection = Connection(log)
        yield connection
        connection.end()

    connection = registry.get_instance("db")
    registry.discard("db")
    assert connection.log == ["open", "end"]


@pytest.mark.counts
def test_a_dropped_registry_does_not_end_it_in_the_hands_of_a_caller(
    make: Any, log: list[str]
) -> None:
    registry = make({})

    def db() -> Any:
        connection = Connection(log)
        try:
            yield connection
        finally:
            connection.end()

    registry.register("db", db)
    connection = registry.get_instance("db")
    registry.close()
    del registry
    gc.collect()
    assert connection.echo("a") == "a"


def test_an_error_after_the_yield_is_a_failure_of_the_closer(make: Any, caplog: Any) -> None:
    registry = make({})

    @registry.provider
    def db() -> Any:
        yield []
        raise OSError("cannot close")

    build(registry)
    with caplog.at_level(logging.WARNING, "warmset"):
        assert registry.discard("db")
    assert registry.stats().close_failures == 1
    assert "closing the removed instance of 'db' failed" in caplog.text
    assert "cannot close" in caplog.text


def test_a_second_yield_is_a_failure_of_the_closer(make: Any, caplog: Any, log: list[str]) -> None:
    registry = make({})

    @registry.provider
    def db() -> Any:
        try:
            yield []
            yield []
        finally:
            log.append("end")

    build(registry)
    with caplog.at_level(logging.WARNING, "warmset"):
        registry.discard("db")
    assert registry.stats().close_failures == 1
    assert "yields a second time" in caplog.text
    assert log == ["end"]


def test_an_error_before_the_yield_is_an_error_of_the_build(make: Any, ws: Any) -> None:
    registry = make({})

    @registry.provider
    def broken() -> Any:
        raise OSError("no database")
        yield

    @registry.provider
    def empty() -> Any:
        return
        yield

    @registry.provider
    def nothing() -> Any:
        yield None

    for name, text in (
        ("broken", "OSError: no database"),
        ("empty", "yielded nothing"),
        ("nothing", "returned None"),
    ):
        with pytest.raises(ws.BuildError, match=text):
            registry.get_instance(name)
    assert states(registry) == {}


def test_a_closer_of_its_own_is_refused(make: Any, ws: Any) -> None:
    def db() -> Any:
        yield []

    registry = make({})
    registry.register("db", db, closer=lambda instance: None)
    with pytest.raises(ws.BuildError, match="it takes no closer"):
        registry.get_instance("db")


def test_arguments_and_rules(make: Any, ws: Any, log: list[str]) -> None:
    def db(dsn: str, *, user: str = "me") -> Any:
        yield [dsn, user]
        log.append(f"end {dsn}")

    registry = make({"table": db})
    with pytest.raises(TypeError, match=r"do not fit: .*db"):
        registry.register("db", db, kwargs={"dns": "x"})
    registry.register("db", db, args=("x",), kwargs={"user": "you"})
    with registry.use("db") as connection:
        assert connection == ["x", "you"]
    registry.register("Alpha", "samples.Alpha")

    def rule(cls: Any) -> Any:
        alpha = cls()
        yield alpha
        log.append("end Alpha")

    registry.register_instantiation_rule("Alpha", rule)
    build(registry, "Alpha")
    registry.close()
    assert log == ["end Alpha", "end x"]


def test_recycling_ends_the_old_one(provided: Any, log: list[str]) -> None:
    build(provided)
    assert provided.recycle("db")
    assert log == ["open", "open", "end"]
    provided.close()
    assert log == ["open", "open", "end", "end"]


def test_it_is_kept_strongly_in_weak_mode(make: Any, log: list[str]) -> None:
    """Its frame refers to it, so that it would never be collected."""
    registry = make({}, enable_weakref=True)

    def db() -> Any:
        connection = Connection(log)
        yield connection
        connection.end()

    registry.register("db", db)
    build(registry)
    gc.collect()
    assert registry.cached == 1
    registry.clear_cache()
    assert log == ["open", "end"]


def test_an_instance_that_is_itself_a_generator_comes_from_a_class(make: Any) -> None:
    from collections.abc import Generator

    class Numbers(Generator[int, None, None]):
        def send(self, value: Any) -> int:
            return 1

        def throw(self, *error: Any) -> int:
            raise StopIteration

    registry = make({"numbers": Numbers})
    assert type(registry.get_instance("numbers")) is Numbers
    registry.register_instantiation_rule("numbers", lambda cls: cls())
    registry.clear_cache()
    assert type(registry.get_instance("numbers")) is Numbers


def test_an_interrupt_after_the_yield_is_raised(make: Any) -> None:
    registry = make({})

    @registry.provider
    def db() -> Any:
        yield []
        raise KeyboardInterrupt

    build(registry)
    with pytest.raises(KeyboardInterrupt):
        registry.discard("db")
    assert registry.stats().close_failures == 1


def test_the_registry_is_usable_within_the_code_after_the_yield(make: Any, log: list[str]) -> None:
    registry = make({"Alpha": "samples.Alpha"})

    @registry.provider
    def db() -> Any:
        yield []
        log.append(type(registry.get_instance("Alpha")).__name__)
        registry.discard("db")

    build(registry)
    registry.discard("db")
    assert log == ["Alpha"]
