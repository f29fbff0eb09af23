"""
Snapshots on a Valkey (or Redis) server: built once for many machines.

Below ``{PREFIX}:``, each key has a manifest that names its chunks, the chunks, and a lock during a
build. Two more entries have the last use and the bytes of all keys. A builder uploads the chunks
first; one atomic script then checks that the builder still has its lock and writes the manifest. A
builder whose lease has expired therefore writes nothing, and the chunks of a dead builder expire.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import StoreBusyError, StoreError, StoreRefusedError
from .leases import LeasedClaim
from .protocol import Blob
from .secret import KEY_VARIABLE, Secret, secret_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .directory import DirectoryStore
    from .secret import AnyPath

__all__ = ["PASSWORD_VARIABLE", "ValkeyStore"]

PASSWORD_VARIABLE = "WARMSET_STORE_PASSWORD"
_CHUNK_BYTES = 8 << 20  # bounds one command of the server, which blocks other clients
_UNFINISHED_MS = 3_600_000  # expiry of chunks without a manifest
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 60.0

# KEYS: lock, manifest, used, sizes. ARGV: token, new manifest, name prefix of its chunks, number of
# chunks, bytes, key, maximum age in ms or 0, maximum bytes or 0, name prefix of manifests, name
# prefix of chunks. The script is atomic.
_PUBLISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local function drop(manifest, spared)
    local old = redis.call('GET', manifest)
    if old then
        local at = cjson.decode(old)
        for i = 0, at.chunks - 1 do redis.call('UNLINK', ARGV[10] .. at.id .. ':' .. i) end
        if not spared then redis.call('DEL', manifest) end
    end
end
drop(KEYS[2], true)
local age = tonumber(ARGV[7])
for i = 0, tonumber(ARGV[4]) - 1 do
    if age > 0 then redis.call('PEXPIRE', ARGV[3] .. i, age)
    else redis.call('PERSIST', ARGV[3] .. i) end
end
redis.call('SET', KEYS[2], ARGV[2])
if age > 0 then redis.call('PEXPIRE', KEYS[2], age) end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[6])
redis.call('HSET', KEYS[4], ARGV[6], ARGV[5])
local most, total = tonumber(ARGV[8]), 0
for _, key in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if redis.call('EXISTS', ARGV[9] .. key) == 1 then
        total = total + (tonumber(redis.call('HGET', KEYS[4], key)) or 0)
    else
        redis.call('ZREM', KEYS[3], key)
        redis.call('HDEL', KEYS[4], key)
    end
end
if most > 0 then
    for _, key in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
        if total <= most then break end
        if key ~= ARGV[6] then
            total = total - (tonumber(redis.call('HGET', KEYS[4], key)) or 0)
            drop(ARGV[9] .. key, false)
            redis.call('ZREM', KEYS[3], key)
            redis.call('HDEL', KEYS[4], key)
        end
    end
end
return 1
"""
# KEYS: lock. ARGV: token, ms.
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS: lock. ARGV: token, channel.
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], 'done')
return 1
"""
# KEYS: used. ARGV: key.
_USE = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
return 1
"""


class ValkeyStore:
    """
    Keeps snapshots on a Valkey or Redis server.

    Args:
        url: ``valkey://host:port/number``, ``valkeys://`` with TLS, or ``unix://path``; also
            ``redis://`` and ``rediss://``.
        key: The signing key of snapshots, at least 16 bytes. A key is required, here, by `key_file`
            or by the environment variable ``WARMSET_STORE_KEY``, because all who can write to the
            server could otherwise run code in this process.
        key_file: A file that contains the key.
        password: The password of the server; None selects the environment variable
            ``WARMSET_STORE_PASSWORD``, if it is set.
        prefix: The prefix of the store's keys on the server.
        max_bytes: The most bytes to keep, evicting the least recently used first; 0: unlimited.
        max_age_seconds: The maximum age of a snapshot; 0: unlimited.
        lease_seconds: The time after which a builder loses its lock unless a thread of it renews
            the lease.
        wait_seconds: How long to wait for a build in another process before building anyway.
        local: A `DirectoryStore` of this machine for fetched snapshots. Each is then fetched once
            per machine and shared as one physical copy by its processes.
        client: A client of `valkey` or `redis`, instead of one made from the URL.

    Raises:
        StoreRefusedError: There is no key.
        StoreError: The package `valkey` is not installed, or the URL is invalid.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range, the key is too short, or the URL contains a password.

    The store connects at first use. Safe under threads and after a fork; picklable with key and
    password from files or the environment, and without `client`.
    """

    def __init__(
        self,
        url: str,
        *,
        key: bytes | str | Secret | None = None,
        key_file: AnyPath | None = None,
        password: str | None = None,
        prefix: str = "warmset",
        max_bytes: int = 10_000_000_000,
        max_age_seconds: float = 30 * 86400.0,
        lease_seconds: float = 30.0,
        wait_seconds: float = 600.0,
        local: DirectoryStore | None = None,
        client: Any = None,
    ) -> None:
        for name, value, least in (
            ("max_bytes", max_bytes, 0.0),
            ("max_age_seconds", max_age_seconds, 0.0),
            ("lease_seconds", lease_seconds, 0.1),
            ("wait_seconds", wait_seconds, 0.0),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not value >= least:
                raise ValueError(f"{name} must be {least:g} or more, got {value!r}")
        self.url = _checked_url(url)
        secret = secret_from(key, key_file)
        if secret is None:
            raise StoreRefusedError(
                f"{self.url!r} is not trusted without a key, because opening a snapshot runs code "
                f"in it: use key=, key_file= or the environment variable {KEY_VARIABLE}"
            )
        self._secret: Secret = secret
        self._password = password
        self._prefix = prefix
        self._max_bytes, self._max_age = max_bytes, max_age_seconds
        self._lease, self._wait = lease_seconds, wait_seconds
        self._local = local
        self._given_client = client
        self._client: Any = client
        error = _package().ValkeyError if client is None else _base_error(client)
        self._errors: tuple[type[Exception], ...] = (error, OSError)

    @property
    def secret(self) -> Secret:
        """The signing key of snapshots."""
        return self._secret

    def __repr__(self) -> str:
        return f"<ValkeyStore {self.url!r}>"

    def __reduce__(self) -> Any:
        if self._password is not None:
            raise TypeError(
                "a password that was given as a string cannot be pickled; use the environment "
                f"variable {PASSWORD_VARIABLE} on each machine"
            )
        if self._given_client is not None:
            raise TypeError("a store with a custom client cannot be pickled")
        options = {
            "prefix": self._prefix,
            "max_bytes": self._max_bytes,
            "max_age_seconds": self._max_age,
            "lease_seconds": self._lease,
            "wait_seconds": self._wait,
            "local": self._local,
        }
        return _unpickle, (self.url, self._secret, options)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = self.url, self._prefix, self._secret
        return mine == (other.url, other._prefix, other._secret)

    def __hash__(self) -> int:
        return hash((self.url, self._prefix, self._secret))

    def close(self) -> None:
        """Close the connections; the next use connects again."""
        client, self._client = self._client, self._given_client
        if client is not None and client is not self._given_client:
            client.close()

    # -- the server --------------------------------------------------------------------------------

    def _connect(self) -> Any:
        if self._client is None:
            password = self._password or os.environ.get(PASSWORD_VARIABLE) or None
            self._client = _package().Valkey.from_url(
                self.url,
                password=password,
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
            )
        return self._client

    def _run(self, what: str, command: Callable[[Any], Any]) -> Any:
        try:
            return command(self._connect())
        except self._errors as error:
            # The texts of these errors contain host and port, but no password.
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

    def _download(self, key: str) -> memoryview | None:
        def download(client: Any) -> memoryview | None:
            text = client.get(self._name("manifest", key))
            if text is None:
                return None
            manifest = json.loads(text)
            found = bytearray(manifest["bytes"])
            at = 0
            for number in range(manifest["chunks"]):
                chunk = client.get(self._name("chunk", f"{manifest['id']}:{number}"))
                if chunk is None or at + len(chunk) > len(found):
                    return None  # replaced during the download
                found[at : at + len(chunk)] = chunk
                at += len(chunk)
            client.eval(_USE, 1, self._name("used"), key)
            return memoryview(found)

        return self._run("reading a snapshot", download)  # type: ignore[no-any-return]

    # -- building ----------------------------------------------------------------------------------

    def claim(self, key: str, *, wait: bool = True) -> LeasedClaim | None:
        """Claim the exclusive right to build for a key; see `protocol.Store`."""
        lock, token = self._name("lock", key), uuid.uuid4().hex
        ms = int(1000 * self._lease)
        if self._run("locking", lambda client: client.set(lock, token, nx=True, px=ms)):
            return LeasedClaim(
                key,
                lease_seconds=self._lease,
                put=lambda pieces: self._put(key, token, pieces),
                renew=lambda: self._renew(key, token),
                release=lambda: self._release(key, token),
            )
        if wait:
            self._run("waiting", lambda client: self._await(client, key, lock))
        return None

    def _await(self, client: Any, key: str, lock: str) -> None:
        """Wait until a lock is released or its lease expires."""
        deadline = time.monotonic() + self._wait
        with client.pubsub() as subscription:
            subscription.subscribe(self._name("done", key))
            while True:
                # Checked after subscribing, so that no release is missed.
                left = client.pttl(lock)
                now = time.monotonic()
                if left == -2:
                    return
                if now >= deadline:
                    raise StoreBusyError(
                        f"another process has been building {key} for {self._wait:.0f} s"
                    )
                timeout = min(left / 1000 + 0.01, deadline - now)
                message = subscription.get_message(timeout=timeout)
                if message is not None and message["type"] == "message":
                    return

    def _put(self, key: str, token: str, pieces: Sequence[memoryview | bytes]) -> None:
        number = uuid.uuid4().hex
        prefix = self._name("chunk", f"{number}:")

        def upload(client: Any) -> Any:
            count = total = 0
            for chunk in _chunks(pieces):
                client.set(f"{prefix}{count}", chunk, px=_UNFINISHED_MS)
                count += 1
                total += len(chunk)
            manifest = json.dumps({"id": number, "chunks": count, "bytes": total})
            keys = (
                self._name("lock", key),
                self._name("manifest", key),
                self._name("used"),
                self._name("sizes"),
            )
            snapshot = (token, manifest, prefix, count, total, key, int(1000 * self._max_age))
            limits = (int(self._max_bytes), self._name("manifest"), self._name("chunk"))
            published = client.eval(_PUBLISH, len(keys), *keys, *snapshot, *limits)
            if not published:
                client.unlink(*(f"{prefix}{at}" for at in range(count)))
            return published

        if not self._run("storing a snapshot", upload):
            raise StoreError(f"the claim of {key} was lost: its lease expired during the build")
        if self._local is not None:
            claim = self._local.claim(key, wait=False)
            if claim is not None:
                with claim:
                    claim.put(pieces)

    def _renew(self, key: str, token: str) -> bool:
        ms = int(1000 * self._lease)
        lock = self._name("lock", key)
        return bool(
            self._run("renewing a lock", lambda client: client.eval(_RENEW, 1, lock, token, ms))
        )

    def _release(self, key: str, token: str) -> None:
        lock, channel = self._name("lock", key), self._name("done", key)
        self._run("unlocking", lambda client: client.eval(_RELEASE, 1, lock, token, channel))

    def discard(self, key: str) -> bool:
        """Remove the bytes stored under a key; see `protocol.Store`."""

        def remove(client: Any) -> bool:
            text = client.get(self._name("manifest", key))
            if text is None:
                return False
            manifest = json.loads(text)
            chunks = range(manifest["chunks"])
            names = [self._name("chunk", f"{manifest['id']}:{at}") for at in chunks]
            client.hdel(self._name("sizes"), key)
            client.zrem(self._name("used"), key)
            return bool(client.unlink(self._name("manifest", key), *names))

        removed_locally = self._local is not None and self._local.discard(key)
        return bool(self._run("removing a snapshot", remove)) or removed_locally

    def clear(self) -> int:
        """
        Remove all snapshots below the prefix; builds in progress are not affected.

        Returns:
            The number of removed snapshots.
        """
        start = self._name("manifest")

        def list_keys(client: Any) -> list[str]:
            pattern = start.replace("[", "\\[").replace("*", "\\*").replace("?", "\\?") + "*"
            return [name.decode()[len(start) :] for name in client.scan_iter(pattern)]

        return sum(self.discard(key) for key in self._run("listing snapshots", list_keys))


def _chunks(pieces: Sequence[memoryview | bytes]) -> Any:
    chunk = bytearray()
    for piece in pieces:
        rest = memoryview(piece).cast("B")
        while rest.nbytes:
            space = _CHUNK_BYTES - len(chunk)
            chunk += rest[:space]
            rest = rest[space:]
            if len(chunk) == _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    if chunk:
        yield bytes(chunk)


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise TypeError(f"the URL of a store must be a str, got {type(url).__name__}")
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError as error:
        raise StoreError("the URL of a store is invalid") from error
    if password is not None:
        raise ValueError(
            "the URL of a store contains a password, which errors and logs would show: use "
            f"password= or the environment variable {PASSWORD_VARIABLE}"
        )
    if parts.scheme not in ("valkey", "valkeys", "redis", "rediss", "unix"):
        raise StoreError(
            f"the URL of a store must start with valkey://, valkeys://, redis://, rediss:// or "
            f"unix://, got {url!r}"
        )
    return url


def _package() -> Any:
    try:
        import valkey
    except ImportError as error:
        raise StoreError(
            "a ValkeyStore needs the 'valkey' extra: pip install \"warmset[valkey]\""
        ) from error
    return valkey


def _base_error(client: Any) -> type[Exception]:
    """Get the base class of the errors of a client's package, which is `valkey` or `redis`."""
    import importlib

    package = importlib.import_module(type(client).__module__.partition(".")[0])
    found = getattr(package, "ValkeyError", None) or getattr(package, "RedisError", None)
    return found if isinstance(found, type) and issubclass(found, Exception) else OSError


def _unpickle(url: str, secret: Secret, options: dict[str, Any]) -> ValkeyStore:
    return ValkeyStore(url, key=secret, **options)
