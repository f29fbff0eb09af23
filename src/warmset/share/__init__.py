"""What reaches beyond one process: snapshots that others open, and a budget for a whole host."""

from .directory import DirectoryStore
from .errors import StoreBusyError, StoreError, StoreRefusedError
from .sharing import SnapshotStats

__all__ = ["DirectoryStore", "SnapshotStats", "StoreBusyError", "StoreError", "StoreRefusedError"]
