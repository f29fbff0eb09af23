"""The exclusive right to build for a key of a directory store: a file lock."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import _fork
from .errors import StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["FileClaim"]


class FileClaim:
    """
    The exclusive right to build for a key, freed by the kernel on exit; see `protocol.Claim`.

    Args:
        key: The key.
        file: The locked file.
        put: Stores bytes under the key.
        remove: Removes the locked file.
    """

    def __init__(
        self,
        key: str,
        file: int,
        put: Callable[[str, Sequence[memoryview | bytes]], object],
        remove: Callable[[str, int], object],
    ) -> None:
        self._key = key
        self._file = file
        self._put, self._remove = put, remove
        _claims.add(self)

    def put(self, pieces: Sequence[memoryview | bytes]) -> None:
        """Store bytes under the key; see `protocol.Claim`."""
        if self._file < 0:
            raise StoreError(f"the claim of {self._key} was released or is another process's")
        self._put(self._key, pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        file, self._file = self._file, -1
        _claims.discard(self)
        if file < 0:
            return
        try:
            # Removed while locked: whoever locks it later sees that it was removed.
            with suppress(OSError, StoreError):
                self._remove(self._key, file)
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            os.close(file)

    def abandon(self) -> None:
        """Close the file in a forked child; the claim remains the parent's."""
        # Parent and child share the lock: the child closes its descriptor without unlocking, so
        # that the lock ends with the parent's claim or with the parent.
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class _Claims:
    """All claims of this process, which its forked children abandon."""

    def __init__(self) -> None:
        self._held: set[FileClaim] = set()
        _fork.watch(self)

    def add(self, claim: FileClaim) -> None:
        self._held.add(claim)

    def discard(self, claim: FileClaim) -> None:
        self._held.discard(claim)

    def reset_after_fork(self) -> None:
        held, self._held = self._held, set()
        for claim in held:
            claim.abandon()


_claims = _Claims()
