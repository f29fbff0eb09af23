"""Directory stores: contents, bounds, trust, and one builder at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from threads import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
LONG_KEY = b"k" * 16


@pytest.fixture
def store(share: Any, tmp_path: Path, timer: Any, notes: Any) -> Any:
    """A store of at most 1,000 bytes and 100 seconds, with the test's clock."""
    return share.DirectoryStore(
        tmp_path / "s", max_bytes=1000, max_age_seconds=100.0, clock=timer, wait_seconds=0.0
    )


def put(store: Any, key: str, content: bytes) -> None:
    with store.claim(key) as claim:
        claim.put([content[:3], memoryview(content)[3:]])


def content(store: Any, key: str) -> bytes | None:
    blob = store.fetch(key)
    return None if blob is None else bytes(blob.view)


def files(store: Any) -> list[str]:
    return sorted(os.listdir(store.own_path))


# -- contents and bounds ---------------------------------------------------------------------------


def test_put_and_fetch(store: Any) -> None:
    assert store.fetch("a-1") is None
    put(store, "a-1", b"12345")
    assert content(store, "a-1") == b"12345"
    put(store, "a-1", b"abcdefg")
    assert content(store, "a-1") == b"abcdefg"
    assert files(store) == ["a-1.snapshot"]
    assert store.discard("a-1")
    assert not store.discard("a-1")
    assert files(store) == []


def test_mapped_bytes_survive_removal_of_the_file(store: Any) -> None:
    put(store, "a-1", b"12345")
    blob = store.fetch("a-1")
    assert blob.shared
    put(store, "a-1", b"other")
    assert store.clear() == 1
    assert bytes(blob.view) == b"12345"


def test_writes_to_fetched_bytes_are_private(store: Any) -> None:
    put(store, "a-1", b"12345")
    one, other = store.fetch("a-1"), store.fetch("a-1")
    one.view[0:1] = b"x"
    assert bytes(one.view) == b"x2345"
    assert bytes(other.view) == b"12345"
    assert content(store, "a-1") == b"12345"


def test_the_least_recently_used_are_evicted(store: Any, timer: Any) -> None:
    for name in ("a", "b", "c"):
        put(store, name, b"x" * 400)
        timer.advance(1.0)
        assert content(store, "a") is not None  # a use
        timer.advance(1.0)
    assert [content(store, name) is not None for name in ("a", "b", "c")] == [True, False, True]


def test_a_new_snapshot_above_the_bound_is_kept(store: Any) -> None:
    put(store, "a", b"x" * 400)
    put(store, "big", b"x" * 5000)
    assert files(store) == ["big.snapshot"]


def test_snapshots_above_the_maximum_age_are_removed(store: Any, timer: Any) -> None:
    put(store, "a", b"x" * 10)
    timer.advance(99.0)
    assert content(store, "a")  # a use does not change the age
    timer.advance(2.0)
    assert content(store, "a") is None
    assert store.trim() == 1
    assert files(store) == []


def test_bounds_may_be_disabled(share: Any, tmp_path: Path, timer: Any, notes: Any) -> None:
    store = share.DirectoryStore(tmp_path / "s", max_bytes=0, max_age_seconds=0.0, clock=timer)
    put(store, "a", b"x" * 5000)
    timer.advance(1e9)
    put(store, "b", b"x" * 5000)
    assert len(files(store)) == 2


def test_files_of_dead_processes_are_removed(store: Any) -> None:
    for name in ("dead.new", "dead.building", "mine.new"):
        with open(os.path.join(store.own_path, name), "wb") as file:
            file.write(b"half")
    with store.claim("mine"):
        store.trim()
        assert files(store) == ["mine.building", "mine.new"]  # of a live process
    store.trim()
    assert files(store) == []


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_bytes": -1}, ValueError, "max_bytes must be 0 or more, got -1"),
        ({"max_age_seconds": float("nan")}, ValueError, "max_age_seconds must be 0 or more"),
        ({"wait_seconds": "1"}, TypeError, "wait_seconds must be a number, got '1'"),
        ({"max_bytes": True}, TypeError, "max_bytes must be a number"),
        ({"key": 3}, TypeError, "the key of a store must be bytes, got int"),
        ({"key": b"short"}, ValueError, "at least 16 bytes, got 5"),
        ({"key": LONG_KEY, "key_file": "x"}, TypeError, "both given"),
    ],
)
def test_invalid_arguments(
    share: Any, tmp_path: Path, notes: Any, options: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        share.DirectoryStore(tmp_path, **options)


# -- trust -----------------------------------------------------------------------------------------


def test_a_new_directory_is_private(share: Any, tmp_path: Path, notes: Any) -> None:
    share.DirectoryStore(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_can_write_needs_a_key(
    share: Any, tmp_path: Path, notes: Any, mode: int
) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(
        share.StoreRefusedError, match=r"other users: mode 0\d+.*chmod 700.*key_file="
    ):
        share.DirectoryStore(directory)
    store = share.DirectoryStore(directory, key=LONG_KEY)
    put(store, "a", b"x" * 5000)
    blob = store.fetch("a")
    assert bytes(blob.view) == b"x" * 5000
    # A file that others can truncate is not mapped: reading it could crash the process.
    os.truncate(store.own_path + "/a.snapshot", 0)
    assert bytes(blob.view) == b"x" * 5000
    assert not blob.shared


def test_a_directory_below_one_that_others_can_write(
    share: Any, tmp_path: Path, notes: Any
) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(
        share.StoreRefusedError, match=r"its parent .* can be written by other users"
    ):
        share.DirectoryStore(parent / "mine")
    parent.chmod(0o1777)
    share.DirectoryStore(parent / "mine")


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_a_directory_or_file_of_another_user(share: Any, tmp_path: Path, notes: Any) -> None:
    directory = tmp_path / "theirs"
    store = share.DirectoryStore(directory)
    put(store, "a", b"12345")
    os.chown(store.own_path + "/a.snapshot", 12345, 12345)
    with pytest.raises(share.errors.DamagedError, match="belongs to another user"):
        store.fetch("a")
    os.chown(directory, 12345, 12345)
    with pytest.raises(share.StoreRefusedError, match="belongs to user 12345"):
        share.DirectoryStore(directory)
    # The target counts, not the owner of a link to it.
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(share.StoreRefusedError, match="belongs to user 12345"):
        share.DirectoryStore(tmp_path / "link")


def test_links_and_directories_are_not_read(share: Any, store: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    os.symlink(secret, os.path.join(store.own_path, "a.snapshot"))
    with pytest.raises(share.StoreError, match="is not a file"):
        store.fetch("a")
    os.symlink(secret, os.path.join(store.own_path, "b.building"))
    with pytest.raises(share.StoreError, match="cannot lock"):
        store.claim("b")
    os.symlink(secret, os.path.join(store.own_path, "c.new"))
    put(store, "c", b"new")
    assert secret.read_bytes() == b"12345"
    os.mkdir(os.path.join(store.own_path, "d.snapshot"))
    with pytest.raises(share.StoreError, match="is not a file"):
        store.fetch("d")


def test_a_path_that_is_not_a_directory(share: Any, tmp_path: Path, notes: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(share.StoreError, match="cannot use"):
        share.DirectoryStore(tmp_path / "file")
    with pytest.raises(share.StoreError, match="cannot use"):
        share.DirectoryStore(tmp_path / "file" / "below")


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(share: Any, store: Any) -> None:
    put(store, "a", b"12345")
    os.chmod(store.own_path, 0o500)
    try:
        assert content(store, "a") == b"12345"
        with pytest.raises(share.StoreError, match=r"cannot lock .*: Permission denied"):
            store.claim("b")
    finally:
        os.chmod(store.own_path, 0o700)


def test_a_full_disk_keeps_the_old_snapshot(
    share: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", b"12345")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(share.StoreError, match=r"cannot write .*: No space left"):
        put(store, "a", b"other")
    assert content(store, "a") == b"12345"
    assert files(store) == ["a.snapshot"]


# -- keys ------------------------------------------------------------------------------------------


def test_no_text_contains_the_key(share: Any, tmp_path: Path, notes: Any) -> None:
    store = share.DirectoryStore(tmp_path / "s", key=b"swordfish-swordfish")
    assert "swordfish" not in repr(store) + repr(store.secret) + str(vars(store))


def test_a_key_from_a_file_or_the_environment(
    share: Any, tmp_path: Path, notes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again when the store is unpickled."""
    import pickle

    file = tmp_path / "key"
    file.write_bytes(b"  " + LONG_KEY + b"\n")
    file.chmod(0o644)
    with pytest.raises(share.StoreRefusedError, match=r"open to other users: mode 0644.*chmod 600"):
        share.DirectoryStore(tmp_path / "s", key_file=file)
    file.chmod(0o600)
    stores = [share.DirectoryStore(tmp_path / "s", key_file=file)]
    monkeypatch.setenv("WARMSET_STORE_KEY", LONG_KEY.decode())
    stores.append(share.DirectoryStore(tmp_path / "s"))
    for store in stores:
        text = pickle.dumps(store)
        assert LONG_KEY not in text
        assert pickle.loads(text).secret == store.secret
    assert stores[0] == stores[1] == share.DirectoryStore(tmp_path / "s", key=LONG_KEY)
    with pytest.raises(share.StoreRefusedError, match="cannot be read: No such file"):
        share.DirectoryStore(tmp_path / "s", key_file=tmp_path / "none")
    monkeypatch.setenv("WARMSET_STORE_KEY", "short")
    with pytest.raises(ValueError, match="got 5 from environment variable WARMSET_STORE_KEY"):
        share.DirectoryStore(tmp_path / "s")


# -- one builder at a time -------------------------------------------------------------------------


def test_one_claim_at_a_time(share: Any, store: Any) -> None:
    with store.claim("a"):
        assert store.claim("a", wait=False) is None
        with store.claim("b"):
            pass
        with pytest.raises(share.StoreBusyError, match="has been building a for 0 s"):
            store.claim("a")
    with store.claim("a"):
        pass
    assert files(store) == []


def test_a_waiting_process_gets_the_claim(share: Any, tmp_path: Path, notes: Any) -> None:
    held: list[Any] = []
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            held.pop().__exit__(None, None, None)

    store = share.DirectoryStore(tmp_path / "s", pause=pause)
    held.append(store.claim("a"))
    with store.claim("a"):
        assert len(pauses) == 9
    assert max(pauses) == 0.1


def test_a_released_claim_writes_nothing(share: Any, store: Any) -> None:
    with store.claim("a") as claim:
        pass
    with pytest.raises(share.StoreError, match="was released"):
        claim.put([b"x"])
    claim.__exit__(None, None, None)


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run code in another process, with pipes to its input and output."""
    support = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
    path = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": path.strip(os.pathsep)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
import sys
from warmset.share import DirectoryStore
store = DirectoryStore(sys.argv[1])
with store.claim("a") as claim:
    print("held", flush=True)
    sys.stdin.readline()
    claim.put([b"theirs"])
"""


def test_the_claim_of_a_killed_process_is_released(share: Any, store: Any) -> None:
    process = child(HOLD, store.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert store.claim("a", wait=False) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with store.claim("a", wait=False) as claim:
        claim.put([b"mine"])
    assert files(store) == ["a.snapshot"]


def test_a_snapshot_of_another_process(share: Any, store: Any) -> None:
    process = child(HOLD, store.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert store.fetch("a") is None
    process.communicate("go\n")
    assert content(store, "a") == b"theirs"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_claim_is_not_inherited_by_a_fork(share: Any, store: Any) -> None:
    """The child cannot write, and neither its life nor its end affects the claim."""
    release, ready = os.pipe()
    answer, result = os.pipe()
    claim = store.claim("a")
    pid = os.fork()
    if not pid:
        try:
            try:
                claim.put([b"the child's"])
                os.write(result, b"written")
            except share.StoreError:
                os.write(result, b"rejected")
            os.read(release, 1)
        finally:
            os._exit(0)
    assert os.read(answer, 10) == b"rejected"
    assert store.claim("a", wait=False) is None
    claim.put([b"the parent's"])
    claim.__exit__(None, None, None)
    with store.claim("a", wait=False):  # although the child is alive
        pass
    os.write(ready, b"x")
    os.waitpid(pid, 0)
    assert content(store, "a") == b"the parent's"
    for descriptor in (release, ready, answer, result):
        os.close(descriptor)


BUILD = """
import sys
import warmset
from warmset.share import DirectoryStore
registry = warmset.MethodRegistry({}, store=DirectoryStore(sys.argv[1]))
registry.register("SlowTable", "shared_samples.SlowTable", shareable=True)
print("ready", flush=True)
sys.stdin.readline()
made = registry.get_instance("SlowTable")
stats = registry.snapshot_stats()
print(int(made.total()), stats.stored, stats.opened, stats.waited, stats.unused, flush=True)
sys.stdin.readline()
"""


def start(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def begun(notes: Any) -> int:
    return int(notes().count("SlowTable begins"))


def test_one_process_builds_and_the_others_open(
    share: Any, store: Any, notes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("WARMSET_TEST_GATE", str(gate))
    processes = [child(BUILD, store.path) for _ in range(4)]
    start(processes)
    until(lambda: begun(notes) == 1)
    gate.touch()
    results = [process.communicate("end\n")[0].split() for process in processes]
    assert notes() == ["SlowTable begins", "Table"]
    assert {line[0] for line in results} == {str(sum(range(500)))}
    assert sum(int(line[1]) for line in results) == 1
    assert sum(int(line[2]) for line in results) == 4  # the builder opens its snapshot, too


def test_another_process_builds_when_the_builder_is_killed(
    share: Any, store: Any, notes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, file = tmp_path / "gate", tmp_path / "notes"
    monkeypatch.setenv("WARMSET_TEST_GATE", str(gate))
    processes = [child(BUILD, store.path) for _ in range(3)]
    start(processes)
    until(lambda: begun(notes) == 1)
    builder = int(file.read_text().split()[-1])
    (killed,) = [process for process in processes if process.pid == builder]
    killed.kill()
    killed.communicate()
    until(lambda: begun(notes) == 2)
    gate.touch()
    others = [process for process in processes if process is not killed]
    results = [process.communicate("end\n")[0].split() for process in others]
    assert {line[0] for line in results} == {str(sum(range(500)))}
    assert notes() == ["SlowTable begins", "SlowTable begins", "Table"]
