"""Addresses of stores, as used in settings files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    from .protocol import Store

__all__ = ["open_store"]


def open_store(text: str) -> Store:
    """
    Open the store at an address.

    Args:
        text: The path of a directory, or a URL such as ``valkey://host:6379/0``. The signing key
            comes from the environment variable ``WARMSET_STORE_KEY``.

    Returns:
        The store.

    Raises:
        StoreError: The store cannot be used, or no kind of store has such addresses.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        from .directory import DirectoryStore

        return DirectoryStore(text)
    if scheme in ("valkey", "valkeys", "redis", "rediss", "unix"):
        from .valkey import ValkeyStore

        return ValkeyStore(text)
    raise StoreError(
        f"unknown kind of store: {scheme}://; expected the path of a directory, or "
        "valkey://, valkeys://, redis://, rediss:// or unix://"
    )
