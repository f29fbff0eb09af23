"""Another user of the host, without the key, attacks a directory store or the file of its key."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attackers import USER, attack, end, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
KEY = b"k" * 32
TOTAL = sum(range(10_000))


@pytest.fixture
def base(notes: Any) -> Iterator[Path]:
    """A directory that every user can reach, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shared(base: Path) -> Path:
    """A directory in it that every user can write to."""
    path = base / "shared"
    path.mkdir()
    path.chmod(0o777)
    return path


def builds(notes: Callable[[], list[str]]) -> int:
    return notes().count("Table")


def alarm(seconds: int) -> None:
    """Kill the test rather than let it hang."""
    signal.alarm(seconds)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    alarm(60)
    yield
    alarm(0)


# -- a shared directory with a key -----------------------------------------------------------------


def plant_fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


def plant_sparse_file(path: Path) -> None:
    with open(path, "wb") as file:
        os.ftruncate(file.fileno(), 1 << 40)
    path.chmod(0o644)


def plant_garbage(path: Path) -> None:
    path.write_bytes(b"warmset snapshot" + os.urandom(500))
    path.chmod(0o644)


def plant_directory(path: Path) -> None:
    (path / "x").mkdir(parents=True)


def plant_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def plant_socket(path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX) as listener,
        tempfile.TemporaryDirectory(dir="/tmp") as short,
    ):
        listener.bind(f"{short}/s")  # the path of a socket is at most some 100 bytes long
        os.rename(f"{short}/s", path)


PLANTS = [
    plant_fifo,
    plant_sparse_file,
    plant_garbage,
    plant_directory,
    plant_link,
    plant_socket,
]


@needs_root
@pytest.mark.parametrize("plant", PLANTS)
def test_another_subdirectory(
    shared: Path,
    share: Any,
    sharing: Any,
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    plant: Callable[[Path], None],
) -> None:
    """Moved away, and replaced by the attacker's: one build and one log line, whatever is in it."""
    store = share.DirectoryStore(shared, key=KEY)
    sharing(store=store).get_instance("Table")
    own = Path(store.own_path)
    (name,) = [each.name for each in own.iterdir()]

    def code() -> None:
        own.rename(shared / "moved")
        own.mkdir(mode=0o777)
        own.chmod(0o777)
        plant(own / name)
        plant(own / name.replace(".snapshot", ".building"))

    attack(code)
    registry = sharing(store=store)
    caplog.clear()
    for _ in range(3):
        assert registry.get_instance("Table").total() == TOTAL
        registry.discard("Table")
    assert builds(notes) == 1 + 3
    logged = [each.getMessage() for each in caplog.records if each.name == "warmset.share"]
    assert len(logged) == 1
    assert f"belongs to user {USER}" in logged[0]
    # And nothing is read from, written to or removed from there.
    assert len(list(own.iterdir())) == 2


@needs_root
@pytest.mark.parametrize("plant", [plant_fifo, plant_garbage, plant_link])
def test_something_in_place_of_the_subdirectory(
    shared: Path, share: Any, plant: Callable[[Path], None]
) -> None:
    own = shared / f"warmset-snapshots-{os.geteuid()}"
    attack(lambda: plant(own))
    with pytest.raises(share.StoreError, match="cannot use"):
        share.DirectoryStore(shared, key=KEY)


@needs_root
def test_a_lock_that_is_never_released(shared: Path, share: Any, sharing: Any) -> None:
    """Nobody waits for it."""
    store = share.DirectoryStore(shared, key=KEY, wait_seconds=600.0)
    sharing(store=store).get_instance("Table")
    own = Path(store.own_path)
    (name,) = [each.name for each in own.iterdir()]
    kept: list[int] = []

    def code() -> None:
        own.rename(shared / "moved")
        own.mkdir()
        file = os.open(own / name.replace(".snapshot", ".building"), os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        kept.append(file)

    attacker = attack(code, stay=True)
    try:
        registry = sharing(store=store)
        assert registry.get_instance("Table").total() == TOTAL
        assert registry.snapshot_stats().waited == 0
    finally:
        end(attacker)


@needs_root
def test_no_other_user_reaches_the_files(shared: Path, share: Any, sharing: Any) -> None:
    """Neither to read them nor to hold their locks, although all can write to the directory."""
    store = share.DirectoryStore(shared, key=KEY)
    sharing(store=store).get_instance("Table")
    own = Path(store.own_path)
    (name,) = [each.name for each in own.iterdir()]

    def code() -> None:
        for open_it in (lambda: os.open(own / name, os.O_RDONLY), lambda: os.listdir(own)):
            with pytest.raises(PermissionError):
                open_it()

    attack(code)


@pytest.mark.parametrize("plant", PLANTS)
def test_odd_files_of_this_user(
    share: Any,
    sharing: Any,
    tmp_path: Path,
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    plant: Callable[[Path], None],
) -> None:
    """One build and at most two log lines, then the store is not tried for a while."""
    store = share.DirectoryStore(tmp_path / "s")
    sharing(store=store).get_instance("Table")
    (file,) = Path(store.own_path).iterdir()
    for path in (file, file.with_suffix(".building")):
        path.unlink(missing_ok=True)
        plant(path)
    registry = sharing(store=store)
    for _ in range(4):
        assert registry.get_instance("Table").total() == TOTAL
        registry.discard("Table")
    assert builds(notes) <= 1 + 4
    logged = [each for each in caplog.records if each.name == "warmset.share"]
    assert len(logged) <= 2


def test_a_snapshot_above_the_bound(
    share: Any, sharing: Any, tmp_path: Path, notes: Callable[[], list[str]]
) -> None:
    """It is neither read nor stored."""
    sharing(store=share.DirectoryStore(tmp_path / "s")).get_instance("Table")
    small = share.DirectoryStore(tmp_path / "s", max_snapshot_bytes=10_000)
    registry = sharing(store=small)
    assert registry.get_instance("Table").total() == TOTAL
    assert (registry.snapshot_stats().damaged, registry.snapshot_stats().stored) == (1, 0)
    assert builds(notes) == 2
    assert os.listdir(small.own_path) == []


@pytest.mark.parametrize("keyed", [False, True])
def test_more_than_the_memory(
    share: Any, sharing: Any, tmp_path: Path, keyed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*arguments: Any) -> Any:
        raise MemoryError

    store = share.DirectoryStore(tmp_path / "s", key=KEY if keyed else None)
    sharing(store=store).get_instance("Table")
    import warmset.share.directory as directory

    monkeypatch.setattr(directory, "_map", no_memory)
    with pytest.raises(share.StoreError, match="not enough memory"):
        store.fetch(os.listdir(store.own_path)[0].removesuffix(".snapshot"))


# -- paths -----------------------------------------------------------------------------------------


@needs_root
def test_a_link_of_another_user(base: Path, share: Any, sharing: Any, shared: Path) -> None:
    """Followed neither now, to a trusted directory, nor after it was re-pointed."""
    mine = base / "mine"
    mine.mkdir(mode=0o700)
    link = shared / "link"
    attack(lambda: link.symlink_to(mine))
    for options in ({}, {"key": KEY}):
        with pytest.raises(share.StoreRefusedError, match="link that other users can replace"):
            share.DirectoryStore(link, **options)
        with pytest.raises(share.StoreRefusedError, match="link that other users can replace"):
            share.DirectoryStore(link / "below", **options)
    assert list(mine.iterdir()) == []


@needs_root
def test_a_link_that_is_re_pointed_later(
    base: Path, share: Any, sharing: Any, notes: Callable[[], list[str]]
) -> None:
    """The path is walked at each operation."""
    parent = base / "parent"
    (base / "mine").mkdir(mode=0o700)
    parent.mkdir()
    (parent / "link").symlink_to(base / "mine")
    store = share.DirectoryStore(parent / "link")
    sharing(store=store).get_instance("Table")
    theirs = base / "theirs"
    shutil.copytree(store.own_path, theirs / os.path.basename(store.own_path))
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, USER, USER)
    parent.chmod(0o777)

    def code() -> None:
        (parent / "link").unlink()
        (parent / "link").symlink_to(theirs)

    attack(code)
    registry = sharing(store=store)
    assert registry.get_instance("Table").total() == TOTAL
    assert registry.snapshot_stats().opened == 0
    assert builds(notes) == 2


@pytest.mark.parametrize("target", ["..", ".", "/", "../shared/./real", "loop"])
def test_odd_links(tmp_path: Path, share: Any, notes: Any, target: str) -> None:
    """Links that no other user can replace are followed, but not for ever."""
    parent = tmp_path / "shared"
    (parent / "real").mkdir(parents=True)
    (parent / "loop").symlink_to(target if target != "loop" else "loop")
    path = parent / "loop"
    if target == "loop":
        with pytest.raises(share.StoreError, match="cannot use"):
            share.DirectoryStore(path)
        return
    store = share.DirectoryStore(path / "store" if target != "/" else f"{path}{tmp_path}/store")
    assert store.fetch("a") is None
    assert os.path.isdir(store.own_path)
    shutil.rmtree(store.path)


@needs_root
@pytest.mark.parametrize(("mode", "owner", "followed"), [
    (0o1777, 0, True),
    (0o1777, USER, False),
    (0o777, 0, False),
    (0o755, 0, True),
])  # fmt: skip
def test_which_links_are_followed(
    base: Path, share: Any, mode: int, owner: int, followed: bool
) -> None:
    parent, mine = base / "parent", base / "mine"
    parent.mkdir()
    mine.mkdir(mode=0o700)
    (parent / "link").symlink_to(mine)
    os.lchown(parent / "link", owner, owner)
    parent.chmod(mode)
    if followed:
        share.DirectoryStore(parent / "link")
    else:
        with pytest.raises(share.StoreRefusedError, match="link that other users can replace"):
            share.DirectoryStore(parent / "link")


@needs_root
def test_a_directory_that_becomes_writable(base: Path, share: Any, sharing: Any) -> None:
    """It is trusted only as long as it is private."""
    store = share.DirectoryStore(base / "s")
    sharing(store=store).get_instance("Table")
    (base / "s").chmod(0o777)
    registry = sharing(store=store)
    assert registry.get_instance("Table").total() == TOTAL
    assert registry.snapshot_stats().opened == 0


def test_the_table_of_a_budget_below_a_directory_of_others(
    ws: Any, base: Path, monkeypatch: pytest.MonkeyPatch, share: Any
) -> None:
    """The private directory of this user is not used if a parent of it can be replaced."""
    from warmset import _private_directory

    runtime = base / "run" / "user"
    runtime.mkdir(parents=True)
    (base / "run").chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with pytest.raises(share.StoreError, match="other users can replace"):
        _private_directory.make_directory(share.StoreError)


# -- foreign files ---------------------------------------------------------------------------------


def test_files_of_others_are_not_touched(
    share: Any, sharing: Any, tmp_path: Path, notes: Any
) -> None:
    """Nor is anything without the exact form of a name, in the store's own subdirectory."""
    project = tmp_path / "project"
    project.mkdir(mode=0o700)
    names = [
        "config.new",
        "minutes-of.building",
        "__jest__.snapshot",
        "old-vm.snapshot",
        "keep.txt",
    ]
    for name in names:
        (project / name).write_text("mine")
        os.utime(project / name, (0, 0))
    store = share.DirectoryStore(project, max_bytes=1)
    odd = [".hidden.snapshot", "a b.snapshot", "x" * 240 + ".new", "é.building", "snapshot", ".new"]
    for name in odd:
        (Path(store.own_path) / name).write_text("mine")
        os.utime(Path(store.own_path) / name, (0, 0))
    sharing(store=store).get_instance("Table")
    store.trim()
    store.clear()
    assert sorted(each.name for each in project.iterdir() if each.is_file()) == sorted(names)
    assert sorted(os.listdir(store.own_path)) == sorted(odd)


@pytest.mark.parametrize("key", ["../x", "a/b", "", ".a", "a\n", "a\0", "x" * 201, "é"])
def test_keys_are_no_paths(share: Any, tmp_path: Path, notes: Any, key: str) -> None:
    store = share.DirectoryStore(tmp_path / "s")
    for use in (store.fetch, store.claim, store.discard):
        with pytest.raises(share.StoreError, match="a key of a store has at most 200"):
            use(key)


# -- the key ---------------------------------------------------------------------------------------


@pytest.fixture
def secret(ws: Any) -> Any:
    from warmset.share import secret

    return secret


@needs_root
@pytest.mark.parametrize("how", ["file", "link", "fifo", "directory"])
def test_a_key_file_of_another_user(shared: Path, share: Any, secret: Any, how: str) -> None:
    """Also for root, which could read it."""
    path = shared / "key"

    def code() -> None:
        os.umask(0o077)
        if how == "fifo":
            os.mkfifo(path)
        elif how == "directory":
            path.mkdir()
        else:
            (shared / "real").write_text("the attacker knows this key 0123456789")
            (shared / "real").rename(path) if how == "file" else path.symlink_to(shared / "real")

    attack(code)
    with pytest.raises(
        share.StoreRefusedError, match=r"the key file .*(belongs to|link|not a file)"
    ):
        secret.secrets_from(None, path)


def test_a_key_file_that_others_can_replace(
    base: Path, shared: Path, share: Any, secret: Any
) -> None:
    for path in (shared / "key", base / "key"):
        path.write_text("0123456789abcdef")
        path.chmod(0o600)
    with pytest.raises(share.StoreRefusedError, match="can be replaced by other users"):
        secret.secrets_from(None, shared / "key")
    assert secret.secrets_from(None, base / "key")[0] == secret.Secret(b"0123456789abcdef")
    (base / "key").write_bytes(b"x" * 100_000)
    with pytest.raises(share.StoreRefusedError, match="has 100000 bytes"):
        secret.secrets_from(None, base / "key")


def test_rotation(
    share: Any,
    sharing: Any,
    tmp_path: Path,
    notes: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new key signs, snapshots of the old one are still opened; and no longer without it."""
    old, new = b"the old key 0123", b"the new key 0123"

    def opened(**options: Any) -> tuple[int, int]:
        registry = sharing(store=share.DirectoryStore(tmp_path / "s", **options))
        registry.get_instance("Table")
        stats = registry.snapshot_stats()
        return stats.opened, stats.stored

    opened(key=old)
    assert opened(keys=[new, old]) == (1, 0)
    assert opened(keys=[old, new]) == (1, 0)
    monkeypatch.setenv("WARMSET_STORE_KEY", new.decode())
    monkeypatch.setenv("WARMSET_STORE_OLD_KEY", old.decode())
    assert opened() == (1, 0)
    store = share.DirectoryStore(tmp_path / "s")
    assert pickle.loads(pickle.dumps(store)) == store
    assert opened(key=new) == (1, 1)
    assert builds(notes) == 2
    assert opened(keys=[new]) == (1, 0)
    monkeypatch.delenv("WARMSET_STORE_KEY")
    with pytest.raises(ValueError, match="WARMSET_STORE_OLD_KEY is set, but WARMSET_STORE_KEY"):
        opened()
    monkeypatch.delenv("WARMSET_STORE_OLD_KEY")
    monkeypatch.setenv("WARMSET_STORE_KEY", "")
    assert not share.DirectoryStore(tmp_path / "s").secrets, "an empty variable is not set"
    with pytest.raises(TypeError, match="at most one"):
        opened(key=new, keys=[new])
    with pytest.raises(TypeError, match="a sequence of keys"):
        opened(keys=new)


def test_a_snapshot_that_is_rolled_back(
    share: Any, sharing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: Any
) -> None:
    """The signed time, and not that of the file, decides; so does the version of the store."""
    from warmset.share import sharing as module

    def stats(**options: Any) -> Any:
        registry = sharing(store=share.DirectoryStore(tmp_path / "s", key=KEY, **options))
        assert registry.get_instance("Table").total() == TOTAL
        return registry.snapshot_stats()

    stats()
    (file,) = (tmp_path / "s").glob("*/*.snapshot")
    content = file.read_bytes()
    real = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: real() + 1000.0)
    assert stats(max_age_seconds=2000.0).opened == 1
    file.write_bytes(content)
    os.utime(file)  # a file of now, with an old snapshot
    assert stats(max_age_seconds=900.0).outdated == 1
    assert stats(version="2").stored == 1
    assert stats(version="2").stored == 0
    # Under the name of the new version, the old snapshot is not that version.
    for each in (tmp_path / "s").glob("*/*.snapshot"):
        each.write_bytes(content)
    found = stats(version="2")
    assert (found.damaged, found.stored) == (1, 1)


def test_logs_do_not_repeat(
    share: Any, sharing: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, notes: Any
) -> None:
    """Who damages each snapshot again costs a build each time, but not a line each time."""
    store = share.DirectoryStore(tmp_path / "s", key=KEY)
    registry = sharing(store=store)
    caplog.set_level(logging.WARNING)
    for _ in range(6):
        registry.get_instance("Table")
        registry.discard("Table")
        for file in Path(store.own_path).iterdir():
            file.write_bytes(b"warmset snapshot" + os.urandom(200))
    logged = [each for each in caplog.records if each.name == "warmset.share"]
    assert len(logged) <= 2
