"""Leases and handles: looking up and holding in one step."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import pytest


def test_use_gives_and_holds(make: Any) -> None:
    """From look-up to the end of the block."""
    registry = make()
    with registry.use("Alpha") as alpha:
        assert registry.get_instance("Alpha") is alpha
        assert registry.stats().entries[0].holders == 1
        with registry.use("Alpha") as again:
            assert again is alpha
            assert registry.stats().entries[0].holders == 2
    assert registry.stats().held == 0
    assert registry.stats().lookups == 3


def test_nothing_is_looked_up_before_the_block(make: Any, samples: Any) -> None:
    """A lease that is never entered holds nothing."""
    registry = make()
    lease = registry.use("Alpha")
    assert samples.built == []
    assert "not held" in repr(lease)
    with lease:
        assert repr(lease) == "<warmset lease of 'Alpha', held>"
        with pytest.raises(RuntimeError, match="already holds 'Alpha'"):
            lease.__enter__()
    with lease as again:
        assert registry.get_instance("Alpha") is again


def test_a_held_instance_is_not_evicted_by_size(make: Any) -> None:
    """The next oldest leaves instead; held ones may exceed the bound until they are released."""
    registry = make(max_cache_size=1)
    with registry.use("Alpha") as alpha:
        registry.get_instance("Beta")
        registry.get_instance("Gamma")
        assert registry._ring() == ["Gamma", "Alpha"]
        assert registry.get_instance("Alpha") is alpha
    assert registry._ring() == ["Alpha"], "the surplus leaves at release"
    assert registry.stats().evictions == 2


def test_the_idle_clock_stands_still_while_held(make: Any, timer: Any, samples: Any) -> None:
    """It starts at release."""
    registry = make(cache_ttl_seconds=10)
    with registry.use("Alpha") as alpha:
        timer.advance(100)
        assert registry.evict_expired() == 0
        assert registry.get_instance("Alpha") is alpha
        timer.advance(100)
    timer.advance(9)
    assert registry.get_instance("Alpha") is alpha
    timer.advance(11)
    assert registry.get_instance("Alpha") is not alpha
    assert samples.built == ["Alpha", "Alpha"]


def test_release_is_a_use(make: Any) -> None:
    """So that the ring stays in the order of time."""
    registry = make()
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        assert registry._ring() == ["Beta", "Alpha"]
    assert registry._ring() == ["Alpha", "Beta"]


def test_evict_expired_passes_over_held_ones(make: Any, timer: Any) -> None:
    """And still finds what is idle behind them."""
    registry = make(cache_ttl_seconds=10)
    with registry.use("Alpha"), registry.use("Beta"):
        registry.get_instance("Gamma")
        timer.advance(11)
        assert registry.evict_expired() == 1
        assert set(registry._ring()) == {"Alpha", "Beta"}


@pytest.mark.parametrize("removal", ["clear_cache", "discard", "unregister_class"])
def test_a_held_instance_that_is_removed_stays_with_its_holder(make: Any, removal: str) -> None:
    """Without revival it is handed to nobody new; its release touches nothing of its successor."""
    registry = make(revive=False)
    with registry.use("Alpha") as alpha:
        if removal == "clear_cache":
            registry.clear_cache()
        else:
            getattr(registry, removal)("Alpha")
        registry.register_class("Alpha", "samples.Alpha")
        with registry.use("Alpha") as successor:
            assert successor is not alpha
            assert registry.stats().entries[0].holders == 1
    assert registry.stats().held == 0


def test_the_release_of_what_has_left_touches_nothing_that_is_cached(make: Any) -> None:
    """It makes no room, so nobody is evicted for it, though more is cached than the bound says."""
    registry = make(max_cache_size=1, revive=False)
    before = registry.use("Alpha")
    before.__enter__()
    registry.clear_cache()
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        assert registry._ring() == ["Beta", "Alpha"]
        before.__exit__()
        assert registry._ring() == ["Beta", "Alpha"]
    assert registry._ring() == ["Alpha"]


def test_a_lease_over_a_build_that_was_cleared(make: Any, samples: Any) -> None:
    """It has the instance, and nothing to give back."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    with registry.use("Alpha") as alpha:
        assert type(alpha) is samples.Alpha
        assert registry.stats().cached == 0
    assert registry.stats().held == 0


def test_an_exception_in_the_block_releases(make: Any) -> None:
    """And passes through."""
    registry = make()
    with pytest.raises(ValueError, match="mine"), registry.use("Alpha"):
        raise ValueError("mine")
    assert registry.stats().held == 0


def test_a_dropped_lease_gives_back(make: Any) -> None:
    """An abandoned generator does not hold for ever."""
    registry = make()

    def generator() -> Any:
        with registry.use("Alpha") as alpha:
            yield alpha

    going = generator()
    next(going)
    assert registry.stats().held == 1
    del going
    lease = registry.use("Beta")
    lease.__enter__()
    assert registry.stats().held == 1
    del lease
    gc.collect()
    assert registry.stats().held == 0


def test_a_failed_entry_holds_nothing(ws: Any, make: Any) -> None:
    """The lease can be tried again."""
    registry = make({"Broken": "samples.Broken"})
    lease = registry.use("Broken")
    for _ in range(2):
        with pytest.raises(ws.BuildError):
            lease.__enter__()
    assert registry.stats().held == 0


def test_a_timer_that_raises_at_release_does_not_keep_the_hold(make: Any, timer: Any) -> None:
    """Its error is told, and the instance is given back."""
    broken = False

    def clock() -> float:
        if broken:
            raise OSError("no clock")
        return timer()

    registry = make(timer=clock)
    with pytest.raises(OSError, match="no clock"), registry.use("Alpha"):
        broken = True
    broken = False
    assert registry.stats().held == 0


def test_weak_mode_leases(make: Any) -> None:
    """The lease itself holds the instance."""
    registry = make(enable_weakref=True)
    with registry.use("Alpha") as alpha:
        known = weakref.ref(alpha)
        del alpha
        gc.collect()
        assert registry.get_instance("Alpha") is known() is not None
    gc.collect()


def test_holders_tell_who_holds_what_since_when(ws: Any, make: Any, timer: Any) -> None:
    """Leases, running calls and unfinished generators, the oldest first."""
    registry = make()
    executor = ws.MethodExecutor(method_registry=registry)
    assert registry.holders() == []

    def stream() -> Any:
        yield registry.holders()

    registry.get_instance("Beta").probe = lambda: registry.holders()
    registry.get_instance("Gamma").stream = stream
    me = threading.current_thread().name
    with registry.use("Alpha"):
        timer.advance(5)
        running = executor.execute("Gamma", "stream")
        timer.advance(2)
        registry.clear_cache()
        expected = [("Alpha", me, 7.0), ("Gamma", me, 2.0)]
        assert registry.holders() == expected
        registry.get_instance("Beta").probe = lambda: registry.holders()
        for seen in (registry.bind("Beta", "probe")(), executor.execute("Beta", "probe")):
            assert seen == [*expected, ("Beta", me, 0.0)]
        assert next(running) == expected
        del running
        assert registry.holders() == expected[:1]
    assert registry.holders() == []


# -- handles -------------------------------------------------------------------------------------


def test_a_handle_outlives_evictions(make: Any, samples: Any) -> None:
    """It builds when it must, and every call is a look-up."""
    registry = make()
    handle = registry.bind("Alpha", "itself")
    assert samples.built == []
    first = handle()
    assert handle() is first
    registry.clear_cache()
    assert handle() is not first
    assert (registry.stats().hits, registry.stats().misses) == (1, 2)
    assert (handle.class_name, handle.method_name) == ("Alpha", "itself")
    assert repr(handle) == "<warmset handle of Alpha.itself>"


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 20])
def test_a_handle_passes_arguments_as_they_are(make: Any, count: int) -> None:
    """Positional and keyword ones, few and many, from a call, a tuple and a dict."""
    handle = make().bind("Alpha", "echo")
    args = tuple(range(count))
    kwargs = {f"k{i}": i for i in range(count)}
    expected = (args[0] if args else None, args[1:], kwargs)
    if count < 2:
        expected = expected if kwargs else None
    assert handle(*args, **kwargs) == expected
    assert handle.__call__(*args, **kwargs) == expected
    assert list(map(handle, args)) == list(args)
    assert handle(7, k=8) == (7, (), {"k": 8})
    assert handle("x") == "x"


def test_a_handle_holds_while_it_runs(make: Any) -> None:
    """And releases whatever happens."""
    registry = make()
    seen = []
    registry.get_instance("Alpha").probe = lambda: seen.append(registry.stats().held)
    registry.bind("Alpha", "probe")()
    assert seen == [1]
    with pytest.raises(AttributeError, match="from inside the method"):
        registry.bind("Alpha", "fail")()
    assert registry.stats().held == 0


def test_errors_of_a_handle(ws: Any, make: Any) -> None:
    """A missing method is told as such; an error from inside the method passes as it is."""
    registry = make()
    with pytest.raises(ws.UnknownClassError):
        registry.bind("Nobody", "echo")
    with pytest.raises(ws.MethodNotFoundError, match="has no method 'tga'"):
        registry.bind("Alpha", "tga")()
    with pytest.raises(ws.MethodNotFoundError, match="label is not callable"):
        registry.bind("Alpha", "label")()
    with pytest.raises(AttributeError, match="from inside the method") as caught:
        registry.bind("Alpha", "fail")()
    assert type(caught.value) is AttributeError
    with pytest.raises(TypeError, match="itself") as mismatch:
        registry.bind("Alpha", "itself")(1, 2, 3)
    assert type(mismatch.value) is TypeError
    assert registry.stats().held == 0


def test_a_handle_follows_injections(ws: Any, make: Any) -> None:
    """What is injected later wins from the next call on."""
    registry = make()
    handle = registry.bind("Alpha", "echo")
    assert handle("x") == "x"
    registry.inject_method("Alpha", "echo", str.upper)
    assert handle("x") == "X"
    registry.inject_method("Alpha", "echo", str.title)
    assert handle("xy") == "Xy"
    registry.inject_method("Virtual", "score", len)
    assert registry.bind("Virtual", "score")("abc") == 3


def test_a_handle_works_from_within_its_own_method(make: Any) -> None:
    """Recursion holds once for each call."""
    registry = make()
    seen = []

    def countdown(n: int) -> int:
        seen.append(registry.stats().entries[0].holders)
        return handle(n - 1) if n else 0

    registry.get_instance("Alpha").countdown = countdown
    handle = registry.bind("Alpha", "countdown")
    assert handle(3) == 0
    assert seen == [1, 2, 3, 4]
    assert registry.stats().held == 0


def test_the_instance_of_a_running_handle_may_be_unregistered(make: Any) -> None:
    """The slot lives as long as the call does."""
    registry = make()
    registry.get_instance("Alpha").leave = lambda: registry.unregister_class("Alpha")
    handle = registry.bind("Alpha", "leave")
    assert handle() is True
    assert registry.stats().cached == 0


def test_handles_leak_nothing(make: Any) -> None:
    """Exact reference counts over many calls, right and wrong."""
    registry = make()
    alpha = registry.get_instance("Alpha")
    handle = registry.bind("Alpha", "echo")
    missing = registry.bind("Alpha", "tga")
    argument = object()
    before = sys.getrefcount(alpha), sys.getrefcount(argument), sys.getrefcount(handle)
    for _ in range(100):
        handle(argument)
        handle(argument, k=argument)
        handle(*[argument] * 20)
        with pytest.raises(AttributeError):
            missing(argument)
    gc.collect()
    after = sys.getrefcount(alpha), sys.getrefcount(argument), sys.getrefcount(handle)
    assert after == before
