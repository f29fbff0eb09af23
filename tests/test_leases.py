"""Leases: looking up and holding in one step."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from threads import Gate, in_thread

from warmset.testing.structure import eviction_order


def test_use_returns_and_holds(make: Any) -> None:
    """From the look-up to the end of the block."""
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
    """The next oldest is evicted instead; held ones may exceed the bound until their release."""
    registry = make(max_cache_size=1)
    with registry.use("Alpha") as alpha:
        registry.get_instance("Beta")
        registry.get_instance("Gamma")
        assert eviction_order(registry) == ["Alpha", "Gamma"]
        assert registry.get_instance("Alpha") is alpha
    assert eviction_order(registry) == ["Alpha"], "the surplus is evicted at release"
    assert registry.stats().evictions == 2


def test_the_idle_clock_stands_still_while_held(make: Any, timer: Any, samples: Any) -> None:
    """It starts again at release."""
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
    """The eviction order is that of the last use."""
    registry = make()
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        assert eviction_order(registry) == ["Alpha", "Beta"]
    assert eviction_order(registry) == ["Beta", "Alpha"]


def test_evict_expired_skips_held_instances(make: Any, timer: Any) -> None:
    """Idle ones that were used later are still evicted."""
    registry = make(cache_ttl_seconds=10)
    with registry.use("Alpha"), registry.use("Beta"):
        registry.get_instance("Gamma")
        timer.advance(11)
        assert registry.evict_expired() == 1
        assert set(eviction_order(registry)) == {"Alpha", "Beta"}


@pytest.mark.parametrize("removal", ["clear_cache", "discard", "unregister"])
def test_a_held_instance_that_is_removed_stays_with_its_holder(make: Any, removal: str) -> None:
    """It is not handed out again, and its release does not affect its successor."""
    registry = make()
    with registry.use("Alpha") as alpha:
        if removal == "clear_cache":
            registry.clear_cache()
        else:
            getattr(registry, removal)("Alpha")
        registry.register("Alpha", "samples.Alpha")
        with registry.use("Alpha") as successor:
            assert successor is not alpha
            assert registry.stats().entries[0].holders == 1
    assert registry.stats().held == 0


def test_releasing_a_removed_instance_does_not_trigger_an_eviction(make: Any) -> None:
    """It frees no capacity, even while more instances are cached than the bound allows."""
    registry = make(max_cache_size=1)
    before = registry.use("Alpha")
    before.__enter__()
    registry.clear_cache()
    with registry.use("Alpha"):
        registry.get_instance("Beta")
        assert eviction_order(registry) == ["Alpha", "Beta"]
        before.__exit__()
        assert eviction_order(registry) == ["Alpha", "Beta"]
    assert eviction_order(registry) == ["Alpha"]


def test_a_lease_over_a_build_that_was_cleared(make: Any, samples: Any) -> None:
    """It holds an instance outside the cache, which is closed at its release."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.clear_cache()
    with registry.use("Alpha") as alpha:
        assert type(alpha) is samples.Alpha
        assert registry.stats().cached == 0
        assert registry.stats().states["held"] == 1
        assert [row.class_name for row in registry.holders()] == ["Alpha"]
        assert not alpha.is_closed
    assert alpha.is_closed
    assert registry.stats().states["held"] == 0


def test_an_exception_in_the_block_releases(make: Any) -> None:
    """The exception is raised."""
    registry = make()
    with pytest.raises(ValueError, match="mine"), registry.use("Alpha"):
        raise ValueError("mine")
    assert registry.stats().held == 0


def test_a_dropped_lease_releases(make: Any) -> None:
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
    """Its error is raised, and the instance is released."""
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


def test_holders_lists_each_hold_with_its_thread_and_time(ws: Any, make: Any, timer: Any) -> None:
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


def test_handles_and_leases_of_no_registry(ws: Any) -> None:
    """They are errors and no crashes."""
    with pytest.raises((TypeError, AttributeError)):
        ws.Handle(None, "Alpha", "echo")()
    with pytest.raises((TypeError, AttributeError)):
        ws.Lease(None, "Alpha").__enter__()


def test_two_threads_that_enter_one_lease(make: Any, samples: Any) -> None:
    """The second is refused, also while the instance is being built for the first."""
    registry = make()
    lease = registry.use("Alpha")
    samples.script["Alpha"] = gate = Gate()
    running = in_thread(lease.__enter__)
    gate.wait()
    with pytest.raises(RuntimeError, match="already holds"):
        lease.__enter__()
    gate.open()
    running.result()
    lease.__exit__(None, None, None)
    assert registry.stats().held == 0
