"""Tests of budgets: for the cached instances, and for the process as measured."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from managers import manager_of

from warmset.testing.structure import eviction_order

MB = 10**6
NAMES = ("Alpha", "Beta", "Gamma", "Delta")


class Process:
    """A process whose memory is that of its instances, and a rest."""

    def __init__(self) -> None:
        self.rest = 100 * MB
        self.loads: dict[int, int] = {}
        self.returns = True  # whether memory returns to the system by itself
        self.kept = 0  # what the allocator keeps until it is asked to return it
        self.collections = 0

    def __call__(self) -> int:
        return self.rest + sum(self.loads.values()) + self.kept

    def load(self, instance: Any, size: int) -> None:
        self.loads[id(instance)] = size

    def drop(self, instance: Any) -> None:
        size = self.loads.pop(id(instance))
        if not self.returns:
            self.kept += size

    def give_back(self) -> None:
        self.collections += 1
        self.kept = 0


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def bounded(make: Any, samples: Any, process: Process) -> Any:
    """A registry whose instances have 100 MB each, in that process."""

    def make_it(size: int = 100 * MB, **options: Any) -> Any:
        registry = make({}, **options)
        budgets, sizing = manager_of(registry).budgets, manager_of(registry).sizing
        budgets._probe, budgets._give_back = process, process.give_back
        from warmset.memory.growth import Growth

        sizing._growth = Growth(process)
        for name in NAMES:
            registry.register(name, f"samples.{name}", closer=process.drop,
                                    close_when_removed=True)  # fmt: skip
            samples.script[name] = lambda instance: process.load(instance, size)
        return registry

    return make_it


def removed(registry: Any) -> dict[str, int]:
    removals = registry.stats().as_dict()["removals"]
    return {cause: count for cause, count in removals.items() if count}


def logged(caplog: Any) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "warmset.memory"]


# -- cached instances ----------------------------------------------------------------------------


def test_the_cached_bytes_do_not_exceed_their_budget(bounded: Any) -> None:
    """The least recently used are evicted first, after the build."""
    registry = bounded(max_cache_bytes=250 * MB)
    for name in NAMES:
        registry.get_instance(name)
    assert eviction_order(registry) == ["Gamma", "Delta"]
    assert registry.stats().bytes == 200 * MB
    assert removed(registry) == {"memory": 2}


def test_held_and_pinned_instances_stay(bounded: Any) -> None:
    registry = bounded(max_cache_bytes=250 * MB)
    registry.pin("Alpha")
    with registry.use("Alpha"), registry.use("Beta"):
        registry.get_instance("Gamma")
        assert sorted(eviction_order(registry)) == ["Alpha", "Beta", "Gamma"]
        registry.sweep()
        assert sorted(eviction_order(registry)) == ["Alpha", "Beta"]


def test_an_instance_that_exceeds_the_budget_alone_stays_while_held(
    bounded: Any, caplog: Any
) -> None:
    """It is evicted at the next sweep after its release; that is logged once."""
    registry = bounded(max_cache_bytes=50 * MB)
    with registry.use("Alpha") as instance:
        registry.sweep()
        assert registry.get_instance("Alpha") is instance
    registry.sweep()
    assert registry.stats().cached == 0
    registry.get_instance("Alpha")
    assert len(logged(caplog)) == 1
    expected = "'Alpha' alone exceeds max_cache_bytes: 100.0 MB of at most 50.0 MB"
    assert expected in logged(caplog)[0]


def test_nothing_is_evicted_for_an_instance_that_exceeds_the_budget_alone(
    bounded: Any, samples: Any, process: Process
) -> None:
    """It would not help."""
    registry = bounded(max_cache_bytes=250 * MB)
    samples.script["Alpha"] = lambda instance: process.load(instance, 300 * MB)
    registry.get_instance("Beta")
    registry.get_instance("Gamma")
    with registry.use("Alpha"):
        assert sorted(eviction_order(registry)) == ["Alpha", "Beta", "Gamma"]
    registry.get_instance("Delta")
    assert eviction_order(registry) == ["Gamma", "Delta"]


def test_concurrent_builds_keep_the_budget(bounded: Any) -> None:
    registry = bounded(max_cache_bytes=250 * MB)

    def work(offset: int) -> None:
        for turn in range(100):
            with registry.use(NAMES[(turn + offset) % 4]):
                pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.sweep()
    assert registry.known_bytes <= 250 * MB


# -- the process ---------------------------------------------------------------------------------


def test_instances_are_evicted_until_the_process_is_below_its_low_mark(bounded: Any) -> None:
    """From above the high mark; between the two nothing is evicted."""
    registry = bounded(max_rss_bytes=450 * MB, low_rss_bytes=350 * MB)
    for name in NAMES[:3]:
        registry.get_instance(name)
    assert removed(registry) == {}  # 400 MB
    manager_of(registry).sizing._known.clear()  # nothing is known before the build
    registry.get_instance("Delta")
    assert eviction_order(registry) == ["Gamma", "Delta"]  # 500, then 400, then 300 MB
    assert removed(registry) == {"memory": 2}


def test_the_default_low_mark_is_nine_tenths_of_the_high_one(bounded: Any) -> None:
    registry = bounded(max_rss_bytes=400 * MB)
    assert manager_of(registry).budgets.marks() == (400 * MB, 360 * MB)


def test_marks_as_fractions_of_the_limit_of_the_process(bounded: Any) -> None:
    registry = bounded(max_rss_bytes=0.5, low_rss_bytes=0.25)
    manager_of(registry).budgets._limit = lambda: 1000 * MB
    assert manager_of(registry).budgets.marks() == (500 * MB, 250 * MB)


def test_a_sweep_enforces_the_budget_of_the_process(bounded: Any, process: Process) -> None:
    """It may have grown for other reasons."""
    registry = bounded(max_rss_bytes=450 * MB)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    process.rest += 200 * MB
    registry.sweep()
    assert eviction_order(registry) == ["Beta"]


def test_evictions_precede_a_build_that_is_known_not_to_fit(
    bounded: Any, samples: Any, caplog: Any
) -> None:
    """That is logged before the eviction; otherwise the build comes first."""
    registry = bounded(max_rss_bytes=350 * MB)
    steps: list[Any] = []
    registry.add_listener(lambda event: steps.append((event.class_name, event.cause.name)))
    load = samples.script["Gamma"]

    def script(instance: Any) -> None:
        steps.append(("built", sorted(eviction_order(registry))))
        load(instance)

    samples.script["Gamma"] = script
    registry.get_instance("Gamma")
    registry.discard("Gamma")
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    steps.clear()
    assert logged(caplog) == []
    registry.add_listener(lambda event: steps.append(len(logged(caplog))))
    registry.get_instance("Gamma")
    assert steps == [("Alpha", "MEMORY"), 1, ("built", ["Beta"])]
    assert "with 'Gamma' of 100.0 MB it would have more than 350.0 MB" in logged(caplog)[0]


def test_evictions_precede_the_build_of_a_replacement(bounded: Any, samples: Any) -> None:
    """The instance that it replaces serves meanwhile, and needs its memory."""
    registry = bounded(max_rss_bytes=350 * MB)
    for name in NAMES[:2]:
        registry.get_instance(name)
    load, cached = samples.script["Beta"], []

    def script(instance: Any) -> None:
        cached.extend(eviction_order(registry))
        load(instance)

    samples.script["Beta"] = script
    with registry.use("Beta"):
        assert registry.recycle("Beta")
    assert cached == ["Beta"]
    assert removed(registry) == {"memory": 1, "recycled": 1}


def test_memory_that_does_not_return_by_itself_is_reclaimed(bounded: Any, process: Process) -> None:
    """After the first, the second, the fourth eviction ..."""
    registry = bounded(max_rss_bytes=700 * MB, low_rss_bytes=150 * MB)
    process.returns = False
    for name in NAMES:
        registry.get_instance(name)
    process.rest += 250 * MB
    registry.sweep()
    assert registry.stats().cached == 0
    assert process.collections == 4  # after 1, 2 and 4, and before "nothing is left" is logged
    process.rest -= 250 * MB
    process.collections = 0
    process.returns = True
    for name in NAMES:
        registry.get_instance(name)
    process.rest += 250 * MB
    registry.sweep()
    assert process.collections == 1


def test_it_is_logged_once_that_nothing_is_left_to_evict(
    bounded: Any, process: Process, caplog: Any
) -> None:
    """And again if the process was below its low mark in between."""
    registry = bounded(max_rss_bytes=400 * MB)
    with registry.use("Alpha"):
        process.rest = 500 * MB
        for _ in range(5):
            registry.sweep()
        assert len(logged(caplog)) == 1
        assert (
            "nothing is left to evict: 1 instances are held or pinned, 1 are cached"
            in (logged(caplog)[0])
        )
        assert manager_of(registry).budgets.short_of_memory()
        process.rest = 100 * MB
        registry.sweep()
        assert not manager_of(registry).budgets.short_of_memory()
        process.rest = 500 * MB
        registry.sweep()
        assert len(logged(caplog)) == 2


def test_a_process_that_cannot_be_measured(bounded: Any, caplog: Any) -> None:
    """It is logged once, and the budget is not enforced."""
    registry = bounded(max_rss_bytes=400 * MB)

    def broken() -> int:
        raise OSError("no /proc")

    manager_of(registry).budgets._probe = broken
    for name in NAMES:
        registry.get_instance(name)
    registry.sweep()
    assert registry.stats().cached == 4
    assert len(logged(caplog)) == 1
    assert "cannot be measured, so max_rss_bytes is not enforced" in logged(caplog)[0]


def test_an_interrupt_during_an_eviction_releases_the_lock(bounded: Any, process: Process) -> None:
    registry = bounded(max_rss_bytes=450 * MB)
    for name in NAMES[:3]:
        registry.get_instance(name)

    def interrupt() -> None:
        raise KeyboardInterrupt

    manager_of(registry).budgets._give_back = interrupt
    process.returns = False
    process.rest += 100 * MB
    with pytest.raises(KeyboardInterrupt):
        registry.sweep()
    manager_of(registry).budgets._give_back = process.give_back
    registry.sweep()
    assert process() <= 405 * MB


def test_a_sweep_by_a_listener_does_not_evict_more(bounded: Any, process: Process) -> None:
    """The outer call is already evicting."""
    registry = bounded(max_rss_bytes=450 * MB)
    for name in NAMES[:3]:
        registry.get_instance(name)
    swept: list[int] = []

    def listener(event: Any) -> None:
        swept.append(registry.sweep())

    registry.add_listener(listener)
    process.rest += 100 * MB
    registry.sweep()
    assert len(swept) == removed(registry)["memory"] == 1


def test_priorities_apply_to_budgets(bounded: Any, process: Process) -> None:
    registry = bounded(max_rss_bytes=450 * MB)
    registry.register("Alpha", "samples.Alpha", priority=5, closer=process.drop,
                            close_when_removed=True)  # fmt: skip
    for name in NAMES[:3]:
        registry.get_instance(name)
    process.rest += 100 * MB
    registry.sweep()
    assert eviction_order(registry) == ["Alpha", "Gamma"]


REAL = """
import sys
sys.path.insert(0, "tests/support")
import numpy, psutil, warmset
from warmset.testing.structure import eviction_order

class Load:
    def __init__(self):
        self.array = numpy.ones(60_000_000, dtype=numpy.uint8)

paths = {f"C{n}": "__main__.Load" for n in range(8)}
before = psutil.Process().memory_info().rss
registry = warmset.MethodRegistry(paths, max_rss_bytes=before + 200_000_000)
for turn in range(24):
    registry.get_instance(f"C{turn % 8}")
    after = psutil.Process().memory_info().rss - before
    assert after < 210_000_000, after
size = registry.stats().entries[0].bytes
assert 50_000_000 < size < 70_000_000, size
print(registry.stats().cached, registry.stats().removals[warmset.events.RemovalCause.MEMORY])
"""


def test_a_real_process_stays_within_its_budget() -> None:
    """With arrays of 60 MB and a budget for three."""
    pytest.importorskip("numpy")
    done = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    cached, evicted = map(int, done.stdout.split())
    assert 2 <= cached <= 3
    assert evicted == 24 - cached
