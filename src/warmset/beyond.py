"""
What of a registry reaches beyond its process; `warmset.share` does the work.
"""

from __future__ import annotations

from .bounded import Bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._core import Slot
    from .builder import Flight
    from .settings import RegistrySettings
    from .share.host import HostMember
    from .share.sharing import Sharing, SnapshotStats

__all__ = ["Beyond"]


class Beyond(Bounded):
    """The part of a registry that shares with other processes."""

    _sharing: Sharing | None = None
    _host: HostMember | None = None
    _sweep_seconds: float

    def snapshot_stats(self) -> SnapshotStats | None:
        """
        Tell what came of the snapshots of shareable classes.

        Returns:
            An immutable snapshot of the counters; None for a registry without a store.
        """
        return None if self._sharing is None else self._sharing.stats()

    # -- what the registry calls -----------------------------------------------------------------

    def _set_up_sharing(self, settings: RegistrySettings) -> None:
        """Take part in what reaches beyond this process, where that is asked for."""
        self._sweep_seconds = settings.sweep_interval_seconds
        if settings.store is not None:
            from .share.sharing import Sharing

            self._sharing = Sharing(settings.store)
        if settings.host_budget:
            from .share.host import member_of

            self._host = member_of(settings.host_budget, self)  # type: ignore[arg-type]
            self._sweep_seconds = self._host.interval(self)  # type: ignore[arg-type]

    def _end_sharing(self) -> None:
        """Take part no more; the registry is closed."""
        if self._sharing is not None:
            self._sharing.close()
        if self._host is not None:
            self._host.leave()

    def _make(self, flight: Flight) -> Any:
        """Build, or open what another process built; the builder calls it."""
        if self._sharing is not None:
            return self._sharing.make(self, flight)  # type: ignore[arg-type]
        return self._build_here(flight.slot)

    def _build_here(self, slot: Slot) -> Any:
        """Build, and nothing else that is heavy on this host meanwhile, where that is asked for."""
        if self._host is None:
            return self._construct(slot)
        with self._host.one_at_a_time(self._memory, slot):
            return self._construct(slot)

    def _construct(self, slot: Slot) -> Any:
        raise NotImplementedError

    def _reset_sharing_after_fork(self) -> None:
        if self._sharing is not None:
            self._sharing._reset_after_fork()
        if self._host is not None:
            self._host.reset_after_fork()
