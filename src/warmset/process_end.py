"""
The end of a process, and of a registry that was dropped: what is still cached is closed.

A registry that still exists is closed when the interpreter exits, by `atexit`. A child process of
`multiprocessing` ends without that (before 3.14); there a `multiprocessing.util.Finalize` does it.
After `os._exit`, or a signal that kills, nothing runs.

An instance that was built before a fork belongs to the parent process. The end of the child leaves
it alone, since closing it could close, for both, the connection that they share.
"""

from __future__ import annotations

import atexit
import sys
from weakref import ref

from . import _fork
from .foreign import Kind, call_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Closable(Protocol):
        """A registry."""

        def close_own(self) -> None:
            """Close the registry; what belongs to the parent process is left alone."""


__all__ = ["watch"]

_END = Kind("removals", "closing a registry at the end of the process failed: %r")
_EARLY = 100  # the priority among finalisers: before the pools of `multiprocessing` end


class _End:
    """Closes the registries of this process at its end."""

    def __init__(self) -> None:
        self.registries: dict[int, ref[Any]] = {}
        self._in_child = False  # whether a finaliser of `multiprocessing` was made here
        self._prepared = False  # whether `multiprocessing` has one made in each forked child
        _fork.watch(self)

    def watch(self, registry: Closable) -> None:
        """Close a registry at the end of the process, if it still exists then."""
        known, key = self.registries, id(registry)

        def forget(reference: ref[Any]) -> None:
            if known.get(key) is reference:
                del known[key]

        known[key] = ref(registry, forget)
        self._finalise_child()

    def reset_after_fork(self) -> None:
        self._in_child = False
        util: Any = sys.modules.get("multiprocessing.util")
        # `multiprocessing` forgets all finalisers when its child begins, after this.
        if util is not None and not self._prepared:
            self._prepared = True
            util.register_after_fork(self, _End._finalise_child)

    def _finalise_child(self) -> None:
        process: Any = sys.modules.get("multiprocessing.process")
        util: Any = sys.modules.get("multiprocessing.util")
        if self._in_child or util is None or process is None or process.parent_process() is None:
            return
        self._in_child = True
        util.Finalize(None, self.close_all, exitpriority=_EARLY)

    def close_all(self) -> None:
        """Close all; an interrupt is raised when the others are closed."""
        registries = [reference() for reference in list(self.registries.values())]
        # The last one first: it may use what an earlier one has.
        call_each(_END, [each.close_own for each in reversed(registries) if each is not None])


_end = _End()
watch = _end.watch
atexit.register(_end.close_all)
