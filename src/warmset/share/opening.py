"""From what stands in a settings file to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    from .protocol import Store

__all__ = ["open_store"]


def open_store(text: str) -> Store:
    """
    Make a store of its address.

    Args:
        text: The path of a directory, or a URL such as ``valkey://host:6379/0``. A key is taken
            from the environment variable ``WARMSET_STORE_KEY``.

    Returns:
        The store.

    Raises:
        StoreError: It cannot be used, or there is no such kind of store.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        from .directory import DirectoryStore

        return DirectoryStore(text)
    if scheme in ("valkey", "valkeys", "redis", "rediss", "unix"):
        from .valkey import ValkeyStore

        return ValkeyStore(text)
    raise StoreError(
        f"no store has addresses that begin with {scheme}://; expected the path of a directory, or "
        "valkey://, valkeys://, redis://, rediss:// or unix://"
    )
