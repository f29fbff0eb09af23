"""
Budgets of bytes: for what is cached, as its sizes tell; and for the process, as it is measured.

After a build and at a sweep, while a budget is passed, instances leave in the order in which they
would leave for room. For the process that goes on, with a measurement after each, from above the
high mark until below the low one, or until nothing is left to give, which is said once, and again
only if it had been well in between.

A build comes before the removals that it makes necessary, for it may fail, and then nothing was
lost. Only where it is known from the last time that the process would pass its high mark with what
is to be built, removals come first; that is said before they happen.

What leaves need not come back to the system: it may stand in cycles, or the allocator keep it. So
where the process did not shrink by at least half of what left, cycles are collected and the
allocator is asked to give back; at most after the first, second, fourth, eighth ... removal in a
row, and once more before it is said that nothing is left to give.
"""

from __future__ import annotations

import gc
from _thread import allocate_lock
from typing import TYPE_CHECKING

from .. import _logs
from .._process_memory import give_back_free_memory, resident_bytes
from .limits import in_bytes, memory_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Slot
    from ..registry import Registry
    from .manager import MemoryManager

__all__ = ["Budgets", "Relief", "collect_and_give_back"]

_MEMORY = 2  # a value of `events.RemovalCause`
_LOW_PART = 0.9  # of the high mark
_SHOWN = 0.5  # of what left


class Relief:
    """
    Measures after each removal, and has cycles collected and memory given back where it did not
    show; after the first, second, fourth, eighth ... of them, for that takes time.

    Args:
        measured: Gives the bytes that are to become less; None where it cannot be told.
        give_back: Collects cycles, and has free memory given back to the system.
    """

    def __init__(self, measured: Callable[[], int | None], give_back: Callable[[], object]) -> None:
        self._measured = measured
        self._give_back = give_back
        self._removals, self._next_collection = 0, 1

    def removed(self, before: int, gone: int, target: int) -> int | None:
        """
        Measure after a removal.

        Args:
            before: What was measured before it.
            gone: How many bytes left, as they were known.
            target: What is enough.

        Returns:
            What is there now; None where it cannot be told.
        """
        self._removals += 1
        now = self._measured()
        if now is None or now <= target:
            return now
        if before - now <= _SHOWN * gone and self._removals >= self._next_collection:
            self._next_collection = self._removals * 2
            self._give_back()
            now = self._measured()
        return now


class Budgets:
    """
    Keeps one registry within its budgets.

    Args:
        max_cache_bytes: For what is cached; 0: none.
        max_rss_bytes: The high mark of the process, bytes or a part; 0: none.
        low_rss_bytes: The low mark; 0: nine tenths of the high one.
        probe: Gives the bytes that the process has.
        limit: Gives the bytes that it may have.
        give_back: Collects cycles, and has free memory given back to the system.

    One thread at a time removes for the process's sake; who comes meanwhile goes on.
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
        self._relieving = allocate_lock()
        self._said: set[str] = set()  # what was said and still holds
        self._large: set[str] = set()  # classes whose instances are too big alone

    def reset_after_fork(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._relieving = allocate_lock()

    def marks(self) -> tuple[int, int] | None:
        """
        Tell the high and the low mark of the process.

        Returns:
            Bytes; None if there are none. A part is one of what the process may have now.
        """
        if not self._high:
            return None
        high = in_bytes(self._high, self._limit)
        low = in_bytes(self._low, self._limit) if self._low else int(_LOW_PART * high)
        return high, min(low, high)

    # -- the three times when it is looked after -------------------------------------------------

    def before_build(self, manager: MemoryManager, registry: Registry, slot: Slot) -> None:
        """
        Make room for a build, if it is known that the process would have too much with it.

        Args:
            manager: Chooses who leaves.
            registry: The registry.
            slot: What is to be built.
        """
        marks = self.marks()
        expected = manager.sizing.expected(slot.name)
        if marks is None or not expected:
            return
        resident = self._measured()
        if resident is None or resident + expected <= marks[0]:
            return
        fields = {"class_name": slot.name, "bytes": expected, "rss_bytes": resident}
        if registry._least_recent() is not None:
            _logs.warning(
                "memory",
                "the process has %.1f MB, and with %r of %.1f MB it would have more than %.1f MB: "
                "others leave before that is built",
                resident / 1e6,
                slot.name,
                expected / 1e6,
                marks[0] / 1e6,
                fields=fields,
            )
            self._relieve(manager, registry, marks[0] - expected, f"for {slot.name!r}")

    def after_build(self, manager: MemoryManager, registry: Registry, slot: Slot) -> None:
        """
        Look after the budgets when something was built, which its caller still holds.

        Args:
            manager: Chooses who leaves.
            registry: The registry.
            slot: What was built.
        """
        if self._max_cache and slot.bytes > self._max_cache:
            self._large.add(slot.name)
            self._say(
                f"large {slot.name}",
                "%r alone is bigger than max_cache_bytes: %.1f MB of at most %.1f MB; it is kept "
                "while it is in use, and until the next build or sweep, and pushes nothing out",
                slot.name,
                slot.bytes / 1e6,
                self._max_cache / 1e6,
                fields={"class_name": slot.name, "bytes": slot.bytes},
            )
        self.check(manager, registry, spare=slot)

    def check(
        self, manager: MemoryManager, registry: Registry, *, spare: Slot | None = None
    ) -> None:
        """
        Look after the budgets.

        Args:
            manager: Chooses who leaves.
            registry: The registry.
            spare: What was just built.
        """
        if self._max_cache and registry._bytes > self._max_cache:
            most = self._max_cache + self._drop_large(registry)
            while registry._bytes > most + manager.passing_bytes():
                if not manager.evict_one(registry, _MEMORY, most, spare=spare):
                    break  # all that is left is held or pinned
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
            self._said.discard("nothing left")

    def _drop_large(self, registry: Registry) -> int:
        """Let go what is too big alone; the bytes of that which is held, and so stays for now."""
        stays = 0
        for class_name in list(self._large):
            slot = registry._slots.get(class_name)
            if slot is None or slot.bytes <= self._max_cache:
                self._large.discard(class_name)
            elif not registry._evict(slot, slot.epoch, _MEMORY, self._max_cache):
                stays += max(0, slot.bytes)
        return stays

    def _relieve(self, manager: MemoryManager, registry: Registry, target: int, why: str) -> None:
        """Remove until the process has at most so much, or nothing is left to give."""
        if not self._relieving.acquire(False):
            return  # another thread is at it, or this one further up
        try:
            resident = self._measured()
            relief = Relief(self._measured, self._give_back)
            while resident is not None and resident > target:
                known = registry._bytes
                if not manager.evict_one(registry, _MEMORY, -1):
                    self._give_back()
                    resident = self._measured()
                    if resident is not None and resident > target:
                        self._say_nothing_left(registry, resident, target, why)
                    return
                resident = relief.removed(resident, known - registry._bytes, target)
            if resident is not None:
                self._said.discard("nothing left")
        finally:
            self._relieving.release()

    # -- saying it -------------------------------------------------------------------------------

    def short_of_memory(self) -> bool:
        """Tell whether the process has too much, and there is nothing left to give."""
        return "nothing left" in self._said

    def _say_nothing_left(self, registry: Registry, resident: int, target: int, why: str) -> None:
        self._say(
            "nothing left",
            "the process has %.1f MB, which should be %.1f MB%s, and there is nothing left to "
            "give: %d instances are held or pinned, %d are cached",
            resident / 1e6,
            target / 1e6,
            f" {why}" if why else "",
            sum(bool(slot.holds or slot.pinned) for slot in registry._warm_slots()),
            registry._cached,
            fields={"rss_bytes": resident},
        )

    def _say(self, what: str, message: str, *arguments: object, fields: dict[str, object]) -> None:
        if what not in self._said:
            self._said.add(what)
            _logs.warning("memory", message, *arguments, fields=fields)

    def _measured(self) -> int | None:
        try:
            return self._probe()
        except Exception as error:
            self._say(
                "probe",
                "the memory of the process cannot be measured, max_rss_bytes is not kept: %s",
                error,
                fields={"error_type": type(error).__qualname__},
            )
            return None


def collect_and_give_back() -> None:
    gc.collect()
    give_back_free_memory()
