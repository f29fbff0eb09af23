"""
What has to be reset in a child process.

After ``fork`` only the forking thread exists: locks that other threads held stay locked for ever,
and their builds never end. The owners of such things are watched, weakly, and reset.
"""

from __future__ import annotations

import os
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class ForkAware(Protocol):
        """Has something to reset in a child process."""

        def reset_after_fork(self) -> None: ...


_watched: WeakSet[ForkAware] = WeakSet()


def watch(owner: ForkAware) -> None:
    """Call ``owner.reset_after_fork()`` in each child process, while the owner lives."""
    _watched.add(owner)


def _reset_watched() -> None:
    for owner in list(_watched):
        owner.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_watched)
