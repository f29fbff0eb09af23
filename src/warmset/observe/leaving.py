"""
What left and lives on: somebody outside the registry keeps it, or it is part of a cycle.

Instances are referred to weakly, and never strongly, not even for a moment: a closer is called only
if nobody else refers to what left.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from typing import Any

    from ..observed import Observed

__all__ = ["Leaving", "watch_leaving"]

_LIMIT = 10_000  # of what is watched; only living instances count


def watch_leaving(registry: Observed) -> Leaving:
    """Have what leaves a registry watched from now on."""
    leaving = registry._leaving
    if leaving is None:
        leaving = registry._leaving = Leaving()
    return leaving


class Leaving:
    """
    The instances that left one registry since somebody looked for the first time.

    What is kept weakly is not watched, for it is its users', nor what has no weak references. Safe
    under threads, and in finalisers: each step is one operation on a dict.
    """

    def __init__(self) -> None:
        self._alive: dict[tuple[str, int], tuple[ref[Any], float, int]] = {}
        self.untracked = 0  # what has no weak references, or was too much

    def watch(self, departed: list[Any], now: float) -> None:
        """
        Watch what has just left.

        Args:
            departed: The departures; nothing of them is kept.
            now: By the registry's timer.
        """
        alive = self._alive
        for departure in departed:
            if departure.weak or departure.instance is None:
                continue
            if len(alive) >= _LIMIT:
                self.untracked += 1
                continue
            # The epoch: an instance that is revived and leaves again is still the same one.
            key = departure.class_name, departure.epoch
            try:
                watched = ref(departure.instance, partial(_gone, alive, key))
            except TypeError:
                self.untracked += 1
            else:
                alive[key] = watched, now, departure.cause

    def leaked(self, registry: Observed, after_seconds: float) -> dict[str, int]:
        """
        Count what lives on although nobody holds it.

        Args:
            registry: Where it left.
            after_seconds: How long ago it left at least.

        Returns:
            Class name -> how many. O(left and alive).
        """
        if not self._alive:
            return {}
        now = registry._now()
        held: dict[str, float] = {}
        for class_name, _, since in registry._holders():
            held[class_name] = min(since, held.get(class_name, since))
        leaked: dict[str, int] = {}
        for class_name, _, _, left, _ in self.alive(registry):
            if now - left >= after_seconds and held.get(class_name, now) > left:
                leaked[class_name] = leaked.get(class_name, 0) + 1
        return leaked

    def alive(self, registry: Observed) -> list[tuple[str, int, ref[Any], float, int]]:
        """
        Tell what left and lives on.

        Args:
            registry: Where it left.

        Returns:
            Class name, epoch, a weak reference, when it left and why; not what was revived since.
        """
        alive = []
        for (class_name, epoch), (watched, left, cause) in list(self._alive.items()):
            if _is_back(registry, class_name, epoch):
                self._alive.pop((class_name, epoch), None)
            else:
                alive.append((class_name, epoch, watched, left, cause))
        return alive


def _is_back(registry: Observed, class_name: str, epoch: int) -> bool:
    slot = registry._slots.get(class_name)
    return slot is not None and slot.kind != 0 and slot.epoch == epoch


def _gone(alive: dict[tuple[str, int], Any], key: tuple[str, int], reference: Any) -> None:
    known = alive.get(key)
    if known is not None and known[0] is reference:
        del alive[key]
