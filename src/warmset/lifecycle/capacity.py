"""
Waiting for capacity: a build that may not exceed the bound while every cached instance is held.
"""

from __future__ import annotations

import time
from threading import Condition

from ..errors import CapacityError
from ..extension import Extension

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..builder import Build
    from ..registry import BaseRegistry

__all__ = ["Capacity"]

_LONGEST_WAIT_SECONDS = 3600.0  # a lock cannot wait for any number of seconds


class Capacity(Extension):
    """
    Makes the builds of one registry wait until they fit within its bound.

    Args:
        timeout_seconds: For how long each waits at most, by the system's clock.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._changed = Condition()  # re-entrant: a finaliser may release while its thread is here

    def released(self, registry: BaseRegistry) -> None:
        with self._changed:
            self._changed.notify_all()

    def before_build(self, registry: BaseRegistry, build: Build) -> None:
        if build.replaces is not None:  # it takes the place of another entry
            return
        deadline = time.monotonic() + self._timeout
        with self._changed:
            registry.watch(1)  # from now on releases and removals call `released`
            try:
                while not registry.has_capacity():
                    left = deadline - time.monotonic()
                    if left <= 0.0:
                        slot = build.slot
                        raise CapacityError(
                            f"no capacity for {slot.name!r}: all {registry.cached} cached "
                            f"instances have been held for {self._timeout} s; expected one to be "
                            "released",
                            class_name=slot.name,
                            class_path=slot.path,
                        )
                    self._changed.wait(min(left, _LONGEST_WAIT_SECONDS))
            finally:
                registry.watch(-1)

    def after_fork(self, registry: BaseRegistry) -> None:
        self._changed = Condition()
