"""
A claim that ends by itself when its holder is not heard of any more.

While it is held, a thread renews it. In a forked child there is no such thread, and the claim is
the parent's.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LeasedClaim"]

_JOIN_SECONDS = 5.0


class LeasedClaim:
    """
    The right to build for a key, see `protocol.Claim`.

    Args:
        key: The key.
        lease_seconds: For how long it stands without being renewed.
        put: Keeps bytes, if the claim still stands.
        renew: Lets it stand for as long again; whether it still stood.
        release: Gives it back.
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
            target=self._go_on, name=f"warmset-lease-{key[-8:]}", daemon=True
        )
        self._thread.start()

    def _go_on(self) -> None:
        while not self._ended.wait(self._lease / 3):
            with suppress(StoreError):  # it may be heard of again before the lease has run out
                if not self._renew():
                    return  # lost; whoever builds is told when it wants to store

    def put(self, pieces: Sequence[memoryview | bytes]) -> None:
        """Keep bytes under the key; see `protocol.Claim`."""
        if self._ended.is_set() or os.getpid() != self._process:
            raise StoreError(f"the claim of {self._key} was given back, or is another process's")
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
        self._thread.join(_JOIN_SECONDS)  # it may be asking just now, and is not to ask any more
        with suppress(StoreError):  # else it ends with its lease
            self._release()
