"""
The pure-Python recency ring: the cached entries of a registry in the order of their last use.

Recency
    root <-> oldest <-> ... <-> newest sorted <-> mark <-> touched <-> ... <-> touched <-> root

    A hit does not move its entry: it stamps the entry and marks it as touched. Between the root
    and the mark, entries that are not touched stand in the order of their last use, and every
    touched entry is newer than each of them. A search for a victim starts at the oldest entry and
    moves the touched entries that it meets behind the mark. When it reaches the mark, it sorts the
    entries behind the mark by last use and stamp, and moves them in front of it.

Why no half-made change is ever visible
    The same thread can re-enter in the middle of an operation, through a finaliser that the garbage
    collector runs, or a signal handler, which can also raise there. CPython lets them in after a
    call, at the beginning of a function, at a jump that is taken (since 3.11 only at a backward
    one), and (before 3.12) where a container is created. Other threads get the GIL at the same
    points. So each change is a straight line of stores, the body of an `if` whose last test was
    that the change still applies: a test that holds falls through, without a jump. Within the line
    there is no other branch, no call, and no new container. A loop survives a ring that changed
    between two of its steps. `tests/test_reentry_points.py` re-enters at each of them.

    With a GIL that is all: `lock` is none. A lock could be held by a thread whose finaliser waits
    for another thread, which waits for the lock. Without a GIL, every operation takes the lock.
"""

from __future__ import annotations

import sys
from _operator import index
from _thread import RLock
from types import MappingProxyType

from . import _fork
from ._entry_py import Entry, make_end
from .codes import CACHED, CAUSES, COUNTERS, NO_LIMIT, STATES, WEAK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any

    from ._entry_py import Slot

__all__ = ["LOCK_FREE", "Ring"]

# Whether a straight line of stores is atomic: it is under a GIL.
LOCK_FREE = getattr(sys, "_is_gil_enabled", lambda: True)()


class NoLock:
    """Stands in for a lock where none is needed; both are C functions that return a false value."""

    __enter__ = staticmethod("".format)
    __exit__ = staticmethod("".format)


_NAMES = (  # the keys of a dict that describes an entry in `get_stats`
    "class_name",
    "age_seconds",
    "last_accessed_seconds_ago",
    "access_count",
)


class Ring:
    """Slots and entries of a registry, and the ring of those entries that are cached."""

    def __init__(self) -> None:
        if "lock" in self.__dict__:
            raise RuntimeError("this registry was initialised already")
        self._owner = object()  # which its slots have, and no others
        self._slots: dict[Any, Slot] = {}
        self.slots = MappingProxyType(self._slots)  # a read-only view
        self.registered = 0  # slots with a target
        self.sealed = False
        self.cached = 0
        self.weakly_kept = 0
        self.known_bytes = 0  # of the cached instances, as far as they are known
        self.removal_queue: deque[Entry] | None = None  # of removed entries, for listeners
        self.unclosed: dict[Entry, None] = {}  # entries that wait to be closed; an ordered set
        self.left_over = False  # whether an interrupt may have left entries unclosed
        self.builds = 0
        self.build_seconds = 0.0
        self.adopted = 0
        self.evictions = 0
        # The limits of slots that have none of their own.
        self._idle_limit = self._age_limit = NO_LIMIT
        self._one_limit = True  # all slots have that idle limit, and no age limit
        self._removals = [0] * CAUSES
        self._removal_serial = 0
        self._states = [0] * STATES
        self._counts = [0] * COUNTERS
        self._generation = 0
        self._stamp = 0  # of the last use; each has one above all others
        self._other_uses = 0  # uses that are not hits
        self._root, self._mark = root, mark = make_end(), make_end()
        root.newer = root.older = mark
        mark.newer = mark.older = root
        self._moves = 0  # of entries within the ring
        self._sorts = 0  # the number of the last sort that began
        self.lock: Any = NoLock() if LOCK_FREE else RLock()
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        """Make the lock anew: the thread that held it at the fork does not exist in the child."""
        # What it guards is whole, because a thread is never switched in the middle of a change.
        self.lock = NoLock() if LOCK_FREE else RLock()

    def _check_owner(self, slot: Slot) -> None:
        """Refuse the slot of another registry, whose ring and counts are not these."""
        if slot.owner is not self._owner:
            raise ValueError(f"the slot of {slot.name!r} belongs to another registry")

    # -- the ring --------------------------------------------------------------------------------

    def oldest(self, spare: Entry | None = None) -> Entry | None:
        """Return the least recently used entry that is not held, pinned or spared."""
        with self.lock:
            return self._oldest(spare)

    def _oldest(self, spare: Entry | None) -> Entry | None:
        root, mark = self._root, self._mark
        sort: int | None = None
        while True:
            entry, moves = root.newer, self._moves
            while entry is not mark:
                if entry is None or moves != self._moves:
                    # Another thread unlinked or moved something: what comes next may be behind the
                    # mark, where each step would move an entry in front of this one, without end.
                    entry, moves = root.newer, self._moves
                    continue
                newer = entry.newer
                if entry.touched and sort is None:
                    moves += self._move(entry, root)
                elif not entry.holds and not entry.slot.pinned and entry is not spare:
                    return entry
                entry = newer
            if mark.newer is root or sort == self._sorts:
                return None
            sort = self._sort()

    def _move(self, entry: Entry, newer: Entry, sort: int | None = None) -> bool:
        """Move a linked entry to the older side of another one, while a sort is the last one."""
        number = self._sorts if sort is None else sort
        # After the last jump: what is read here is not stale where it is stored.
        own_newer, own_older, older = entry.newer, entry.older, newer.older
        if (
            own_newer is not None
            and older is not entry
            and entry is not newer
            and self._sorts == number
        ):
            self._moves += 1
            own_newer.older = own_older
            own_older.newer = own_newer  # type: ignore[union-attr]
            older = newer.older
            entry.older = older
            entry.newer = newer
            older.newer = entry  # type: ignore[union-attr]
            newer.older = entry
            return True
        return False

    def _sort(self, *, whole: bool = False) -> int:
        """
        Sort what is behind the mark, or the whole ring, and move it in front of the mark.

        A sort that begins meanwhile includes what this one has not moved yet, and this one stops.

        Returns:
            The number of this sort.
        """
        root, mark = self._root, self._mark
        self._sorts = sort = self._sorts + 1
        entries: list[Entry] = []
        entry = root.newer if whole else mark.newer
        while entry is not root:
            if entry is None:
                entries = []
                entry = root.newer if whole else mark.newer
                continue
            if entry is not mark:
                entry.touched = False  # before its time is read: it may be used from here on
                entries.append(entry)
            entry = entry.newer
        entries.sort(key=_recency)
        for entry in entries:
            self._move(entry, mark, sort)
        return sort

    def _sort_if_older(self, last_used: float) -> None:
        """Restore the order after an entry got this last use and counts as touched."""
        newest_sorted = self._mark.older
        if newest_sorted is not self._root and last_used < newest_sorted.last_used:  # type: ignore[union-attr]
            self._sort(whole=True)

    def ring(self, *, from_oldest: bool = False) -> list[Entry]:
        """Return the cached entries in the order of their last use, the newest first."""
        with self.lock:
            return self._ring(from_oldest)

    def _ring(self, from_oldest: bool) -> list[Entry]:
        root, mark = self._root, self._mark
        entries: list[Entry] = []
        for _ in range(100):
            self._sort(whole=True)
            moves = self._moves
            entries = []
            entry = root.newer if from_oldest else root.older
            while entry is not root and entry is not None:
                if entry is not mark:
                    entries.append(entry)
                entry = entry.newer if from_oldest else entry.older
            if entry is root and moves == self._moves:
                return entries
        # Others keep moving and removing entries; it may lack some, and has none twice.
        return list(dict.fromkeys(entries))

    def facts(self, now: float, *, as_dicts: bool = False) -> tuple[list[Any], int, int | None]:
        """
        Return what statistics tell of each cached entry, how many are held, and their bytes.

        Args:
            now: The time.
            as_dicts: Whether each is a dict, under the pipeline's names, and not a tuple.

        Returns:
            One for each, the most recently used first; bytes are None if none are known.
        """
        rows: list[Any] = [
            (
                entry.slot.name,
                now - entry.built_at if now > entry.built_at else 0.0,
                now - entry.last_used if now > entry.last_used else 0.0,
                entry.uses,
                entry.build_seconds,
                entry.holds,
                None if entry.bytes < 0 else entry.bytes,
                entry.slot.key,
            )
            for entry in self.ring()
        ]
        held = sum([row[5] > 0 for row in rows])
        known = [row[6] for row in rows if row[6] is not None]
        if as_dicts:
            rows = [dict(zip(_NAMES, row, strict=False)) for row in rows]
        return rows, held, sum(known) if known else None

    def stale(self, now: float) -> list[Entry]:
        """Return the cached entries that are past their age, or were idle for too long."""
        if self._one_limit and self._idle_limit == NO_LIMIT:
            return []
        with self.lock:
            return self._stale(now)

    def _stale(self, now: float) -> list[Entry]:
        found: list[Entry] = []
        root, mark = self._root, self._mark
        entry = root.newer
        in_order = self._one_limit  # whether those in front of the mark expire in their order
        while entry is not root:
            if entry is None:  # it was unlinked meanwhile: begin again
                found = []
                entry = root.newer
                in_order = self._one_limit
            elif entry is mark:
                entry = mark.newer
                in_order = False
            elif self.is_stale(entry, now):
                found.append(entry)
                entry = entry.newer
            elif in_order and not (entry.touched or entry.holds or entry.slot.pinned):
                # All others in front of the mark were used later.
                entry = mark
            else:
                entry = entry.newer
        return found

    def is_stale(self, entry: Entry, now: float) -> bool:
        """Whether an entry is past its age, or was idle for too long."""
        # Written so that a clock that returns NaN makes it stale.
        slot = entry.slot
        if not now <= entry.built_at + slot.age_limit:
            return not entry.weak
        return not now - entry.last_used <= slot.idle_limit and not entry.holds and not slot.pinned

    # -- sizes and counters ----------------------------------------------------------------------

    def set_bytes(self, entry: Entry, size: int) -> bool:
        """Note how big an instance is, -1 if that is not known; whether it is still cached."""
        self._check_owner(entry.slot)
        size = index(size)
        while entry.state == CACHED:
            with self.lock:
                before = entry.bytes
                more = max(size, 0) - max(before, 0)
                if entry.state == CACHED and entry.bytes == before:
                    entry.bytes = size
                    self.known_bytes += more
                    return True
        with self.lock:
            if entry.state == WEAK:
                entry.bytes = size
                return True
        return False

    def count(self, which: int) -> None:
        """Count one more of what `codes` names."""
        with self.lock:
            self._counts[which] += 1


def _recency(entry: Entry) -> tuple[float, int]:
    return entry.last_used, entry.stamp
