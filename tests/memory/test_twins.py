"""Random sequences of operations with all bounds on memory: both cores agree, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twins import CLOSES, load

from warmset.testing import FakeTimer
from warmset.testing.structure import check_structure, eviction_order

if TYPE_CHECKING:
    import pytest

NAMES = ("Alpha", "Beta", "Gamma", "Delta")
name = st.sampled_from(NAMES)
SIZES = {"Alpha": 10, "Beta": 20, "Gamma": 30, "Delta": 100}


def size_of(instance: Any) -> int:
    return SIZES[type(instance).__name__]


class Twins(RuleBasedStateMachine):
    """Each step is done on every core."""

    cores = ("compiled", "pure")

    def __init__(self) -> None:
        super().__init__()
        self.timer = FakeTimer()
        self.registries: list[Any] = []
        self.leases: list[tuple[str, list[Any], list[Any]]] = []

    @initialize(
        policy=st.sampled_from(["lru", "cost"]),
        most=st.sampled_from([0, 45, 90]),
        size=st.integers(1, 4),
        age=st.sampled_from([0.0, 20.0]),
    )
    def start(self, policy: str, most: int, size: int, age: float) -> None:
        self.size, self.most = size, most
        for twin in self.cores:
            registry = load(twin)["warmset"].MethodRegistry(  # type: ignore[attr-defined]
                {each: f"samples.{each}" for each in NAMES},
                cache_ttl_seconds=8,
                max_age_seconds=age,
                max_cache_size=size,
                max_cache_bytes=most,
                sizer=size_of,
                policy=policy,
                timer=self.timer,
            )
            self.registries.append(registry)

    def both(self, call: Any) -> Any:
        results = [call(registry) for registry in self.registries]
        assert all(result == results[0] for result in results)
        return results[0]

    @rule(name=name)
    def get(self, name: str) -> None:
        self.both(lambda registry: type(registry.get_instance(name)).__name__)

    @rule(name=name)
    def hold(self, name: str) -> None:
        leases = [registry.use(name) for registry in self.registries]
        self.leases.append((name, [lease.__enter__() for lease in leases], leases))

    @rule(at=st.integers(0, 9))
    def release(self, at: int) -> None:
        if self.leases:
            _, instances, leases = self.leases.pop(at % len(self.leases))
            assert not any(instance.is_closed for instance in instances)
            for lease in leases:
                lease.__exit__(None, None, None)

    @rule(name=name, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        self.both(lambda registry: registry.pin(name) if pinned else registry.unpin(name))

    @rule(name=name, ttl=st.sampled_from([None, 0.0, 3.0]), priority=st.integers(-1, 1))
    def options(self, name: str, ttl: float | None, priority: int) -> None:
        self.both(
            lambda registry: registry.register(
                name, f"samples.{name}", cache_ttl_seconds=ttl, priority=priority
            )
        )

    @rule(name=name)
    def recycle(self, name: str) -> None:
        self.both(lambda registry: registry.recycle(name))

    @rule(name=name)
    def discard(self, name: str) -> None:
        self.both(lambda registry: registry.discard(name))

    @rule()
    def clear(self) -> None:
        self.both(lambda registry: registry.clear_cache()["entries_cleared"])

    @rule()
    def sweep(self) -> None:
        self.both(lambda registry: registry.sweep())
        if not self.leases and not self.registries[0].pinned():
            assert self.registries[0].cached <= self.size
            assert not self.most or self.registries[0].known_bytes <= self.most

    @rule(seconds=st.sampled_from([0.5, 3.0, 7.0, 15.0]))
    def wait(self, seconds: float) -> None:
        self.timer.advance(seconds)

    @rule(name=name)
    def explain(self, name: str) -> None:
        self.both(lambda registry: registry.explain(name)[1:-1])

    @invariant()
    def they_agree(self) -> None:
        if not self.registries:
            return
        self.both(eviction_order)
        self.both(lambda registry: (registry.known_bytes, registry.watched, registry.pinned()))

        def counted(registry: Any) -> Any:
            stats = registry.stats().as_dict()
            return {key: stats[key] for key in stats.keys() - {"total_build_seconds"} - CLOSES}

        self.both(counted)

    def teardown(self) -> None:
        while self.leases:
            self.release(0)
        for registry in self.registries:
            for pinned in registry.pinned():
                registry.unpin(pinned)
            registry.sweep()
            check_structure(registry)
            assert registry.cached <= self.size
            assert not self.most or registry.known_bytes <= self.most
            assert registry.watched == 0
            registry.close()
            stats = registry.stats()
            assert stats.closed + stats.left_open == stats.builds


def test_the_cores_agree(request: pytest.FixtureRequest, samples: Any) -> None:
    """On the removed instances, the times and the causes of their removals."""

    class Machine(Twins):
        cores = ("pure",) if request.config.getoption("--pure-only") else Twins.cores

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=int(request.config.getoption("--examples")),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
