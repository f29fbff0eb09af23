"""
Expiry without traffic: one thread for the whole process, started when a registry first asks for it.

The thread refers to registries weakly, so that it keeps none alive, and ends when there are none
left. After a fork the child starts its own. It sweeps by the system's clock; what has expired is
decided by each registry's own timer.
"""

from __future__ import annotations

import atexit
import threading
import time
from weakref import WeakKeyDictionary

from .. import _fork, _logs
from ..extension import Extension

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..registry import BaseRegistry

__all__ = ["Sweeper", "Sweeping", "sweeper"]


class Sweeper:
    """Calls `sweep` of registries, each at its interval."""

    def __init__(self) -> None:
        self._intervals: WeakKeyDictionary[BaseRegistry, float] = WeakKeyDictionary()
        self._due: WeakKeyDictionary[BaseRegistry, float] = WeakKeyDictionary()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        self._changed = threading.Condition()
        self._thread = None
        if len(self._due):
            self._start()

    def add(self, registry: BaseRegistry, interval: float, *, now: float | None = None) -> None:
        """
        Sweep a registry from now on, until it is closed or gone.

        Args:
            registry: The registry.
            interval: Seconds between two sweeps.
            now: Monotonic seconds, for tests.
        """
        now = time.monotonic() if now is None else now
        with self._changed:
            self._intervals[registry] = interval
            self._due[registry] = now + interval
            self._start()
            self._changed.notify()

    def remove(self, registry: BaseRegistry) -> None:
        """Sweep a registry no more."""
        with self._changed:
            self._due.pop(registry, None)
            self._changed.notify()

    def stop(self) -> None:
        """End the thread; for the end of the process."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(5.0)

    def sweep(self, now: float) -> float | None:
        """
        Sweep what is due.

        Args:
            now: Monotonic seconds.

        Returns:
            Seconds until the next one is due; None if there is none.
        """
        with self._changed:
            due = [registry for registry, when in self._due.items() if when <= now]
        while due:
            registry = due.pop()
            _sweep_one(registry)
            with self._changed:
                if registry in self._due:
                    self._due[registry] = now + self._intervals[registry]
            del registry  # not kept while the thread waits
        with self._changed:
            return min((when - now for when in self._due.values()), default=None)

    def _start(self) -> None:
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._run, name="warmset-sweeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            wait = self.sweep(time.monotonic())
            with self._changed:
                if self._stopping or not len(self._due):
                    self._thread = None
                    return
                if wait is not None and wait > 0.0:
                    self._changed.wait(wait)


def _sweep_one(registry: BaseRegistry) -> None:
    try:
        registry.sweep()
    except Exception as error:
        _logs.warning(
            "sweeper",
            "sweeping %r failed",
            registry,
            fields={"error_type": type(error).__qualname__},
            error=error,
        )


class Sweeping(Extension):
    """
    Has one registry swept.

    Args:
        registry: The registry.
        interval: Seconds between two sweeps.
    """

    def __init__(self, registry: BaseRegistry, interval: float) -> None:
        sweeper.add(registry, interval)

    def close(self, registry: BaseRegistry) -> None:
        sweeper.remove(registry)


sweeper = Sweeper()
atexit.register(sweeper.stop)
