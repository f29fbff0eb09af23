"""Stores on a server: contents, bounds, one builder at a time, and lost leases."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import servers
from threads import until

valkey = pytest.importorskip("valkey")
if servers.program() is None:
    pytest.skip("there is no valkey-server and no redis-server", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = b"swordfish-swordfish"


@pytest.fixture(scope="session")
def path() -> Iterator[str]:
    with servers.server() as path:
        yield path


@pytest.fixture
def prefix() -> str:
    """A key prefix for this test, as all tests share a server."""
    return uuid.uuid4().hex


@pytest.fixture
def make(share: Any, path: str, prefix: str, notes: Any) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(**options: Any) -> Any:
        given = {"key": KEY, "prefix": prefix, "wait_seconds": 0.0, **options}
        made.append(share.ValkeyStore(f"unix://{path}", **given))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def client(path: str) -> Iterator[Any]:
    with valkey.Valkey(unix_socket_path=path) as client:
        yield client


def put(store: Any, key: str, content: bytes) -> None:
    with store.claim(key) as claim:
        claim.put([content[:3], memoryview(content)[3:]])


def content(store: Any, key: str) -> bytes | None:
    blob = store.fetch(key)
    return None if blob is None else bytes(blob.view)


def left(client: Any, prefix: str) -> list[str]:
    """The kinds of the entries below a prefix."""
    return sorted(name.decode().split(":")[1] for name in client.scan_iter(f"{{{prefix}}}:*"))


# -- contents and bounds ---------------------------------------------------------------------------


def test_put_and_fetch(make: Any, client: Any, prefix: str) -> None:
    store, other = make(), make()
    assert store.fetch("a") is None
    put(store, "a", b"12345")
    assert content(other, "a") == b"12345"
    put(other, "a", b"abcdefg")
    assert content(store, "a") == b"abcdefg"
    assert left(client, prefix) == ["chunk", "manifest", "sizes", "used"]
    assert store.discard("a")
    assert not store.discard("a")
    assert left(client, prefix) == []


def test_large_snapshots_have_several_chunks(make: Any, client: Any, prefix: str) -> None:
    store = make()
    big = os.urandom(20_000_001)
    put(store, "a", big)
    assert left(client, prefix).count("chunk") == 3
    assert content(store, "a") == big
    put(store, "b", b"12345")
    assert store.clear() == 2
    assert left(client, prefix) == []


def test_a_missing_chunk_is_a_miss(make: Any, client: Any, prefix: str) -> None:
    store = make()
    put(store, "a", b"12345")
    (chunk,) = client.scan_iter(f"{{{prefix}}}:chunk:*")
    client.delete(chunk)
    assert store.fetch("a") is None


def test_the_least_recently_used_are_evicted(make: Any, client: Any, prefix: str) -> None:
    store = make(max_bytes=1000)
    used = f"{{{prefix}}}:used:"
    for at, name in enumerate(("a", "b")):
        put(store, name, b"x" * 400)
        client.zadd(used, {name: at + 1})  # long ago
    assert content(store, "a") is not None  # just now
    put(store, "c", b"x" * 400)
    assert [content(store, name) is not None for name in ("a", "b", "c")] == [True, False, True]
    put(store, "big", b"x" * 5000)
    assert left(client, prefix) == ["chunk", "manifest", "sizes", "used"]


def test_snapshots_expire_at_the_maximum_age(make: Any, client: Any, prefix: str) -> None:
    store = make(max_age_seconds=50.0, max_bytes=1000)
    put(store, "a", b"x" * 900)
    for name in client.scan_iter(f"{{{prefix}}}:*:*"):
        if name.decode().split(":")[1] in ("chunk", "manifest"):
            assert 0 < client.pttl(name) <= 50_000
            client.delete(name)  # as its expiry would
    put(store, "b", b"x" * 900)  # the expired one does not count
    assert content(store, "b") is not None
    assert client.zcard(f"{{{prefix}}}:used:") == 1


# -- one builder at a time -------------------------------------------------------------------------


def test_one_claim_at_a_time(share: Any, make: Any, client: Any, prefix: str) -> None:
    store, other = make(), make()
    with store.claim("a"):
        assert other.claim("a", wait=False) is None
        with other.claim("b"):
            pass
        with pytest.raises(share.StoreBusyError, match="has been building a for 0 s"):
            other.claim("a")
    with other.claim("a") as claim:
        claim.put([b"12345"])
    assert "lock" not in left(client, prefix)


def test_a_lost_lease_writes_nothing(share: Any, make: Any, client: Any, prefix: str) -> None:
    """It does not affect the lock of the next builder."""
    store = make()
    late = store.claim("a")
    client.delete(f"{{{prefix}}}:lock:a")  # as its expiry would
    with store.claim("a") as claim:
        with pytest.raises(share.StoreError, match="the claim of a was lost"):
            late.put([b"late"])
        late.__exit__(None, None, None)
        assert store.claim("a", wait=False) is None
        claim.put([b"in time"])
    assert content(store, "a") == b"in time"
    assert left(client, prefix) == ["chunk", "manifest", "sizes", "used"]
    with pytest.raises(share.StoreError, match="was released"):
        late.put([b"again"])


def test_a_lease_is_renewed(make: Any, client: Any, prefix: str) -> None:
    store = make(lease_seconds=3.0)
    lock = f"{{{prefix}}}:lock:a"
    with store.claim("a") as claim:
        client.pexpire(lock, 10_000)
        until(lambda: client.pttl(lock) <= 5000)  # the thread has renewed it
        claim.put([b"12345"])
    assert client.pttl(lock) == -2


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    support = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
    search = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": search, "WARMSET_STORE_KEY": KEY.decode()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


HOLD = """
import sys
from warmset.share import ValkeyStore
store = ValkeyStore(sys.argv[1], prefix=sys.argv[2], lease_seconds=float(sys.argv[3]))
with store.claim("a") as claim:
    print("held", flush=True)
    sys.stdin.readline()
    claim.put([b"theirs"])
"""


def test_a_release_wakes_waiting_processes(make: Any, client: Any, path: str, prefix: str) -> None:
    process = child(HOLD, f"unix://{path}", prefix, "30")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    store = make(wait_seconds=100.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.claim, "a")
        channel = f"{{{prefix}}}:done:a"
        while not client.pubsub_numsub(channel)[0][1]:  # until it subscribes
            assert not waiting.done()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert waiting.result() is None  # the other build has ended
    process.communicate()
    assert content(store, "a") == b"theirs"


def test_the_lease_of_a_killed_process_expires(make: Any, path: str, prefix: str) -> None:
    """Others wait no longer than the lease."""
    process = child(HOLD, f"unix://{path}", prefix, "0.5")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    store = make(wait_seconds=100.0)
    while (claim := store.claim("a")) is None:
        pass
    with claim:
        claim.put([b"mine"])
    assert content(store, "a") == b"mine"


# -- with a registry -------------------------------------------------------------------------------


def test_one_registry_builds_and_another_opens(
    make: Any, sharing: Any, notes: Callable[[], list[str]]
) -> None:
    one, other = sharing(store=make()), sharing(store=make(), shareable="copy_on_write")
    table = one.get_instance("Table")
    assert table.weights.flags.writeable  # not mapped: the built instance itself is returned
    opened = other.get_instance("Table")
    opened.change()
    assert notes() == ["Table"]
    assert other.snapshot_stats().opened == 1


def test_an_altered_snapshot_is_rebuilt(
    make: Any,
    sharing: Any,
    client: Any,
    prefix: str,
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sharing(store=make()).get_instance("Table")
    (chunk,) = client.scan_iter(f"{{{prefix}}}:chunk:*")
    client.setrange(chunk, 5000, b"?")
    registry = sharing(store=make())
    assert registry.get_instance("Table").total() == sum(range(10_000))
    assert registry.snapshot_stats().damaged == 1
    assert notes() == ["Table", "Table"]
    assert "signature is wrong" in caplog.text
    assert KEY.decode() not in caplog.text


def test_a_snapshot_is_fetched_once_per_machine(
    share: Any,
    make: Any,
    sharing: Any,
    tmp_path: Path,
    client: Any,
    notes: Callable[[], list[str]],
) -> None:
    """All processes of the machine map it."""
    sharing(store=make()).get_instance("Table")
    here = share.DirectoryStore(tmp_path / "here", key=KEY)
    stores = [make(local=here), make(local=here)]
    tables = [sharing(store=store).get_instance("Table") for store in stores]
    assert notes() == ["Table"]
    assert not any(table.weights.flags.owndata for table in tables)
    assert len(os.listdir(here.own_path)) == 1
    key = os.listdir(here.own_path)[0].removesuffix(".snapshot")
    assert stores[0].discard(key)
    assert os.listdir(here.own_path) == []


def test_an_unreachable_server_costs_a_build(
    share: Any,
    sharing: Any,
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WARMSET_STORE_PASSWORD", "sesame-open")
    store = share.ValkeyStore("unix:///tmp/no-such-server.sock", key=KEY)
    assert sharing(store=store).get_instance("Table").total() > 0
    assert notes() == ["Table"]
    assert "the store cannot be used: reading a snapshot on unix:///tmp/no-such" in caplog.text
    assert "sesame" not in caplog.text + repr(store)


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "error", "text"),
    [
        ("http://host", {}, "StoreError", "unknown scheme; expected SCHEME://"),
        (3, {}, TypeError, "must be a str, got int"),
        (
            "valkey://user:sesame@host",
            {},
            ValueError,
            "more than an address; .* credentials come from the environment or a file",
        ),
        ("valkey://host", {"key": None}, "StoreRefusedError", "WARMSET_STORE_KEY"),
        ("valkey://host", {"lease_seconds": 0.0}, ValueError, "lease_seconds must be 0.1 or more"),
        ("valkey://host", {"max_bytes": "1"}, TypeError, "max_bytes must be a number"),
    ],
)
def test_invalid_arguments(
    share: Any, notes: Any, url: Any, options: Any, error: Any, text: str
) -> None:
    kind = getattr(share, error) if isinstance(error, str) else error
    with pytest.raises(kind, match=text) as caught:
        share.ValkeyStore(url, **{"key": KEY, **options})
    assert "sesame" not in str(caught.value)


def test_no_error_shows_a_password(ws: Any) -> None:
    """Neither that of a setting nor that of a settings file."""
    for rejected in (
        lambda: ws.MethodRegistry({}, store="valkey://user:sesame@host"),
        lambda: ws.settings.RegistrySettings.from_table(
            {"store": "valkey://user:sesame@host/0"}, file="f.toml"
        ),
        lambda: ws.settings.RegistrySettings.from_table(
            {"stores": "valkey://user:sesame@host/0"}, file="f.toml"
        ),
    ):
        with pytest.raises(ValueError, match="store") as caught:
            rejected()
        assert "sesame" not in str(caught.value)


def test_a_store_by_its_address(
    ws: Any, path: str, notes: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMSET_STORE_KEY", uuid.uuid4().hex)
    for _ in range(2):
        with ws.MethodRegistry({}, store=f"unix://{path}") as registry:
            registry.register("Table", "shared_samples.Table", shareable=True)
            assert registry.get_instance("Table").total() > 0
    assert notes() == ["Table"]


def test_pickles(make: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSET_STORE_KEY", KEY.decode())
    store = make(key=None)
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    put(store, "a", b"12345")
    assert content(copy, "a") == b"12345"
    copy.close()
    for options in ({}, {"key": None, "client": object()}):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(make(**options))


def test_a_custom_client(make: Any, client: Any) -> None:
    put(make(client=client), "a", b"12345")
    assert content(make(), "a") == b"12345"


def test_a_server_with_a_password(
    share: Any, notes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.server("--requirepass", "sesame-open") as path:
        store = share.ValkeyStore(f"unix://{path}", key=KEY)
        with pytest.raises(share.StoreError, match="reading a snapshot on unix"):
            store.fetch("a")
        store.close()
        monkeypatch.setenv("WARMSET_STORE_PASSWORD", "sesame-open")
        put(store, "a", b"12345")
        file = tmp_path / "password"
        file.write_text("sesame-open\n")
        with pytest.raises(share.StoreRefusedError, match=r"the password file .* is open to other"):
            share.ValkeyStore(f"unix://{path}", key=KEY, password_file=file)
        file.chmod(0o600)
        explicit = share.ValkeyStore(f"unix://{path}", key=KEY, password_file=file)
        assert content(explicit, "a") == b"12345"
        store.close()
        explicit.close()
