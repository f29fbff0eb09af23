"""
What a store of snapshots has to offer.

A store moves bytes: it neither knows what is in them nor whether they can be trusted, which
`sealing` tells by the store's secret. And it lets one process at a time build for a key.
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
        """The right to build for a key; given back by leaving its ``with`` block."""

        def put(self, pieces: Sequence[memoryview | bytes]) -> None:
            """
            Keep bytes under the key, in place of what was there, in one step.

            Args:
                pieces: One after another; they are not kept.

            Raises:
                StoreError: They could not be kept, or the claim was lost meanwhile.
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
        """Keeps snapshots. Safe under threads, and after a fork; picklable."""

        @property
        def secret(self) -> Secret | None:
            """What its snapshots are signed with; None where who can write it is trusted."""
            ...

        def fetch(self, key: str) -> Blob | None:
            """
            Give what is kept under a key, and note that it was used.

            Args:
                key: Letters, digits, dots, hyphens and underscores, at most 200.

            Returns:
                The bytes; None if there are none.

            Raises:
                StoreError: The store cannot be used.
            """
            ...

        def claim(self, key: str, *, wait: bool = True) -> Claim | None:
            """
            Claim the right to build for a key.

            Args:
                key: As for `fetch`.
                wait: Whether to wait while another one builds.

            Returns:
                The claim; None if another one had it: it has ended by now, or, where `wait` is
                false, is at it.

            Raises:
                StoreBusyError: Another one builds for longer than the store's `wait_seconds`.
                StoreError: The store cannot be used.
            """
            ...

        def discard(self, key: str) -> bool:
            """
            Keep nothing under a key any more.

            Returns:
                Whether there was something.

            Raises:
                StoreError: The store cannot be used.
            """
            ...


class Blob(NamedTuple):
    """Bytes that a store keeps."""

    view: memoryview
    """They do not change any more, whatever happens to the store. Where it is not read-only, what
    is written to it is this process's own."""
    shared: bool
    """Whether they are one physical copy for all processes that fetch them."""
