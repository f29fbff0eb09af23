"""Random sequences of operations on both cores and on a simple model."""

from __future__ import annotations

import re
import sys
from typing import Any

import hypothesis.strategies as st
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
from warmset.testing.structure import check_structure, eviction_order

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Broken")
name = st.sampled_from(NAMES)


class Instance:
    """A built instance, as the model sees it."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.used = now
        self.uses = 1
        self.holds = 0


class Model:
    """A list of instances in the order of their use, and counters; nothing clever."""

    def __init__(self, ttl: float, size: int) -> None:
        self.ttl, self.size = ttl, size
        self.cached: list[Instance] = []
        self.removed_held: list[Instance] = []
        self.ended = 0
        self.hits = self.misses = self.builds = self.evictions = 0
        self.removals = [0] * len(RemovalCause)

    def find(self, name: str) -> Instance | None:
        return next((each for each in self.cached if each.name == name), None)

    def remove(self, instance: Instance, cause: int) -> None:
        self.cached.remove(instance)
        if instance.holds:
            self.removed_held.append(instance)
        else:
            self.ended += 1
        self.removals[cause] += 1
        self.evictions += cause <= RemovalCause.COLLECTED

    def shrink(self, limit: int) -> None:
        for instance in list(self.cached):
            if len(self.cached) <= limit:
                return
            if not instance.holds:
                self.remove(instance, RemovalCause.SIZE)

    def touch(self, instance: Instance, now: float) -> None:
        instance.used = now
        self.cached.remove(instance)
        self.cached.append(instance)

    def expired(self, instance: Instance, now: float) -> bool:
        return self.ttl > 0 and not instance.holds and now - instance.used > self.ttl

    def get(self, name: str, now: float) -> Instance | None:
        instance = self.find(name)
        if instance is not None:
            if not self.expired(instance, now):
                self.hits += 1
                instance.uses += 1
                self.touch(instance, now)
                return instance
            self.remove(instance, RemovalCause.IDLE)
        self.misses += 1
        if name == "Broken":
            return None
        self.builds += 1
        self.shrink(self.size - 1)
        instance = Instance(name, now)
        self.cached.append(instance)
        return instance

    def call(self, name: str, now: float) -> None:
        """Hold an instance for the time of a call."""
        instance = self.get(name, now)
        if instance is not None:
            instance.holds += 1
            self.release(instance, now)

    def release(self, instance: Instance, now: float) -> None:
        instance.holds -= 1
        if instance in self.cached:
            self.touch(instance, now)
            self.shrink(self.size)
        elif not instance.holds:
            self.removed_held.remove(instance)
            self.ended += 1

    def evict_expired(self, now: float) -> int:
        expired = [instance for instance in self.cached if self.expired(instance, now)]
        for instance in expired:
            self.remove(instance, RemovalCause.IDLE)
        return len(expired)

    def clear(self) -> int:
        count = len(self.cached)
        for instance in list(self.cached):
            self.remove(instance, RemovalCause.CLEARED)
        return count


class Both(RuleBasedStateMachine):
    """Each step is done to the registries of both cores and to the model."""

    twins: tuple[str, ...] = ("compiled", "pure")

    def __init__(self) -> None:
        super().__init__()
        self.registries: list[Any] = []
        self.leases: list[tuple[Instance, list[Any], list[Any]]] = []

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
        """The outcome of a call on each core: the type of a result, or the error with its text."""
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
        found = self.model.get(name, self.timer.now)
        assert (found is not None) == isinstance(result, type)

    @started
    @rule(name=name, method=st.sampled_from(["echo", "tga", "label"]))
    def get_method(self, name: str, method: str) -> None:
        self.outcomes(lambda registry, _: registry.get_method(name, method))
        self.model.get(name, self.timer.now)

    @started
    @rule(name=name, payload=st.dictionaries(st.sampled_from(["text", "x"]), st.integers()))
    def execute(self, name: str, payload: dict[str, Any]) -> None:
        self.outcomes(lambda _, executor: executor.execute(name, "echo", **payload))
        self.model.call(name, self.timer.now)

    @started
    @rule(name=name)
    def call_handle(self, name: str) -> None:
        self.outcomes(lambda registry, _: registry.bind(name, "itself")())
        self.model.call(name, self.timer.now)

    @started
    @rule(name=name)
    def hold(self, name: str) -> None:
        held = self.model.get(name, self.timer.now)
        if held is None:
            self.outcomes(lambda registry, _: registry.use(name).__enter__())
            return
        held.holds += 1
        leases = [registry.use(name) for registry in self.registries]
        instances = [lease.__enter__() for lease in leases]
        self.leases.append((held, instances, leases))

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
        discarded = self.outcomes(lambda registry, _: registry.discard(name))[0]
        instance = self.model.find(name)
        assert discarded == (instance is not None)
        if instance is not None:
            self.model.remove(instance, RemovalCause.DISCARDED)

    @invariant()
    def all_agree(self) -> None:
        for registry in self.registries:
            check_structure(registry)
            model = self.model
            assert eviction_order(registry) == [instance.name for instance in model.cached]
            stats = registry.stats()
            assert (stats.hits, stats.misses) == (model.hits, model.misses)
            assert (stats.builds, stats.evictions) == (model.builds, model.evictions)
            assert list(stats.removals.values()) == model.removals
            for entry in stats.entries:
                instance = model.find(entry.class_name)
                assert instance is not None
                assert entry.uses == instance.uses
                assert entry.idle_seconds == self.timer.now - instance.used
                assert entry.holders == instance.holds
            assert stats.states["held"] == len(model.removed_held)
            assert stats.closed + stats.left_open == model.ended
            assert stats.close_failures == 0
            held = sum(instance.holds for instance in [*model.cached, *model.removed_held])
            assert len(registry.holders()) == held
            over = stats.cached - model.size
            assert over <= 0 or stats.held >= over
        differ = re.compile(rf"\b'?(?:{'|'.join(CLOSES) or 'nothing'})'?[=:] ?\d+")
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
