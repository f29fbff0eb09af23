"""
Slots of instances that were built for one event loop.

What an asynchronous rule or factory builds belongs to the loop that awaited it: clients and pools
refer to it. Such an instance is not cached under the name of its class, where every look-up would
find it, but in a slot of its own for each name and loop, which only look-ups from that loop know.
"""

from __future__ import annotations

from itertools import count
from weakref import ref

from .codes import DISCARDED
from .foreign import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Entry, Slot
    from .cache import Cache

__all__ = ["LoopSlots"]

_COROUTINE_FUNCTION = 0x80  # the code flag


class LoopSlots:
    """
    The slots of one registry for (name, loop), and what is known about rules.

    Thread-safe. It does not keep a loop alive.
    """

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, Slot]] = {}
        self._loops: dict[str, Callable[[], Any]] = {}  # key of a slot -> a reference to its loop
        self._numbers = count(1)
        self._asynchronous: dict[str, Any] = {}  # name -> what returned an awaitable

    def reference(self, slot: Slot) -> Callable[[], Any] | None:
        """Return what returns the loop that a slot is for; None if it is for all threads."""
        return self._loops.get(slot.key)

    def note_asynchronous(self, name: str, maker: Any) -> None:
        """Note that a rule or a factory returned what has to be awaited."""
        self._asynchronous[name] = maker

    def is_asynchronous(self, name: str, maker: Any) -> bool:
        """Whether a rule or a factory is known to return awaitables."""
        if self._asynchronous.get(name, MISSING) is maker:
            return True
        flags = getattr(getattr(maker, "__code__", None), "co_flags", 0)
        return type(flags) is int and bool(flags & _COROUTINE_FUNCTION)

    def find(self, name: str, loop: Any) -> Slot | None:
        """Return the slot of a name for a loop, if there is one."""
        slots = self._slots.get(name)
        slot = None if slots is None else slots.get(id(loop))
        # The number of a loop that was collected may be that of another one.
        return slot if slot is not None and self._loops[slot.key]() is loop else None

    def make(self, cache: Cache, like: Slot, loop: Any) -> Slot:
        """Return the slot of a name for a loop; a new one has the options of the name's own."""
        name = like.name
        known = self.find(name, loop)
        if known is not None:
            return known
        kept = {each.key for slots in list(self._slots.values()) for each in list(slots.values())}
        for key, reference in list(self._loops.items()):
            if key not in kept and reference() is None:
                self._loops.pop(key, None)
        slot, _ = cache.add_slot(f"{name} (event loop {next(self._numbers)})", None, like.options)
        try:
            self._loops[slot.key] = ref(loop)
        except TypeError:  # then it is kept until the name is removed
            self._loops[slot.key] = lambda: loop
        cache.set_limits(slot, like.idle_limit, like.age_limit)
        cache.set_pinned(slot, like.pinned)
        self._slots.setdefault(name, {})[id(loop)] = slot
        return slot

    def place(self, cache: Cache, entry: Entry, loop: Any, token: int) -> int | None:
        """
        Let what was built for a loop belong to the slot that only look-ups from that loop know.

        Args:
            cache: The cache.
            entry: Was made in the slot of the name.
            loop: The loop.
            token: Of that slot, when the build began.

        Returns:
            The token of the other slot; None if anything was removed from the first one meanwhile.
        """
        slot = entry.slot
        for ended in self.take(slot.name, only_ended=True):
            cache.forget_slot(ended, DISCARDED)
        own = self.make(cache, slot, loop)
        cache.place(entry, own)
        own_token = cache.token(own)  # first: what is cleared from here on makes it stale
        return own_token if cache.token(slot) == token else None

    def of_name(self, name: str) -> list[Slot]:
        """Return the slots of a name, of whatever loops."""
        return list(self._slots.get(name, {}).values())

    def take(self, name: str | None = None, *, only_ended: bool = False) -> list[Slot]:
        """
        Forget slots.

        Args:
            name: Of which name; None: of all.
            only_ended: Only those of loops that are closed or were collected.

        Returns:
            The slots, which the caller drops.
        """
        taken = []
        for each in list(self._slots) if name is None else [name]:
            slots = self._slots.get(each, {})
            for number, slot in list(slots.items()):
                loop = self._loops[slot.key]()
                if not only_ended or loop is None or loop.is_closed():
                    slots.pop(number, None)
                    taken.append(slot)
        return taken
