"""
The protocol of snapshot stores.

A store keeps bytes, without knowing their contents or verifying them: `envelope` does that with the
store's secret. A store also lets only one process at a time build for a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Protocol

    from typing_extensions import Self

    from .secret import Secret

    class Claim(Protocol):
        """The exclusive right to build for a key; leaving its ``with`` block releases it."""

        def put(self, pieces: Sequence[memoryview | bytes]) -> None:
            """
            Store bytes under the key, replacing those stored before in one step.

            Args:
                pieces: The bytes, in consecutive pieces; the store retains no reference to them.

            Raises:
                StoreError: The bytes could not be stored, or the claim was lost.
            """
            ...

        def __enter__(self) -> Self: ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...

    class Store(Protocol):
        """Keeps snapshots. Safe under threads and after a fork; picklable."""

        @property
        def secret(self) -> Secret | None:
            """The signing key of its snapshots; None if all who can write to it are trusted."""
            ...

        def fetch(self, key: str) -> Blob | None:
            """
            Get the bytes stored under a key, and record the use.

            Args:
                key: At most 200 letters, digits, dots, hyphens and underscores.

            Returns:
                The bytes; None if there are none.

            Raises:
                StoreError: The store cannot be used.
            """
            ...

        def claim(self, key: str, *, wait: bool = True) -> Claim | None:
            """
            Claim the exclusive right to build for a key.

            Args:
                key: As for `fetch`.
                wait: Whether to wait while another process builds.

            Returns:
                The claim; None if another process had it. With `wait`, that process has finished;
                otherwise it may still be building.

            Raises:
                StoreBusyError: Another process builds for longer than the store's `wait_seconds`.
                StoreError: The store cannot be used.
            """
            ...

        def discard(self, key: str) -> bool:
            """
            Remove the bytes stored under a key.

            Returns:
                Whether there were any.

            Raises:
                StoreError: The store cannot be used.
            """
            ...


class Blob(NamedTuple):
    """Bytes from a store."""

    view: memoryview
    """The bytes; later changes of the store do not affect them. If the view is writable, writes
    are private to this process."""
    shared: bool
    """Whether all processes that fetch the bytes share one physical copy."""
