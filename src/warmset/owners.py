"""Which entries have an instance: two rules may return the same object."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Protocol

    from ._core import Entry, Slot

    class Entries(Protocol):
        """Where the entries of a registry are."""

        builds: int
        adopted: int

        @property
        def slots(self) -> Mapping[Any, Slot]: ...
        @property
        def unclosed(self) -> Any: ...
        def holds(self) -> list[tuple[Entry, int, float]]: ...


__all__ = ["Owners"]

_SPARE_ENTRIES = 64


class Owners:
    """
    Finds the entries that have an instance, in constant time on average.

    Nothing is kept until the first search. That enters all entries by the identity of their
    instances, and `note` those made from then on. When these outnumber the former, all are
    forgotten until the next search: so each entry costs a constant share, and memory is bounded.

    Thread-safe. An entry that was missed, because of an interrupt or another thread, shows in the
    registry's count of entries; then all are entered anew.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: _Found | None = None  # None: nobody searched for an entry yet

    def note(self, entry: Entry | None) -> None:
        """Enter an entry that was just made, if one was; O(1)."""
        found = self.found
        if found is None or entry is None:
            return
        found.enter(entry)
        found.noted += 1
        if found.noted > found.most_noted:
            self.found = None

    def other_has(self, registry: Entries, entry: Entry, box: list[Any]) -> bool:
        """Return whether an entry besides this one has what is in the box, and not weakly."""
        found = self.found
        if found is None or found.first + found.noted != registry.builds + registry.adopted:
            found = self.found = _Found(registry)
        return any(
            other is not entry and not other.weak and other.instance is box[0]
            for other in list(found.by_id.get(id(box[0]), ()))
        )


class _Found:
    """Entries by the identity of their instances."""

    __slots__ = ("by_id", "first", "most_noted", "noted")

    def __init__(self, registry: Entries) -> None:
        self.by_id: dict[int, dict[Entry, None]] = {}
        # Counted before the search: an entry that is made meanwhile shows as missed.
        self.first = registry.builds + registry.adopted
        self.noted = 0
        for entry in _entries(registry):
            self.enter(entry)
        self.most_noted = len(self.by_id) + _SPARE_ENTRIES

    def enter(self, entry: Entry) -> None:
        instance = entry.instance
        if instance is not None and not entry.weak:
            # Each step is one operation on a dict: other threads enter theirs meanwhile.
            known = self.by_id.setdefault(id(instance), {})
            for other in list(known):
                if other.instance is not instance:  # its number is that of another one now
                    known.pop(other, None)
            known[entry] = None


def _entries(registry: Entries) -> Iterator[Entry]:
    # In the order in which an entry moves: one that moves meanwhile is found twice, and not missed.
    for slot in list(registry.slots.values()):
        entry = slot.entry
        if entry is not None:
            yield entry
    for held, _, _ in registry.holds():
        yield held
    yield from list(registry.unclosed)
