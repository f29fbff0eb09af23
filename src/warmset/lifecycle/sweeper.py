"""
Expiry without traffic: one thread for the whole process, started when a registry first asks for it.

The thread refers to registries weakly, so that it keeps none alive, and ends when there are none
left. After a fork the child starts its own. It sweeps by the system's clock; what has expired is
decided by each registry's own timer.
"""

from __future__ import annotations

import atexit
import time
from weakref import ref

from .. import _fork
from ..extension import Extension
from ..foreign import Kind, contain
from .services import Service, count_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..registry import BaseRegistry

__all__ = ["Sweeper", "Sweeping", "sweeper"]

_SWEEP = Kind("sweeper", "sweeping %r failed", interrupts=False)
_FAILED = object()


class _Swept:
    """A registry that is swept, its interval, and when it is due."""

    __slots__ = ("due", "interval", "registry")

    def __init__(self, registry: ref[BaseRegistry], interval: float, due: float) -> None:
        self.registry = registry
        self.interval = interval
        self.due = due


class Sweeper:
    """Calls `sweep` of registries, each at its interval."""

    def __init__(self) -> None:
        self._swept: dict[int, _Swept] = {}  # by the id of the registry
        self.service = Service("warmset-sweeper", self._step)
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        self.service.reset_after_fork()

    def resume_after_fork(self) -> None:
        if self._swept:
            self.service.wake()

    def add(self, registry: BaseRegistry, interval: float, *, now: float | None = None) -> None:
        """
        Sweep a registry from now on, until it is closed or gone.

        Args:
            registry: The registry.
            interval: Seconds between two sweeps.
            now: Monotonic seconds, for tests.
        """
        key, known = id(registry), self._swept

        def forget(reference: Any) -> None:
            swept = known.get(key)
            if swept is not None and swept.registry is reference:
                known.pop(key, None)

        now = time.monotonic() if now is None else now
        known[key] = _Swept(ref(registry, forget), interval, now + interval)
        self.service.wake()

    def remove(self, registry: BaseRegistry) -> None:
        """Sweep a registry no more."""
        if self._swept.pop(id(registry), None) is not None and not self._swept:
            self.service.wake()

    def sweep(self, now: float) -> float | None:
        """
        Sweep what is due.

        Args:
            now: Monotonic seconds.

        Returns:
            Seconds until the next one is due; None if there is none.
        """
        for swept in list(self._swept.values()):
            if swept.due <= now:
                swept.due = now + swept.interval
                registry = swept.registry()
                if registry is None:
                    continue
                if contain(_SWEEP, registry.sweep, failed=_FAILED, about=registry) is _FAILED:
                    count_failure(self.service.name)
                del registry  # not kept while the thread waits
        return min((swept.due - now for swept in list(self._swept.values())), default=None)

    def _step(self) -> float | None:
        return self.sweep(time.monotonic())


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
atexit.register(sweeper.service.stop)
