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
from .family_keys import FamilyKey
from .foreign import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Entry, Slot
    from .cache import Cache
    from .family_keys import SlotKey

__all__ = ["LoopSlots"]

_AWAITED = 0x80 | 0x200  # the code flags of coroutine functions and asynchronous generators


class LoopSlots:
    """
    The slots of one registry for (name, loop), and what is known about rules.

    Thread-safe. It does not keep a loop alive.
    """

    def __init__(self) -> None:
        self._slots: dict[SlotKey, dict[int, Slot]] = {}
        # Key of a slot, or number of a loop -> a reference to the loop. Slots of families share the
        # number of their loop: their keys are without number.
        self._loops: dict[str | int, Callable[[], Any]] = {}
        self._numbers = count(1)
        self._asynchronous: dict[str, Any] = {}  # class or family -> what returned an awaitable

    def reference(self, slot: Slot) -> Callable[[], Any] | None:
        """Return what returns the loop that a slot is for; None if it is for all threads."""
        return self._loops.get(_loop_of(slot.key))

    def note_asynchronous(self, key: SlotKey, maker: Any) -> None:
        """Note that a rule or a factory returned what has to be awaited."""
        self._asynchronous[_maker_of(key)] = maker

    def is_asynchronous(self, key: SlotKey, maker: Any) -> bool:
        """Whether a rule or a factory is known to return awaitables."""
        if self._asynchronous.get(_maker_of(key), MISSING) is maker:
            return True
        flags = getattr(getattr(maker, "__code__", None), "co_flags", 0)
        return type(flags) is int and bool(flags & _AWAITED)

    def find(self, key: SlotKey, loop: Any) -> Slot | None:
        """Return the slot of a name for a loop, if there is one."""
        slots = self._slots.get(key)
        slot = None if slots is None else slots.get(id(loop))
        # The number of a loop that was collected may be that of another one.
        return slot if slot is not None and self._loops[_loop_of(slot.key)]() is loop else None

    def make(self, cache: Cache, like: Slot, loop: Any) -> Slot:
        """Return the slot of a name for a loop; a new one has the options of the name's own."""
        key = like.key
        known = self.find(key, loop)
        if known is not None:
            return known
        if type(key) is FamilyKey:
            slot, _ = cache.add_slot(key.of_loop(self._number_of(loop)), like.target, like.options)
            like.target.add(slot)
        else:
            slot = self._make_for_class(cache, key, like, loop)
        cache.set_limits(slot, like.idle_limit, like.age_limit)
        cache.set_pinned(slot, like.pinned)
        self._slots.setdefault(key, {})[id(loop)] = slot
        return slot

    def _number_of(self, loop: Any) -> int:
        """Return the number of a loop, for slots of families."""
        gone = []
        for number, reference in list(self._loops.items()):
            if type(number) is int:
                known = reference()
                if known is loop:
                    return number
                if known is None:
                    gone.append(number)
        if gone:
            keys = [each.key for each in self._kept() if type(each.key) is not str]
            for number in set(gone).difference(key.loop_number for key in keys):
                self._loops.pop(number, None)
        number = next(self._numbers)
        self._loops[number] = _reference(loop)
        return number

    def _kept(self) -> list[Slot]:
        return [each for slots in list(self._slots.values()) for each in list(slots.values())]

    def _make_for_class(self, cache: Cache, name: str, like: Slot, loop: Any) -> Slot:
        kept = {each.key for each in self._kept()}
        for key, reference in list(self._loops.items()):
            if type(key) is str and key not in kept and reference() is None:
                self._loops.pop(key, None)
        slot, _ = cache.add_slot(f"{name} (event loop {next(self._numbers)})", None, like.options)
        self._loops[slot.key] = _reference(loop)
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
        for ended in self.take(slot.key, only_ended=True):
            cache.forget_slot(ended, DISCARDED)
        own = self.make(cache, slot, loop)
        cache.place(entry, own)
        own_token = cache.token(own)  # first: what is cleared from here on makes it stale
        return own_token if cache.token(slot) == token else None

    def of_name(self, key: SlotKey) -> list[Slot]:
        """Return the slots of a name, of whatever loops."""
        return list(self._slots.get(key, {}).values())

    def drop(self, slot: Slot) -> None:
        """Forget the slot of a key of a family."""
        key = FamilyKey(slot.key.family, slot.key.key)
        slots = self._slots.get(key, {})
        for number, each in list(slots.items()):
            if each is slot:
                slots.pop(number, None)
        if not slots:
            self._slots.pop(key, None)

    def take(self, key: SlotKey | None = None, *, only_ended: bool = False) -> list[Slot]:
        """
        Forget slots.

        Args:
            key: Of which name; None: of all.
            only_ended: Only those of loops that are closed or were collected.

        Returns:
            The slots, which the caller drops.
        """
        taken = []
        for each in list(self._slots) if key is None else [key]:
            slots = self._slots.get(each, {})
            for number, slot in list(slots.items()):
                loop = self._loops[_loop_of(slot.key)]()
                if not only_ended or loop is None or loop.is_closed():
                    slots.pop(number, None)
                    taken.append(slot)
        return taken


def _loop_of(key: Any) -> str | int:
    """Return what the loop of a slot is known by."""
    return key if type(key) is str else key.loop_number or 0


def _maker_of(key: Any) -> str:
    return key if type(key) is str else key.family


def _reference(loop: Any) -> Callable[[], Any]:
    try:
        return ref(loop)
    except TypeError:  # then it is kept until the name is removed
        return lambda: loop
