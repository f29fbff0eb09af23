"""
Locks that no thread keeps while it waits for another thread.

A finaliser or a signal handler runs in whatever its thread is in the middle of, with the locks that
it has. If such code waited for another thread, and that one for the lock, both would wait for ever.
So locks are made here, and code that is about to wait asks whether its thread has one of them.
"""

from __future__ import annotations

from _thread import RLock
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["is_inside_lock", "make_lock"]

_locks: dict[int, ref[Any]] = {}


def make_lock() -> Any:
    """Return a lock; it is re-entrant: a finaliser may need what its own thread has locked."""
    lock = RLock()
    key = id(lock)
    _locks[key] = ref(lock, lambda _: _locks.pop(key, None))
    return lock


def is_inside_lock() -> bool:
    """Whether the calling thread has one of these locks."""
    for reference in list(_locks.values()):
        lock = reference()
        if lock is not None and lock._is_owned():
            return True
    return False
