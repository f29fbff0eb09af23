"""
Snapshots in the object store of a Ray cluster: one physical copy for all workers of a node.

An actor, the index, maps keys to objects and owns the objects, so that they outlive the worker that
built them. It also grants the claims to build.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from ..share.checks import check_numbers, check_version
from ..share.errors import DamagedError, StoreBusyError, StoreError
from ..share.leases import LeasedClaim
from ..share.protocol import Blob
from ..share.secret import Secret, secrets_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..share.secret import AnyKey, AnyPath

__all__ = ["RayStore"]

_NAMESPACE = "warmset"
_ANSWER_SECONDS = 60.0


class _Index:
    """
    The objects by key, the claims to build, and the waiters.

    Runs as an asynchronous actor: its methods interleave only at an `await`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._objects: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # most recently used last
        self._claims: dict[str, tuple[str, float]] = {}  # key -> token and expiry
        self._changed = asyncio.Condition()

    async def ready(self) -> bool:
        return True

    async def find(self, key: str) -> list[Any] | None:
        found = self._objects.get(key)
        if found is None:
            return None
        self._objects.move_to_end(key)
        return [found[0]]  # Ray does not resolve a reference inside a list

    async def claim(self, key: str, token: str, lease_seconds: float) -> bool:
        held = self._claims.get(key)
        if held is not None and time.monotonic() < held[1]:
            return False
        self._claims[key] = token, time.monotonic() + lease_seconds
        return True

    async def renew(self, key: str, token: str, lease_seconds: float) -> bool:
        if self._claims.get(key, ("",))[0] != token:
            return False
        self._claims[key] = token, time.monotonic() + lease_seconds
        return True

    async def release(self, key: str, token: str) -> None:
        if self._claims.get(key, ("",))[0] == token:
            del self._claims[key]
            async with self._changed:
                self._changed.notify_all()

    async def wait(self, key: str, seconds: float) -> bool:
        """Wait until the claim of a key has ended; False if that takes too long."""
        until = time.monotonic() + seconds
        async with self._changed:
            while True:
                held = self._claims.get(key)
                now = time.monotonic()
                if held is None or held[1] <= now:
                    return True
                if now >= until:
                    return False
                try:
                    await asyncio.wait_for(self._changed.wait(), min(held[1], until) - now)
                except asyncio.TimeoutError:  # an alias of the built-in TimeoutError since 3.11
                    continue

    async def put(self, key: str, token: str, content: Any) -> bool:
        held = self._claims.get(key)
        if held is None or held[0] != token or held[1] <= time.monotonic():
            return False
        self._objects.pop(key, None)
        self._objects[key] = ray.put(content), content.nbytes
        total = sum(size for _, size in self._objects.values())
        for other in list(self._objects):
            if not self._max_bytes or total <= self._max_bytes or other == key:
                break
            total -= self._objects.pop(other)[1]
        return True

    async def discard(self, key: str) -> bool:
        return self._objects.pop(key, None) is not None

    async def keys(self) -> list[str]:
        return list(self._objects)


class RayStore:
    """
    A store of snapshots in the object store of the Ray cluster that the process has joined.

    Args:
        name: The name of the index; stores with the same name share their content.
        key: The key for signing snapshots. It can also come from `key_file` or from the environment
            variable ``WARMSET_STORE_KEY``. It is optional, because anybody who can write to the
            object store of the cluster can run code on its workers anyway.
        keys: Several keys, to replace one: the first signs, and all are accepted.
        key_file: A file that contains the key.
        version: Snapshots of another version are not found. A new version therefore rejects all
            snapshots that were made before.
        max_bytes: The maximum total size; the least recently used snapshots are evicted first. 0
            means no bound. The value of the first store with this name applies. Ray spills objects
            that do not fit into its memory to disk.
        max_snapshot_bytes: The size of the largest snapshot that is stored or opened.
        max_age_seconds: The maximum age of a snapshot when it is opened; 0: unlimited.
        lease_seconds: The lifetime of a claim. A thread renews it during a build, so it expires
            only if the builder dies or hangs.
        wait_seconds: The maximum time to wait for a build on another worker.

    Raises:
        StoreRefusedError: Other users can read or replace the key file.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range, or the key is too short.

    Connects to the index on first use. Thread-safe and picklable.
    """

    def __init__(
        self,
        name: str = "snapshots",
        *,
        key: AnyKey | None = None,
        keys: Sequence[AnyKey] | None = None,
        key_file: AnyPath | None = None,
        version: str = "",
        max_bytes: int = 0,
        max_snapshot_bytes: int = 10_000_000_000,
        max_age_seconds: float = 30 * 86400.0,
        lease_seconds: float = 30.0,
        wait_seconds: float = 600.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a store must be a non-empty str, got {name!r}")
        check_numbers(
            max_bytes=(max_bytes, 0),
            max_snapshot_bytes=(max_snapshot_bytes, 1),
            max_age_seconds=(max_age_seconds, 0),
            lease_seconds=(lease_seconds, 0.1),
            wait_seconds=(wait_seconds, 0),
        )
        self.name = name
        self.version = check_version(version)
        self.max_age_seconds = max_age_seconds
        self._secrets = secrets_from(key, key_file, keys)
        self._max_bytes, self._max_snapshot_bytes = max_bytes, max_snapshot_bytes
        self._lease, self._wait = lease_seconds, wait_seconds
        self._index: Any = None

    @property
    def secret(self) -> Secret | None:
        """The key for signing snapshots; None if snapshots are not signed."""
        return self._secrets[0] if self._secrets else None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The signing key, and the other keys that are accepted."""
        return self._secrets

    def __repr__(self) -> str:
        return f"<RayStore {self.name!r}>"

    def __reduce__(self) -> Any:
        options = {
            "version": self.version,
            "max_bytes": self._max_bytes,
            "max_snapshot_bytes": self._max_snapshot_bytes,
            "max_age_seconds": self.max_age_seconds,
            "lease_seconds": self._lease,
            "wait_seconds": self._wait,
        }
        return _reopen, (self.name, self._secrets, options)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = self.name, self._secrets, self.version
        return mine == (other.name, other._secrets, other.version)

    def __hash__(self) -> int:
        return hash((self.name, self._secrets, self.version))

    def _request(self, method: str, *arguments: Any, seconds: float = _ANSWER_SECONDS) -> Any:
        try:
            if self._index is None:
                # Detached, so that it does not end with the worker that created it.
                index = ray.remote(_Index).options(
                    name=f"warmset-{self.name}",
                    namespace=_NAMESPACE,
                    get_if_exists=True,
                    lifetime="detached",
                    num_cpus=0,
                    max_concurrency=1000,
                )
                self._index = index.remote(self._max_bytes)
            return ray.get(getattr(self._index, method).remote(*arguments), timeout=seconds)
        except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
            self._index = None  # connect anew at the next request
            raise StoreError(f"cannot reach the index of store {self.name!r}: {error}") from error

    def fetch(self, key: str) -> Blob | None:
        """Return the snapshot of a key without copying it; see `share.protocol.Store`."""
        found = self._request("find", key)
        if found is None:
            return None
        try:
            view = memoryview(ray.get(found[0], timeout=_ANSWER_SECONDS))
        except ray.exceptions.RayError:  # the object was lost with its node or with the index
            return None
        if view.nbytes > self._max_snapshot_bytes:
            raise DamagedError(f"it has {view.nbytes} bytes, more than max_snapshot_bytes")
        return Blob(view, shared=True)

    def claim(self, key: str, *, wait: bool = True) -> LeasedClaim | None:
        """Claim the right to build for a key; see `share.protocol.Store`."""
        token = uuid.uuid4().hex
        if self._request("claim", key, token, self._lease):
            return LeasedClaim(
                key,
                lease_seconds=self._lease,
                put=lambda pieces: self._put(key, token, pieces),
                renew=lambda: bool(self._request("renew", key, token, self._lease)),
                release=lambda: self._request("release", key, token),
            )
        if wait and not self._request(
            "wait", key, self._wait, seconds=self._wait + _ANSWER_SECONDS
        ):
            raise StoreBusyError(f"another worker has been building {key} for {self._wait:.0f} s")
        return None

    def _put(self, key: str, token: str, pieces: Sequence[memoryview | bytes]) -> None:
        size = sum(memoryview(piece).nbytes for piece in pieces)
        if size > self._max_snapshot_bytes:
            raise StoreError(f"it has {size} bytes, more than max_snapshot_bytes")
        content = np.empty(size, dtype=np.uint8)
        at = 0
        for piece in pieces:
            flat = np.frombuffer(piece, dtype=np.uint8)
            content[at : at + flat.nbytes] = flat
            at += flat.nbytes
        if not self._request("put", key, token, content):
            raise StoreError(f"the claim of {key} was lost: its lease expired during the build")

    def discard(self, key: str) -> bool:
        """Remove the snapshot of a key; see `share.protocol.Store`."""
        return bool(self._request("discard", key))

    def clear(self) -> int:
        """
        Remove all snapshots; builds in progress continue.

        Returns:
            The number of removed snapshots.
        """
        return sum(self.discard(key) for key in self._request("keys"))

    def destroy(self) -> None:
        """Stop the index and remove all snapshots."""
        self._request("ready")
        ray.kill(self._index)
        self._index = None


def _reopen(name: str, secrets: tuple[Secret, ...], options: dict[str, Any]) -> RayStore:
    return RayStore(name, keys=secrets, **options)
