"""
The states of an entry: each built instance has one owner from its constructor to its closer.

An instance that was removed while it was being built is never cached. Like any other one outside
the cache, it is listed and counted while it is held, and closed at its last release.
"""

from __future__ import annotations

import importlib
import os
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from loops import join_workers, run
from threads import Gate, in_thread, until

from warmset.testing.structure import check_accounts, check_structure

if TYPE_CHECKING:
    from collections.abc import Callable

REMOVALS: dict[str, Callable[[Any], object]] = {
    "clear_cache": lambda registry: registry.clear_cache(),
    "discard": lambda registry: registry.discard("Alpha"),
    "unregister": lambda registry: registry.unregister("Alpha"),
    "another path": lambda registry: registry.register("Alpha", "samples.Beta"),
    "close": lambda registry: registry.close(),
}


def states(registry: Any) -> dict[str, int]:
    """Return the states in which there are entries, with their number."""
    check_accounts(registry)
    return {state: count for state, count in registry.stats().states.items() if count}


def holders(registry: Any) -> list[str]:
    """Return the class name of each hold."""
    return [row.class_name for row in registry.holders()]


@pytest.fixture(params=REMOVALS)
def remove(request: pytest.FixtureRequest) -> Callable[[Any], object]:
    """A removal, done to the registry while Alpha is being built."""
    return REMOVALS[request.param]


@pytest.fixture
def registry(make: Any, samples: Any, remove: Any) -> Any:
    """A registry with that removal during the first build of Alpha."""
    registry = make(max_cache_size=2)

    def remove_once(_: Any) -> None:
        samples.script.clear()
        remove(registry)

    samples.script["Alpha"] = remove_once
    return registry


@pytest.fixture
def seen(registry: Any, samples: Any) -> Any:
    """Reports of the registry that the methods `look` and `stream` of Alpha take."""
    seen: list[Any] = []

    def look(self: Any) -> str:
        seen.append((self.is_closed, holders(registry), states(registry)))
        return "result"

    def stream(self: Any) -> Any:
        yield look(self)
        yield look(self)

    samples.Alpha.look, samples.Alpha.stream = look, stream
    yield seen
    del samples.Alpha.look, samples.Alpha.stream


HELD = (False, ["Alpha"], {"held": 1})


def test_a_lease(registry: Any, samples: Any) -> None:
    """The instance is held by it, and closed at its end."""
    with registry.use("Alpha") as alpha:
        assert type(alpha) is samples.Alpha
        assert not alpha.is_closed
        assert holders(registry) == ["Alpha"]
        assert states(registry) == {"held": 1}
        assert registry.stats().cached == 0
    assert alpha.is_closed
    assert holders(registry) == []
    assert states(registry) == {"closed": 1}


@pytest.mark.parametrize("way", ["handle", "execute"])
def test_a_call(ws: Any, registry: Any, samples: Any, seen: Any, way: str) -> None:
    """The instance is held while the method runs, and then closed."""
    if way == "handle":
        result = registry.bind("Alpha", "look")()
    else:
        result = ws.MethodExecutor(method_registry=registry).execute("Alpha", "look")
    assert result == "result"
    assert seen == [HELD]
    assert samples.closed == ["Alpha"]
    assert holders(registry) == []
    assert states(registry) == {"closed": 1}


@pytest.mark.parametrize("way", ["handle", "execute"])
@pytest.mark.parametrize("end", ["exhausted", "closed", "dropped"])
def test_a_generator(ws: Any, registry: Any, samples: Any, seen: Any, way: str, end: str) -> None:
    """The instance is held until the generator has ended."""
    if way == "handle":
        running = registry.bind("Alpha", "stream")()
    else:
        running = ws.MethodExecutor(method_registry=registry).execute("Alpha", "stream")
    assert next(running) == "result"
    assert holders(registry) == ["Alpha"]
    assert states(registry) == {"held": 1}
    assert samples.closed == []
    if end == "exhausted":
        assert list(running) == ["result"]
    elif end == "closed":
        running.close()
    del running
    assert seen == [HELD] * (2 if end == "exhausted" else 1)
    assert samples.closed == ["Alpha"]
    assert holders(registry) == []
    assert states(registry) == {"closed": 1}


@pytest.mark.parametrize("way", ["get_instance", "get_method"])
def test_a_caller_without_a_lease(registry: Any, samples: Any, way: str) -> None:
    """The instance is left open, because its caller refers to it."""
    if way == "get_instance":
        mine = registry.get_instance("Alpha").echo
    else:
        mine = registry.get_method("Alpha", "echo")
    assert mine("x") == "x"
    assert samples.closed == []
    assert holders(registry) == []
    assert states(registry) == {"left_open": 1}


def test_a_caller_without_a_lease_and_close_when_removed(
    make: Any, samples: Any, remove: Any
) -> None:
    """The class asked for it: the instance is closed although its caller refers to it."""
    registry = make()
    registry.register("Alpha", "samples.Alpha", close_when_removed=True)
    samples.script["Alpha"] = lambda _: remove(registry)
    assert registry.get_instance("Alpha").is_closed
    assert states(registry) == {"closed": 1}


def test_a_caller_without_a_lease_and_one_with_a_lease(
    make: Any, samples: Any, remove: Any
) -> None:
    """One build serves both; the instance is left open at the end of the lease."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    first = in_thread(registry.get_instance, "Alpha")
    gate.wait()
    lease = registry.use("Alpha")
    second = in_thread(lease.__enter__)
    until(lambda: registry.stats().waits == 1)
    remove(registry)
    gate.open()
    alpha = first.result()
    assert second.result() is alpha
    assert holders(registry) == ["Alpha"]
    assert states(registry) == {"held": 1}
    lease.__exit__()
    assert not alpha.is_closed
    assert holders(registry) == []
    assert states(registry) == {"left_open": 1}


def test_several_leases(make: Any, samples: Any, remove: Any) -> None:
    """One build serves all waiters; the instance is closed at the last release of all."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    leases = [registry.use("Alpha") for _ in range(3)]
    running = [in_thread(lease.__enter__) for lease in leases]
    gate.wait()
    until(lambda: registry.stats().waits == 2)
    remove(registry)
    gate.open()
    alpha, *others = (each.result() for each in running)
    assert others == [alpha, alpha]
    for count in (3, 2, 1):
        assert not alpha.is_closed
        assert holders(registry) == ["Alpha"] * count
        assert states(registry) == {"held": 1}
        leases.pop().__exit__()
    assert alpha.is_closed
    assert holders(registry) == []
    assert states(registry) == {"closed": 1}


@pytest.mark.parametrize("way", ["use", "execute", "generator", "get_instance"])
def test_an_asynchronous_caller(registry: Any, samples: Any, seen: list[Any], way: str) -> None:
    """The instance is held and closed as for a synchronous one."""
    aio = importlib.import_module("warmset.aio")
    executor = aio.AsyncMethodExecutor(method_registry=registry)

    async def work() -> Any:
        if way == "use":
            async with executor.use("Alpha") as alpha:
                alpha.look()
        elif way == "execute":
            await executor.execute("Alpha", "look")
        elif way == "generator":
            next(await executor.execute("Alpha", "stream"))
        else:
            return await executor.get_instance("Alpha")
        return None

    mine = run(work())
    assert holders(registry) == []
    if way == "get_instance":
        assert not mine.is_closed
        assert states(registry) == {"left_open": 1}
    else:
        join_workers()
        assert seen == [HELD]
        assert samples.closed == ["Alpha"]
        assert states(registry) == {"closed": 1}


def test_a_warm_up(registry: Any, samples: Any) -> None:
    """It keeps no instance, so the instance is closed at its end."""
    registry.warm_up(["Alpha"], workers=1)
    assert samples.built == samples.closed == ["Alpha"]
    assert holders(registry) == []
    assert states(registry) == {"closed": 1}


def test_the_next_look_up(ws: Any, registry: Any, samples: Any, request: Any) -> None:
    """It builds another instance, also while the removed one is held."""
    with registry.use("Alpha") as alpha:
        what = request.node.callspec.params["remove"]
        if what in ("unregister", "close"):
            error = ws.UnknownClassError if what == "unregister" else ws.ClosedError
            with pytest.raises(error):
                registry.get_instance("Alpha")
            assert states(registry) == {"held": 1}
        else:
            successor = registry.get_instance("Alpha")
            assert successor is not alpha
            assert type(successor) is (samples.Beta if what == "another path" else samples.Alpha)
            assert registry.get_instance("Alpha") is successor
            assert states(registry) == {"held": 1, "cached": 1}
    assert alpha.is_closed


def test_a_failing_closer(make: Any, samples: Any, remove: Any) -> None:
    """It is counted once."""
    registry = make()

    def fail(instance: Any) -> None:
        raise OSError("stuck")

    registry.register("Alpha", "samples.Alpha", closer=fail)
    samples.script["Alpha"] = lambda _: remove(registry)
    with registry.use("Alpha"):
        pass
    assert states(registry) == {"close_failed": 1}
    assert registry.stats().close_failures == 1


def test_nothing_to_close(make: Any, samples: Any, remove: Any) -> None:
    """An instance without a closer is counted, too."""
    registry = make()
    registry.register("Alpha", "samples.Alpha", closer=None)
    samples.script["Alpha"] = lambda _: remove(registry)
    with registry.use("Alpha"):
        assert holders(registry) == ["Alpha"]
    assert samples.closed == []
    assert states(registry) == {"nothing_to_close": 1}


def test_a_registry_that_keeps_instances_weakly(make: Any, samples: Any, remove: Any) -> None:
    """An instance that was never cached was never kept weakly: it is closed like others."""
    registry = make(enable_weakref=True)
    samples.script["Alpha"] = lambda _: remove(registry)
    with registry.use("Alpha"):
        assert holders(registry) == ["Alpha"]
        assert states(registry) == {"held": 1}
    assert samples.closed == ["Alpha"]
    assert states(registry) == {"closed": 1}


# -- names that are registered anew ----------------------------------------------------------------


@pytest.mark.parametrize("arrival", ["before the end of the build", "after it"])
def test_a_build_listener_that_registers_the_name_anew(
    make: Any, samples: Any, arrival: str
) -> None:
    """A waiter gets the entry of its build, or the new class; the name has one slot."""
    registry = make(max_cache_size=1)
    builder = registry.builder
    wait_for = builder._wait_for
    samples.script["Alpha"] = gate = Gate()

    def register_anew(event: Any) -> None:
        registry.remove_build_listener(register_anew)
        registry.unregister("Alpha")
        registry.register("Alpha", "samples.Beta")

    registry.add_build_listener(register_anew)
    first = in_thread(registry.get_instance, "Alpha")
    gate.wait()

    def wait_late(*args: Any) -> Any:
        builder._wait_for = wait_for
        gate.open()
        first.result()
        return wait_for(*args)

    if arrival == "after it":
        builder._wait_for = wait_late
    lease = registry.use("Alpha")
    second = in_thread(lease.__enter__)
    if arrival != "after it":
        until(lambda: registry.stats().waits == 1)
        gate.open()
    old, mine = first.result(), second.result()
    assert type(old) is samples.Alpha
    if arrival == "after it":
        assert type(mine) is samples.Beta
        assert registry.get_instance("Alpha") is mine
        assert states(registry) == {"left_open": 1, "cached": 1}
    else:
        assert mine is old
        assert states(registry) == {"held": 1}
    lease.__exit__()
    assert type(registry.get_instance("Alpha")) is samples.Beta
    assert len(registry) == 4
    assert registry.stats().cached == 1
    check_structure(registry)


# -- a closed registry -----------------------------------------------------------------------------


def test_a_registry_that_was_closed_during_a_lease(ws: Any, make: Any, samples: Any) -> None:
    """It does not return the held instance, and caches nothing any more."""
    registry = make()
    executor = ws.MethodExecutor(method_registry=registry)
    handle = registry.bind("Alpha", "echo")
    with registry.use("Alpha") as alpha:
        registry.close()
        for look_up in (
            lambda: registry.get_instance("Alpha"),
            lambda: registry.get_method("Alpha", "echo"),
            lambda: registry.use("Alpha").__enter__(),
            lambda: handle("x"),
            lambda: registry.recycle("Alpha"),
        ):
            with pytest.raises(ws.ClosedError):
                look_up()
        with pytest.raises(AttributeError) as caught:
            executor.execute("Alpha", "echo", text="x")
        assert isinstance(caught.value.__cause__ or caught.value, ws.ClosedError)
        assert not alpha.is_closed
        assert states(registry) == {"held": 1}
    assert alpha.is_closed
    assert samples.built == ["Alpha"]
    assert states(registry) == {"closed": 1}


# -- the closer of the class that built it ---------------------------------------------------------


@pytest.mark.parametrize("path", ["samples.Alpha", "samples.Beta"])
@pytest.mark.parametrize("when", ["held", "cached", "being built"])
def test_an_instance_is_closed_by_the_closer_it_was_built_with(
    make: Any, samples: Any, path: str, when: str
) -> None:
    """Not by a closer that its name was registered with later."""
    closed: dict[str, list[Any]] = {"old": [], "new": []}
    registry = make()

    def register_anew(_: Any = None) -> None:
        samples.script.clear()
        registry.register("Alpha", path, closer=closed["new"].append)

    registry.register("Alpha", "samples.Alpha", closer=closed["old"].append)
    if when == "being built":
        samples.script["Alpha"] = register_anew
    with registry.use("Alpha") as alpha:
        if when == "held":
            register_anew()
    if when == "cached":
        register_anew()
    registry.clear_cache()
    assert closed == {"old": [alpha], "new": []}
    with registry.use("Alpha") as successor:
        pass
    registry.clear_cache()
    assert closed == {"old": [alpha], "new": [successor]}
    assert states(registry) == {"closed": 2}


# -- other states ----------------------------------------------------------------------------------


def test_an_instance_that_was_written_to_the_cache(ws: Any, make: Any, samples: Any) -> None:
    """It is adopted, not built, and has a state like any other one."""
    registry = make()
    registry._cache["Alpha"] = ws.CacheEntry(samples.Alpha(), time(), time())
    assert (registry.stats().builds, registry.stats().adopted) == (0, 1)
    assert states(registry) == {"cached": 1}
    mine = registry.get_instance("Alpha")
    registry._cache["Alpha"] = ws.CacheEntry(samples.Alpha(), time(), time())
    assert states(registry) == {"cached": 1, "left_open": 1}
    assert not mine.is_closed
    with registry.use("Alpha"):
        registry.discard("Alpha")
        assert states(registry) == {"held": 1, "left_open": 1}
    assert (registry.stats().builds, registry.stats().adopted) == (0, 2)


def test_serials_are_unique(ws: Any, make: Any, samples: Any) -> None:
    """Built and adopted instances are numbered in one sequence."""
    registry = make()
    registry.get_instance("Alpha")
    registry._cache["Beta"] = ws.CacheEntry(samples.Beta(), time(), time())
    registry.get_instance("Gamma")
    registry._cache["Delta"] = ws.CacheEntry(samples.Delta(), time(), time())
    assert list(registry._cache) == ["Alpha", "Beta", "Gamma", "Delta"]
    assert sorted(entry.serial for entry in registry.warm_entries()) == [1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_an_instance_that_a_forked_child_drops(make: Any, samples: Any) -> None:
    """It is the parent's, also while the child holds it; the parent closes it."""
    registry = make()
    registry.register("Alpha", "samples.Alpha", after_fork="drop")
    with registry.use("Alpha") as alpha:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert states(registry) == {"parents": 1}
                assert registry.get_instance("Alpha") is not alpha
                assert states(registry) == {"parents": 1, "cached": 1}
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        registry.discard("Alpha")
    assert states(registry) == {"closed": 1}
