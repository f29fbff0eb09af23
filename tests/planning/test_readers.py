"""What is read while other threads build and evict, and after forks: no impossible figure."""

from __future__ import annotations

import os
import random
import sys
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from forks import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = [f"C{number}" for number in range(40)]
BUILDERS, TURNS, FORKS = 3, 500, 3
BOUNDS = {
    "places": {"max_cache_size": 8},
    "bytes": {"max_cache_size": 100, "max_cache_bytes": 30_000},
    "auto": {"max_cache_size": "auto", "max_cache_bytes": 30_000, "autosize_max": 30},
    "idle": {"max_cache_size": 8, "cache_ttl_seconds": 0.005},
}


class Built:
    def __init__(self, number: int) -> None:
        self.size = 1_000 * (number % 7 + 1)


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    """Threads take turns much more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def registry_of(ws: Any, **options: Any) -> Any:
    registry = ws.MethodRegistry({}, plan=True, sizer=lambda instance: instance.size, **options)
    for number, name in enumerate(NAMES):
        registry.register(name, lambda number=number: Built(number))
    registry.health()  # imports what it needs: a fork during an import would keep its lock
    return registry


def check_plan(plan: Any) -> None:
    """Nothing is negative, and no more is avoided than happened."""
    assert plan.window_seconds >= 0.0
    assert sum(share.builds for share in plan.causes) == plan.builds
    assert all(share.builds > 0 and share.seconds >= 0.0 for share in plan.causes)
    for curve in plan.curves:
        larger = [point for point in curve.points if point.bound > curve.bound]
        assert all(-plan.builds <= point.builds <= 0 for point in larger)
        assert all(-plan.build_seconds - 1e-9 <= point.seconds <= 0.0 for point in larger)
        sizes = [point.bytes for point in larger if point.bytes is not None]
        assert sizes == sorted(sizes)
        assert all(size >= 0 for size in sizes)
        for point in curve.points[: -len(larger)]:
            assert point.bound < curve.bound
            assert point.builds >= 0
    assert 0 <= plan.unused.instances <= len(NAMES)
    assert plan.unused.bytes >= 0
    if plan.thrashing is not None:
        check_thrashing(plan)
    assert repr(plan)
    assert plan.as_dict()


def check_thrashing(plan: Any) -> None:
    found = plan.thrashing
    assert found.better > found.bound
    assert 0 < found.builds_avoided <= found.builds <= plan.builds
    assert 0.0 <= found.seconds_avoided <= found.seconds + 1e-9
    assert found.bytes is None or found.bytes >= 0


def check_totals(registry: Any) -> None:
    from warmset.planning.curves import rebuild_totals

    totals = rebuild_totals(registry)
    assert 0 <= totals.avoidable_builds <= sum(builds for _, builds, _ in totals.causes)
    assert totals.avoidable_seconds <= sum(seconds for *_, seconds in totals.causes) + 1e-9
    assert sum(builds for _, builds, _ in totals.causes) <= registry.stats().builds


def scrapes(registry: Any) -> list[Callable[[], None]]:
    """Make a reader of the metrics, if they are installed: a part never exceeds the whole."""
    try:
        import prometheus_client
    except ImportError:
        return []
    from prometheus_client.parser import text_string_to_metric_families

    from warmset.observe.prometheus import WarmsetCollector

    target = prometheus_client.CollectorRegistry()
    target.register(WarmsetCollector(registry))

    def read() -> None:
        text = prometheus_client.generate_latest(target).decode()
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("result") != "failure":
                    sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        rebuilds = sums["warmset_rebuilds_total"]
        assert 0 <= sums["warmset_avoidable_builds_total"] <= rebuilds
        assert rebuilds <= sums["warmset_builds_total"]

    return [read]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("policy", ["lru", "cost"])
@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
def test_no_reader_fails_or_gets_an_impossible_figure(
    ws: Any, bounds: dict[str, Any], policy: str
) -> None:
    registry = registry_of(ws, policy=policy, **bounds)
    errors: list[str] = []

    def build(seed: int) -> None:
        choose = random.Random(seed)
        for turn in range(TURNS):
            registry.get_instance(NAMES[min(len(NAMES) - 1, int(choose.expovariate(0.08)))])
            if turn % 50 == 0:
                registry.discard(choose.choice(NAMES))
            if turn % 70 == 0 and bounds["max_cache_size"] == 8:
                registry._max_cache_size = choose.choice([6, 8, 12])
            if turn == 400:
                registry.clear_cache()

    def read() -> None:
        for window_seconds in (0.01, 300.0):
            check_plan(registry.plan(window_seconds=window_seconds))
        check_totals(registry)
        for finding in registry.health():
            assert str(finding)

    def after_fork() -> None:
        read()
        for name in NAMES:
            registry.get_instance(name)
        read()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException:
                errors.append(traceback.format_exc())

        return run

    done = threading.Event()

    def reading(reader: Callable[[], None]) -> Callable[[], None]:
        def work() -> None:
            while not done.is_set():
                reader()

        return work

    def forking() -> None:
        for _ in range(FORKS):
            assert in_child(after_fork) == 0

    builders = [threading.Thread(target=guarded(partial(build, seed))) for seed in range(BUILDERS)]
    others = [reading(read), *map(reading, scrapes(registry))]
    # Without the GIL, children that are forked while other threads build may hang; the cause is not
    # known, and may be a lock of the interpreter.
    if hasattr(os, "fork") and getattr(sys, "_is_gil_enabled", lambda: True)():
        others.append(forking)
    readers = [threading.Thread(target=guarded(work)) for work in others]
    for thread in builders + readers:
        thread.start()
    for thread in builders:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert errors == []
    registry.close()
