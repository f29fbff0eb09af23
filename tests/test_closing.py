"""What becomes of an instance that left: it is closed once, and listeners are told."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest


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
    """Every way in which an instance leaves, as a parameter."""

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
        pytest.param(lambda registry, timer: registry.unregister_class("Alpha"), id="unregister"),
        pytest.param(
            lambda registry, timer: registry.register_class("Alpha", "samples.Gamma"), id="path"
        ),
        pytest.param(lambda registry, timer: registry.close(), id="close"),
    ]


@pytest.fixture
def registry(make: Any) -> Any:
    """One place, ten seconds."""
    return make(max_cache_size=1, cache_ttl_seconds=10)


@pytest.mark.counts
@pytest.mark.parametrize("remove", removals())
@pytest.mark.parametrize("way", ["get_instance", "get_method", "use", "handle"])
def test_what_leaves_is_closed(
    registry: Any, timer: Any, samples: Any, remove: Any, way: str
) -> None:
    """Whatever made it leave, and however it was used, if nobody refers to it any more."""
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
def test_what_was_handed_out_and_is_in_use_is_left_open(
    registry: Any, timer: Any, samples: Any, remove: Any
) -> None:
    """Somebody refers to it who never took a lease: it is not closed under their feet."""
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


def test_what_was_only_leased_is_closed_whoever_kept_a_name_for_it(
    registry: Any, samples: Any
) -> None:
    """A name that is left over from a with block is no use."""
    with registry.use("Alpha") as leftover:
        pass
    registry.clear_cache()
    assert leftover.is_closed


def test_close_when_removed_closes_regardless(registry: Any, samples: Any) -> None:
    """A class may ask for it."""
    registry.register_class("Alpha", "samples.Alpha", close_when_removed=True)
    mine = registry.get_instance("Alpha")
    registry.clear_cache()
    assert mine.is_closed


@pytest.mark.parametrize("remove", removals()[3:])
def test_a_held_instance_is_closed_at_its_last_release(
    registry: Any, timer: Any, samples: Any, remove: Any
) -> None:
    """And not a moment before."""
    with registry.use("Alpha") as alpha:
        with registry.use("Alpha"):
            remove(registry, timer)
            assert not alpha.is_closed
        assert not alpha.is_closed
        assert registry.stats().closed == 0
    assert alpha.is_closed
    assert registry.stats().closed == 1


@pytest.mark.parametrize("call", ["handle", "execute"])
def test_a_running_call_holds_off_the_closing(
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
    """Whether it refers to the instance still is what counts, not which thread closes it."""
    registry = make()
    mine: list[Any] = []
    built, end = threading.Event(), threading.Event()

    def build() -> None:
        instance = registry.get_instance("Alpha")
        if kept:
            mine.append(instance)
        del instance
        built.set()
        if builder == "lives on":
            end.wait(30)

    thread = threading.Thread(target=build)
    thread.start()
    built.wait(30)
    if builder == "has ended":
        thread.join(30)
    registry.discard("Alpha")
    end.set()
    thread.join(30)
    assert samples.closed == ([] if kept else ["Alpha"])
    assert registry.stats().left_open == kept


@pytest.mark.counts
def test_a_new_request_revives_a_held_instance(registry: Any, samples: Any) -> None:
    """The heavy thing is there: it goes back into the cache, and is not closed at the release."""
    with registry.use("Alpha") as alpha:
        registry.clear_cache()
        assert registry.stats().cached == 0
        assert registry.get_instance("Alpha") is alpha
        assert registry.stats().cached == 1
        assert registry.stats().entries[0].holders == 1
        assert registry.stats().entries[0].uses == 2
    assert samples.closed == []
    assert samples.built == ["Alpha"]
    assert registry.stats().hits == 1
    del alpha
    registry.clear_cache()
    assert samples.closed == ["Alpha"]


def test_revival_again_and_again(registry: Any, samples: Any) -> None:
    """Each lease keeps to its own instance."""
    with registry.use("Alpha") as alpha:
        for _ in range(3):
            registry.discard("Alpha")
            with registry.use("Alpha") as again:
                assert again is alpha
                registry.discard("Alpha")
        assert not alpha.is_closed
    assert samples.closed == ["Alpha"]


def test_without_revival_another_one_is_built(make: Any, samples: Any) -> None:
    """Both are closed, each at its own end."""
    registry = make(revive=False)
    with registry.use("Alpha") as old:
        registry.clear_cache()
        with registry.use("Alpha") as new:
            assert new is not old
            registry.clear_cache()
        assert new.is_closed
        assert not old.is_closed
    assert old.is_closed


def test_an_instance_of_a_replaced_class_is_not_revived(registry: Any, samples: Any) -> None:
    """Its name means something else now."""
    with registry.use("Alpha") as alpha:
        registry.register_class("Alpha", "samples.Beta")
        with registry.use("Alpha") as beta:
            assert type(beta) is samples.Beta
    assert alpha.is_closed
    with registry.use("Alpha") as beta:
        registry.clear_cache()
        registry.register_class("Alpha", "samples.Gamma")
        assert type(registry.get_instance("Alpha")) is samples.Gamma
    assert beta.is_closed


# -- closers -------------------------------------------------------------------------------------


def closer_registry(ws: Any, instance: Any, **options: Any) -> Any:
    """A registry whose one class gives this instance."""
    registry = ws.MethodRegistry({})
    registry.register_class("X", "samples.Alpha", **options)
    registry.register_instantiation_rule("X", lambda cls: instance)
    with registry.use("X"):
        pass
    return registry


def test_close_is_preferred_and_exit_comes_next(ws: Any) -> None:
    """As a with block would leave it."""
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
    """Given at registration."""
    stopped = []
    resource = Resource()
    closer_registry(ws, resource, closer=stopped.append).clear_cache()
    assert stopped == [resource]
    closer_registry(ws, resource, closer=None).clear_cache()
    assert resource.closings == 0
    closer_registry(ws, object()).clear_cache()
    with pytest.raises(TypeError, match="closer of 'X' must be a callable, None or 'auto'"):
        closer_registry(ws, resource, closer="close")


def test_an_instance_that_answers_to_every_name_has_no_close(ws: Any) -> None:
    """A `__getattr__` is not taken for a protocol."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    registry = closer_registry(ws, Proxy())
    registry.clear_cache()
    assert registry.stats().closed == 0


@pytest.mark.counts
@pytest.mark.parametrize("remove", removals())
def test_a_closer_that_raises_changes_nobodys_result(
    registry: Any, timer: Any, samples: Any, caplog: Any, remove: Any
) -> None:
    """It is logged with its traceback and counted; the registry works on."""

    def fail(instance: Any) -> None:
        raise OSError("stuck")

    registry.register_class("Alpha", "samples.Alpha", closer=fail)
    registry.get_instance("Alpha")
    with caplog.at_level(logging.WARNING):
        remove(registry, timer)
    assert "closing the removed instance of 'Alpha' failed" in caplog.text
    assert "OSError: stuck" in caplog.text
    assert registry.stats().close_failures == 1
    assert registry.stats().closed == 0


@pytest.mark.counts
def test_a_closer_may_use_the_registry(registry: Any, samples: Any) -> None:
    """It runs outside every lock, and sees the removal done."""
    seen = []

    def busy(instance: Any) -> None:
        seen.append(registry._ring())
        registry.get_instance("Alpha")
        registry.clear_cache()
        registry.evict_expired()

    registry.register_class("Beta", "samples.Beta", closer=busy)
    registry.get_instance("Beta")
    registry.clear_cache()
    assert seen == [[]]
    assert samples.closed == ["Alpha"]


def test_weak_instances_are_never_closed_by_us(make: Any, samples: Any) -> None:
    """They are their users'."""
    registry = make(enable_weakref=True)
    with registry.use("Alpha") as alpha:
        registry.clear_cache()
    assert not alpha.is_closed
    registry.get_instance("Beta")
    registry.close()
    assert samples.closed == []


def test_a_result_that_was_never_cached_is_not_closed(registry: Any, samples: Any) -> None:
    """A clear in the middle of its build gave it to its callers."""
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    with registry.use("Alpha") as alpha:
        pass
    assert not alpha.is_closed


# -- shutdown ------------------------------------------------------------------------------------


@pytest.mark.counts
def test_close_goes_in_the_reverse_order_of_building(make: Any, timer: Any, samples: Any) -> None:
    """What was built later may use what was built before."""
    with make() as registry:
        for name in ("Alpha", "Beta", "Gamma"):
            registry.get_instance(name)
            timer.advance(1)
        registry.get_instance("Alpha")
    assert samples.closed == ["Gamma", "Beta", "Alpha"]
    assert registry.stats().as_dict()["removals"]["shutdown"] == 3
    assert registry.stats().evictions == 0


@pytest.mark.counts
def test_what_was_built_in_the_same_moment_keeps_its_order(make: Any, samples: Any) -> None:
    """The clock may not tell them apart: the ontology is closed after those that were given it."""
    with make() as registry:
        samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
        registry.get_instance("Alpha")
        registry.get_instance("Beta")
    assert samples.closed == ["Alpha", "Beta"]


def test_what_has_only_an_aclose_is_left_open(ws: Any) -> None:
    """And counted: no event loop waits for it here."""

    class Session:
        async def aclose(self) -> None:
            raise AssertionError("not awaited here")

    registry = closer_registry(ws, Session())
    registry.clear_cache()
    assert registry.stats().left_open == 1


@pytest.mark.counts
def test_open_registries_are_closed_at_exit(twin: str) -> None:
    """Of the interpreter."""
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
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment["WARMSET_PURE"] = "1" if twin == "pure" else ""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == ("closed\n", "")


# -- listeners -----------------------------------------------------------------------------------


def test_each_removal_is_told_once_with_its_facts(ws: Any, make: Any, timer: Any) -> None:
    """Cause, ages, uses, build seconds."""
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
    registry.register_class("Alpha", "samples.Gamma")
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


def test_a_listener_that_raises_loses_nothing(registry: Any, caplog: Any) -> None:
    """It is logged and counted; the other listeners are told."""
    told: list[Any] = []

    def fail(event: Any) -> None:
        raise ValueError("no")

    registry.add_listener(fail)
    registry.add_listener(told.append)
    registry.get_instance("Alpha")
    with caplog.at_level(logging.WARNING):
        registry.clear_cache()
    assert len(told) == 1
    assert "a removal listener failed" in caplog.text
    assert registry.stats().listener_failures == 1
    assert registry.remove_listener(fail)
    assert not registry.remove_listener(fail)
    with pytest.raises(TypeError, match="must be callable"):
        registry.add_listener(3)


def test_a_listener_may_remove_more(registry: Any) -> None:
    """What it removes is told after it, in order."""
    told = []

    def listener(event: Any) -> None:
        told.append(event.class_name)
        if event.class_name == "Alpha":
            registry.get_instance("Beta")
            registry.clear_cache()
            told.append("still Alpha")

    registry.add_listener(listener)
    registry.get_instance("Alpha")
    registry.clear_cache()
    assert told == ["Alpha", "still Alpha", "Beta"]


def test_removals_of_one_class_are_told_in_order_under_threads(make: Any) -> None:
    """By whichever thread is telling."""
    registry = make()
    uses = []
    registry.add_listener(lambda event: uses.append(event.build_seconds))
    numbers = iter(range(10_000))
    registry.register_instantiation_rule("Alpha", lambda cls: cls())
    publish = registry._publish

    def numbered(slot: Any, instance: Any, token: int, seconds: float) -> int:
        return publish(slot, instance, token, float(next(numbers)))

    registry._publish = numbered

    def work() -> None:
        for _ in range(200):
            registry.get_instance("Alpha")
            registry.discard("Alpha")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert uses == sorted(uses)
    assert len(uses) == registry.stats().as_dict()["removals"]["discarded"]


def test_a_held_removal_says_so(registry: Any) -> None:
    """It is closed later, or revived."""
    events: list[Any] = []
    registry.add_listener(events.append)
    with registry.use("Alpha"):
        registry.clear_cache()
    assert [event.held for event in events] == [True]


# -- under threads -------------------------------------------------------------------------------


def test_nothing_is_used_after_it_was_closed(ws: Any, make: Any, samples: Any) -> None:
    """Eight threads use leases, handles and execute while others remove: each is closed once."""
    registry = make(max_cache_size=1, cache_ttl_seconds=0)
    executor = ws.MethodExecutor(method_registry=registry)
    handle = registry.bind("Alpha", "echo")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
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
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    registry.close()
    gc.collect()
    stats = registry.stats()
    assert stats.close_failures == 0, "none was closed twice"
    assert stats.closed + stats.left_open <= sum(stats.removals.values())
    assert stats.closed == len(samples.closed)
    assert stats.closed > 0


def test_a_waiter_gets_no_instance_that_was_closed_meanwhile(make: Any, samples: Any) -> None:
    """Between the end of a build and the waking of who waited for it, it may leave again."""
    registry = make(cache_ttl_seconds=0)
    builder = registry._builder
    wait_for = builder._wait_for
    entered, go = threading.Event(), threading.Event()
    results: list[Any] = []

    def slow(_: Any) -> None:
        if not entered.is_set():
            entered.set()
            assert go.wait(30)

    def wait_and_lose(*args: Any) -> None:
        wait_for(*args)
        builder._wait_for = wait_for
        registry.clear_cache()

    def lease() -> None:
        with registry.use("Alpha") as alpha:
            results.append((alpha, alpha.is_closed))

    samples.script["Alpha"] = slow
    first = threading.Thread(target=lease)
    first.start()
    assert entered.wait(30)
    builder._wait_for = wait_and_lose
    second = threading.Thread(target=lease)
    second.start()
    pause = threading.Event()
    while registry.stats().waits < 1:
        pause.wait(0.001)
    go.set()
    first.join(30)
    second.join(30)
    assert [closed for _, closed in results] == [False, False]
