"""Somebody who can write to the server, or stands between, but has no key."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import servers

valkey = pytest.importorskip("valkey")
if servers.program() is None:
    pytest.skip("there is no valkey-server and no redis-server", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = b"k" * 32
TOTAL = sum(range(10_000))
NUMBER = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    with servers.server() as path:
        yield path


@pytest.fixture
def client(path: str) -> Iterator[Any]:
    with valkey.Valkey(unix_socket_path=path, socket_timeout=30) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(share: Any, path: str, notes: Any) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(**options: Any) -> Any:
        given = {"key": KEY, "wait_seconds": 600.0, **options}
        made.append(share.ValkeyStore(f"unix://{path}", **given))
        return made[-1]

    yield make
    for each in made:
        each.close()


def name_of(client: Any, kind: str) -> bytes:
    (found,) = client.scan_iter(f"{{warmset}}:{kind}:*")
    assert isinstance(found, bytes)
    return found


def manifests() -> dict[str, Callable[[bytes], object]]:
    """What may be put in place of a manifest, from the good one."""

    def changed(**fields: Any) -> Callable[[bytes], object]:
        def change(good: bytes) -> bytes:
            return good[:64] + json.dumps({**json.loads(good[64:]), **fields}).encode()

        return change

    return {
        "empty": lambda good: b"",
        "no JSON": lambda good: good[:64] + b"{",
        "a list": lambda good: good[:64] + b"[]",
        "no field": lambda good: good[:64] + b"{}",
        "not UTF-8": lambda good: b"\xff\xfe" * 60,
        "deep": lambda good: good[:64] + b"[" * 900,
        "half a gigabyte": lambda good: b"[" * 20_000_000,
        "negative": changed(size=-1),
        "4 GB": changed(size=4 * 10**9),
        "huge": changed(size=10**12),
        "a text": changed(size="x"),
        "a fraction": changed(size=1.5),
        "infinite": changed(size=float("inf")),
        "another upload": changed(number=NUMBER),
        "a path": changed(number="../../x"),
        "without a signature": lambda good: good[64:],
        "unsigned": lambda good: b"0" * 64 + good[64:],
        "cut": lambda good: good[:-1],
        "a type": lambda good: ["x"],
    }


@pytest.mark.parametrize("what", manifests())
def test_manifests(
    sharing: Any,
    store: Any,
    client: Any,
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    """One build and one log line; the next process opens what was stored instead."""
    sharing(store=store()).get_instance("Table")
    name = name_of(client, "manifest")
    planted = manifests()[what](client.get(name))
    client.delete(name)
    if isinstance(planted, list):
        client.lpush(name, *planted)
    else:
        client.set(name, planted)
    registry = sharing(store=store())
    assert registry.get_instance("Table").total() == TOTAL
    stats = registry.snapshot_stats()
    assert (stats.damaged, stats.stored) == (0 if what == "empty" else 1, 1)
    assert len([each for each in caplog.records if each.name == "warmset.share"]) <= 1
    assert sharing(store=store()).get_instance("Table").total() == TOTAL
    assert notes().count("Table") == 2


def test_a_manifest_of_another_snapshot(
    sharing: Any, store: Any, client: Any, notes: Callable[[], list[str]]
) -> None:
    """The signature covers the key of the snapshot."""
    sharing(store=store()).get_instance("Table")
    name = name_of(client, "manifest")
    sharing(store=store()).get_instance("Closing")
    (other,) = set(client.scan_iter("{warmset}:manifest:*")) - {name}
    client.set(name, client.get(other))
    registry = sharing(store=store())
    assert registry.get_instance("Table").total() == TOTAL
    assert (registry.snapshot_stats().damaged, registry.snapshot_stats().stored) == (1, 1)


@pytest.mark.parametrize("what", ["short", "long", "list", "altered", "gone"])
def test_chunks(
    sharing: Any, store: Any, client: Any, notes: Callable[[], list[str]], what: str
) -> None:
    sharing(store=store()).get_instance("Table")
    name = name_of(client, "chunk")
    content = client.get(name)
    client.delete(name)
    if what == "list":
        client.lpush(name, content)
    elif what != "gone":
        middle = len(content) // 2
        altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        planted = {"short": content[:-1], "long": content + b"x" * 100_000, "altered": altered}
        client.set(name, planted[what])
    registry = sharing(store=store())
    assert registry.get_instance("Table").total() == TOTAL
    assert registry.snapshot_stats().stored == 1
    assert notes().count("Table") == 2


@pytest.mark.parametrize("what", ["text", "forged", "of another key", "old", "list", "large"])
def test_locks(
    share: Any,
    sharing: Any,
    store: Any,
    client: Any,
    notes: Callable[[], list[str]],
    what: str,
) -> None:
    """Nobody waits for a lock that no builder has made, or that was put back later."""
    from warmset.share.manifests import sign_lock
    from warmset.share.secret import Secret

    sharing(store=store()).get_instance("Table")
    manifest = name_of(client, "manifest")
    key = manifest.decode().split(":")[2]
    client.delete(manifest)
    lock = manifest.decode().replace("manifest", "lock")
    mine, now = Secret(KEY), time.time()
    if what == "list":
        client.lpush(lock, "x")
    else:
        planted = {
            "text": b"stale",
            "forged": sign_lock(NUMBER, key, 30.0, now, Secret(b"x" * 32)),
            "of another key": sign_lock(NUMBER, "other", 30.0, now, mine),
            "old": sign_lock(NUMBER, key, 30.0, now - 200.0, mine),
            "large": b"x" * 10_000_000,
        }
        client.set(lock, planted[what], px=1_000_000)
    registry = sharing(store=store())
    assert registry.get_instance("Table").total() == TOTAL
    assert registry.snapshot_stats().stored == 1
    # A real one without an expiry is no real one any more.
    client.set(lock, sign_lock(NUMBER, key, 30.0, now, mine))
    client.delete(manifest)
    assert sharing(store=store()).get_instance("Table").total() == TOTAL
    assert notes().count("Table") == 3


def test_a_lock_that_comes_back_each_time(
    share: Any, sharing: Any, store: Any, client: Any, notes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempts are bounded; then the store is not used for a while."""
    attempts = []
    mine = store()

    def claim(key: str, *, wait: bool = True) -> None:
        attempts.append(wait)

    monkeypatch.setattr(mine, "claim", claim)
    registry = sharing(store=mine)
    for _ in range(3):
        assert registry.get_instance("Table").total() == TOTAL
        registry.discard("Table")
    assert len(attempts) == 20
    assert registry.snapshot_stats().unused == 3


@pytest.mark.parametrize("kind", ["used", "sizes"])
@pytest.mark.parametrize("what", ["text", "many", "large", "odd"])
def test_the_last_uses(
    sharing: Any, store: Any, client: Any, notes: Callable[[], list[str]], kind: str, what: str
) -> None:
    """They serve only to choose what is evicted."""
    sharing(store=store()).get_instance("Table")
    name = f"{{warmset}}:{kind}:"
    planted: dict[Any, float] = {
        "text": {},
        "many": {f"k{at}": at for at in range(20_000)},
        "large": {"x" * 20_000_000: 1.0},
        "odd": {b"\xff\xfe": 1.0, "../x": 2.0, "k" * 300: 3.0},
    }[what]
    client.delete(name)
    if what == "text":
        client.set(name, "no such type")
    elif kind == "used":
        client.zadd(name, planted)
    else:
        client.hset(name, mapping=dict.fromkeys(planted, "9" * 400))
    assert sharing(store=store()).get_instance("Table").total() == TOTAL
    registry = sharing(store=store(max_bytes=1))
    registry.get_instance("Closing")
    assert registry.snapshot_stats().stored == 1
    registry.discard("Closing")
    assert notes().count("Table") == 1


def test_scripts_do_a_constant_amount_of_work(store: Any, client: Any) -> None:
    """Whatever is stored: none reads a manifest, and none has a loop."""
    from warmset.share import scripts

    for name in scripts.__all__:
        text = getattr(scripts, name)
        for word in ("for ", "while ", "repeat", "cjson", "cmsgpack", "'GET'", "ZRANGE", "KEYS'"):
            assert word not in text


def test_clear_and_discard(store: Any, client: Any) -> None:
    """They remove what the store has made, and survive the rest."""
    mine = store()
    with mine.claim("a") as claim:
        claim.put([b"12345"])
    for odd in (b"\xff", b"a b", b"x" * 300, b"../x"):
        client.set(b"{warmset}:manifest:" + odd, b"x")
    client.lpush("{warmset}:manifest:b", "x")
    client.set("{warmset}:manifest:c", b"x" * 10_000_000)
    assert mine.clear() == 3
    assert len(list(client.scan_iter("{warmset}:*"))) == 4


# -- the connection --------------------------------------------------------------------------------


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Callable[[str], tuple[int, list[Any]]]]:
    """Starts a server whose certificate is for a name; gives its port and what it got."""
    openssl = ["openssl"]
    try:
        subprocess.run([*openssl, "version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is not installed")

    def run(*words: str) -> None:
        subprocess.run([*openssl, *words], check=True, capture_output=True, cwd=tmp_path)

    new_key = ["-newkey", "rsa:2048", "-nodes"]
    # The extensions are those that Python 3.13 and later require.
    run("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj",
        "/CN=Some CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    threads: list[threading.Thread] = []
    listeners: list[socket.socket] = []

    def start(host: str) -> tuple[int, list[Any]]:
        run("req", *new_key, "-keyout", "s.key", "-out", "s.csr", "-subj", f"/CN={host}")
        (tmp_path / "ext").write_text(
            f"subjectAltName=DNS:{host}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        run("x509", "-req", "-in", "s.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "s.pem", "-days", "2", "-extfile", "ext")  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "s.pem", tmp_path / "s.key")
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        received: list[Any] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as encrypted:
                        received.append(encrypted.recv(200))
                except OSError as error:
                    received.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        threads.append(thread)
        return listener.getsockname()[1], received

    yield start
    for thread in threads:
        thread.join(30)
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("host", ["evil.example", "localhost"])
def test_tls_verifies_the_host(
    share: Any,
    tls_server: Any,
    tmp_path: Path,
    notes: Any,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
) -> None:
    """A certificate of another host gets no password, also if the same authority has signed it."""
    monkeypatch.setenv("WARMSET_STORE_PASSWORD", "hunter2-hunter2")
    port, received = tls_server(host)
    store = share.ValkeyStore(
        f"valkeys://localhost:{port}", key=KEY, tls_ca_file=tmp_path / "ca.pem"
    )
    with pytest.raises(share.StoreError) as caught:
        store.fetch("k")
    store.close()
    if host == "localhost":
        assert b"AUTH" in received[0]
    else:
        assert "certificate" in str(caught.value)
        assert b"hunter2" not in repr(received).encode()


SECRET_URLS = [
    "valkey://:hunter2@h/0",
    "valkey://127.0.0.1:1/0?password=hunter2",
    "valkey://:hun/ter2@127.0.0.1:1/0",
    "valkey://:hun#ter2@127.0.0.1/0",
    "valkey://:hun?ter2@127.0.0.1/0",
    "unix:///x.sock?password=hunter2",
    "unix://user:hunter2@/x.sock",
    "VALKEY://u:hunter2@h/0",
    "valkey://hunter2@h",
    "valkeys://h/0?ssl_cert_reqs=none&x=hunter2",
    "valkeys://h:hunter2/0",
    "valkey://h/hunter2",
    "hunter2://h",
    "hunter2",
    "valkey://[hunter2/0",
    "valkey://h\nhunter2/0",
    "valkey://hunter2%40h:1/0",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_urls_with_more_than_an_address(share: Any, notes: Any, url: str) -> None:
    """Refused, by an error that shows no part of them."""
    with pytest.raises((ValueError, share.StoreError)) as caught:
        share.ValkeyStore(url, key=KEY)
    error: BaseException | None = caught.value
    while error is not None:
        assert "ter2" not in str(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("valkey://h", "valkey://h:6379/0"),
        ("VALKEYS://Host.example:7/3", "valkeys://host.example:7/3"),
        ("redis://[::1]:7", "redis://[::1]:7/0"),
        ("rediss://", "rediss://localhost:6379/0"),
        ("unix:///a/b.sock", "unix:///a/b.sock"),
        ("unix:///a.sock?db=2", "unix:///a.sock?db=2"),
    ],
)
def test_the_url_is_rebuilt(share: Any, notes: Any, url: str, shown: str) -> None:
    store = share.ValkeyStore(url, key=KEY)
    assert store.url == shown
    assert share.ValkeyStore(store.url, key=KEY) == store


@pytest.mark.parametrize(
    "reply", [b"", b"-ERR \x1b[2J\r\n", b"$99999999999\r\nx", b"*9" * 50, b"\0"]
)
def test_a_server_that_speaks_no_such_protocol(
    share: Any,
    sharing: Any,
    tmp_path: Path,
    notes: Any,
    caplog: pytest.LogCaptureFixture,
    reply: bytes,
) -> None:
    """One build and one log line."""
    path = f"/tmp/warmset-{uuid.uuid4().hex[:8]}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            store = share.ValkeyStore(f"unix://{path}", key=KEY)
            registry = sharing(store=store)
            for _ in range(3):
                assert registry.get_instance("Table").total() == TOTAL
                registry.discard("Table")
            store.close()
            lines = [each for each in caplog.records if each.name == "warmset.share"]
            assert len(lines) == 1
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            os.unlink(path)
            thread.join(30)
