"""
Recycling: an instance that was used often, is old or has grown is replaced by a new one.

The new instance is built while the old one serves, and replaces it in one step; the holders of the
old one keep it, and it is closed at its last release. Limits are checked at a sweep, never at a
hit, so "after 1,000 uses" means at the first sweep after them.
"""

from __future__ import annotations

from .. import _logs
from ..codes import CACHED, RECYCLED
from ..errors import MethodRegistryError
from ..foreign import Kind, contain
from ..lifecycle.services import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Entry
    from ..family_keys import SlotKey
    from ..registry import BaseRegistry
    from .sizing import Size

__all__ = ["Recycling"]

_RECYCLE = Kind("builds", "recycling %r failed", interrupts=False)


class Recycling:
    """
    Finds the instances of one registry that are due, and replaces them in one thread at a time.

    Args:
        measure: Measures the instance of an entry; returns None if that is not possible.

    A class whose build fails keeps its old instance, and is tried again after
    `retry_after_seconds`, or at the next sweep if that is 0.
    """

    def __init__(self, measure: Callable[[BaseRegistry, Entry], Size | None]) -> None:
        self._measure = measure
        # Keys of slots: class names, and keys of families.
        self._not_before: dict[SlotKey, float] = {}
        # Key -> the serial number of an entry, and its bytes when it was measured first.
        self._sizes: dict[SlotKey, tuple[int, int]] = {}
        # Key -> registry, serial number of the entry that is due, and the reason.
        self._due: dict[SlotKey, tuple[BaseRegistry, int, str]] = {}
        self._service = Service("warmset-recycler", self._replace_next)

    def reset_after_fork(self) -> None:
        """Forget the thread, which does not exist in the child, and what it had to do."""
        self._due.clear()
        self._service.reset_after_fork()

    def reason(self, registry: BaseRegistry, entry: Entry) -> str | None:
        """
        Tell why an instance is due to be replaced.

        Args:
            registry: The registry.
            entry: The entry of the instance.

        Returns:
            The reason; None if it is not due.
        """
        options = entry.slot.options
        if entry.state != CACHED or options is None:
            return None
        uses, age = options.recycle_after_uses, options.recycle_after_seconds
        if uses and entry.uses >= uses:
            return f"used {entry.uses} times, at most {uses}"
        old = registry.now() - entry.built_at
        if age and old >= age:
            return f"{old:.1f} s old, at most {age:.1f} s"
        growth = options.recycle_after_growth_bytes
        if growth:
            grown = self._growth(registry, entry)
            if grown >= growth:
                return f"grown by {grown} bytes, at most {growth}"
        return None

    def _growth(self, registry: BaseRegistry, entry: Entry) -> int:
        """Return the bytes by which an instance has grown since it was measured first."""
        size = self._measure(registry, entry)
        if size is None:
            return 0
        key = entry.slot.key
        first = self._sizes.get(key)
        if first is None or first[0] != entry.serial:
            self._sizes[key] = entry.serial, size.bytes
            return 0
        return size.bytes - first[1]

    def due(self, registry: BaseRegistry) -> list[tuple[str, str]]:
        """
        Find the instances that are due to be replaced.

        Args:
            registry: The registry.

        Returns:
            Class name and reason of each.
        """
        return [(str(key), reason) for key, _, reason in self._find_due(registry)]

    def _find_due(self, registry: BaseRegistry) -> list[tuple[SlotKey, int, str]]:
        now = registry.now()
        self._forget_removed(registry, now)
        due = []
        for slot in list(registry.slots.values()):
            entry, options = slot.entry, slot.options
            if entry is None or options is None or not options.recycles:
                continue
            if slot.key in self._not_before:
                continue
            reason = self.reason(registry, entry)
            if reason is not None:
                due.append((slot.key, entry.serial, reason))
        return due

    def _forget_removed(self, registry: BaseRegistry, now: float) -> None:
        """Forget the sizes of removed instances, and failures that are to be retried."""
        for key, (serial, _) in self._sizes.copy().items():
            slot = registry.slots.get(key)
            entry = None if slot is None else slot.entry
            if entry is None or entry.serial != serial:
                self._sizes.pop(key, None)
        for key, until in self._not_before.copy().items():
            if now >= until or key not in registry.slots:
                self._not_before.pop(key, None)

    def sweep(self, registry: BaseRegistry) -> None:
        """
        Have the thread replace the instances that are due.

        Args:
            registry: The registry.
        """
        if self._service.is_running:
            return
        for key, serial, reason in self._find_due(registry):
            self._due.setdefault(key, (registry, serial, reason))
        if self._due:
            self._service.wake()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """
        Wait for the thread that replaces instances, if there is one.

        Args:
            timeout_seconds: The maximum duration; None: no maximum.

        Returns:
            Whether it has ended.
        """
        return self._service.join(timeout_seconds)

    def _replace_next(self) -> float | None:
        """Replace one instance; a step of the thread."""
        try:
            key = next(iter(self._due))
            registry, serial, reason = self._due.pop(key)
        except (StopIteration, KeyError, RuntimeError):  # another thread changed the dict
            return 0.0 if self._due else None
        slot = registry.slots.get(key)
        entry = None if slot is None else slot.entry
        # Of two sweeps at once, the later one may have found what was replaced meanwhile.
        if not registry.closed and entry is not None and entry.serial == serial:
            replaced = contain(_RECYCLE, self._replace, registry, key, reason, class_name=str(key))
            if replaced is None:
                self._not_before[key] = registry.now() + registry.settings.retry_after_seconds
        return 0.0

    def _replace(self, registry: BaseRegistry, key: SlotKey, reason: str) -> bool | None:
        """Replace an instance; None if its build failed."""
        class_name = str(key)
        _logs.info(
            "builds",
            "recycling %r: %s",
            class_name,
            reason,
            fields={"class_name": class_name, "reason": reason},
        )
        slot = registry.slots.get(key)
        if slot is not None and registry.classes.loop_slots.reference(slot) is not None:
            # Only its event loop can build it anew: it does at the next look-up from there.
            return slot.entry is not None and registry.evict(slot.entry, RECYCLED)
        try:
            return registry.builder.renew(registry, key)  # type: ignore[arg-type]
        except MethodRegistryError:
            return None  # it was logged as a failed build
