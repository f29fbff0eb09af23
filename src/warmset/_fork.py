"""
What has to be reset in a child process.

After ``fork`` only the forking thread exists: locks that other threads held stay locked for ever,
their builds never end, and a new thread may get the number of one of them. The owners of such
things are watched, weakly, and reset in two passes:

1. `reset_after_fork` of every owner: locks, tables by thread, services. It runs no foreign code and
   starts no thread.
2. `resume_after_fork` of those that have it: builds, threads. By then everything can be used.
"""

from __future__ import annotations

import os
import sys
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class ForkAware(Protocol):
        """Has something to reset in a child process."""

        def reset_after_fork(self) -> None: ...


# By id, in the order in which they were watched; each step is one operation on a dict, so that a
# fork in the middle of one leaves nothing half done.
_watched: dict[int, ref[Any]] = {}


def watch(owner: ForkAware) -> None:
    """Reset an owner in each child process, while the owner lives."""
    key = id(owner)

    def forget(reference: ref[Any]) -> None:
        if _watched.get(key) is reference:
            _watched.pop(key, None)

    _watched[key] = ref(owner, forget)


def _reset_watched() -> None:
    owners = [owner for reference in list(_watched.values()) if (owner := reference()) is not None]
    for step in ("reset_after_fork", "resume_after_fork"):
        for owner in owners:
            call = getattr(owner, step, None)
            if call is not None:
                _contain(call)


def _contain(call: Any) -> None:
    """Call a step; an error of one owner does not keep the others from being reset."""
    try:
        call()
    except BaseException:
        sys.excepthook(*sys.exc_info())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_watched)
