"""
Recycling: an instance that was used often, is old or has grown is built anew, and replaced.

The new one is built while the old one serves. It takes the place in one step; who holds the old one
goes on with it, and it is closed at its last release. What is due is seen at a sweep, never at a
hit, so "after 1,000 uses" means at the first sweep after them.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from .. import _logs
from ..errors import MethodRegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._core import Slot
    from ..lifecycle.options import ClassOptions
    from ..registry import Registry

__all__ = ["Recycling"]

_STRONG = 1  # a slot's kind


class Recycling:
    """
    Finds what is due in one registry, and has one thread at a time build it anew.

    A class whose build fails keeps its old instance, and is tried again after
    `retry_after_seconds`, or at the next sweep if that is 0.
    """

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}
        self._sizes: dict[str, tuple[int, int]] = {}  # epoch, and bytes when first measured
        self._worker: threading.Thread | None = None

    def reset_after_fork(self) -> None:
        """Forget the thread, which is not there in the child."""
        self._worker = None

    def reason(self, registry: Registry, slot: Slot, options: ClassOptions) -> str | None:
        """
        Tell why an instance is to be built anew.

        Args:
            registry: The registry.
            slot: Where the instance is.
            options: Of its class.

        Returns:
            The reason as a text; None if there is none.
        """
        if slot.kind != _STRONG:
            return None
        uses, age = options.recycle_after_uses, options.recycle_after_seconds
        if uses and slot.uses >= uses:
            return f"used {slot.uses} times, at most {uses}"
        old = registry._now() - slot.built_at
        if age and old >= age:
            return f"{old:.1f} s old, at most {age:.1f} s"
        growth = options.recycle_after_growth_bytes
        if growth:
            grown = self._growth(registry, slot)
            if grown >= growth:
                return f"grown by {grown} bytes, at most {growth}"
        return None

    def _growth(self, registry: Registry, slot: Slot) -> int:
        """Bytes by which an instance has grown since it was measured first."""
        epoch = slot.epoch
        size = registry._measured_bytes(slot)
        if size is None:
            return 0
        first = self._sizes.get(slot.name)
        if first is None or first[0] != epoch:
            self._sizes[slot.name] = epoch, size
            return 0
        return size - first[1]

    def due(self, registry: Registry) -> list[tuple[str, str]]:
        """
        Tell what is to be built anew now.

        Args:
            registry: The registry.

        Returns:
            Name and reason of each.
        """
        now = registry._now()
        due = []
        for class_name, options in list(registry._options.items()):
            slot = registry._slots.get(class_name)
            if slot is None or not options.recycles:
                continue
            if now < self._not_before.get(class_name, now):
                continue
            reason = self.reason(registry, slot, options)
            if reason is not None:
                due.append((class_name, reason))
        return due

    def sweep(self, registry: Registry) -> None:
        """
        Have a thread build anew what is due, unless one is at it.

        Args:
            registry: The registry.
        """
        if self._worker is not None and self._worker.is_alive():
            return
        due = self.due(registry)
        if due:
            self._worker = threading.Thread(
                target=self._work, args=(registry, due), name="warmset-recycler", daemon=True
            )
            self._worker.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """
        Wait for the thread that builds anew, if there is one.

        Args:
            timeout_seconds: For how long; None: as long as it takes.

        Returns:
            Whether it has ended.
        """
        worker = self._worker
        if worker is None:
            return True
        worker.join(timeout_seconds)
        return not worker.is_alive()

    def _work(self, registry: Registry, due: list[tuple[str, str]]) -> None:
        for class_name, reason in due:
            if registry._closed:
                return
            with suppress(MethodRegistryError):  # logged as a build that failed
                self.renew(registry, class_name, reason)

    def renew(self, registry: Registry, class_name: str, reason: str) -> bool:
        """
        Build one anew, in this thread.

        Args:
            registry: The registry.
            class_name: What.
            reason: For the log.

        Returns:
            Whether it was replaced.

        Raises:
            MethodRegistryError: The build failed; the old instance stays.
        """
        _logs.info(
            "builds",
            "recycling %r: %s",
            class_name,
            reason,
            fields={"class_name": class_name, "reason": reason},
        )
        try:
            return registry._builder.renew(registry, class_name)
        except MethodRegistryError:
            self._not_before[class_name] = registry._now() + registry.settings.retry_after_seconds
            raise
