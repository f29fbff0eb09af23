"""
Waiting for room: a build that may not exceed the bound while everything cached is held.
"""

from __future__ import annotations

import time
from threading import Condition

from ..errors import CapacityError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._core import Slot
    from ..registry import Registry

__all__ = ["Room"]


class Room:
    """
    Where builds of one registry wait.

    Args:
        timeout_seconds: For how long each waits at most, by the system's clock.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._changed = Condition()  # re-entrant: a finaliser may release while its thread is here

    def made(self) -> None:
        """Something left or was released: look again."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, registry: Registry, slot: Slot) -> None:
        """
        Wait until an instance can be added within the bound.

        Args:
            registry: The registry.
            slot: What is to be built.

        Raises:
            CapacityError: There was no room in time.
        """
        deadline = time.monotonic() + self._timeout
        with self._changed:
            registry._block(1)  # from now on releases and removals call `made`
            try:
                while not registry._has_room():
                    left = deadline - time.monotonic()
                    if left <= 0.0:
                        raise CapacityError(
                            f"no room for {slot.name!r}: all {registry._cached} cached instances "
                            f"are held, for {self._timeout} s now; expected one to be released",
                            class_name=slot.name,
                            class_path=slot.path,
                        )
                    self._changed.wait(min(left, 3600.0))
            finally:
                registry._block(-1)
