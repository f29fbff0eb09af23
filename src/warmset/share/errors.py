"""What can go wrong with a store of snapshots."""

from __future__ import annotations

__all__ = ["DamagedError", "StoreBusyError", "StoreError", "StoreRefusedError"]


class StoreError(RuntimeError):
    """A store cannot be used, or not just now; the text says why and what to do."""


class StoreRefusedError(StoreError):
    """A store is not trusted: who could write into it could run code in this process."""


class StoreBusyError(StoreError):
    """Another process has been building for longer than one was willing to wait."""


class DamagedError(StoreError):
    """What a store gave is cut short, altered, signed by another key, or none of ours."""
