"""Many threads and processes at one store, some of which are killed: nothing wrong, none stuck."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")


def test_threads_with_registries_of_their_own(
    share: Any, sharing: Any, tmp_path: Path, notes: Callable[[], list[str]]
) -> None:
    """One store for all, or one for each: one builds."""
    one = share.DirectoryStore(tmp_path / "store")
    registries = [sharing(store=one if at % 2 else None) for at in range(12)]
    barrier = threading.Barrier(len(registries), timeout=60)
    totals: list[float] = []

    def ask(registry: Any) -> None:
        barrier.wait()
        totals.append(registry.get_instance("Table").total())

    threads = [threading.Thread(target=ask, args=(registry,)) for registry in registries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [float(sum(range(10_000)))] * 12
    assert notes() == ["Table"]


def test_what_is_asked_for_both_ways_round_does_not_wait_in_a_circle(
    sharing: Any, notes: Callable[[], list[str]]
) -> None:
    """In two registries, as in two processes: one builds A, which asks for B; one B, then A."""
    one, other = sharing(), sharing()
    barrier = threading.Barrier(2, timeout=60)

    def build(registry: Any, asked: str) -> Any:
        def rule(cls: Any) -> Any:
            barrier.wait()  # both hold a claim now
            registry.get_instance(asked)
            return cls()

        return rule

    one.register_instantiation_rule("Table", build(one, "Closing"), version="1")
    other.register_instantiation_rule("Closing", build(other, "Table"), version="1")
    one.register_instantiation_rule("Closing", lambda cls: cls(), version="1")
    other.register_instantiation_rule("Table", lambda cls: cls(), version="1")
    threads = [
        threading.Thread(target=registry.get_instance, args=(name,))
        for registry, name in ((one, "Table"), (other, "Closing"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert notes().count("Table") == 2


WORKER = """
import random
import sys
import warmset
from warmset.share import DirectoryStore

chance = random.Random(int(sys.argv[2]))
store = DirectoryStore(sys.argv[1], max_bytes=150_000)
expected = float(sum(range(10_000)))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    with warmset.MethodRegistry({}, store=store) as registry:
        for name in ("Table", "Closing"):
            registry.register_class(name, f"shared_samples.{name}", shareable=True)
        for name in chance.sample(("Table", "Closing"), 2):
            made = registry.get_instance(name)
            if name == "Table":
                assert made.total() == expected
        if chance.random() < 0.2:
            store.clear()
        assert registry.snapshot_stats().damaged == 0
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", range(2))
def test_processes_that_are_killed(
    share: Any, tmp_path: Path, notes: Callable[[], list[str]], seed: int
) -> None:
    """In the middle of whatever they are at; the others go on, and find nothing damaged."""
    support = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
    search = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    place = tmp_path / "store"
    share.DirectoryStore(place)
    chance = random.Random(seed)

    def start(number: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), str(place), str(number)],
            env={**os.environ, "PYTHONPATH": search},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    processes = [start(seed * 100 + at) for at in range(6)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes[:3]:
        until = len(notes()) + chance.randrange(1, 4)
        while len(notes()) < until and any(p.poll() is None for p in processes):
            pass
        process.kill()
    for process in processes[:3]:
        process.communicate()
    for process in processes[3:]:
        output, errors = process.communicate(timeout=110)
        assert (process.returncode, output) == (0, "done\n"), errors
    share.DirectoryStore(place).trim()
    assert all(name.endswith(".snapshot") for name in os.listdir(place))


def test_a_finaliser_may_come_in_anywhere(
    sharing: Any, notes: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is counted, say: it asks for another class, in the same thread."""
    registry = sharing()
    count = registry._sharing._count
    within: list[Any] = []

    def counting(what: str, number: int = 1) -> None:
        with registry._sharing._lock:
            if not within:
                within.append(registry.get_instance("Closing"))
            count(what, number)

    monkeypatch.setattr(registry._sharing, "_count", counting)
    registry.register_instantiation_rule("Table", lambda cls: cls(20))  # counts: no version
    assert registry.get_instance("Table").total() == float(sum(range(200)))
    assert len(within) == 1
    assert registry.snapshot_stats().opened == 1
