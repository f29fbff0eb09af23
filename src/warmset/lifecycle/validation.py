"""
Validation: a check of a cached instance, at most once per interval, by the look-up that is due.

A check that is due is a deadline of the entry, so no hit pays for it: a look-up past the deadline
takes the slow path, which calls the hook `due`. One thread checks, outside every lock, and moves
the deadline first; the others use the previous answer meanwhile. With an interval of 0 every
look-up is due, whatever the resolution of the clock.
"""

from __future__ import annotations

from ..codes import INVALID, NO_LIMIT
from ..extension import Extension
from ..foreign import Kind, contain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._core import Entry, Slot
    from ..builder import Build
    from ..options import ClassOptions
    from ..registry import BaseRegistry

__all__ = ["Validation"]

_VALIDATE = Kind("removals", "validating the instance of %r failed, so it counts as invalid")


def _next_check(options: ClassOptions, now: float) -> float:
    interval: float = options.validate_interval_seconds
    return now + interval if interval > 0.0 else -NO_LIMIT


class Validation(Extension):
    """The checks of the instances of one registry."""

    def __init__(self) -> None:
        self._checking: dict[Entry, object] = {}

    def built(self, registry: BaseRegistry, build: Build) -> None:
        entry = build.entry
        options = None if entry is None else entry.options
        if entry is not None and options is not None and options.validate is not None:
            registry.defer(entry, _next_check(options, entry.built_at))

    def due(self, registry: BaseRegistry, slot: Slot, now: float) -> None:
        entry = slot.entry
        options = None if entry is None else entry.options
        if entry is None or entry.weak or options is None or options.validate is None:
            return
        if now <= entry.deadline or not now <= entry.built_at + slot.age_limit:
            return  # it is not due, or it is past its age
        mine = object()
        if self._checking.setdefault(entry, mine) is not mine:
            return
        try:
            if now <= entry.deadline or not registry.hold(entry):
                return
            try:
                registry.defer(entry, _next_check(options, now))
                valid = contain(
                    _VALIDATE, options.validate, entry.content, failed=False, class_name=entry.name
                )
                if not valid:
                    registry.evict(entry, INVALID)
            finally:
                registry.release(entry, None)
        finally:
            self._checking.pop(entry, None)

    def after_fork(self, registry: BaseRegistry) -> None:
        self._checking = {}
