"""
Snapshots on a Valkey (or Redis) server: built once for many machines.

Below ``{PREFIX}:``, each key has a signed manifest that names its chunks, the chunks, and a signed
lock during a build. Two more entries have the last use and the bytes of all keys; they serve only
to choose what is evicted. A builder uploads the chunks first; one atomic script then checks that
the builder still has its lock and writes the manifest. A builder whose lease has expired therefore
writes nothing, and the chunks of a dead builder expire.

Everything that is read from the server is bounded and authenticated before it is used, and no
script reads what others may have written, so that each script does a constant amount of work.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .checks import absolute, check_numbers, check_version
from .errors import DamagedError, StoreBusyError, StoreError, StoreRefusedError
from .files import check_key
from .leases import LeasedClaim
from .manifests import CHUNK_BYTES, MOST_BYTES, Manifest, is_lock, read_manifest, sign_lock
from .protocol import Blob
from .replies import as_bytes, as_key, as_sizes, milliseconds, split
from .scripts import PUBLISH, RELEASE, RENEW, USE
from .secret import KEY_VARIABLE, Secret, read_private, secrets_from
from .server_url import ServerUrl, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .directory import DirectoryStore
    from .secret import AnyKey, AnyPath

__all__ = ["PASSWORD_VARIABLE", "ValkeyStore"]

PASSWORD_VARIABLE = "WARMSET_STORE_PASSWORD"
_UNFINISHED_MS = 3_600_000  # expiry of chunks without a manifest
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 60.0
# More keys, or more bytes of keys, are not of this store: they are dropped, and not read.
_MOST_KEYS, _MOST_KEY_BYTES = 10_000, 10_000_000


class ValkeyStore:
    """
    Keeps snapshots on a Valkey or Redis server.

    Args:
        url: ``valkey://host:port/number``, ``valkeys://`` with TLS, or ``unix:///path``; also
            ``redis://`` and ``rediss://``. It contains nothing else: no user, password or option.
        key: The signing key of snapshots, at least 16 bytes. A key is required, here, by `keys`, by
            `key_file` or by the environment variable ``WARMSET_STORE_KEY``, because all who can
            write to the server could otherwise run code in this process.
        keys: Several keys, to replace one: the first signs, and all are accepted.
        key_file: A file that contains the key.
        username: The user of the server; None selects its default user.
        password_file: A file that contains the password of the server; None selects the environment
            variable ``WARMSET_STORE_PASSWORD``, if it is set.
        tls_ca_file: The certificates of the authorities that TLS accepts; None selects those of
            the system. The certificate of the server must be valid for the host of the URL.
        prefix: The prefix of the store's keys on the server.
        version: As for `DirectoryStore`.
        max_bytes: The most bytes to keep, evicting the least recently used first; 0: unlimited.
        max_snapshot_bytes: The size of the largest snapshot that is stored or fetched.
        max_age_seconds: The maximum age of a snapshot; 0: unlimited.
        lease_seconds: The time after which a builder loses its lock unless a thread of it renews
            the lease.
        wait_seconds: How long to wait for a build in another process before building anyway.
        local: A `DirectoryStore` of this machine for fetched snapshots. Each is then fetched once
            per machine and shared as one physical copy by its processes.
        client: A client of `valkey` or `redis`, instead of one made from the URL.

    Raises:
        StoreRefusedError: There is no key, or the key or password file is open to other users.
        StoreError: The package `valkey` is not installed, or the URL is invalid.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range, the key is too short, or the URL contains more than an
            address.

    The store connects at first use. Safe under threads and after a fork; picklable with a key from
    a file or the environment, and without `client`.
    """

    def __init__(
        self,
        url: str,
        *,
        key: AnyKey | None = None,
        keys: Sequence[AnyKey] | None = None,
        key_file: AnyPath | None = None,
        username: str | None = None,
        password_file: AnyPath | None = None,
        tls_ca_file: AnyPath | None = None,
        prefix: str = "warmset",
        version: str = "",
        max_bytes: int = 10_000_000_000,
        max_snapshot_bytes: int = 10_000_000_000,
        max_age_seconds: float = 30 * 86400.0,
        lease_seconds: float = 30.0,
        wait_seconds: float = 600.0,
        local: DirectoryStore | None = None,
        client: Any = None,
    ) -> None:
        check_numbers(
            max_bytes=(max_bytes, 0),
            max_snapshot_bytes=(max_snapshot_bytes, 1),
            max_age_seconds=(max_age_seconds, 0),
            lease_seconds=(lease_seconds, 0.1),
            wait_seconds=(wait_seconds, 0),
        )
        self._address: ServerUrl = parse_url(url)
        self.url = str(self._address)
        if not isinstance(prefix, str) or not re.fullmatch(r"[^{}\s]{1,200}", prefix):
            raise ValueError(
                f"prefix must have 1 to 200 characters without braces and spaces, got {prefix!r}"
            )
        self._secrets: tuple[Secret, ...] = secrets_from(key, key_file, keys)
        if not self._secrets:
            raise StoreRefusedError(
                f"{self.url!r} is not trusted without a key, because opening a snapshot runs code "
                f"in it: use key=, key_file= or the environment variable {KEY_VARIABLE}"
            )
        self.version = check_version(version)
        self.max_age_seconds = max_age_seconds
        self._username, self._tls_ca_file = username, absolute(tls_ca_file)
        self._password_file = absolute(password_file)
        if self._password_file is not None:
            read_private(self._password_file, "password")  # refused now, not at the first build
        self._prefix = prefix
        self._max_bytes, self._max_snapshot_bytes = max_bytes, max_snapshot_bytes
        self._lease, self._wait = lease_seconds, wait_seconds
        self._local = local
        self._given_client = client
        self._client: Any = client
        package = _package() if client is None else _package_of(client)
        base: type[Exception] = (
            getattr(package, "ValkeyError", None) or getattr(package, "RedisError", None) or OSError
        )
        self._reply_error: type[Exception] = getattr(package, "ResponseError", base)

    @property
    def secret(self) -> Secret:
        """The signing key of snapshots."""
        return self._secrets[0]

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The signing key, and the other keys that are accepted."""
        return self._secrets

    def __repr__(self) -> str:
        return f"<ValkeyStore {self.url!r}>"

    def __reduce__(self) -> Any:
        if self._given_client is not None:
            raise TypeError("a store with a custom client cannot be pickled")
        options = {
            "username": self._username,
            "password_file": self._password_file,
            "tls_ca_file": self._tls_ca_file,
            "prefix": self._prefix,
            "version": self.version,
            "max_bytes": self._max_bytes,
            "max_snapshot_bytes": self._max_snapshot_bytes,
            "max_age_seconds": self.max_age_seconds,
            "lease_seconds": self._lease,
            "wait_seconds": self._wait,
            "local": self._local,
        }
        return _unpickle, (self.url, self._secrets, options)

    def _identity(self) -> tuple[object, ...]:
        return self.url, self._username, self._prefix, self._secrets, self.version

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def close(self) -> None:
        """Close the connections; the next use connects again."""
        client, self._client = self._client, self._given_client
        if client is not None and client is not self._given_client:
            client.close()

    # -- the server --------------------------------------------------------------------------------

    def _connect(self) -> Any:
        if self._client is None:
            if self._password_file is not None:
                password = read_private(self._password_file, "password").decode()
            else:
                password = os.environ.get(PASSWORD_VARIABLE, "")
            self._client = _package().Valkey(
                **self._address.options(self._tls_ca_file),
                username=self._username,
                password=password or None,
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
            )
        return self._client

    def _run(self, what: str, command: Callable[[Any], Any]) -> Any:
        try:
            return command(self._connect())
        except (StoreError, MemoryError):
            raise
        except Exception as error:
            # Whoever answers in place of the server can make a client raise anything. The texts of
            # its errors contain host and port, but no password.
            raise StoreError(f"{what} on {self.url} failed: {error}") from error

    def _name(self, kind: str, rest: str = "") -> str:
        # A cluster keeps keys with equal text in braces on one node, as the scripts require.
        return f"{{{self._prefix}}}:{kind}:{rest}"

    # -- reading -----------------------------------------------------------------------------------

    def fetch(self, key: str) -> Blob | None:
        """
        Get the bytes stored under a key; see `protocol.Store`.

        It takes as long as the download; with `local`, only the first time on a machine.
        """
        check_key(key)
        if self._local is None:
            view = self._download(key)
            return None if view is None else Blob(view, shared=False)
        found = self._local.fetch(key)
        if found is not None:
            return found
        claim = self._local.claim(key)
        if claim is not None:
            with claim:
                found = self._local.fetch(key)
                if found is None:
                    view = self._download(key)
                    if view is None:
                        return None
                    claim.put([view])
        return self._local.fetch(key)

    def _manifest(self, client: Any, key: str) -> Manifest | None:
        """Read the manifest of a key; raise DamagedError unless it is signed."""
        try:
            # A range, as somebody may have put there half a gigabyte.
            found = client.getrange(self._name("manifest", key), 0, MOST_BYTES)
        except self._reply_error as error:
            raise DamagedError(f"its manifest cannot be read: {error}") from error
        if not found:
            return None
        return read_manifest(as_bytes(found), key, self._secrets, self._max_snapshot_bytes)

    def _download(self, key: str) -> memoryview | None:
        def download(client: Any) -> memoryview | None:
            manifest = self._manifest(client, key)
            if manifest is None:
                return None
            found = bytearray()
            for name in self._chunks(manifest):
                most = min(CHUNK_BYTES, manifest.size - len(found))
                try:
                    chunk = as_bytes(client.getrange(name, 0, most))
                except self._reply_error as error:
                    raise DamagedError(f"a chunk of it cannot be read: {error}") from error
                if len(chunk) != most:
                    return None  # replaced during the download, expired, or altered
                found += chunk
            with suppress(self._reply_error):  # serves only to choose what is evicted
                client.eval(USE, 1, self._name("used"), key)
            return memoryview(found)

        try:
            return self._run("reading a snapshot", download)  # type: ignore[no-any-return]
        except MemoryError as error:
            raise StoreError("reading a snapshot failed: not enough memory") from error

    def _chunks(self, manifest: Manifest) -> Iterator[str]:
        return (self._name("chunk", f"{manifest.number}:{at}") for at in range(manifest.chunks))

    # -- building ----------------------------------------------------------------------------------

    def claim(self, key: str, *, wait: bool = True) -> LeasedClaim | None:
        """Claim the exclusive right to build for a key; see `protocol.Store`."""
        lock, token = self._name("lock", check_key(key)), uuid.uuid4().hex
        content, ms = self._lock(key, token), milliseconds(self._lease)
        if self._run("locking", lambda client: client.set(lock, content, nx=True, px=ms)):
            return LeasedClaim(
                key,
                lease_seconds=self._lease,
                put=lambda pieces: self._put(key, token, pieces),
                renew=lambda: self._renew(key, token),
                release=lambda: self._release(key, token),
            )
        self._run("locking", lambda client: self._remove_foreign_lock(client, key, lock))
        if wait:
            self._run("waiting", lambda client: self._await(client, key, lock))
        return None

    def _lock(self, key: str, token: str) -> bytes:
        return sign_lock(token, key, self._lease, time.time(), self.secret)

    def _remove_foreign_lock(self, client: Any, key: str, lock: str) -> bool:
        """Remove what is no lock of a builder, and would be waited for in vain."""
        try:
            found = as_bytes(client.getrange(lock, 0, MOST_BYTES))
            if not found:
                return True
            if client.pttl(lock) >= 0 and is_lock(found, key, self._secrets, time.time()):
                return False
        except self._reply_error:  # it is not even a string
            pass
        return bool(client.unlink(lock))

    def _await(self, client: Any, key: str, lock: str) -> None:
        """Wait until a lock is released or its lease expires."""
        with client.pubsub() as subscription:
            subscription.subscribe(self._name("done", key))
            self._await_message(client, subscription, key, lock)

    def _await_message(self, client: Any, subscription: Any, key: str, lock: str) -> None:
        deadline = time.monotonic() + self._wait
        while True:
            # Checked after subscribing, so that no release is missed.
            left = client.pttl(lock)
            now = time.monotonic()
            if left == -2 or self._remove_foreign_lock(client, key, lock):
                return
            if now >= deadline:
                since = f"{self._wait:.0f} s"
                raise StoreBusyError(f"another process has been building {key} for {since}")
            most = max(left, 0) / 1000 + 0.01
            message = subscription.get_message(timeout=min(most, deadline - now))
            if message is not None and message["type"] == "message":
                return

    def _put(self, key: str, token: str, pieces: Sequence[memoryview | bytes]) -> None:
        size = sum(memoryview(piece).nbytes for piece in pieces)
        if not 0 < size <= self._max_snapshot_bytes:
            raise StoreError(f"it has {size} bytes, more than max_snapshot_bytes")
        manifest = Manifest(uuid.uuid4().hex, size)
        names = list(self._chunks(manifest))

        def upload(client: Any) -> Any:
            for name, chunk in zip(names, split(pieces), strict=True):
                client.set(name, chunk, px=_UNFINISHED_MS)
            replaced = None
            with suppress(DamagedError):
                replaced = self._manifest(client, key)
            entries = [self._name(kind, key) for kind in ("lock", "manifest")]
            entries += [self._name("used"), self._name("sizes")]
            text = manifest.signed(key, self.secret)
            age = milliseconds(self.max_age_seconds)
            old = list(self._chunks(replaced)) if replaced else []
            # At any moment, chunks that may end up without a manifest expire. A builder that dies
            # in between leaves a manifest whose chunks expire, which is a miss then.
            _expire(client, old, _UNFINISHED_MS)
            published = client.eval(PUBLISH, 4, *entries, token, text, age, key, size)
            kept, dropped = (names, old) if published else (old, names)
            _expire(client, kept, age)
            for name in dropped:
                client.unlink(name)
            if published:
                self._trim(client, key)
            return published

        try:
            published = self._run("storing a snapshot", upload)
        except DamagedError as error:
            raise StoreError(str(error)) from error
        if not published:
            raise StoreError(f"the claim of {key} was lost: its lease expired during the build")
        if self._local is not None:
            claim = self._local.claim(key, wait=False)
            if claim is not None:
                with claim:
                    claim.put(pieces)

    def _trim(self, client: Any, spare: str) -> None:
        """Evict the least recently used snapshots above the bound."""
        used = self._used(client)
        with client.pipeline(transaction=False) as commands:
            for key, _ in used:
                commands.exists(self._name("manifest", key))
            existing = commands.execute()
        known: dict[str, int] = {}
        for (key, size), exists in zip(used, existing, strict=True):
            if exists:
                known[key] = size
            else:  # expired
                client.zrem(self._name("used"), key)
                client.hdel(self._name("sizes"), key)
        total = sum(known.values())
        for key, size in known.items():
            if not self._max_bytes or total <= self._max_bytes:
                break
            if key != spare:
                total -= size
                self._remove(client, key)

    def _used(self, client: Any) -> list[tuple[str, int]]:
        """The keys and their bytes, the least recently used first."""
        used, sizes = self._name("used"), self._name("sizes")
        with suppress(self._reply_error):
            most = max(client.zcard(used), client.hlen(sizes))
            size = sum(client.memory_usage(name, samples=0) or 0 for name in (used, sizes))
            if most <= _MOST_KEYS and size <= _MOST_KEY_BYTES:
                found = client.zrange(used, 0, _MOST_KEYS)
                known = client.hmget(sizes, found) if found else []
                if all(map(as_key, found)):
                    return as_sizes(found, known)
        client.unlink(used, sizes)  # not what the store has written
        return []

    def _remove(self, client: Any, key: str) -> bool:
        """Remove a snapshot; chunks that no signed manifest names expire by themselves."""
        names: list[str] = []
        with suppress(DamagedError):
            manifest = self._manifest(client, key)
            names = [] if manifest is None else list(self._chunks(manifest))
        with suppress(self._reply_error):
            client.hdel(self._name("sizes"), key)
            client.zrem(self._name("used"), key)
        removed = bool(client.unlink(self._name("manifest", key)))
        for name in names:
            client.unlink(name)
        return removed

    def _renew(self, key: str, token: str) -> bool:
        lock, content = self._name("lock", key), self._lock(key, token)
        ms = milliseconds(self._lease)
        renewed = self._run(
            "renewing a lock", lambda client: client.eval(RENEW, 1, lock, token, content, ms)
        )
        return bool(renewed)

    def _release(self, key: str, token: str) -> None:
        lock, channel = self._name("lock", key), self._name("done", key)
        self._run("unlocking", lambda client: client.eval(RELEASE, 1, lock, token, channel))

    def discard(self, key: str) -> bool:
        """Remove the bytes stored under a key; see `protocol.Store`."""
        check_key(key)
        removed_locally = self._local is not None and self._local.discard(key)
        removed = self._run("removing a snapshot", lambda client: self._remove(client, key))
        return removed_locally or bool(removed)

    def clear(self) -> int:
        """
        Remove all snapshots below the prefix; builds in progress are not affected.

        Returns:
            The number of removed snapshots.
        """
        start = self._name("manifest")

        def list_keys(client: Any) -> list[str]:
            pattern = re.sub(r"([][*?\\])", r"\\\1", start) + "*"
            names = [as_bytes(name)[len(start.encode()) :] for name in client.scan_iter(pattern)]
            return [key for name in names if (key := as_key(name)) is not None]

        return sum(self.discard(key) for key in self._run("listing snapshots", list_keys))


def _expire(client: Any, names: list[str], ms: int) -> None:
    """Let entries expire after some time; 0: never."""
    for name in names:
        if ms:
            client.pexpire(name, ms)
        else:
            client.persist(name)


def _package() -> Any:
    try:
        import valkey
    except ImportError as error:
        raise StoreError(
            "a ValkeyStore needs the 'valkey' extra: pip install \"warmset[valkey]\""
        ) from error
    return valkey


def _package_of(client: Any) -> Any:
    """Get the package of a client, which is `valkey` or `redis`."""
    import importlib

    return importlib.import_module(type(client).__module__.partition(".")[0])


def _unpickle(url: str, secrets: tuple[Secret, ...], options: dict[str, Any]) -> ValkeyStore:
    return ValkeyStore(url, keys=secrets, **options)
