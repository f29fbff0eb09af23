"""Warming up while things go wrong: failures, races for room, foreign code that raises, forks."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

PATIENCE = 30.0


@pytest.fixture
def needing(ws: Any) -> Any:
    """Make a profile of classes that were used once: class name -> what its builds ask for."""
    from warmset.memory.profiles import ClassProfile, Profile

    def make(**needs: tuple[str, ...]) -> Any:
        known = {"uses": 1, "builds": 1, "build_seconds": 1.0, "own_build_seconds": 1.0}
        return Profile({n: ClassProfile(depends_on=d, **known) for n, d in needs.items()})

    return make


def test_what_needs_a_class_that_failed_is_not_tried(make: Any, samples: Any, needing: Any) -> None:
    """It would fail too, and its failure would be remembered."""
    registry = make()

    def fail(_: Any) -> None:
        raise OSError("no disk")

    samples.script["Beta"] = fail
    profile = needing(Alpha=("Beta",), Beta=(), Gamma=("Alpha",), Delta=())
    report = registry.warm_up(profile, workers=2)
    assert [name for name, _ in report.failed] == ["Beta"]
    assert dict(report.skipped) == {
        "Alpha": "it needs 'Beta', which failed",
        "Gamma": "it needs 'Alpha', which was skipped",
    }
    assert [name for name, _ in report.built] == ["Delta"]
    assert registry.stats().failed_class_names == ("Beta",)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_constructor_that_ends_its_thread_ends_no_worker(
    make: Any, samples: Any, error: type[BaseException], workers: int
) -> None:
    """It failed; the others are built."""
    registry = make()

    def leave(_: Any) -> None:
        raise error("enough")

    samples.script["Alpha"] = leave
    report = registry.warm_up(["Alpha", "Beta", "Gamma"], workers=workers)
    assert report.failed == (("Alpha", f"{error.__name__}: enough"),)
    assert sorted(name for name, _ in report.built) == ["Beta", "Gamma"]
    assert registry.stats().held == 0


def test_workers_do_not_build_past_the_room(make: Any, samples: Any) -> None:
    """What is being built has its place already, but only one: at the bound all that fit come."""
    registry = make(max_cache_size=3)
    registry.get_instance("Alpha")
    together = threading.Barrier(2, timeout=PATIENCE)
    samples.script["Beta"] = samples.script["Gamma"] = lambda _: together.wait()
    report = registry.warm_up(["Beta", "Gamma", "Delta"], workers=2)
    assert sorted(name for name, _ in report.built) == ["Beta", "Gamma"]
    assert registry.stats().evictions == 0
    assert "Alpha" in registry._ring()


def test_nothing_more_is_begun_once_warm_ones_leave_for_want_of_room(
    make: Any, samples: Any
) -> None:
    """Somebody else fills the cache meanwhile."""
    registry = make(max_cache_size=2)
    registry.register_class("Epsilon", "samples.Outer.Inner")

    def fill(_: Any) -> None:
        for name in ("Gamma", "Delta", "Epsilon"):
            registry.get_instance(name)
        registry.discard("Delta")
        registry.discard("Epsilon")

    samples.script["Alpha"] = fill
    report = registry.warm_up(["Alpha", "Beta"], workers=1)
    assert registry.stats().evictions == 1
    assert dict(report.skipped) == {"Beta": "what is warm began to leave for want of room"}


def test_what_has_expired_is_neither_warm_nor_in_the_way(
    make: Any, samples: Any, timer: Any
) -> None:
    registry = make(max_cache_size=1, cache_ttl_seconds=10.0)
    registry.get_instance("Alpha")
    timer.advance(11)
    assert registry.warm_up(["Alpha"]).warm == ()
    timer.advance(11)
    report = registry.warm_up(["Beta"])
    assert [name for name, _ in report.built] == ["Beta"]


def test_what_nobody_used_is_built_only_for_others(make: Any, samples: Any, ws: Any) -> None:
    """Else what was warmed once would be in every profile for ever."""
    from warmset.memory.profiles import ClassProfile, Profile

    registry = make()
    profile = Profile(
        {
            "Alpha": ClassProfile(uses=3, builds=1, depends_on=("Beta",)),
            "Beta": ClassProfile(builds=1),
            "Gamma": ClassProfile(builds=1, own_build_seconds=60.0, build_seconds=60.0),
        }
    )
    report = registry.warm_up(profile, workers=1)
    assert samples.built == ["Beta", "Alpha"]
    assert report.skipped == (("Gamma", "nobody used it in the recording"),)


def test_a_build_of_another_thread_is_not_claimed(make: Any, samples: Any) -> None:
    """It is waited for."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(PATIENCE)

    samples.script["Alpha"] = slow
    other = threading.Thread(target=registry.get_instance, args=("Alpha",))
    other.start()
    assert entered.wait(PATIENCE)
    report = registry.warm_up(
        ["Alpha"], progress=lambda event: go.set() if event.state == "begun" else None
    )
    other.join(PATIENCE)
    assert report.built == ()
    assert (report.warm, report.skipped) == (("Alpha",), ())


def test_a_registry_that_is_closed_meanwhile(make: Any, samples: Any) -> None:
    registry = make()
    samples.script["Alpha"] = lambda _: registry.close()
    report = registry.warm_up(["Alpha", "Beta"], workers=1)
    assert dict(report.skipped) == {"Beta": "the registry was closed"}


def test_a_timer_that_raises_ends_it_with_its_error(make: Any, timer: Any) -> None:
    """And hangs nobody."""
    broken = False

    def clock() -> float:
        if broken and threading.current_thread().name.startswith("warmset-warm-up"):
            raise OSError("no clock")
        return timer()

    registry = make(timer=clock)
    broken = True
    with pytest.raises(OSError, match="no clock"):
        registry.warm_up(["Alpha", "Beta"], workers=2, deadline=5)
    broken = False
    assert len(registry.warm_up(["Alpha", "Beta"]).built) == 2


def test_the_context_of_the_caller_is_that_of_the_builds(make: Any, samples: Any) -> None:
    """So a trace that is current goes on in them."""
    from contextvars import ContextVar

    registry = make()
    current: ContextVar[str] = ContextVar("current", default="none")
    seen: list[str] = []
    samples.script["Alpha"] = lambda _: seen.append(current.get())
    current.set("a trace")
    registry.warm_up(["Alpha"])
    assert seen == ["a trace"]


def test_an_awaited_rule_may_not_warm_up(ws: Any, make: Any) -> None:
    """It would stop the loop that its own build waits for."""
    from warmset.aio import AsyncMethodExecutor

    registry = make()
    executor = AsyncMethodExecutor(method_registry=registry)

    async def rule(cls: type) -> Any:
        with pytest.raises(ws.MethodRegistryError, match="in the course of a build"):
            registry.warm_up(["Beta"])
        with pytest.raises(ws.MethodRegistryError, match="in the course of"):
            await asyncio.to_thread(registry.warm_up, ["Beta"])
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    assert asyncio.run(executor.get_instance("Alpha")) is not None
    assert registry.stats().cached == 1


def test_many_warm_ups_at_once(make: Any, samples: Any) -> None:
    """Each class is built once; every warm-up accounts for all of them."""
    registry = make()
    names = ["Alpha", "Beta", "Gamma", "Delta"]
    reports: list[Any] = []
    threads = [
        threading.Thread(target=lambda: reports.append(registry.warm_up(names, workers=3)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(samples.built) == sorted(names)
    assert len(reports) == 6
    for report in reports:
        told = [name for name, _ in (*report.built, *report.skipped)] + list(report.warm)
        assert sorted(told) == sorted(names)
    assert registry.stats().held == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_child_can_warm_up_after_a_fork(make: Any) -> None:
    """Also where the parent recorded and warmed."""
    registry = make()
    registry.record_profile()
    registry.warm_up(["Alpha"])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (9,)).start()  # a hang is an answer too
            report = registry.warm_up(["Alpha", "Beta"], workers=2)
            assert [name for name, _ in report.built] == ["Beta"]
            assert registry.profile().classes["Beta"].builds == 1
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_asynchronous_rule_fails_there_and_is_built_at_its_first_use(ws: Any, make: Any) -> None:
    """Its error is not remembered against who has a loop."""
    from warmset.aio import AsyncMethodExecutor

    registry = make()
    executor = AsyncMethodExecutor(method_registry=registry)

    async def rule(cls: type) -> Any:
        await asyncio.sleep(0)
        return cls()

    registry.register_instantiation_rule("Alpha", rule)

    async def start() -> Any:
        report = await asyncio.to_thread(registry.warm_up, ["Alpha", "Beta"])
        assert [name for name, _ in report.failed] == ["Alpha"]
        assert [name for name, _ in report.built] == ["Beta"]
        return await executor.get_instance("Alpha")

    assert asyncio.run(start()).echo("x") == "x"
