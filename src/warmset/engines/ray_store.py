"""
Snapshots in the object store of a Ray cluster: one physical copy for all workers of a node.

An actor, the index, knows which key is which object, and owns the objects, so that they outlive the
worker that built them. It also gives the claims to build.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from ..share.errors import StoreBusyError, StoreError
from ..share.leases import LeasedClaim
from ..share.protocol import Blob
from ..share.secret import Secret, secret_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..share.secret import AnyPath

__all__ = ["RayStore"]

_NAMESPACE = "warmset"
_ANSWER_SECONDS = 60.0


class _Index:
    """
    Which key is which object, who may build, and who waits. It runs as an asynchronous actor: one
    method at a time, up to an `await`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._objects: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # used last: at the end
        self._claims: dict[str, tuple[str, float]] = {}  # key -> token, until when
        self._changed = asyncio.Condition()

    async def ready(self) -> bool:
        return True

    async def find(self, key: str) -> list[Any] | None:
        found = self._objects.get(key)
        if found is None:
            return None
        self._objects.move_to_end(key)
        return [found[0]]  # in a list a reference stays a reference

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
        """Whether nobody builds for a key any more, after at most some seconds."""
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
                except asyncio.TimeoutError:  # the built-in one only since 3.11
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
    Keeps snapshots in the object store of the Ray cluster that the process has joined.

    Args:
        name: Of the index; stores of the same name are one.
        key: What snapshots are signed with, or by `key_file`, or by the environment variable
            ``WARMSET_STORE_KEY``. There need be none: who can write into the cluster's object store
            can run code on its workers anyway.
        key_file: A file that holds the key.
        max_bytes: How much is kept at most, least recently used leaves first; 0: no bound. The
            store that is made first says. Ray spills to disk what does not fit into its memory.
        lease_seconds: For how long a builder that is not heard of keeps its claim; it is renewed by
            a thread while it builds.
        wait_seconds: How long to wait while another worker builds, before building all the same.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: A number is out of range.

    It looks for the index at first use. Safe under threads; picklable.
    """

    def __init__(
        self,
        name: str = "snapshots",
        *,
        key: bytes | str | Secret | None = None,
        key_file: AnyPath | None = None,
        max_bytes: int = 0,
        lease_seconds: float = 30.0,
        wait_seconds: float = 600.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a store must be a non-empty str, got {name!r}")
        for option, value, least in (
            ("max_bytes", max_bytes, 0.0),
            ("lease_seconds", lease_seconds, 0.1),
            ("wait_seconds", wait_seconds, 0.0),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{option} must be a number, got {value!r}")
            if not value >= least:
                raise ValueError(f"{option} must be {least:g} or more, got {value!r}")
        self.name = name
        self._secret = secret_from(key, key_file)
        self._max_bytes = max_bytes
        self._lease, self._wait = lease_seconds, wait_seconds
        self._index: Any = None

    @property
    def secret(self) -> Secret | None:
        """What snapshots are signed with; None where the cluster is trusted."""
        return self._secret

    def __repr__(self) -> str:
        return f"<RayStore {self.name!r}>"

    def __reduce__(self) -> Any:
        options = {
            "max_bytes": self._max_bytes,
            "lease_seconds": self._lease,
            "wait_seconds": self._wait,
        }
        return _reopened, (self.name, self._secret, options)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.name, self._secret) == (other.name, other._secret)

    def __hash__(self) -> int:
        return hash((self.name, self._secret))

    def _ask(self, method: str, *arguments: Any, seconds: float = _ANSWER_SECONDS) -> Any:
        try:
            if self._index is None:
                # Detached: it is not to end with the worker that came first.
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
            self._index = None  # another one may be there by the next time
            raise StoreError(
                f"the index of store {self.name!r} cannot be asked: {error}"
            ) from error

    def fetch(self, key: str) -> Blob | None:
        """Give what is kept under a key; see `share.protocol.Store`. It is not copied."""
        found = self._ask("find", key)
        if found is None:
            return None
        try:
            return Blob(memoryview(ray.get(found[0], timeout=_ANSWER_SECONDS)), shared=True)
        except ray.exceptions.RayError:  # it was lost, with its node or with the index
            return None

    def claim(self, key: str, *, wait: bool = True) -> LeasedClaim | None:
        """Claim the right to build for a key; see `share.protocol.Store`."""
        token = uuid.uuid4().hex
        if self._ask("claim", key, token, self._lease):
            return LeasedClaim(
                key,
                lease_seconds=self._lease,
                put=lambda pieces: self._put(key, token, pieces),
                renew=lambda: bool(self._ask("renew", key, token, self._lease)),
                release=lambda: self._ask("release", key, token),
            )
        if wait and not self._ask("wait", key, self._wait, seconds=self._wait + _ANSWER_SECONDS):
            raise StoreBusyError(f"another worker has been building {key} for {self._wait:.0f} s")
        return None

    def _put(self, key: str, token: str, pieces: Sequence[memoryview | bytes]) -> None:
        content = np.empty(sum(memoryview(piece).nbytes for piece in pieces), dtype=np.uint8)
        at = 0
        for piece in pieces:
            flat = np.frombuffer(piece, dtype=np.uint8)
            content[at : at + flat.nbytes] = flat
            at += flat.nbytes
        if not self._ask("put", key, token, content):
            raise StoreError(f"the claim of {key} was lost: its lease ran out while it was built")

    def discard(self, key: str) -> bool:
        """Keep nothing under a key any more; see `share.protocol.Store`."""
        return bool(self._ask("discard", key))

    def clear(self) -> int:
        """
        Keep nothing at all any more; builds that are under way go on.

        Returns:
            How many snapshots were removed.
        """
        return sum(self.discard(key) for key in self._ask("keys"))

    def destroy(self) -> None:
        """End the index, and with it all that is kept."""
        self._ask("ready")
        ray.kill(self._index)
        self._index = None


def _reopened(name: str, secret: Secret | None, options: dict[str, Any]) -> RayStore:
    return RayStore(name, key=secret, **options)
