"""Concurrent use of one store by threads and by processes, some of which are killed."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import textwrap
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from threads import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")


def test_threads_with_registries_of_their_own(
    share: Any, sharing: Any, tmp_path: Path, notes: Callable[[], list[str]]
) -> None:
    """One thread builds, with a common store or with stores of their own."""
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


def test_opposite_nested_builds_do_not_deadlock(
    sharing: Any, notes: Callable[[], list[str]]
) -> None:
    """Of two registries, as in two processes, one builds A, which needs B; the other B, then A."""
    one, other = sharing(), sharing()
    claimed, inside = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)

    def build(registry: Any, needed: str) -> Any:
        def rule(cls: Any) -> Any:
            claimed.wait()  # both hold a claim now
            registry.get_instance(needed)
            return cls()

        return rule

    def build_asked(cls: Any) -> Any:
        inside.wait()  # neither has finished, so neither finds the other's snapshot
        return cls()

    one.register_instantiation_rule("Table", build(one, "Closing"), version="1")
    other.register_instantiation_rule("Closing", build(other, "Table"), version="1")
    one.register_instantiation_rule("Closing", build_asked, version="1")
    other.register_instantiation_rule("Table", build_asked, version="1")
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
            registry.register(name, f"shared_samples.{name}", shareable=True)
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
def test_killed_processes(
    share: Any, tmp_path: Path, notes: Callable[[], list[str]], seed: int
) -> None:
    """At any point of their work; the other processes finish and find no damaged snapshot."""
    support = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
    search = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    directory = tmp_path / "store"
    share.DirectoryStore(directory)
    chance = random.Random(seed)

    def start(number: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), str(directory), str(number)],
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

    def enough(wanted: int) -> bool:
        return len(notes()) >= wanted or all(p.poll() is not None for p in processes)

    for process in processes[:3]:
        wanted = len(notes()) + chance.randrange(1, 4)
        until(partial(enough, wanted))
        process.kill()
    for process in processes[:3]:
        process.communicate()
    for process in processes[3:]:
        output, errors = process.communicate(timeout=110)
        assert (process.returncode, output) == (0, "done\n"), errors
    store = share.DirectoryStore(directory)
    store.trim()
    assert all(name.endswith(".snapshot") for name in os.listdir(store.own_path))


def test_a_finaliser_may_look_up_a_class(
    sharing: Any, notes: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while the same thread holds the lock of the statistics."""
    registry = sharing()
    sharer = registry.extension(importlib.import_module("warmset.share.sharing").Sharing)
    count = sharer._count
    within: list[Any] = []

    def counting(what: str, number: int = 1) -> None:
        with sharer._lock:
            if not within:
                within.append(registry.get_instance("Closing"))
            count(what, number)

    monkeypatch.setattr(sharer, "_count", counting)
    registry.register_instantiation_rule(
        "Table", lambda cls: cls(20)
    )  # counted as unused: the rule has no version
    assert registry.get_instance("Table").total() == float(sum(range(200)))
    assert len(within) == 1
    assert registry.snapshot_stats().opened == 1
