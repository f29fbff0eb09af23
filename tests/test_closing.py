"""Closing of removed instances, once each, and listeners to removals."""

from __future__ import annotations

import gc
import logging
import sys
from functools import partial
from typing import Any

import pytest
from scripts import run_script
from threads import Gate, in_thread, in_threads, until

from warmset.testing.structure import eviction_order


class Resource:
    """Has a `close`, which is noted."""

    def __init__(self) -> None:
        self.closings = 0

    def close(self) -> None:
        self.closings += 1

    def touch(self) -> str:
        assert not self.closings
        return "fine"


def removals() -> list[Any]:
    """Every way in which an instance is removed, as a parameter."""

    def by_size(registry: Any, timer: Any) -> None:
        registry.get_instance("Beta")

    def by_look_up(registry: Any, timer: Any) -> None:
        timer.advance(11)
        registry.get_instance("Alpha")

    def by_sweep(registry: Any, timer: Any) -> None:
        timer.advance(11)
        assert registry.evict_expired() == 1

    return [
        pytest.param(by_size, id="size"),
        pytest.param(by_look_up, id="idle, found by a look-up"),
        pytest.param(by_sweep, id="idle, found by evict_expired"),
        pytest.param(lambda registry, timer: registry.clear_cache(), id="clear_cache"),
        pytest.param(lambda registry, timer: registry.discard("Alpha"), id="discard"),
        pytest.param(lambda registry, timer: registry.unregister("Alpha"), id="unregister"),
        pytest.param(
            lambda registry, timer: registry.register("Alpha", "samples.Gamma"), id="path"
        ),
        pytest.param(lambda registry, timer: registry.close(), id="close"),
    ]


@pytest.fixture
def registry(make: Any) -> Any:
    """At most one instance, ten seconds."""
    return make(max_cache_size=1, cache_ttl_seconds=10)


@pytest.mark.counts
@pytest.mark.parametrize("remove", removals())
@pytest.mark.parametrize("way", ["get_instance", "get_method", "use", "handle"])
def test_a_removed_instance_is_closed(
    registry: Any, timer: Any, samples: Any, remove: Any, way: str
) -> None:
    """For any cause and after any use, if nothing else refers to it."""
    if way == "use":
        with registry.use("Alpha"):
            pass
    elif way == "handle":
        registry.bind("Alpha", "echo")("x")
    else:
        getattr(registry, way)(*("Alpha", "echo")[: 1 + (way == "get_method")])
    remove(registry, timer)
    assert samples.closed == ["Alpha"]
    stats = registry.stats()
    assert (stats.closed, stats.left_open, stats.close_failures) == (1, 0, 0)


@pytest.mark.parametrize("remove", removals())
def test_an_instance_that_is_used_without_a_lease_is_left_open(
    registry: Any, timer: Any, samples: Any, remove: Any
) -> None:
    """A caller who never took a lease still refers to it."""
    mine = registry.get_instance("Alpha")
    remove(registry, timer)
    assert samples.closed == []
    assert mine.echo("x") == "x"
    assert registry.stats().left_open == 1


def test_a_bound_method_counts_as_a_reference(registry: Any, samples: Any) -> None:
    """It keeps its instance."""
    echo = registry.get_method("Alpha", "echo")
    registry.clear_cache()
    assert echo("x") == "x"
    assert registry.stats().left_open == 1


def test_an_instance_that_was_only_leased_is_always_closed(registry: Any, samples: Any) -> None:
    """A variable that still refers to it after the with block does not matter."""
    with registry.use("Alpha") as leftover:
        pass
    registry.clear_cache()
    assert leftover.is_closed


def test_close_when_removed_closes_regardless(registry: Any, samples: Any) -> None:
    """It is an option of the class."""
    registry.register("Alpha", "samples.Alpha", close_when_removed=True)
    mine = registry.get_instance("Alpha")
    registry.clear_cache()
    assert mine.is_closed


@pytest.mark.parametrize("remove", removals()[3:])
def test_a_held_instance_is_closed_at_its_last_release(
    registry: Any, timer: Any, samples: Any, remove: Any
) -> None:
    """It is not closed before."""
    with registry.use("Alpha") as alpha:
        with registry.use("Alpha"):
            remove(registry, timer)
            assert not alpha.is_closed
        assert not alpha.is_closed
        assert registry.stats().closed == 0
    assert alpha.is_closed
    assert registry.stats().closed == 1


@pytest.mark.parametrize("call", ["handle", "execute"])
def test_an_instance_is_not_closed_during_a_call(
    ws: Any, registry: Any, samples: Any, call: str
) -> None:
    """The method may even clear the cache itself."""
    seen = []

    def clear(instance: Any) -> None:
        registry.clear_cache()
        seen.append(instance.is_closed)

    samples.Alpha.clear = clear
    try:
        if call == "handle":
            registry.bind("Alpha", "clear")()
        else:
            ws.MethodExecutor(method_registry=registry).execute("Alpha", "clear")
    finally:
        del samples.Alpha.clear
    assert seen == [False]
    assert samples.closed == ["Alpha"]


@pytest.mark.counts
@pytest.mark.parametrize("builder", ["lives on", "has ended"])
@pytest.mark.parametrize("kept", [True, False])
def test_another_thread_built_it(make: Any, samples: Any, builder: str, kept: bool) -> None:
    """Only whether it still refers to the instance matters, not which thread closes it."""
    registry = make()
    mine: list[Any] = []
    gate = Gate()

    def build() -> None:
        instance = registry.get_instance("Alpha")
        if kept:
            mine.append(instance)
        del instance
        if builder == "lives on":
            gate()

    running = in_thread(build)
    if builder == "lives on":
        gate.wait()
    else:
        running.result()
    registry.discard("Alpha")
    gate.open()
    running.result()
    assert samples.closed == ([] if kept else ["Alpha"])
    assert registry.stats().left_open == kept


def test_another_one_is_built_while_the_removed_one_is_held(make: Any, samples: Any) -> None:
    """Both are closed, each at its last release."""
    registry = make()
    with registry.use("Alpha") as old:
        registry.clear_cache()
        with registry.use("Alpha") as new:
            assert new is not old
            registry.clear_cache()
        assert new.is_closed
        assert not old.is_closed
    assert old.is_closed


def test_an_instance_of_a_replaced_class_is_not_returned(registry: Any, samples: Any) -> None:
    """The name means another class then."""
    with registry.use("Alpha") as alpha:
        registry.register("Alpha", "samples.Beta")
        with registry.use("Alpha") as beta:
            assert type(beta) is samples.Beta
    assert alpha.is_closed
    with registry.use("Alpha") as beta:
        registry.clear_cache()
        registry.register("Alpha", "samples.Gamma")
        assert type(registry.get_instance("Alpha")) is samples.Gamma
    assert beta.is_closed


# -- closers ---------------------------------------------------------------------------------------


def closer_registry(ws: Any, instance: Any, **options: Any) -> Any:
    """Return a registry with one class, whose rule returns this instance."""
    registry = ws.MethodRegistry({})
    registry.register("X", "samples.Alpha", **options)
    registry.register_instantiation_rule("X", lambda cls: instance)
    with registry.use("X"):
        pass
    return registry


def test_close_is_preferred_to_exit(ws: Any) -> None:
    """`__exit__` is called as at the end of a with block."""
    calls = []

    class Manager:
        def __enter__(self) -> None: ...

        def __exit__(self, *details: Any) -> None:
            calls.append(details)

    class Both(Manager):
        def close(self) -> None:
            calls.append("close")

    closer_registry(ws, Manager()).clear_cache()
    closer_registry(ws, Both()).clear_cache()
    assert calls == [(None, None, None), "close"]


def test_a_closer_of_the_class_and_none_at_all(ws: Any) -> None:
    """They are options of the registration."""
    stopped = []
    resource = Resource()
    closer_registry(ws, resource, closer=stopped.append).clear_cache()
    assert stopped == [resource]
    closer_registry(ws, resource, closer=None).clear_cache()
    assert resource.closings == 0
    closer_registry(ws, object()).clear_cache()
    with pytest.raises(
        TypeError, match="closer of 'X' must be a callable, None or 'auto', got str 'close'"
    ):
        closer_registry(ws, resource, closer="close")


def test_an_instance_that_answers_to_every_name_has_no_close(ws: Any) -> None:
    """Its `__getattr__` does not count."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    registry = closer_registry(ws, Proxy())
    registry.clear_cache()
    assert registry.stats().closed == 0


@pytest.mark.counts
@pytest.mark.parametrize("remove", removals())
def test_the_error_of_a_closer_reaches_no_caller(
    registry: Any, timer: Any, samples: Any, caplog: Any, remove: Any
) -> None:
    """It is logged with its traceback and counted; the registry works on."""

    def fail(instance: Any) -> None:
        raise OSError("stuck")

    registry.register("Alpha", "samples.Alpha", closer=fail)
    registry.get_instance("Alpha")
    with caplog.at_level(logging.WARNING):
        remove(registry, timer)
    assert "closing the removed instance of 'Alpha' failed" in caplog.text
    assert "OSError: stuck" in caplog.text
    assert registry.stats().close_failures == 1
    assert registry.stats().closed == 0


@pytest.mark.counts
def test_a_closer_may_use_the_registry(registry: Any, samples: Any) -> None:
    """It runs outside every lock, after the removal."""
    seen = []

    def busy(instance: Any) -> None:
        seen.append(eviction_order(registry))
        registry.get_instance("Alpha")
        registry.clear_cache()
        registry.evict_expired()

    registry.register("Beta", "samples.Beta", closer=busy)
    registry.get_instance("Beta")
    registry.clear_cache()
    assert seen == [[]]
    assert samples.closed == ["Alpha"]


def test_weakly_kept_instances_are_never_closed(make: Any, samples: Any) -> None:
    """They belong to their users."""
    registry = make(enable_weakref=True)
    with registry.use("Alpha") as alpha:
        registry.clear_cache()
    assert not alpha.is_closed
    registry.get_instance("Beta")
    registry.close()
    assert samples.closed == []


def test_an_instance_that_was_never_cached_is_closed(registry: Any, samples: Any) -> None:
    """The cache was cleared during its build, so its caller alone has it."""
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    with registry.use("Alpha") as alpha:
        assert not alpha.is_closed
    assert alpha.is_closed
    assert registry.stats().closed == 1


# -- shutdown --------------------------------------------------------------------------------------


@pytest.mark.counts
def test_close_closes_in_the_reverse_order_of_building(make: Any, timer: Any, samples: Any) -> None:
    """A later instance may use an earlier one."""
    with make() as registry:
        for name in ("Alpha", "Beta", "Gamma"):
            registry.get_instance(name)
            timer.advance(1)
        registry.get_instance("Alpha")
    assert samples.closed == ["Gamma", "Beta", "Alpha"]
    assert registry.stats().as_dict()["removals"]["shutdown"] == 3
    assert registry.stats().evictions == 0


@pytest.mark.counts
def test_close_knows_the_order_of_builds_at_the_same_time(make: Any, samples: Any) -> None:
    """An instance is closed after those that were built later, also if the clock stands still."""
    with make() as registry:
        samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
        registry.get_instance("Alpha")
        registry.get_instance("Beta")
    assert samples.closed == ["Alpha", "Beta"]


def test_an_instance_that_has_only_an_aclose_is_left_open(ws: Any) -> None:
    """It is counted: no event loop waits for it here."""

    class Session:
        async def aclose(self) -> None:
            raise AssertionError("not awaited here")

    registry = closer_registry(ws, Session())
    registry.clear_cache()
    assert registry.stats().left_open == 1


@pytest.mark.counts
def test_registries_are_closed_when_the_interpreter_exits(twin: str) -> None:
    code = """
        import sys, types
        import warmset
        class Model:
            def close(self):
                print("closed")
        module = types.ModuleType("models")
        module.Model = Model
        sys.modules["models"] = module
        registry = warmset.MethodRegistry({"Model": "models.Model"})
        registry.get_instance("Model")
    """
    result = run_script(code, twin)
    assert (result.stdout, result.stderr) == ("closed\n", "")


# -- listeners -------------------------------------------------------------------------------------


def test_each_removal_is_reported_once(ws: Any, make: Any, timer: Any) -> None:
    """With its cause, ages, uses and build seconds."""
    registry = make(max_cache_size=1, cache_ttl_seconds=10)
    events: list[Any] = []
    registry.add_listener(events.append)
    cause = ws.events.RemovalCause
    registry.get_instance("Alpha")
    timer.advance(2)
    registry.get_instance("Alpha")
    timer.advance(3)
    registry.get_instance("Beta")
    timer.advance(11)
    registry.evict_expired()
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    registry.get_instance("Alpha")
    registry.clear_cache()
    registry.get_instance("Alpha")
    registry.register("Alpha", "samples.Gamma")
    registry.get_instance("Beta")
    registry.close()
    assert [(event.class_name, event.cause) for event in events] == [
        ("Alpha", cause.SIZE),
        ("Beta", cause.IDLE),
        ("Alpha", cause.DISCARDED),
        ("Alpha", cause.CLEARED),
        ("Alpha", cause.REPLACED),
        ("Beta", cause.SHUTDOWN),
    ]
    first = events[0]
    assert (first.age_seconds, first.idle_seconds, first.uses) == (5.0, 3.0, 2)
    assert first.cause.evicted
    assert not events[2].cause.evicted
    assert first.bytes is None
    stats = registry.stats()
    assert [stats.removals[event.cause] for event in events] == [1] * 6


def test_the_error_of_a_listener_is_logged_and_counted(registry: Any, caplog: Any) -> None:
    """The other listeners get the event."""
    events: list[Any] = []

    def fail(event: Any) -> None:
        raise ValueError("no")

    registry.add_listener(fail)
    registry.add_listener(events.append)
    registry.get_instance("Alpha")
    with caplog.at_level(logging.WARNING):
        registry.clear_cache()
    assert len(events) == 1
    assert "a removal listener failed" in caplog.text
    assert registry.stats().listener_failures == 1
    assert registry.remove_listener(fail)
    assert not registry.remove_listener(fail)
    with pytest.raises(TypeError, match="must be callable"):
        registry.add_listener(3)


def test_a_listener_may_remove_more(registry: Any) -> None:
    """Its removals are reported after it has returned, in order."""
    calls = []

    def listener(event: Any) -> None:
        calls.append(event.class_name)
        if event.class_name == "Alpha":
            registry.get_instance("Beta")
            registry.clear_cache()
            calls.append("end of Alpha")

    registry.add_listener(listener)
    registry.get_instance("Alpha")
    registry.clear_cache()
    assert calls == ["Alpha", "end of Alpha", "Beta"]


def test_removals_of_one_class_are_reported_in_order_under_threads(make: Any) -> None:
    """Whichever thread reports them."""
    registry = make()
    seconds = []
    registry.add_listener(lambda event: seconds.append(event.build_seconds))
    numbers = iter(range(10_000))
    add = registry.add

    def numbered(entry: Any, token: int, seconds: float, **options: Any) -> bool:
        return bool(add(entry, token, float(next(numbers)), **options))

    registry.add = numbered

    def work() -> None:
        for _ in range(200):
            registry.get_instance("Alpha")
            registry.discard("Alpha")

    assert in_threads(*[work] * 4) == [None] * 4
    assert seconds == sorted(seconds)
    assert len(seconds) == registry.stats().as_dict()["removals"]["discarded"]


def test_the_event_of_a_held_instance(registry: Any) -> None:
    """It is marked as held: the instance is closed when its last lease ends."""
    events: list[Any] = []
    registry.add_listener(events.append)
    with registry.use("Alpha"):
        registry.clear_cache()
    assert [event.held for event in events] == [True]


# -- under threads ---------------------------------------------------------------------------------


def test_nothing_is_used_after_it_was_closed(ws: Any, make: Any, samples: Any) -> None:
    """Eight threads use leases, handles and execute, and remove: each instance is closed once."""
    registry = make(max_cache_size=1, cache_ttl_seconds=0)
    executor = ws.MethodExecutor(method_registry=registry)
    handle = registry.bind("Alpha", "echo")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(index: int) -> None:
        for step in range(300):
            match (index + step) % 6:
                case 0:
                    with registry.use("Alpha") as alpha:
                        alpha.echo("x")
                case 1:
                    handle("x")
                case 2:
                    executor.execute("Beta", "echo", text="x")
                case 3:
                    registry.clear_cache()
                case 4:
                    registry.discard("Alpha")
                case 5:
                    registry.get_instance("Gamma").echo("x")

    try:
        assert in_threads(*[partial(work, i) for i in range(8)]) == [None] * 8
    finally:
        sys.setswitchinterval(interval)
    registry.close()
    gc.collect()
    stats = registry.stats()
    assert stats.close_failures == 0, "none was closed twice"
    assert stats.closed + stats.left_open == stats.builds == sum(stats.states.values())
    assert stats.closed == len(samples.closed)
    assert stats.closed > 0


def test_a_waiter_gets_no_instance_that_was_closed(make: Any, samples: Any) -> None:
    """It has its hold before it runs, so a removal in between does not close the instance."""
    registry = make(cache_ttl_seconds=0)
    builder = registry.builder
    wait_for = builder._wait_for
    samples.script["Alpha"] = gate = Gate()

    def wait_and_clear(*args: Any) -> Any:
        builder._wait_for = wait_for
        found = wait_for(*args)
        registry.clear_cache()
        return found

    def lease() -> tuple[Any, bool]:
        with registry.use("Alpha") as alpha:
            return alpha, alpha.is_closed

    first = in_thread(lease)
    gate.wait()
    builder._wait_for = wait_and_clear
    second = in_thread(lease)
    until(lambda: registry.stats().waits == 1)
    gate.open()
    (one, one_closed), (other, other_closed) = first.result(), second.result()
    assert one is other
    assert not one_closed
    assert not other_closed
    assert samples.closed == ["Alpha"]


def test_the_repr_tells_that_a_registry_is_closed(make: Any) -> None:
    """A closed registry does not look like one that is open and empty."""
    registry = make()
    assert repr(registry) == "<MethodRegistry: 4 classes, 0 of at most 100 instances warm>"
    registry.close()
    assert repr(registry) == "<MethodRegistry: 4 classes, closed>"


@pytest.mark.parametrize("remove", ["clear_cache", "evict_expired", "close"])
@pytest.mark.counts
def test_what_is_removed_together_is_closed_in_the_reverse_order_of_building(
    make: Any, samples: Any, timer: Any, remove: str
) -> None:
    """So an instance that another one refers to is not left open because of it."""
    registry = make(cache_ttl_seconds=10.0)
    samples.script["Alpha"] = lambda alpha: setattr(alpha, "beta", registry.get_instance("Beta"))
    with registry.use("Alpha"):
        registry.get_instance("Gamma")
    timer.advance(11.0)
    getattr(registry, remove)()
    assert samples.closed == ["Gamma", "Alpha", "Beta"]
    assert registry.stats().left_open == 0
