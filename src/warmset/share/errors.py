"""Errors of snapshot stores."""

from __future__ import annotations

__all__ = ["DamagedError", "StoreBusyError", "StoreError", "StoreRefusedError"]


class StoreError(RuntimeError):
    """A store is unavailable or unusable; the text says why and what to do."""


class StoreRefusedError(StoreError):
    """A store is not trusted: other users could write to it and so run code in this process."""


class StoreBusyError(StoreError):
    """Another process has been building for longer than `wait_seconds`."""


class DamagedError(StoreError):
    """Stored bytes are truncated, altered, signed with another key, or not a snapshot."""
