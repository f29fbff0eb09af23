"""
Waiting for capacity: a build that may not exceed the bound while every cached instance is held.

A build waits twice: before it begins, so that nothing is built in vain, and until its instance can
be cached, since builds that began at once may need more places than there are. The publication
itself is what takes a place, in one step of the core.
"""

from __future__ import annotations

import time

from .._locks import is_inside_lock
from ..contexts import make_lock
from ..errors import CapacityError
from ..extension import Extension

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..builder import Build
    from ..contexts import Lock
    from ..registry import BaseRegistry

__all__ = ["Capacity"]

# What expires while nobody does anything is evicted by a build that waits, after so long at most.
_LONGEST_WAIT_SECONDS = 1.0


class Capacity(Extension):
    """
    Makes the builds of one registry wait until they fit within its bound.

    Args:
        timeout_seconds: For how long each waits at most, by the system's clock.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        # Those who wait, each with a lock of its own; each step is one operation on the dict.
        self._waiting: dict[Lock, None] = {}

    def released(self, registry: BaseRegistry) -> None:
        for lock in list(self._waiting):
            if lock.locked():
                try:
                    lock.release()
                except RuntimeError:
                    continue  # somebody else did it at the same moment

    def before_build(self, registry: BaseRegistry, build: Build) -> None:
        # Unless it takes the place of another entry, or is not cached.
        if build.replaces is None and not build.aside and not registry.has_capacity():
            self._wait(registry, build)

    def wait_for_capacity(self, registry: BaseRegistry, build: Build) -> None:
        self._wait(registry, build)

    def _wait(self, registry: BaseRegistry, build: Build) -> None:
        deadline = time.monotonic() + self._timeout
        lock = make_lock()
        lock.acquire()
        watched: list[None] = []
        ended: list[None] = []
        try:
            self._waiting[lock] = None
            # From now on releases and removals call `released`. In C, so that it is known after an
            # interrupt whether it was done.
            watched.extend(map(registry.watch, (1,)))
            self._wait_until(registry, build, lock, deadline)
        finally:
            if lock in self._waiting:
                del self._waiting[lock]
            if watched:
                try:
                    ended.extend(map(registry.watch, (-1,)))
                except BaseException:
                    if not ended:
                        registry.watch(-1)
                    raise

    def _wait_until(
        self, registry: BaseRegistry, build: Build, lock: Lock, deadline: float
    ) -> None:
        while not registry.has_capacity():
            if registry.evict_expired():
                continue
            left = deadline - time.monotonic()
            if left <= 0.0 or is_inside_lock():
                raise _error(registry, build, self._timeout)
            lock.acquire(True, min(left, _LONGEST_WAIT_SECONDS))

    def after_fork(self, registry: BaseRegistry) -> None:
        self._waiting = {}


def _error(registry: BaseRegistry, build: Build, timeout: float) -> CapacityError:
    slot = build.slot
    return CapacityError(
        f"no capacity for {slot.name!r}: all {registry.cached} cached instances have been held for "
        f"{timeout} s; expected one to be released",
        class_name=slot.name,
        class_path=slot.path,
    )
