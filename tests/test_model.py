"""Random operation sequences on both cores and on a model that is too simple to be wrong."""

from __future__ import annotations

import re
import sys
from typing import Any

import hypothesis.strategies as st
import structure
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twins import CLOSES, load

from warmset.events import RemovalCause
from warmset.testing import FakeTimer

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Broken")
name = st.sampled_from(NAMES)


class Model:
    """A list of names in the order of their use; counters; nothing clever."""

    def __init__(self, ttl: float, size: int) -> None:
        self.ttl, self.size = ttl, size
        self.order: list[str] = []
        self.used: dict[str, float] = {}
        self.uses: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.failed_until = -1.0
        self.hits = self.misses = self.builds = self.evictions = 0
        self.removals = [0] * len(RemovalCause)
        self.leaving: dict[str, int] = {}
        self.revived = 0

    def leave(self, name: str, cause: int) -> None:
        self.order.remove(name)
        holds = self.held.pop(name, 0)
        if holds:
            self.leaving[name] = holds
        self.removals[cause] += 1
        self.evictions += cause <= 2

    def shrink(self, limit: int) -> None:
        for name in list(self.order):
            if len(self.order) <= limit:
                return
            if not self.held.get(name):
                self.leave(name, RemovalCause.SIZE)

    def touch(self, name: str, now: float) -> None:
        self.used[name] = now
        self.order.remove(name)
        self.order.append(name)

    def expired(self, name: str, now: float) -> bool:
        return self.ttl > 0 and not self.held.get(name) and now - self.used[name] > self.ttl

    def get(self, name: str, now: float) -> bool:
        if name in self.leaving:
            self.held[name] = self.leaving.pop(name)
            self.order.append(name)
            self.used[name] = now
            self.revived += 1
        if name in self.order:
            if not self.expired(name, now):
                self.hits += 1
                self.uses[name] += 1
                self.touch(name, now)
                return True
            self.leave(name, RemovalCause.IDLE)
        self.misses += 1
        if name == "Broken":
            return False
        self.builds += 1
        self.shrink(self.size - 1)
        self.order.append(name)
        self.used[name] = now
        self.uses[name] = 1
        return True

    def release(self, name: str, now: float) -> None:
        if name in self.leaving:
            self.leaving[name] -= 1
            if not self.leaving[name]:
                del self.leaving[name]
            return
        self.held[name] -= 1
        self.touch(name, now)
        self.shrink(self.size)

    def evict_expired(self, now: float) -> int:
        gone = [name for name in self.order if self.expired(name, now)]
        for name in gone:
            self.leave(name, RemovalCause.IDLE)
        return len(gone)

    def clear(self) -> int:
        count = len(self.order)
        for name in list(self.order):
            self.leave(name, RemovalCause.CLEARED)
        return count


class Both(RuleBasedStateMachine):
    """Each step is done to the registries of both cores and to the model."""

    twins: tuple[str, ...] = ("compiled", "pure")

    def __init__(self) -> None:
        super().__init__()
        self.registries: list[Any] = []
        self.leases: list[tuple[str, Any, list[Any]]] = []

    @rule(ttl=st.sampled_from([0.0, 5.0]), size=st.integers(1, 4))
    @precondition(lambda self: not self.registries)
    def start(self, ttl: float, size: int) -> None:
        self.timer = FakeTimer()
        self.model = Model(ttl, size)
        paths = {name: f"samples.{name}" for name in NAMES}
        self.executors = []
        for twin in self.twins:
            package = load(twin)["warmset"]
            registry = package.MethodRegistry(  # type: ignore[attr-defined]
                paths,
                cache_ttl_seconds=ttl,
                max_cache_size=size,
                retry_after_seconds=0,
                timer=self.timer,
            )
            self.registries.append(registry)
            self.executors.append(
                package.MethodExecutor(method_registry=registry)  # type: ignore[attr-defined]
            )

    def outcomes(self, call: Any) -> list[Any]:
        """What a call gives on each core: the type of a result, or the error with its text."""
        results: list[Any] = []
        for registry, executor in zip(self.registries, self.executors, strict=True):
            try:
                result = call(registry, executor)
                results.append(result if isinstance(result, (int, dict)) else type(result))
            except Exception as error:
                results.append((type(error).__name__, str(error)))
        assert all(result == results[0] for result in results), results
        return results

    started = precondition(lambda self: bool(self.registries))

    @started
    @rule(name=name)
    def get_instance(self, name: str) -> None:
        result = self.outcomes(lambda registry, _: registry.get_instance(name))[0]
        assert self.model.get(name, self.timer.now) == isinstance(result, type)

    @started
    @rule(name=name, method=st.sampled_from(["echo", "tga", "label"]))
    def get_method(self, name: str, method: str) -> None:
        self.outcomes(lambda registry, _: registry.get_method(name, method))
        self.model.get(name, self.timer.now)

    @started
    @rule(name=name, payload=st.dictionaries(st.sampled_from(["text", "x"]), st.integers()))
    def execute(self, name: str, payload: dict[str, Any]) -> None:
        self.outcomes(lambda _, executor: executor.execute(name, "echo", **payload))
        if self.model.get(name, self.timer.now):
            self.model.held[name] = self.model.held.get(name, 0) + 1
            self.model.release(name, self.timer.now)

    @started
    @rule(name=name)
    def call_handle(self, name: str) -> None:
        self.outcomes(lambda registry, _: registry.bind(name, "itself")())
        if self.model.get(name, self.timer.now):
            self.model.held[name] = self.model.held.get(name, 0) + 1
            self.model.release(name, self.timer.now)

    @started
    @rule(name=name)
    def hold(self, name: str) -> None:
        if not self.model.get(name, self.timer.now):
            self.outcomes(lambda registry, _: registry.use(name).__enter__())
            return
        self.model.held[name] = self.model.held.get(name, 0) + 1
        leases = [registry.use(name) for registry in self.registries]
        instances = [lease.__enter__() for lease in leases]
        self.leases.append((name, instances, leases))

    @started
    @precondition(lambda self: bool(self.leases))
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        index = data.draw(st.integers(0, len(self.leases) - 1))
        held, instances, leases = self.leases.pop(index)
        assert not any(instance.is_closed for instance in instances), "closed while held"
        for lease in leases:
            lease.__exit__(None, None, None)
        self.model.release(held, self.timer.now)

    @started
    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.timer.advance(seconds)

    @started
    @rule()
    def evict_expired(self) -> None:
        counts = self.outcomes(lambda registry, _: registry.evict_expired())
        assert counts[0] == self.model.evict_expired(self.timer.now)

    @started
    @rule()
    def clear(self) -> None:
        cleared = self.outcomes(lambda registry, _: registry.clear_cache())
        assert cleared[0]["entries_cleared"] == self.model.clear()

    @started
    @rule(name=name)
    def discard(self, name: str) -> None:
        there = self.outcomes(lambda registry, _: registry.discard(name))[0]
        assert there == (name in self.model.order)
        if there:
            self.model.leave(name, RemovalCause.DISCARDED)

    @invariant()
    def all_agree(self) -> None:
        for registry in self.registries:
            structure.check(registry)
            model = self.model
            assert registry._ring(from_oldest=True) == model.order
            stats = registry.stats()
            assert (stats.hits, stats.misses) == (model.hits, model.misses)
            assert (stats.builds, stats.evictions) == (model.builds, model.evictions)
            assert list(stats.removals.values()) == model.removals
            for entry in stats.entries:
                assert entry.uses == model.uses[entry.class_name]
                assert entry.idle_seconds == self.timer.now - model.used[entry.class_name]
                assert entry.holders == model.held.get(entry.class_name, 0)
            left = stats.closed + stats.left_open + len(model.leaving) + model.revived
            assert left == sum(model.removals)
            assert stats.close_failures == 0
            over = stats.cached - model.size
            assert over <= 0 or stats.held >= over
        differ = re.compile(rf"\b(?:{'|'.join(CLOSES) or 'nothing'})=\d+")
        assert len({differ.sub("", repr(registry.stats())) for registry in self.registries}) <= 1


def test_random_sequences(request: Any) -> None:
    """Thousands of steps, each compared."""
    Both.twins = ("pure",) if request.config.getoption("--pure-only") else ("compiled", "pure")
    run_state_machine_as_test(
        Both,
        settings=settings(
            max_examples=int(request.config.getoption("--examples")),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert "samples" in sys.modules
