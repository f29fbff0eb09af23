"""Host budgets: the table, evictions across processes, and one heavy build at a time."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")
MB = 1_000_000


@pytest.fixture
def host(ws: Any, place: str) -> Any:
    """The module, with a private directory of the test."""
    return importlib.import_module("warmset.share.host")


@pytest.fixture
def tables(host: Any, place: str) -> Any:
    return importlib.import_module("warmset.share.host_table")


class Process:
    """A simulated process of the host: its memory and its registry."""

    def __init__(self, scene: Scene, pid: int, **options: Any) -> None:
        self.scene, self.pid = scene, pid
        self.base = 10 * MB
        budget = scene.host.HostBudget(100 * MB, low_bytes=80 * MB, interval_seconds=100.0)
        self.registry = scene.make(
            {name: f"samples.{name}" for name in ("Alpha", "Beta", "Gamma", "Delta")},
            sizer=lambda instance: instance.nbytes,
            cache_ttl_seconds=0,
            **options,
        )
        table = scene.tables.HostTable(
            "test", directory=scene.directory, alive=scene.is_alive, clock=scene.timer
        )
        self.collected = 0
        self.member = scene.host.HostMember(
            budget, "one", table=table, probe=self.bytes, give_back=self.give_back
        )
        self.member._key = pid, 1.0
        importlib.import_module("warmset.assembly").memory_manager(self.registry)
        self.registry.attach(self.member)

    def bytes(self) -> int:
        return self.base + self.registry.known_bytes

    def give_back(self) -> None:
        self.collected += 1

    def build(self, name: str, megabytes: int, seconds: float = 1.0) -> None:
        """Build an instance of the given size and build time."""

        def rule(cls: Any) -> Any:
            self.scene.timer.advance(seconds)
            made = cls()
            made.nbytes = megabytes * MB
            return made

        self.registry.register_instantiation_rule(name, rule)
        with self.registry.use(name):
            pass

    def sweep(self) -> None:
        self.registry.sweep()

    @property
    def warm(self) -> list[str]:
        return sorted(entry.class_name for entry in self.registry.stats().entries)


class Scene:
    """A host with several simulated processes."""

    def __init__(self, host: Any, tables: Any, make: Any, timer: Any, directory: str) -> None:
        self.host, self.tables, self.make, self.timer = host, tables, make, timer
        self.directory = directory
        self.dead: set[int] = set()

    def is_alive(self, pid: int, start: float) -> bool:
        return pid not in self.dead

    def process(self, pid: int, **options: Any) -> Process:
        return Process(self, pid, **options)

    def rows(self) -> list[Any]:
        table = self.tables.HostTable("test", directory=self.directory, alive=self.is_alive)
        return list(table.read())


@pytest.fixture
def scene(host: Any, tables: Any, make: Any, timer: Any, tmp_path: Path, samples: Any) -> Scene:
    return Scene(host, tables, make, timer, str(tmp_path))


# -- the memory limit ------------------------------------------------------------------------------


def test_all_processes_stay_below_the_limit(scene: Scene) -> None:
    """The process with the least valuable candidate evicts it, whichever process builds."""
    one, other = scene.process(1), scene.process(2)
    one.build("Alpha", 30, seconds=9.0)
    other.build("Alpha", 30, seconds=0.1)  # quick to rebuild
    scene.timer.advance(10.0)
    one.build("Beta", 25, seconds=9.0)  # 105 MB in all
    assert (one.warm, other.warm) == (["Alpha", "Beta"], ["Alpha"])
    other.sweep()
    assert other.warm == []
    assert sum(row.bytes for row in scene.rows()) == 75 * MB
    one.sweep()
    assert one.warm == ["Alpha", "Beta"]


def test_evictions_continue_down_to_the_low_mark(scene: Scene) -> None:
    one, other = scene.process(1), scene.process(2)
    for name in ("Alpha", "Beta", "Gamma"):
        one.build(name, 20, seconds=1.0)
        scene.timer.advance(1.0)
    other.build("Alpha", 25, seconds=100.0)  # 105 MB
    one.sweep()
    # 85 MB would be below the high mark but not below the low mark.
    assert one.warm == ["Gamma"]
    assert other.warm == ["Alpha"]
    other.build("Beta", 25, seconds=100.0)  # 90 MB: between the marks, and no relief is in progress
    one.sweep()
    other.sweep()
    assert (one.warm, other.warm) == (["Gamma"], ["Alpha", "Beta"])


def test_a_new_instance_is_not_evicted(scene: Scene) -> None:
    """Even if it is the least valuable."""
    one = scene.process(1)
    one.build("Alpha", 60, seconds=50.0)
    one.build("Beta", 60, seconds=0.1)
    assert one.warm == ["Beta"]


def test_held_and_pinned_instances_are_not_evicted(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """If nothing is left to evict, this is logged once until memory is below the limit again."""
    one, other = scene.process(1), scene.process(2)
    one.build("Alpha", 60)
    one.registry.pin("Alpha")
    other.build("Alpha", 60)
    with other.registry.use("Alpha"):
        for _ in range(3):
            one.sweep()
            other.sweep()
        assert (one.warm, other.warm) == (["Alpha"], ["Alpha"])
        assert caplog.text.count("have nothing left to evict") <= 2  # once per process
        assert "'default' use 140.0 MB" in caplog.text
    other.sweep()
    assert other.warm == []
    one.sweep()
    assert one.warm == ["Alpha"]


def test_memory_of_dead_processes_does_not_count(scene: Scene) -> None:
    one, other = scene.process(1), scene.process(2)
    one.build("Alpha", 40)
    other.build("Alpha", 45, seconds=0.001)
    one.build("Beta", 20)  # 125 MB
    scene.dead.add(2)
    one.sweep()
    assert [row.pid for row in scene.rows()] == [1]
    assert one.warm == ["Alpha", "Beta"]


def test_no_process_waits_for_a_late_one(scene: Scene) -> None:
    """Its bytes count, but the others evict in its place."""
    one, other = scene.process(1), scene.process(2)
    other.build("Alpha", 40, seconds=0.001)
    one.build("Alpha", 30, seconds=5.0)
    scene.timer.advance(501.0)
    one.build("Beta", 30, seconds=5.0)  # 120 MB, and the other process has stopped checking
    one.sweep()
    assert other.warm == ["Alpha"]
    assert one.warm == []


def test_a_closed_registry_leaves_the_budget(scene: Scene) -> None:
    one = scene.process(1)
    one.build("Alpha", 10)
    assert [row.pid for row in scene.rows()] == [1]
    one.registry.close()
    assert scene.rows() == []


def test_two_registries_of_a_process_count_its_memory_once(scene: Scene) -> None:
    one, two = scene.process(1), scene.process(1)
    two.member._name = "two"
    one.build("Alpha", 30)
    two.build("Alpha", 30)
    (row,) = scene.rows()
    assert sorted(row.members) == ["one", "two"]
    assert row.bytes == 40 * MB
    one.registry.close()
    assert list(scene.rows()[0].members) == ["two"]


def test_a_collected_registry_leaves_the_budget(scene: Scene) -> None:
    """The next update of its process removes it as a member."""
    one, two = scene.process(1), scene.process(1)
    two.member._name = "two"
    two.build("Alpha", 30, seconds=0.001)  # the least valuable
    one.build("Alpha", 30)
    gone = weakref.ref(two.registry)
    del two
    while gone() is not None:
        gc.collect()
    one.base = 80 * MB
    one.sweep()
    assert one.warm == []
    assert list(scene.rows()[0].members) == ["one"]


@pytest.mark.parametrize("policy", ["lru", "cost"])
def test_each_process_applies_its_own_policy(scene: Scene, policy: str) -> None:
    one = scene.process(1, policy=policy)
    one.build("Alpha", 30, seconds=60.0)
    scene.timer.advance(5.0)
    one.build("Beta", 30, seconds=0.1)
    scene.timer.advance(5.0)
    one.base = 45 * MB
    one.sweep()
    assert one.warm == (["Beta"] if policy == "lru" else ["Alpha"])


def test_cycles_are_collected_if_memory_does_not_fall(scene: Scene) -> None:
    """As for the budget of a process: after the first, second, fourth ... removal."""
    one = scene.process(1)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        one.build(name, 5)
    one.member._probe = lambda: 150 * MB  # whatever is evicted
    one.sweep()
    assert one.warm == []
    assert one.collected == 3


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 99}',
        b"\xff\xfe",
        b'{"format":1,"relieving":false}',
        b'{"format":1,"relieving":false,"processes":{}}',
        b'{"format":1,"relieving":0,"processes":[]}',
        b'{"format":NaN}',
        b"[" * 100_000,
        b"1" * 5_000_000,
    ],
)
def test_an_invalid_table_starts_empty(
    scene: Scene, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one = scene.process(1)
    (Path(scene.directory) / "host-test.json").write_bytes(content)
    one.build("Alpha", 10)
    assert [row.pid for row in scene.rows()] == [1]
    assert "starts empty" in caplog.text


BIG = 10**400
ROWS: list[Any] = [
    None,
    [],
    {},
    {"pid": "x", "members": {}},
    {"pid": True},
    {"pid": 0},
    {"pid": 1 << 40},
    {"start": "x"},
    {"start": float("nan")},
    {"updated": float("inf")},
    {"interval_seconds": -1},
    {"bytes": -1},
    {"bytes": BIG},
    {"max_bytes": 1.5},
    {"low_bytes": None},
    {"program": 3},
    {"program": "x" * 100_000},
    {"members": []},
    {"members": {"one": []}},
    {"members": {"one": {}}},
    {"more": 1},
    *({"members": {"one": {name: value}}} for name, value in (
        ("name", 3), ("cached", "x"), ("least", 3), ("least_bytes", BIG), ("least_bytes", -1),
        ("build_seconds", float("inf")), ("idle_seconds", None), ("more", 1),
    )),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(ROWS)))
def test_malformed_rows_are_skipped(
    scene: Scene, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And counted; the other rows remain, and no look-up raises."""
    one, other = scene.process(1), scene.process(2)
    other.build("Alpha", 10)
    file = Path(scene.directory) / "host-test.json"
    table = json.loads(file.read_text())
    (row,) = table["processes"]
    odd = ROWS[at]
    if odd and "members" in odd and isinstance(odd["members"], dict) and odd["members"]:
        (member,) = row["members"].values()
        (given,) = odd["members"].values()
        odd = {"members": {"one": {**member, **given} if given else given}}
    table["processes"].append({**row, "pid": 7, **odd} if odd else odd)
    file.write_text(json.dumps(table))
    one.build("Alpha", 10)
    assert [each.pid for each in scene.rows()] == [1, 2]
    assert "has 1 malformed rows" in caplog.text


def test_an_unusable_table_disables_only_the_budget(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    one = scene.process(1)
    os.symlink("elsewhere", os.path.join(scene.directory, "host-test.lock"))
    for name in ("Alpha", "Beta"):
        one.build(name, 80)
    assert one.warm == ["Alpha", "Beta"]
    assert caplog.text.count("the host budget is not enforced") == 1
    os.unlink(os.path.join(scene.directory, "host-test.lock"))
    one.sweep()
    assert one.warm == []


def test_a_lock_that_is_not_released(scene: Scene, tables: Any, monkeypatch: Any) -> None:
    import fcntl

    monkeypatch.setattr(tables, "_LOCK_SECONDS", 0.0)
    one = scene.process(1)
    one.build("Alpha", 10)
    with open(os.path.join(scene.directory, "host-test.lock"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one.build("Beta", 10)
        with pytest.raises(tables.HostError, match="locked by another process"):
            scene.rows()
    one.sweep()
    assert len(scene.rows()) == 1


def test_processes_are_identified_by_start_time(tables: Any, tmp_path: Path) -> None:
    """Process IDs are reused."""
    start = tables.process_start(os.getpid())
    assert start is not None
    assert tables.process_start(2**22 + 1) is None
    table = tables.HostTable("test", directory=str(tmp_path))
    members = {"one": tables.Member("one", 1, 2, "A", 3, 4.0, 5.0)}

    def change(rows: Any, relieving: bool) -> bool:
        for began in (start, start + 1):
            row = tables.ProcessRow(os.getpid(), began, "p", 5, 9, 8, 6.0, 1.0, members)
            rows[os.getpid(), began] = row
        return True

    table.change(change)
    assert [(row.pid, row.start, row.members) for row in table.read()] == [
        (os.getpid(), start, members)
    ]
    assert table.relieving


def test_the_memory_of_a_process(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PSS on Linux, RSS elsewhere."""
    assert 1 * MB < host.own_bytes() < 10_000 * MB

    def no_file(*arguments: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(host, "open", no_file, raising=False)
    assert host.own_bytes() > 1 * MB


# -- settings --------------------------------------------------------------------------------------


def test_the_setting(ws: Any, host: Any, share: Any, place: str) -> None:
    swept = importlib.import_module("warmset.lifecycle.sweeper").sweeper._swept
    registry = ws.MethodRegistry({}, host_budget=0.5)
    budget = registry.extension(host.HostMember).budget
    assert (budget.max_bytes, budget.name) == (0.5, "default")
    high, low = budget.marks()
    assert 0 < low < high
    assert swept[id(registry)].interval == 1.0
    other = ws.MethodRegistry(
        {}, host_budget=share.HostBudget(10**9, name="workers", interval_seconds=5)
    )
    assert swept[id(other)].interval == 5
    assert pickle.loads(pickle.dumps(other.settings)).host_budget == other.settings.host_budget
    own = ws.MethodRegistry({}, host_budget=10**9, sweep_interval_seconds=30.0)
    assert swept[id(own)].interval == 30.0
    none = ws.MethodRegistry({})
    assert (none.extension(host.HostMember), id(none) in swept) == (None, False)
    for each in (registry, other, own, none):
        each.close()


@pytest.mark.parametrize(
    ("budget", "error", "text"),
    [
        (-1, ValueError, "host_budget must be a whole number of bytes"),
        (1.5, ValueError, "host_budget must be"),
        ("1G", TypeError, "host_budget must be"),
        ({"max_bytes": 0}, ValueError, "max_bytes must be more than 0"),
        ({"max_bytes": -5}, ValueError, "HostBudget: max_bytes"),
        ({"max_bytes": 5_000_000, "name": "../x"}, ValueError, "letters, digits, hyphens"),
        ({"max_bytes": 5_000_000, "name": 3}, TypeError, "name must be a str"),
        (
            {"max_bytes": 5_000_000, "wait_seconds": -1.0},
            ValueError,
            "wait_seconds must be 0 or more",
        ),
        (
            {"max_bytes": 5_000_000, "interval_seconds": 0},
            ValueError,
            "interval_seconds must be 0.01",
        ),
        ({"max_bytes": 5_000_000, "heavy_bytes": "x"}, TypeError, "heavy_bytes must be a number"),
    ],
)
def test_invalid_budgets(
    ws: Any, share: Any, place: str, budget: Any, error: type[Exception], text: str
) -> None:
    given = share.HostBudget(**budget) if isinstance(budget, dict) else budget
    with pytest.raises(error, match=text):
        ws.MethodRegistry({}, host_budget=given)


# -- with real processes ---------------------------------------------------------------------------


@pytest.fixture
def child(place: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes, which end with the test, whether or not it fails."""
    support = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
    search = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            env={**os.environ, "PYTHONPATH": search},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str], text: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


WORKER = """
import sys
import warmset
from warmset.share import HostBudget

class Load:
    def __init__(self):
        self.load = bytearray(b"x" * 60_000_000)

sys.modules["load"] = sys.modules["__main__"]
budget = HostBudget(int(sys.argv[1]), low_bytes=int(sys.argv[2]), interval_seconds=3600.0)
registry = warmset.MethodRegistry({"Load": "load.Load"}, host_budget=budget, sizer="measured")
for command in sys.stdin:
    command = command.strip()
    if command == "build":
        registry.get_instance("Load")
    elif command == "sweep":
        registry.sweep()
    elif command == "held":
        with registry.use("Load"):
            print("held", flush=True)
            sys.stdin.readline()
    print(registry.stats().cached, flush=True)
"""


def test_real_processes_evict_for_each_other(child: Any, tables: Any) -> None:
    """With their measured memory; the memory of a killed process does not count."""
    high, low = 170 * MB, 130 * MB
    workers = [child(WORKER, str(high), str(low)) for _ in range(3)]
    table = tables.HostTable("default")

    def total() -> int:
        return sum(row.bytes for row in table.read())

    for process in workers[:2]:
        say(process, "build")
        assert line(process) == "1"
    rows = table.read()
    assert sorted(row.pid for row in rows) == sorted(each.pid for each in workers[:2])
    assert all(row.bytes > 60 * MB for row in rows)
    say(workers[2], "build")
    assert line(workers[2]) in ("0", "1")
    # Which of them evict depends on the measured build times: each evicts when it is its turn.
    cached = ["1"]
    for _ in range(len(workers)):
        if total() <= low:
            break
        cached = []
        for process in workers:
            say(process, "sweep")
            cached.append(line(process))
    assert total() <= low
    assert cached.count("0") in (1, 2), "more than 180 MB: one eviction or two lead to the low mark"
    for process in workers[:2]:
        process.kill()
        process.communicate()
    assert [row.pid for row in table.read()] == [workers[2].pid]
    workers[2].communicate()
    assert table.read() == []


BUILDER = """
import sys
import warmset
from warmset.share import HostBudget

class Heavy:
    def __init__(self):
        print("building", flush=True)
        assert sys.stdin.readline() == "go\\n"

class Light:
    pass

sys.modules["load"] = sys.modules["__main__"]
budget = HostBudget(10**12, wait_seconds=float(sys.argv[1]))
registry = warmset.MethodRegistry(
    {"Heavy": "load.Heavy", "Light": "load.Light"}, host_budget=budget, sizer=lambda i: 10
)
print("ready", flush=True)
sys.stdin.readline()
registry.get_instance("Heavy")
print("built", flush=True)
sys.stdin.readline()
"""


def test_one_heavy_build_at_a_time(child: Any, host: Any) -> None:
    """On the whole host; the kernel frees the lock of a killed process."""
    one, other, third = (child(BUILDER, "100") for _ in range(3))
    for process in (one, other, third):
        assert line(process) == "ready"
    say(one)
    assert line(one) == "building"
    say(other)
    token = host._build_token("default")
    assert not token.take("own", 0.05)
    one.kill()
    one.communicate()
    assert line(other) == "building"  # only after the end of the other
    say(third)
    assert not token.take("own", 0.05)
    say(other)
    assert line(other) == "built"
    assert line(third) == "building"
    say(third)
    assert line(third) == "built"
    assert token.take("own", 1.0)
    token.release("own")
    for process in (other, third):
        process.communicate()


def test_waiting_for_a_heavy_build_is_bounded(child: Any, host: Any) -> None:
    one, other = child(BUILDER, "100"), child(BUILDER, "0.05")
    for process in (one, other):
        assert line(process) == "ready"
    say(one)
    assert line(one) == "building"
    say(other)
    assert line(other) == "building"
    for process in (one, other):
        say(process)
        assert line(process) == "built"
        process.communicate()


def test_builds_of_one_process_do_not_wait_for_each_other(
    ws: Any, make: Any, samples: Any, place: str
) -> None:
    """Neither nested builds nor those of two threads or two registries."""
    one, other = make(host_budget=10**12), make(host_budget=10**12)
    barrier = threading.Barrier(2, timeout=30)
    one.register_instantiation_rule("Alpha", lambda cls: (barrier.wait(), cls())[1])
    one.register_instantiation_rule("Beta", lambda cls: (barrier.wait(), cls())[1])
    one.register_instantiation_rule("Gamma", lambda cls: (other.get_instance("Gamma"), cls())[1])
    thread = threading.Thread(target=one.get_instance, args=("Alpha",))
    thread.start()
    one.get_instance("Beta")
    thread.join()
    one.get_instance("Gamma")
    assert one.stats().builds == 3
    one.close()
    other.close()


def test_light_builds_do_not_wait(make: Any, samples: Any, host: Any, place: str) -> None:
    registry = make(host_budget=host.HostBudget(10**12, wait_seconds=0.0), sizer=lambda i: 10)
    registry.get_instance("Alpha")
    registry.clear_cache()
    taken: list[str] = []
    token = host._build_token("default")
    take = token.take
    token.take = lambda owner, seconds: taken.append("token") or take(owner, seconds)
    registry.get_instance("Alpha")
    assert taken == []
    registry.get_instance("Beta")  # of unknown size, so possibly heavy
    assert taken == ["token"]
    registry.close()


def test_opening_a_snapshot_does_not_wait(
    ws: Any, share: Any, host: Any, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a snapshot does not keep the one that builds it from building."""
    monkeypatch.setenv("WARMSET_TEST_NOTES", str(tmp_path / "notes"))
    taken: list[str] = []
    token = host._build_token("default")
    take = token.take
    token.take = lambda owner, seconds: taken.append("token") or take(owner, seconds)
    for tokens in (1, 1):
        store = share.DirectoryStore(tmp_path / "store")
        with ws.MethodRegistry({}, store=store, host_budget=10**12) as registry:
            registry.register("Table", "shared_samples.Table", shareable=True)
            registry.get_instance("Table")
            assert registry.stats().bytes is not None, "an opened instance is measured, too"
        assert len(taken) == tokens


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork(make: Any, samples: Any, host: Any, tables: Any, place: str) -> None:
    """The child is a process of its own and does not have the parent's token."""
    registry = make(host_budget=10**12)
    registry.get_instance("Alpha")
    token = host._build_token("default")
    assert token.take("own", 1.0)
    answer, result = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            registry.sweep()
            rows = tables.HostTable("default").read()
            mine = host._build_token("default").take("own", 0.0)
            os.write(result, json.dumps([[row.pid for row in rows], mine]).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    pids, mine = json.loads(os.read(answer, 1000))
    assert sorted(pids) == sorted((os.getpid(), pid))
    assert mine is False
    token.release("own")
    assert token.take("own", 0.0)
    token.release("own")
    os.close(answer)
    os.close(result)
    registry.close()
    assert tables.HostTable("default").read() == []


def test_a_directory_that_is_not_private(
    make: Any, samples: Any, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(place, 0o755)
    registry = make(host_budget=10**12)
    assert registry.get_instance("Alpha").echo("x") == "x"
    assert "is open to other users" in caplog.text
    registry.close()
