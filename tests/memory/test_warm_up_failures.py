"""Tests of warm-ups with failing classes, concurrent builds, errors in foreign code and forks."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from warmset.testing.structure import eviction_order

PATIENCE = 30.0


@pytest.fixture
def needing(ws: Any) -> Any:
    """Create a profile of classes that were used once, from class names and their dependencies."""
    from warmset.memory.profiles import ClassProfile, Profile

    def make(**needs: tuple[str, ...]) -> Any:
        known = {"uses": 1, "builds": 1, "build_seconds": 1.0, "own_build_seconds": 1.0}
        return Profile({n: ClassProfile(depends_on=d, **known) for n, d in needs.items()})

    return make


def test_dependents_of_a_failed_class_are_skipped(make: Any, samples: Any, needing: Any) -> None:
    """They would fail too, and their failure would be remembered."""
    registry = make()

    def fail(_: Any) -> None:
        raise OSError("no disk")

    samples.script["Beta"] = fail
    profile = needing(Alpha=("Beta",), Beta=(), Gamma=("Alpha",), Delta=())
    report = registry.warm_up(profile, workers=2)
    assert [name for name, _ in report.failed] == ["Beta"]
    assert dict(report.skipped) == {
        "Alpha": "its dependency 'Beta' failed",
        "Gamma": "its dependency 'Alpha' was skipped",
    }
    assert [name for name, _ in report.built] == ["Delta"]
    assert registry.stats().failed_class_names == ("Beta",)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_constructor_that_raises_a_base_exception_does_not_end_the_worker(
    make: Any, samples: Any, error: type[BaseException], workers: int
) -> None:
    """The class counts as failed and the others are built."""
    registry = make()

    def leave(_: Any) -> None:
        raise error("enough")

    samples.script["Alpha"] = leave
    report = registry.warm_up(["Alpha", "Beta", "Gamma"], workers=workers)
    assert report.failed == (("Alpha", f"{error.__name__}: enough"),)
    assert sorted(name for name, _ in report.built) == ["Beta", "Gamma"]
    assert registry.stats().held == 0


def test_workers_do_not_exceed_the_capacity(make: Any, samples: Any) -> None:
    """A build in progress counts as one instance, so all classes that fit are built."""
    registry = make(max_cache_size=3)
    registry.get_instance("Alpha")
    together = threading.Barrier(2, timeout=PATIENCE)
    samples.script["Beta"] = samples.script["Gamma"] = lambda _: together.wait()
    report = registry.warm_up(["Beta", "Gamma", "Delta"], workers=2)
    assert sorted(name for name, _ in report.built) == ["Beta", "Gamma"]
    assert registry.stats().evictions == 0
    assert "Alpha" in eviction_order(registry)


def test_no_build_starts_after_warm_instances_are_evicted_for_capacity(
    make: Any, samples: Any
) -> None:
    """Another caller fills the cache meanwhile."""
    registry = make(max_cache_size=2)
    registry.register("Epsilon", "samples.Outer.Inner")

    def fill(_: Any) -> None:
        for name in ("Gamma", "Delta", "Epsilon"):
            registry.get_instance(name)
        registry.discard("Delta")
        registry.discard("Epsilon")

    samples.script["Alpha"] = fill
    report = registry.warm_up(["Alpha", "Beta"], workers=1)
    assert registry.stats().evictions == 1
    assert dict(report.skipped) == {"Beta": "warm instances were evicted to free capacity"}


def test_expired_instances_are_not_warm_and_take_no_capacity(
    make: Any, samples: Any, timer: Any
) -> None:
    registry = make(max_cache_size=1, cache_ttl_seconds=10.0)
    registry.get_instance("Alpha")
    timer.advance(11)
    assert registry.warm_up(["Alpha"]).warm == ()
    timer.advance(11)
    report = registry.warm_up(["Beta"])
    assert [name for name, _ in report.built] == ["Beta"]


def test_an_unused_class_is_built_only_as_a_dependency(make: Any, samples: Any, ws: Any) -> None:
    """Otherwise a class warmed up once would remain in every later profile."""
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
    assert report.skipped == (("Gamma", "it was not used in the recording"),)


def test_a_build_of_another_thread_is_reported_as_warm(make: Any, samples: Any) -> None:
    """The warm-up waits for it."""
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
        ["Alpha"], progress=lambda event: go.set() if event.state == "started" else None
    )
    other.join(PATIENCE)
    assert report.built == ()
    assert (report.warm, report.skipped) == (("Alpha",), ())


def test_the_registry_is_closed_during_a_warm_up(make: Any, samples: Any) -> None:
    registry = make()
    samples.script["Alpha"] = lambda _: registry.close()
    report = registry.warm_up(["Alpha", "Beta"], workers=1)
    assert dict(report.skipped) == {"Beta": "the registry was closed"}


def test_an_error_of_the_timer_ends_the_warm_up(make: Any, timer: Any) -> None:
    """It is raised in the calling thread, and no worker hangs."""
    broken = False

    def clock() -> float:
        if broken and threading.current_thread().name.startswith("warmset-warm-up"):
            raise OSError("no clock")
        return timer()

    registry = make(timer=clock)
    broken = True
    with pytest.raises(OSError, match="no clock"):
        registry.warm_up(["Alpha", "Beta"], workers=2, deadline_seconds=5)
    broken = False
    assert len(registry.warm_up(["Alpha", "Beta"]).built) == 2


def test_builds_run_in_the_context_of_the_caller(make: Any, samples: Any) -> None:
    """So they belong to the current trace."""
    from contextvars import ContextVar

    registry = make()
    current: ContextVar[str] = ContextVar("current", default="none")
    seen: list[str] = []
    samples.script["Alpha"] = lambda _: seen.append(current.get())
    current.set("a trace")
    registry.warm_up(["Alpha"])
    assert seen == ["a trace"]


def test_an_asynchronous_rule_cannot_warm_up(ws: Any, make: Any) -> None:
    """It would block the event loop that its own build waits for."""
    from warmset.aio import AsyncMethodExecutor

    registry = make()
    executor = AsyncMethodExecutor(method_registry=registry)

    async def rule(cls: type) -> Any:
        with pytest.raises(ws.MethodRegistryError, match="during the build of 'Alpha'"):
            registry.warm_up(["Beta"])
        with pytest.raises(ws.MethodRegistryError, match="during"):
            await asyncio.to_thread(registry.warm_up, ["Beta"])
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    assert asyncio.run(executor.get_instance("Alpha")) is not None
    assert registry.stats().cached == 1


def test_concurrent_warm_ups(make: Any, samples: Any) -> None:
    """Each class is built once, and every report lists all classes."""
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
    """Also if the parent has recorded a profile and warmed up."""
    registry = make()
    registry.record_profile()
    registry.warm_up(["Alpha"])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (9,)).start()  # turns a hang into a failure
            report = registry.warm_up(["Alpha", "Beta"], workers=2)
            assert [name for name, _ in report.built] == ["Beta"]
            assert registry.profile().classes["Beta"].builds == 1
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_asynchronous_rule_fails_and_is_built_on_first_use(ws: Any, make: Any) -> None:
    """The error is not remembered for look-ups from an event loop."""
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
