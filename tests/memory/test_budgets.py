"""Budgets of bytes: for what is cached, and for the process, as it is measured."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

MB = 10**6
NAMES = ("Alpha", "Beta", "Gamma", "Delta")


class Process:
    """A process whose memory is what its instances have, and a rest."""

    def __init__(self) -> None:
        self.rest = 100 * MB
        self.loads: dict[int, int] = {}
        self.returns = True  # whether memory comes back by itself
        self.kept = 0  # what did not, until it is asked for
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
        budgets, sizing = registry._memory.budgets, registry._memory.sizing
        budgets._probe, budgets._give_back = process, process.give_back
        from warmset.memory.growth import Growth

        sizing._growth = Growth(process)
        for name in NAMES:
            registry.register_class(name, f"samples.{name}", closer=process.drop,
                                    close_when_removed=True)  # fmt: skip
            samples.script[name] = lambda instance: process.load(instance, size)
        return registry

    return make_it


def left(registry: Any) -> dict[str, int]:
    removals = registry.stats().as_dict()["removals"]
    return {cause: count for cause, count in removals.items() if count}


def said(caplog: Any) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "warmset.memory"]


# -- what is cached ------------------------------------------------------------------------------


def test_no_more_bytes_are_cached_than_allowed(bounded: Any) -> None:
    """Least recently used first; the new one comes before the old one leaves."""
    registry = bounded(max_cache_bytes=250 * MB)
    for name in NAMES:
        registry.get_instance(name)
    assert registry._ring() == ["Delta", "Gamma"]
    assert registry.stats().bytes == 200 * MB
    assert left(registry) == {"memory": 2}


def test_what_is_held_or_pinned_stays(bounded: Any) -> None:
    registry = bounded(max_cache_bytes=250 * MB)
    registry.pin("Alpha")
    with registry.use("Alpha"), registry.use("Beta"):
        registry.get_instance("Gamma")
        assert sorted(registry._ring()) == ["Alpha", "Beta", "Gamma"]
        registry.sweep()
        assert sorted(registry._ring()) == ["Alpha", "Beta"]


def test_one_that_is_too_big_alone_is_kept_while_it_is_in_use(bounded: Any, caplog: Any) -> None:
    """And pushes out the others; that is said once."""
    registry = bounded(max_cache_bytes=50 * MB)
    with registry.use("Alpha") as instance:
        registry.sweep()
        assert registry.get_instance("Alpha") is instance
    registry.sweep()
    assert registry.stats().cached == 0
    registry.get_instance("Alpha")
    assert len(said(caplog)) == 1
    assert (
        "'Alpha' alone is bigger than max_cache_bytes: 100.0 MB of at most 50.0 MB"
        in (said(caplog)[0])
    )


def test_what_is_too_big_pushes_nothing_out(bounded: Any, samples: Any, process: Process) -> None:
    """It would be for nothing."""
    registry = bounded(max_cache_bytes=250 * MB)
    samples.script["Alpha"] = lambda instance: process.load(instance, 300 * MB)
    registry.get_instance("Beta")
    registry.get_instance("Gamma")
    with registry.use("Alpha"):
        assert sorted(registry._ring()) == ["Alpha", "Beta", "Gamma"]
    registry.get_instance("Delta")
    assert registry._ring() == ["Delta", "Gamma"]


def test_threads_do_not_remove_too_much(bounded: Any) -> None:
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
    assert registry._bytes <= 250 * MB


# -- the process ---------------------------------------------------------------------------------


def test_instances_leave_until_the_process_is_below_its_low_mark(bounded: Any) -> None:
    """From above the high one; between the two nothing happens."""
    registry = bounded(max_rss_bytes=450 * MB, low_rss_bytes=350 * MB)
    for name in NAMES[:3]:
        registry.get_instance(name)
    assert left(registry) == {}  # 400 MB
    registry._memory.sizing._known.clear()  # nothing is known before the build
    registry.get_instance("Delta")
    assert registry._ring() == ["Delta", "Gamma"]  # 500, then 400, then 300 MB
    assert left(registry) == {"memory": 2}


def test_the_low_mark_is_nine_tenths_where_none_is_given(bounded: Any) -> None:
    registry = bounded(max_rss_bytes=400 * MB)
    assert registry._memory.budgets.marks() == (400 * MB, 360 * MB)


def test_a_part_of_what_the_process_may_have(bounded: Any) -> None:
    registry = bounded(max_rss_bytes=0.5, low_rss_bytes=0.25)
    registry._memory.budgets._limit = lambda: 1000 * MB
    assert registry._memory.budgets.marks() == (500 * MB, 250 * MB)


def test_a_sweep_looks_at_the_process(bounded: Any, process: Process) -> None:
    """It may have grown by other things."""
    registry = bounded(max_rss_bytes=450 * MB)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    process.rest += 200 * MB
    registry.sweep()
    assert registry._ring() == ["Beta"]


def test_what_is_known_not_to_fit_is_made_room_for_before(
    bounded: Any, samples: Any, caplog: Any
) -> None:
    """And that is said before the victim is gone; else the build comes first."""
    registry = bounded(max_rss_bytes=350 * MB)
    steps: list[Any] = []
    registry.add_listener(lambda event: steps.append((event.class_name, event.cause.name)))
    load = samples.script["Gamma"]

    def script(instance: Any) -> None:
        steps.append(("built", sorted(registry._ring())))
        load(instance)

    samples.script["Gamma"] = script
    registry.get_instance("Gamma")
    registry.discard("Gamma")
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    steps.clear()
    assert said(caplog) == []
    registry.add_listener(lambda event: steps.append(len(said(caplog))))
    registry.get_instance("Gamma")
    assert steps == [("Alpha", "MEMORY"), 1, ("built", ["Beta"])]
    assert "with 'Gamma' of 100.0 MB it would have more than 350.0 MB" in said(caplog)[0]


def test_cycles_and_the_allocator_are_asked_where_memory_does_not_come_back(
    bounded: Any, process: Process
) -> None:
    """Not for each: after the first, the second, the fourth ..."""
    registry = bounded(max_rss_bytes=700 * MB, low_rss_bytes=150 * MB)
    process.returns = False
    for name in NAMES:
        registry.get_instance(name)
    process.rest += 250 * MB
    registry.sweep()
    assert registry.stats().cached == 0
    assert process.collections == 4  # after 1, 2 and 4, and before it was said that nothing is left
    process.rest -= 250 * MB
    process.collections = 0
    process.returns = True
    for name in NAMES:
        registry.get_instance(name)
    process.rest += 250 * MB
    registry.sweep()
    assert process.collections == 1


def test_that_nothing_is_left_is_said_once(bounded: Any, process: Process, caplog: Any) -> None:
    """And again when it had been well."""
    registry = bounded(max_rss_bytes=400 * MB)
    with registry.use("Alpha"):
        process.rest = 500 * MB
        for _ in range(5):
            registry.sweep()
        assert len(said(caplog)) == 1
        assert (
            "there is nothing left to give: 1 instances are held or pinned, 1 are cached"
            in (said(caplog)[0])
        )
        assert registry._memory.budgets.short_of_memory()
        process.rest = 100 * MB
        registry.sweep()
        assert not registry._memory.budgets.short_of_memory()
        process.rest = 500 * MB
        registry.sweep()
        assert len(said(caplog)) == 2


def test_a_process_that_cannot_be_measured(bounded: Any, caplog: Any) -> None:
    """It is said once, and the registry works on."""
    registry = bounded(max_rss_bytes=400 * MB)

    def broken() -> int:
        raise OSError("no /proc")

    registry._memory.budgets._probe = broken
    for name in NAMES:
        registry.get_instance(name)
    registry.sweep()
    assert registry.stats().cached == 4
    assert len(said(caplog)) == 1
    assert "cannot be measured, max_rss_bytes is not kept: no /proc" in said(caplog)[0]


def test_an_error_while_removing_leaves_no_lock_behind(bounded: Any, process: Process) -> None:
    registry = bounded(max_rss_bytes=450 * MB)
    for name in NAMES[:3]:
        registry.get_instance(name)

    def interrupt() -> None:
        raise KeyboardInterrupt

    registry._memory.budgets._give_back = interrupt
    process.returns = False
    process.rest += 100 * MB
    with pytest.raises(KeyboardInterrupt):
        registry.sweep()
    registry._memory.budgets._give_back = process.give_back
    registry.sweep()
    assert process() <= 405 * MB


def test_a_closer_that_uses_the_registry_does_not_remove_twice(
    bounded: Any, process: Process
) -> None:
    """What comes in further up leaves it to the one below."""
    registry = bounded(max_rss_bytes=450 * MB)
    for name in NAMES[:3]:
        registry.get_instance(name)
    swept: list[int] = []

    def listener(event: Any) -> None:
        swept.append(registry.sweep())

    registry.add_listener(listener)
    process.rest += 100 * MB
    registry.sweep()
    assert len(swept) == left(registry)["memory"] == 1


def test_the_priority_of_a_class_counts(bounded: Any, process: Process) -> None:
    """Whatever the cause."""
    registry = bounded(max_rss_bytes=450 * MB)
    registry.register_class("Alpha", "samples.Alpha", priority=5, closer=process.drop,
                            close_when_removed=True)  # fmt: skip
    for name in NAMES[:3]:
        registry.get_instance(name)
    process.rest += 100 * MB
    registry.sweep()
    assert registry._ring() == ["Gamma", "Alpha"]


REAL = """
import sys
sys.path.insert(0, "tests/support")
import numpy, psutil, warmset

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
    """With arrays of 60 MB and room for three."""
    pytest.importorskip("numpy")
    done = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    cached, removed = map(int, done.stdout.split())
    assert 2 <= cached <= 3
    assert removed == 24 - cached
