"""The views that a policy and a chooser get of entries and of a registry, without a registry."""

from __future__ import annotations

from itertools import count
from typing import Any

from warmset.codes import CACHED, CLOSED
from warmset.memory.choosing import Chooser

_serials = count(1)


class FakeSlot:
    """The part of a slot that a chooser reads: whether it is pinned, and its priority."""

    def __init__(self, *, pinned: bool = False, priority: int = 0) -> None:
        self.options = self
        self.pinned = pinned
        self.priority = priority


class FakeEntry:
    """The part of an entry that a chooser and a policy read."""

    def __init__(self, name: str, *, slot: FakeSlot | None = None, **facts: Any) -> None:
        self.name = name
        self.slot = FakeSlot() if slot is None else slot
        self.serial = next(_serials)
        self.state = CACHED
        self.uses = 1
        self.holds = 0
        self.built_at = self.last_used = 0.0
        self.build_seconds = 1.0
        self.bytes = 100
        self.worth: Any = 0.0  # returned by `ByAttribute`
        for fact, value in facts.items():
            setattr(self, fact, value)


class FakeRegistry:
    """The entries that a chooser chooses from."""

    def __init__(self, policy: Any) -> None:
        self.entries: list[FakeEntry] = []
        self.chooser = Chooser(policy)

    @property
    def cached(self) -> int:
        """The number of cached entries."""
        return len(self.entries)

    def warm_entries(self) -> list[FakeEntry]:
        """Return the cached entries."""
        return list(self.entries)

    def add(self, entry: FakeEntry, *, report: bool = True) -> FakeEntry:
        """Cache an entry; without a report it was cached in another way than by a build."""
        self.entries.append(entry)
        if report:
            self.chooser.note(entry, entry.last_used)  # type: ignore[arg-type]
        return entry

    def remove(self, entry: FakeEntry) -> None:
        """Remove an entry."""
        self.entries.remove(entry)
        entry.state = CLOSED
        self.chooser.removed(entry)  # type: ignore[arg-type]

    def victim(self, now: float = 0.0, spare: Any = None) -> FakeEntry | None:
        """Choose the next victim."""
        return self.chooser.victim(self, now, spare)  # type: ignore[arg-type, return-value]

    def victim_name(self, now: float = 0.0, spare: Any = None) -> str | None:
        """Choose the next victim, and return its name."""
        chosen = self.victim(now, spare)
        return None if chosen is None else chosen.name

    def drain(self, now: float = 0.0) -> list[FakeEntry]:
        """Remove one victim after the other; return them in this order."""
        removed = []
        while (chosen := self.victim(now)) is not None:
            removed.append(chosen)
            self.remove(chosen)
        return removed


class ByAttribute:
    """A policy by which the worth is an attribute of the entry, which the test sets."""

    def worth(self, entry: Any, now: float) -> Any:
        """Return or raise the attribute `worth`."""
        if isinstance(entry.worth, Exception):
            raise entry.worth
        return entry.worth


def warm(policy: Any, *worths: Any) -> FakeRegistry:
    """Make a registry with an entry for each worth, the later ones used later."""
    registry = FakeRegistry(policy)
    for now, worth in enumerate(worths):
        registry.add(FakeEntry(f"E{now}", worth=worth, last_used=float(now)))
    return registry
