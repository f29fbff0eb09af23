"""
Budgets of bytes: for the cached instances, by their sizes, and for the process, as measured.

After a build and at a sweep, while a budget is exceeded, instances are evicted in the eviction
order. For the process that continues, with a measurement after each eviction, from above the high
mark until below the low one, or until nothing is left to evict. That is logged once, and again only
if the process was below its low mark in between.

A build precedes the evictions that it makes necessary: if it fails, nothing was lost. Only if it is
known from the last build that the process would exceed its high mark, evictions precede the build;
that is logged before they happen.

The memory of an evicted instance need not return to the system: it may be part of a cycle, or the
allocator keeps it. So if the process shrank by less than half of what was evicted, cycles are
collected and the allocator is asked to return free memory: at most after the first, second, fourth,
eighth ... eviction in a row, and once more before nothing is left to evict.
"""

from __future__ import annotations

import gc
from _thread import RLock
from typing import TYPE_CHECKING

from .. import _logs
from .._locks import call_if_free
from .._process_memory import give_back_free_memory, resident_bytes
from ..codes import MEMORY
from ..foreign import PROBE, contain
from .limits import in_bytes, memory_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .._core import Entry, Slot
    from ..family_keys import SlotKey
    from ..registry import BaseRegistry
    from .sizing import Sizing

    class Evictor(Protocol):
        """What the budgets need of a memory manager."""

        @property
        def sizing(self) -> Sizing: ...

        def evict_one(
            self, registry: BaseRegistry, cause: int, more_than: int, *, spare: Entry | None = None
        ) -> bool:
            """Evict the next entry in the eviction order."""


__all__ = ["Budgets", "Relief", "collect_and_give_back"]

_LOW_PART = 0.9  # of the high mark
_RETURNED_PART = 0.5  # of the evicted bytes; if less returns, memory is reclaimed


class Relief:
    """
    Measures after each removal, and reclaims memory if too little of it returned to the system.

    Args:
        measured: Returns the bytes that are to be reduced; None if they cannot be measured.
        give_back: Collects cycles and returns free memory to the system.

    Because reclaiming takes time, it happens after the first, second, fourth, eighth ... removal.
    """

    def __init__(self, measured: Callable[[], int | None], give_back: Callable[[], object]) -> None:
        self._measured = measured
        self._give_back = give_back
        self._removals, self._next_collection = 0, 1

    def removed(self, before: int, gone: int, target: int) -> int | None:
        """
        Measure after a removal.

        Args:
            before: The bytes measured before it.
            gone: The known size of the removed instance.
            target: The bytes below which nothing is reclaimed.

        Returns:
            The bytes measured now; None if they cannot be measured.
        """
        self._removals += 1
        now = self._measured()
        if now is None or now <= target:
            return now
        if before - now <= _RETURNED_PART * gone and self._removals >= self._next_collection:
            self._next_collection = self._removals * 2
            self._give_back()
            now = self._measured()
        return now


class Budgets:
    """
    Keeps one registry within its budgets.

    Args:
        max_cache_bytes: The budget of the cached instances; 0: none.
        max_rss_bytes: The high mark of the process, in bytes or as a fraction; 0: none.
        low_rss_bytes: The low mark; 0: nine tenths of the high one.
        probe: Measures the bytes of the process.
        limit: Returns the bytes that the process may have, to which fractions apply.
        give_back: Collects cycles and returns free memory to the system.

    One thread at a time evicts for the budget of the process; others do not wait for it.
    """

    def __init__(
        self,
        max_cache_bytes: int,
        max_rss_bytes: int | float,
        low_rss_bytes: int | float,
        *,
        probe: Callable[[], int] = resident_bytes,
        limit: Callable[[], int] = memory_limit,
        give_back: Callable[[], object] | None = None,
    ) -> None:
        self._max_cache = max_cache_bytes
        self._high, self._low = max_rss_bytes, low_rss_bytes
        self._probe = probe
        self._limit = limit
        self._give_back = collect_and_give_back if give_back is None else give_back
        self._relieving = RLock()
        self._logged: set[str] = set()  # the conditions that were logged and still hold
        self._large: set[SlotKey] = set()  # of instances that exceed max_cache_bytes alone

    def reset_after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._relieving = RLock()

    def marks(self) -> tuple[int, int] | None:
        """
        Return the high and the low mark of the process.

        Returns:
            Bytes; None if there are none. A fraction applies to the current limit of the process.
        """
        if not self._high:
            return None
        about = "max_rss_bytes is not enforced"
        return contain(  # type: ignore[no-any-return]
            PROBE, self._read_marks, about=about, logged=self._logged
        )

    def _read_marks(self) -> tuple[int, int]:
        high = in_bytes(self._high, self._limit)
        low = in_bytes(self._low, self._limit) if self._low else int(_LOW_PART * high)
        return high, min(low, high)

    # -- enforcement -----------------------------------------------------------------------------

    def before_build(self, manager: Evictor, registry: BaseRegistry, slot: Slot) -> None:
        """
        Evict before a build if it is known that the process would exceed its high mark.

        Args:
            manager: Evicts in the eviction order.
            registry: The registry.
            slot: The class to be built.
        """
        marks = self.marks()
        expected = manager.sizing.expected(slot)
        if marks is None or not expected:
            return
        resident = self._measured()
        if resident is None or resident + expected <= marks[0]:
            return
        fields = {"class_name": slot.name, "bytes": expected, "rss_bytes": resident}
        if registry.oldest() is not None:
            _logs.warning(
                "memory",
                "the process has %.1f MB, and with %r of %.1f MB it would have more than %.1f MB: "
                "others are evicted before it is built",
                resident / 1e6,
                slot.name,
                expected / 1e6,
                marks[0] / 1e6,
                fields=fields,
            )
            self._relieve(manager, registry, marks[0] - expected, f"for {slot.name!r}")

    def after_build(self, manager: Evictor, registry: BaseRegistry, entry: Entry) -> None:
        """
        Enforce the budgets after a build, whose caller still holds the instance.

        Args:
            manager: Evicts in the eviction order.
            registry: The registry.
            entry: The entry that was built.
        """
        if self._max_cache and entry.bytes > self._max_cache:
            self._large.add(entry.slot.key)
            self._log_once(
                f"large {entry.name}",
                "%r alone exceeds max_cache_bytes: %.1f MB of at most %.1f MB; it is cached while "
                "it is held and until the next build or sweep, and nothing is evicted for it",
                entry.name,
                entry.bytes / 1e6,
                self._max_cache / 1e6,
                fields={"class_name": entry.name, "bytes": entry.bytes},
            )
        self.check(manager, registry, spare=entry)

    def check(
        self, manager: Evictor, registry: BaseRegistry, *, spare: Entry | None = None
    ) -> None:
        """
        Enforce the budgets.

        Args:
            manager: Evicts in the eviction order.
            registry: The registry.
            spare: The entry that was just built, if any.
        """
        if self._max_cache and registry.known_bytes > self._max_cache:
            most = self._max_cache + self._evict_large(registry)
            while registry.known_bytes > most:
                if not manager.evict_one(registry, MEMORY, most, spare=spare):
                    break  # everything else is held or pinned
        marks = self.marks()
        if marks is None:
            return
        resident = self._measured()
        if resident is None:
            return
        high, low = marks
        if resident > high:
            self._relieve(manager, registry, low, "")
        elif resident <= low:
            self._logged.discard("nothing left")

    def _evict_large(self, registry: BaseRegistry) -> int:
        """Evict instances that exceed the budget alone; return the bytes of those that are held."""
        stays = 0
        for key in list(self._large):
            slot = registry.slots.get(key)
            entry = None if slot is None else slot.entry
            if entry is None or entry.bytes <= self._max_cache:
                self._large.discard(key)
            elif not registry.evict(entry, MEMORY, more_than=self._max_cache):
                stays += max(0, entry.bytes)
        return stays

    def _relieve(self, manager: Evictor, registry: BaseRegistry, target: int, why: str) -> None:
        """Evict until the process has at most `target` bytes, or nothing is left to evict."""
        # Unless another thread is evicting, or an outer call in this one.
        call_if_free(self._relieving, self._evict_down_to, manager, registry, target, why)

    def _evict_down_to(
        self, manager: Evictor, registry: BaseRegistry, target: int, why: str
    ) -> None:
        resident = self._measured()
        relief = Relief(self._measured, self._give_back)
        while resident is not None and resident > target:
            known = registry.known_bytes
            if not manager.evict_one(registry, MEMORY, -1):
                self._give_back()
                resident = self._measured()
                if resident is not None and resident > target:
                    self._log_nothing_left(registry, resident, target, why)
                return
            resident = relief.removed(resident, known - registry.known_bytes, target)
        if resident is not None:
            self._logged.discard("nothing left")

    def above_low_mark(self) -> bool:
        """Return whether the process has more memory than the low mark, if it has one."""
        marks = self.marks()
        resident = None if marks is None else self._measured()
        return marks is not None and resident is not None and resident > marks[1]

    # -- logging ---------------------------------------------------------------------------------

    def short_of_memory(self) -> bool:
        """Return whether the process exceeds its budget, and nothing is left to evict."""
        return "nothing left" in self._logged

    def _log_nothing_left(
        self, registry: BaseRegistry, resident: int, target: int, why: str
    ) -> None:
        self._log_once(
            "nothing left",
            "the process has %.1f MB, which should be %.1f MB%s, and nothing is left to evict: %d "
            "instances are held or pinned, %d are cached",
            resident / 1e6,
            target / 1e6,
            f" {why}" if why else "",
            sum(bool(entry.holds or entry.slot.pinned) for entry in registry.warm_entries()),
            registry.cached,
            fields={"rss_bytes": resident},
        )

    def _log_once(
        self, what: str, message: str, *arguments: object, fields: dict[str, object]
    ) -> None:
        if what not in self._logged:
            self._logged.add(what)
            _logs.warning("memory", message, *arguments, fields=fields)

    def _measured(self) -> int | None:
        about = "max_rss_bytes is not enforced"
        measured = contain(PROBE, self._probe, about=about, logged=self._logged)
        return None if measured is None else int(measured)


def collect_and_give_back() -> None:
    """Collect cycles, and return free memory to the system."""
    gc.collect()
    give_back_free_memory()
