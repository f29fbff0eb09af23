"""
A claim with a lease: it expires unless it is renewed.

A thread renews it while it is held. It does not refer to the claim, so that one that is dropped
without an exit, as by an interrupt, is renewed no more. A forked child does not have that thread:
the claim remains the parent's.
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
        self._put, self._release = put, release
        self._process = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=_keep_renewing,
            args=(self._ended, lease_seconds / 3, renew),
            name=f"warmset-lease-{key[-8:]}",
            daemon=True,
        )
        start_thread(self._thread)

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

    def __del__(self) -> None:
        # The lease expires by itself: a finaliser does not talk to a server.
        ended = getattr(self, "_ended", None)
        if ended is not None:
            ended.set()


def _keep_renewing(ended: threading.Event, seconds: float, renew: Callable[[], bool]) -> None:
    while not ended.wait(seconds):
        with suppress(StoreError):  # the store may be back before the lease expires
            if not renew():
                return  # lost: `put` raises
