"""Greenlets: two of one thread can each be in the middle of a build, and that is no cycle."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from threads import Gate, in_thread, until

greenlet = pytest.importorskip("greenlet")


def spawn(call: Any, *args: Any) -> Any:
    """Return a greenlet that makes a call; a switch to it returns its result when it has ended."""
    return greenlet.greenlet(lambda: call(*args))


def pause(_: Any = None) -> None:
    """Switch to the greenlet that switched to this one."""
    greenlet.getcurrent().parent.switch()


def test_greenlets_without_a_hub_build_for_themselves(make: Any, samples: Any) -> None:
    """Nobody could switch to the first one while another waits; what that builds is not cached."""
    registry = make()
    samples.script["Alpha"] = pause
    greenlets = [spawn(registry.get_instance, "Alpha") for _ in range(3)]
    for each in greenlets:
        each.switch()
    assert samples.built == ["Alpha"] * 3
    assert len(registry.builder.in_progress()) == 1
    third, first, second = (greenlets[i].switch() for i in (2, 0, 1))
    assert len({id(first), id(second), id(third)}) == 3
    samples.script.clear()
    assert registry.get_instance("Alpha") is first
    stats = registry.stats()
    assert (stats.builds, stats.cached, stats.held) == (3, 1, 0)


def test_what_was_built_aside_is_closed_after_its_use(make: Any, samples: Any) -> None:
    """At the end of its lease, as any entry outside the cache."""
    registry = make()
    samples.script["Alpha"] = pause

    def use() -> None:
        with registry.use("Alpha"):
            pause()

    first, second = spawn(use), spawn(use)
    for each in (first, second, second, second):
        each.switch()
    assert samples.closed == ["Alpha"]
    for each in (first, first):
        each.switch()
    assert samples.closed == ["Alpha"]
    assert registry.stats().cached == 1


def test_a_cycle_within_a_greenlet(ws: Any, make: Any, samples: Any) -> None:
    """It is found, also where a build would be done aside."""
    registry = make()
    found: list[Any] = []

    def script(_: Any) -> None:
        pause()
        try:
            registry.get_instance("Alpha")
        except ws.CycleError as error:
            found.append(error.chain)

    samples.script["Alpha"] = script
    greenlets = [spawn(registry.get_instance, "Alpha") for _ in range(2)]
    for each in (*greenlets, *reversed(greenlets)):
        each.switch()
    assert found == [("Alpha", "Alpha")] * 2


def test_a_greenlet_that_waits_for_a_thread_that_waits_for_its_thread(
    make: Any, samples: Any
) -> None:
    """The other greenlet could not go on: the class is built aside."""
    registry = make()
    samples.script["Alpha"] = pause
    samples.script["Beta"] = lambda _: registry.get_instance("Alpha")
    first = spawn(registry.get_instance, "Alpha")
    first.switch()
    other = in_thread(registry.get_instance, "Beta")
    until(lambda: registry.builder.waiting() == 1)
    samples.script["Beta"] = lambda _: None
    second = spawn(registry.get_instance, "Beta")
    assert type(second.switch()) is samples.Beta
    assert type(first.switch()) is samples.Alpha
    assert type(other.result()) is samples.Beta


def test_a_thread_that_would_wait_for_a_thread_that_waits_for_it(make: Any, samples: Any) -> None:
    """A greenlet waits for the thread, so the one that the thread asks for cannot go on."""
    registry = make()
    samples.script["Alpha"] = pause
    first = spawn(registry.get_instance, "Alpha")
    first.switch()
    samples.script.clear()
    gate = Gate()

    def ask(_: Any) -> None:
        gate()
        registry.get_instance("Alpha")

    samples.script["Beta"] = ask
    other = in_thread(registry.get_instance, "Beta")
    gate.wait()

    def open_gate() -> None:
        until(lambda: registry.builder.waiting() == 1)
        gate.open()

    opener = in_thread(open_gate)
    second = spawn(registry.get_instance, "Beta")
    assert second.switch() is other.result()
    opener.result()
    assert type(first.switch()) is samples.Alpha
    assert samples.built.count("Alpha") == 2


def test_a_thread_waits_for_a_greenlet(make: Any, samples: Any) -> None:
    """It gets what the greenlet builds."""
    registry = make()
    samples.script["Alpha"] = pause
    builder = spawn(registry.get_instance, "Alpha")
    builder.switch()
    other = in_thread(registry.get_instance, "Alpha")
    until(lambda: registry.builder.waiting() == 1)
    assert builder.switch() is other.result()


GEVENT = """
import sys, types
{first}
from gevent import monkey
monkey.patch_all()
import warmset
import gevent, threading, time

home = types.ModuleType("home")
sys.modules["home"] = home
class Model:
    def __init__(self): gevent.sleep(0.01)
home.Model = Model
class Outer:
    def __init__(self): self.model = registry.get_instance("Model")
home.Outer = Outer
registry = warmset.MethodRegistry({{"Model": "home.Model", "Outer": "home.Outer"}})
jobs = [gevent.spawn(registry.get_instance, name) for name in ("Model", "Outer", "Model", "Outer")]
gevent.joinall(jobs, timeout=20)
model, outer = jobs[0].value, jobs[1].value
assert type(model) is Model and jobs[2].value is model
assert outer.model is model and jobs[3].value is outer
assert registry.stats().builds == 2
registry.clear_cache()
# A thread of the interpreter waits for a greenlet of this one.
from gevent.threadpool import ThreadPool
job = gevent.spawn(registry.get_instance, "Model")
gevent.sleep(0)
other = ThreadPool(1).spawn(registry.get_instance, "Model")
gevent.joinall([job], timeout=20)
assert other.get(timeout=20) is job.value
# A greenlet that is killed while it waits, and one that is killed while it builds.
registry.clear_cache()
builder, waiter, another = (gevent.spawn(registry.get_instance, "Model") for _ in range(3))
gevent.sleep(0)
waiter.kill()
builder.kill()
another.join(20)
assert type(another.value) is Model
assert registry.builder.in_progress() == [] and registry.builder.waiting() == 0
assert registry.holders() == [] or registry.holders() == ()
from warmset.testing.structure import check_structure
check_structure(registry)
print("done")
"""


@pytest.mark.parametrize("first", ["import warmset, warmset.builder", ""], ids=["before", "after"])
def test_gevent(twin: str, first: str) -> None:
    """A greenlet waits through the hub, also if warmset was imported before the patches."""
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GEVENT.format(first=first)],
        env={"WARMSET_PURE": str(int(twin == "pure")), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "done\n", done.stderr
