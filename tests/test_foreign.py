"""What foreign code raises affects one call at most: the table of `warmset.foreign`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from threads import Gate, in_thread, outcomes, until


class PanicException(BaseException):
    """As a Rust extension raises it."""


EXITS = [SystemExit, asyncio.CancelledError, GeneratorExit, PanicException]
every_exit = pytest.mark.parametrize("kind", EXITS)


def removing(registry: Any) -> list[Any]:
    """Ways to remove Alpha while another class is asked for, or nothing is."""
    return [
        lambda: registry.get_instance("Beta"),
        lambda: registry.use("Beta").__enter__(),
        registry.clear_cache,
        lambda: registry.discard("Alpha"),
        lambda: registry.register("Alpha", "samples.Gamma"),
        registry.close,
    ]


@every_exit
@pytest.mark.parametrize("way", range(6))
def test_a_closer_that_exits(
    make: Any, samples: Any, caplog: Any, kind: type[BaseException], way: int
) -> None:
    """It is counted and logged, and nobody else gets it."""
    registry = make(max_cache_size=1)

    def exits(instance: Any) -> None:
        raise kind("from a closer")

    registry.register("Alpha", "samples.Alpha", closer=exits)
    with registry.use("Alpha"):
        pass
    removing(registry)[way]()
    assert registry.stats().close_failures == 1
    assert "closing the removed instance of 'Alpha' failed" in caplog.text
    assert "from a closer" in caplog.text


def test_an_interrupt_in_a_closer_is_raised_when_the_others_are_closed(
    make: Any, samples: Any
) -> None:
    """It is sent to the thread; its instance counts as one that could not be closed."""
    registry = make()

    def interrupted(instance: Any) -> None:
        raise KeyboardInterrupt

    registry.register("Alpha", "samples.Alpha", closer=interrupted)
    for name in ("Beta", "Alpha", "Gamma"):
        with registry.use(name):
            pass
    with pytest.raises(KeyboardInterrupt):
        registry.clear_cache()
    assert sorted(samples.closed) == ["Beta", "Gamma"]
    stats = registry.stats()
    assert (stats.closed, stats.close_failures) == (2, 1)


@every_exit
@pytest.mark.parametrize("which", ["build", "removal"])
def test_a_listener_that_exits(
    make: Any, samples: Any, kind: type[BaseException], which: str
) -> None:
    """The other listeners get the event, and the caller gets the instance."""
    registry = make(max_cache_size=1)
    events: list[Any] = []

    def exits(event: Any) -> None:
        raise kind

    add = registry.add_listener if which == "removal" else registry.add_build_listener
    add(exits)
    add(events.append)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    assert [event.class_name for event in events] == ["Alpha", "Beta"][: 2 - (which == "removal")]
    assert registry.stats().listener_failures == len(events)


@pytest.mark.parametrize("which", ["build", "removal"])
def test_an_interrupt_in_the_first_listener(make: Any, samples: Any, which: str) -> None:
    """The others get the event first; then the interrupt is raised. Nothing is lost."""
    registry = make()
    first: list[Any] = []
    last: list[Any] = []

    def interrupted(event: Any) -> None:
        first.append(event)
        raise KeyboardInterrupt

    add = registry.add_listener if which == "removal" else registry.add_build_listener
    add(interrupted)
    add(interrupted)
    add(last.append)
    if which == "removal":
        registry.get_instance("Alpha")
        with pytest.raises(KeyboardInterrupt):
            registry.clear_cache()
    else:
        with pytest.raises(KeyboardInterrupt):
            registry.get_instance("Alpha")
        assert registry.stats().cached == 1
        assert not registry.holders()
    assert len(first) == 2
    assert len(last) == 1
    assert registry.stats().listener_failures == 0


@every_exit
def test_a_constructor_that_exits(
    ws: Any, make: Any, samples: Any, timer: Any, kind: type[BaseException]
) -> None:
    """Its caller gets the exit, and those who wait an error; it is remembered and counted."""
    registry = make(retry_after_seconds=30.0)
    gate = Gate()
    events: list[Any] = []
    registry.add_build_listener(events.append)

    def exits(instance: Any) -> None:
        gate()
        raise kind("no licence")

    samples.script["Alpha"] = exits
    first = in_thread(registry.get_instance, "Alpha")
    gate.wait()
    others = [in_thread(registry.get_instance, "Alpha") for _ in range(2)]
    until(lambda: registry.stats().waits == 2)
    gate.open()
    assert type(first.outcome()) is kind
    for outcome in outcomes(others):
        assert type(outcome) is ws.errors.BuildError
        assert type(outcome.__cause__) is kind
        assert "no licence" in str(outcome)
    with pytest.raises(ws.errors.BuildError, match="no licence"):
        registry.get_instance("Alpha")
    stats = registry.stats()
    assert stats.failed_class_names == ("Alpha",)
    assert stats.failed_builds == 1
    assert [event.succeeded for event in events] == [False]
    timer.advance(31.0)
    samples.script.clear()
    assert type(registry.get_instance("Alpha")) is samples.Alpha


@every_exit
def test_a_constructor_that_exits_within_another_build(
    make: Any, samples: Any, kind: type[BaseException]
) -> None:
    """Both classes failed, and the caller gets the exit."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")

    def exits(instance: Any) -> None:
        raise kind

    samples.script["Beta"] = exits
    with pytest.raises(kind):
        registry.get_instance("Alpha")
    assert registry.stats().failed_class_names == ("Beta", "Alpha")
    assert registry.stats().failed_builds == 2


def test_what_is_an_interrupt(ws: Any) -> None:
    """What is sent to a thread or a greenlet."""
    greenlet = pytest.importorskip("greenlet")

    class Interrupt(KeyboardInterrupt):
        """As a subclass."""

    class Lying(BaseException):
        """Its class is not what it says."""

        __class__ = KeyboardInterrupt  # type: ignore[assignment]

    foreign = ws.foreign
    assert foreign.is_interrupt(KeyboardInterrupt())
    assert foreign.is_interrupt(Interrupt())
    assert foreign.is_interrupt(greenlet.GreenletExit())
    assert not foreign.is_interrupt(Lying())
    for kind in (*EXITS, ValueError, MemoryError):
        assert not foreign.is_interrupt(kind())


def test_attributes_are_found_without_running_foreign_code(ws: Any) -> None:
    """Neither metaclass nor property nor `__getattr__` is asked."""
    foreign, ran = ws.foreign, []

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            ran.append(name)
            raise ImportError(name)

    class Base:
        __slots__ = ("slot", "unset")

    class Odd(Base, metaclass=Meta):
        @property
        def data(self) -> Any:
            ran.append("data")
            raise ConnectionError

        def __getattribute__(self, name: str) -> Any:
            ran.append(name)
            raise EOFError

    odd = Odd()
    object.__setattr__(odd, "slot", 1)
    object.__setattr__(odd, "own", 2)
    ran.clear()
    assert type(foreign.find_in_type(Odd, "data")) is property
    assert foreign.find_in_type(Odd, "own") is foreign.MISSING
    assert foreign.find_own(odd, "slot") == 1
    assert foreign.find_own(odd, "unset") is foreign.MISSING
    assert foreign.find_own(odd, "own") == 2
    assert foreign.find_own(odd, "data") is foreign.MISSING
    assert foreign.find_own(asyncio, "run") is asyncio.run
    assert ran == []
    assert foreign.read_attribute(odd, "data", "default") == "default"
