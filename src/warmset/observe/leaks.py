"""
Leaks: removed instances that stay alive, through a reference elsewhere or a reference cycle.

Instances are referenced weakly only: a closer runs only if no one else references the removed
instance. Entries are not referenced, because an entry that is still held has its instance.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from ..extension import Extension

if TYPE_CHECKING:
    from typing import Any

    from .._core import Entry
    from ..registry import BaseRegistry

__all__ = ["LeakTracker", "RemovedInstance", "track_leaks"]

_LIMIT = 10_000  # tracked instances; only those alive count


class RemovedInstance(NamedTuple):
    """A removed instance that has not been collected yet."""

    class_name: str
    serial: int
    """The serial number of its entry."""
    kind: type
    """The type of the instance."""
    reference: ref[Any]
    removed_at: float
    """The time of its removal on the timer of the registry."""
    cause: int
    """The cause of its removal; see `codes`."""


def track_leaks(registry: BaseRegistry) -> LeakTracker:
    """
    Get the leak tracker of a registry; the first call makes it and starts tracking.

    Args:
        registry: The registry.

    Returns:
        The tracker.
    """
    tracker = registry.extension(LeakTracker)
    return registry.attach(LeakTracker()) if tracker is None else tracker


class LeakTracker(Extension):
    """
    Tracks the instances removed from one registry since tracking started.

    It does not track instances that the registry referenced only weakly, as those belong to their
    users, nor instances whose type does not support weak references. Safe under threads and in
    finalisers: each step is one operation on a dict.
    """

    def __init__(self) -> None:
        self._alive: dict[int, RemovedInstance] = {}  # by the serial number of the entry
        self.untracked = 0  # without weak references, or above the limit

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        now = registry.now()
        for entry in entries:
            if not entry.weak:
                self._track(entry, now)

    def _track(self, entry: Entry, now: float) -> None:
        alive, serial = self._alive, entry.serial
        if len(alive) >= _LIMIT:
            self.untracked += 1
            return
        # The instance is only ever an argument of a function written in C: so there is no moment at
        # which another thread could close it and would find a reference to it here.
        kind = type(entry.content)
        forget = partial(_forget, alive, serial)
        try:
            reference = ref(entry.content, forget)
        except TypeError:
            if entry.content is not None:  # else it was closed meanwhile
                self.untracked += 1
            return
        alive[serial] = RemovedInstance(entry.name, serial, kind, reference, now, entry.cause)
        if reference.__callback__ is None:  # it was collected before this, so `forget` was called
            alive.pop(serial, None)

    def leaked(self, registry: BaseRegistry, after_seconds: float) -> dict[str, int]:
        """
        Count the removed instances that are alive without a holder.

        Args:
            registry: The registry that they were removed from.
            after_seconds: Count only instances removed at least this long ago.

        Returns:
            Class name -> number of leaked instances. O(tracked instances).
        """
        if not self._alive:
            return {}
        now = registry.now()
        held = {entry.serial for entry, _, _ in registry.holds()}
        leaked: dict[str, int] = {}
        for instance in self.alive():
            if now - instance.removed_at >= after_seconds and instance.serial not in held:
                leaked[instance.class_name] = leaked.get(instance.class_name, 0) + 1
        return leaked

    def alive(self) -> list[RemovedInstance]:
        """
        List the removed instances that are alive.

        Returns:
            One for each, in the order in which their removals were reported.
        """
        return list(self._alive.values())


def _forget(alive: dict[int, RemovedInstance], serial: int, reference: object) -> None:
    alive.pop(serial, None)
