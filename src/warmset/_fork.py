"""
What has to be made anew in a child process.

After ``fork`` only the forking thread exists: locks that others held stay locked for ever, and
builds that others were at never end. Objects that own such things are watched, weakly, and told.
"""

from __future__ import annotations

import os
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class ForkAware(Protocol):
        """Has something to make anew in a child process."""

        def _reset_after_fork(self) -> None: ...


_watched: WeakSet[ForkAware] = WeakSet()


def watch(owner: ForkAware) -> None:
    """Call ``owner._reset_after_fork()`` in each child process, while the owner lives."""
    _watched.add(owner)


def _reset_watched() -> None:
    for owner in list(_watched):
        owner._reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_watched)
