"""
The pipeline's names for the TTL and the size of a registry: an assignment takes effect.

It is the part of `legacy` that changes limits.
"""

from __future__ import annotations

from .api import Registry
from .codes import NO_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._core import Slot

__all__ = ["AssignedLimits"]


class AssignedLimits(Registry):
    """A registry whose TTL and size can be assigned by their private names."""

    # The core knows only the TTL that it was made with, for the slots that are added later.
    _ttl_was_assigned = False

    @property
    def _cache_ttl_seconds(self) -> float:
        return self.settings.cache_ttl_seconds

    @_cache_ttl_seconds.setter
    def _cache_ttl_seconds(self, seconds: float) -> None:
        self.settings = self.settings.replace(cache_ttl_seconds=seconds)
        self._ttl_was_assigned = True
        if self.settings.adaptive_ttl:
            return  # each class gets its own, from its use
        for slot in list(self.slots.values()):
            idle = age = None
            if slot.options is not None:
                idle, age = slot.options.cache_ttl_seconds, slot.options.max_age_seconds
            self.set_limits(
                slot, NO_LIMIT if idle == 0.0 else idle, NO_LIMIT if age == 0.0 else age
            )

    def set_limits(self, slot: Slot, idle_seconds: float | None, age_seconds: float | None) -> None:
        if idle_seconds is None:
            idle_seconds = self.settings.cache_ttl_seconds or NO_LIMIT
        super().set_limits(slot, idle_seconds, age_seconds)

    def add_slot(self, class_name: Any, target: Any, options: Any = None) -> tuple[Slot, Any]:
        slot, before = super().add_slot(class_name, target, options)
        if before is None and self._ttl_was_assigned:
            self.set_limits(slot, None, None)
        return slot, before

    @property
    def _max_cache_size(self) -> int:
        return self.max_size

    @_max_cache_size.setter
    def _max_cache_size(self, size: int) -> None:
        self.settings = self.settings.replace(max_cache_size=size)
        self.max_size = self.settings.first_size
        self.make_capacity()
        if self.watched:
            self.capacity_freed()
