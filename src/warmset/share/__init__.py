"""Sharing between processes: snapshots of instances, and a memory budget for a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .directory import DirectoryStore
from .errors import StoreBusyError, StoreError, StoreRefusedError
from .host import HostBudget
from .sharing import SnapshotStats

if TYPE_CHECKING:
    from .valkey import ValkeyStore

__all__ = [
    "DirectoryStore",
    "HostBudget",
    "SnapshotStats",
    "StoreBusyError",
    "StoreError",
    "StoreRefusedError",
    "ValkeyStore",
]


def __getattr__(name: str) -> Any:
    # Imported at first use: a directory store needs no server client.
    if name == "ValkeyStore":
        from .valkey import ValkeyStore

        return ValkeyStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
