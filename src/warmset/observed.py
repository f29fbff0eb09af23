"""
What can be seen of a registry: who listens to it, its statistics, its health.
"""

from __future__ import annotations

from .registration import Registration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .events import BuildEvent, RemovalEvent
    from .lifecycle.listening import Listeners
    from .observe.health import Finding, HealthMonitor, HealthThresholds
    from .observe.leaving import Leaving
    from .settings import RegistrySettings
    from .stats import HolderStats, RegistryStats

__all__ = ["Observed"]


class Observed(Registration):
    """The part of a registry that tells of its doings."""

    _listeners: Listeners | None
    _build_listeners: tuple[Callable[[BuildEvent], Any], ...]
    _monitor: HealthMonitor | None
    _leaving: Leaving | None
    _settings: RegistrySettings

    @property
    def settings(self) -> RegistrySettings:
        """The settings that this registry was made with."""
        return self._settings

    # -- listening -------------------------------------------------------------------------------

    def add_listener(self, listener: Callable[[RemovalEvent], Any]) -> None:
        """
        Call a listener with a `RemovalEvent` for each instance that leaves from now on.

        Args:
            listener: A callable. What it raises is logged and counted, and changes nothing.

        Raises:
            TypeError: It is not callable.

        It is called outside every lock, once for each removal and in the order in which instances
        left; by the thread that removed, or by one that is telling of another removal just then.
        """
        if not callable(listener):
            raise TypeError(f"a listener must be callable, got {listener!r}")
        if self._listeners is None:
            from .lifecycle.listening import Listeners

            self._listeners = Listeners()
            self._queue = self._listeners.queue
        self._listeners.add(listener)

    def remove_listener(self, listener: Callable[[RemovalEvent], Any]) -> bool:
        """
        Call a listener no more.

        Args:
            listener: The callable that was added.

        Returns:
            Whether it was there.
        """
        return self._listeners is not None and self._listeners.remove(listener)

    def add_build_listener(self, listener: Callable[[BuildEvent], Any]) -> None:
        """
        Call a listener with a `BuildEvent` for each build that ends from now on.

        Args:
            listener: A callable. What it raises is logged and counted, and changes nothing.

        Raises:
            TypeError: It is not callable.

        It is called outside every lock, once for each build that succeeded or failed, by the thread
        that built, just before that goes on with its result; those who waited do not wait for it.
        """
        if not callable(listener):
            raise TypeError(f"a listener must be callable, got {listener!r}")
        self._build_listeners = (*self._build_listeners, listener)

    def remove_build_listener(self, listener: Callable[[BuildEvent], Any]) -> bool:
        """
        Call a build listener no more.

        Args:
            listener: The callable that was added.

        Returns:
            Whether it was there.
        """
        kept = tuple(known for known in self._build_listeners if known != listener)
        found = len(kept) < len(self._build_listeners)
        self._build_listeners = kept
        return found

    # -- seeing inside ---------------------------------------------------------------------------

    def stats(self) -> RegistryStats:
        """
        Give an immutable snapshot of the registry; reading it changes nothing.

        Returns:
            The snapshot. Its counters are of one moment.

        O(cached), and O(names) in weak mode.
        """
        from .stats import snapshot

        return snapshot(self)

    def get_stats(self) -> dict[str, Any]:
        """
        Give the statistics as plain data, under the names that the pipeline uses.

        Returns:
            What `stats` gives, as a dict.
        """
        return self.stats().as_dict()

    def holders(self) -> list[HolderStats]:
        """
        Tell who holds what, since when.

        Returns:
            One for each lease, running call and unfinished generator or coroutine, the oldest
            first; also of instances that have been removed and are closed at their release.

        O(holds).
        """
        from .stats import holders

        return holders(self)

    def health(
        self,
        *,
        window_seconds: float = 300.0,
        thresholds: HealthThresholds | None = None,
    ) -> tuple[Finding, ...]:
        """
        Tell what is wrong, judged by what happened within a window, not since the process began.

        Args:
            window_seconds: How far to look back. What happens between two calls that are further
                apart than this is judged as a whole.
            thresholds: `warmset.observe.health.HealthThresholds`; None takes the defaults, which
                the README tells.

        Returns:
            The findings, the gravest first; empty if all is well. The first call begins the window:
            it can judge levels and not rates. Call it regularly, as from a health check.

        Raises:
            TypeError: The window is not a number.
            ValueError: The window is not above 0.

        A finding that the last call did not have is logged as a WARNING. Safe under threads;
        O(cached), and it takes no lock.
        """
        if self._monitor is None:
            from .observe.health import HealthMonitor

            self._monitor = HealthMonitor(self)
        return self._monitor.check(self, window_seconds=window_seconds, thresholds=thresholds)
