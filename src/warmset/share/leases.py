"""
A claim with a lease: it expires unless it is renewed.

A thread renews it while it is held. A forked child does not have that thread: the claim remains the
parent's.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .._locks import start_thread
from .errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LeasedClaim"]

_JOIN_SECONDS = 5.0


class LeasedClaim:
    """
    The exclusive right to build for a key; see `protocol.Claim`.

    Args:
        key: The key.
        lease_seconds: The time after which the claim expires unless it is renewed.
        put: Stores bytes if the claim is valid.
        renew: Extends the lease; returns whether the claim was still valid.
        release: Gives the claim back.
    """

    def __init__(
        self,
        key: str,
        *,
        lease_seconds: float,
        put: Callable[[Sequence[memoryview | bytes]], object],
        renew: Callable[[], bool],
        release: Callable[[], object],
    ) -> None:
        self._key = key
        self._lease = lease_seconds
        self._put, self._renew, self._release = put, renew, release
        self._process = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_renewing, name=f"warmset-lease-{key[-8:]}", daemon=True
        )
        start_thread(self._thread)

    def _keep_renewing(self) -> None:
        while not self._ended.wait(self._lease / 3):
            with suppress(StoreError):  # the store may be back before the lease expires
                if not self._renew():
                    return  # lost: `put` raises

    def put(self, pieces: Sequence[memoryview | bytes]) -> None:
        """Store bytes under the key; see `protocol.Claim`."""
        if self._ended.is_set() or os.getpid() != self._process:
            raise StoreError(f"the claim of {self._key} was released or is another process's")
        self._put(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ended.is_set() or os.getpid() != self._process:
            return
        self._ended.set()
        self._thread.join(_JOIN_SECONDS)  # it must not renew after the release
        with suppress(StoreError):  # the lease expires in any case
            self._release()
