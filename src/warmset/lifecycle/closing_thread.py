"""
Closing in the background: a thread runs closers that may take long, so that nobody waits for them.

The process of a `subprocess.Popen` and the threads of a pool are waited for when they are closed,
and by default that is the caller whose look-up evicts the instance. An entry that waits for the
thread is in the state "waiting". The thread is started when there is something to close, and ends
when there is not. If too much is waiting, or no thread can be started, the caller closes.
"""

from __future__ import annotations

from collections import deque

from .. import _logs
from ..closing import close_entry
from ..extension import Extension
from .services import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._core import Entry
    from ..registry import BaseRegistry

__all__ = ["ClosingThread"]

_MOST_WAITING = 1_000  # entries; beyond these, the caller closes
_JOIN_SECONDS = 30.0


class ClosingThread(Extension):
    """
    Closes the removed instances of one registry.

    Args:
        registry: The registry; its entries are closed here from now on.
    """

    def __init__(self, registry: BaseRegistry) -> None:
        # The registry is kept only while something of it waits.
        self._waiting: deque[tuple[BaseRegistry, Entry]] = deque()
        self._service = Service("warmset-closer", self._close_next)
        registry.close_entry = self.close_later

    def close_later(self, registry: BaseRegistry, entry: Entry) -> None:
        """Have the thread close an entry; a closed registry, which nobody uses, closes here."""
        if registry.closed or len(self._waiting) >= _MOST_WAITING:
            close_entry(registry, entry)
            return
        self._waiting.append((registry, entry))
        self._service.wake()
        while self._waiting and not self._service.is_running:  # no thread can be started
            self._close_next()

    def _close_next(self) -> float | None:
        """Close the entry that has waited longest; a step of the thread."""
        try:
            registry, entry = self._waiting.popleft()
        except IndexError:
            return None
        close_entry(registry, entry)
        return 0.0

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything that waited is closed; return whether it is."""
        return self._service.join(timeout_seconds)

    def after_fork(self, registry: BaseRegistry) -> None:
        self._service.reset_after_fork()
        # What waits is the parent's; the registry has seen to that.
        self._waiting = deque()

    def close(self, registry: BaseRegistry) -> None:
        if self.wait(_JOIN_SECONDS):
            while self._waiting:  # the thread could not be started
                self._close_next()
            return
        if self._service.is_current:
            return  # a closer closes the registry; the thread goes on after it
        _logs.warning(
            "removals",
            "closing the registry did not wait longer than %.0f s for its closing thread; %d "
            "instances are waiting",
            _JOIN_SECONDS,
            len(self._waiting) + 1,
            fields={"waiting": len(self._waiting) + 1},
        )
