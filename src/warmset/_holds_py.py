"""
The pure-Python core's holds: taken and released, and the closing that a last release allows.

`_ring_py` tells why no half-made change is ever visible; the same rules hold here.
"""

from __future__ import annotations

import sys
from _operator import index

from ._changes_py import Changes
from ._entry_py import Entry, Hold
from ._ring_py import LOCK_FREE
from .codes import CACHED, DISCARDED, HELD, NOTHING_TO_CLOSE, PARENTS, STATES, WAITING, WEAK
from .foreign import is_unclosable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._entry_py import Holder

__all__ = ["Holds"]


def _references(box: list[Any]) -> int:
    return sys.getrefcount(box[0])


# The count of an object that only its box refers to; it depends on the interpreter.
_ALONE = _references([object()])


# States, after an entry was taken out of the cache, in which a child leaves it to its parent.
_ABANDONED = frozenset((HELD, WAITING, NOTHING_TO_CLOSE))
# States in which an entry can be held: others are being closed, or were.
_HOLDABLE = frozenset((CACHED, WEAK, HELD, NOTHING_TO_CLOSE))


class Holds(Changes):
    """What holds entries, and lets them be closed."""

    max_size: int

    def __init__(self) -> None:
        super().__init__()
        self.watched = 0  # how many wait for a release, or for capacity
        self.holding: dict[Hold, None] = {}

    def reset_after_fork(self) -> None:
        """Reset what belongs to threads that do not exist in the child."""
        super().reset_after_fork()
        self.watched = 0

    if TYPE_CHECKING:  # what the registry defines; it is called while no lock is held

        def close_released(self, entry: Entry) -> None:
            """Close an entry outside the cache whose last hold has ended."""

        def make_capacity(self, spare: Entry | None = None) -> None:
            """Evict down to the bound, sparing one entry."""

        def capacity_freed(self) -> None:
            """Report that a hold was released while somebody waits for that."""

    # -- holds -----------------------------------------------------------------------------------

    def hold(self, entry: Entry, holder: Holder | None = None) -> bool:
        """Take a hold on an entry, for a holder; False if it is being closed, or was."""
        self._check_owner(entry.slot)
        target: Holder = Hold() if holder is None else holder
        with self.lock:
            if entry.state in _HOLDABLE:
                entry.holds += 1
                target.entry = entry
                return True
        return False

    def release(self, entry: Entry, now: float | None, *, share: bool = False) -> None:
        """Release a hold that `construct`, `hold` or a build took; a use, unless `now` is None."""
        self._check_owner(entry.slot)
        hold = Hold()
        hold.entry = entry
        self.give_back(hold, now, share=share)

    def give_back(self, holder: Holder, now: float | None, *, share: bool = False) -> None:
        """Release the hold of a holder, whose `entry` becomes None; again, it does nothing."""
        last = False
        try:
            while True:
                with self.lock:
                    entry = holder.entry
                    if entry is None or not entry.holds:
                        return
                    state, holds = entry.state, entry.holds
                    # A hit may have found the slot of another registry, if somebody wrote it there.
                    last = holds == 1 and state == HELD and entry.slot.owner is self._owner
                    used = now is not None and state <= WEAK
                    if holder.entry is entry and entry.state == state and entry.holds == holds:
                        holder.entry = None
                        entry.holds = holds - 1
                        entry.shared |= share
                        entry.state = state + last  # HELD becomes WAITING
                        self._states[HELD] -= last
                        self._states[WAITING] += last
                        if used:  # it holds where there is more to do
                            entry.last_used = now  # type: ignore[assignment]
                            entry.touched = True
                            self._stamp = entry.stamp = self._stamp + 1
                            self._other_uses += 1
                        if last:
                            self.unclosed[entry] = None
                        break
            if type(holder) is Hold:
                self.holding.pop(holder, None)
            spare = entry if share else None
            self.after_release(entry if last else None, spare, cached=state == CACHED)
        except BaseException:
            self.left_over = True  # an interrupt may have come before the entry was closed
            raise

    def drop(self, holder: Holder) -> None:
        """Release the hold of a holder that nobody has any more; what this allows is not done."""
        entry = holder.entry
        holder.entry = None
        if entry is not None:
            self._check_owner(entry.slot)
            with self.lock:
                last = entry.holds == 1 and entry.state == HELD
                entry.holds -= entry.holds > 0
                if last:
                    entry.state = WAITING
                    self._states[HELD] -= 1
                    self._states[WAITING] += 1
                    self.unclosed[entry] = None

    def drop_holds(self, thread: int) -> None:
        """Drop the recorded holds of all threads but one: after a fork, these do not exist."""
        for hold in list(self.holding):
            if hold.thread != thread:
                self.holding.pop(hold, None)
                self.drop(hold)

    def holds(self) -> list[tuple[Entry, int, float]]:
        """Return entry, thread and begin of each hold, the oldest first."""
        found = []
        for hold in list(self.holding):
            entry = hold.entry
            if entry is not None:
                found.append((entry, hold.thread, hold.since))
        found.sort(key=lambda row: row[2])
        return found

    def watch(self, count: int) -> None:
        """Add so many to, or take them from, those who wait for a release or for capacity."""
        count = index(count)
        with self.lock:
            self.watched += count

    def leave(self, hold: Hold) -> None:
        """Release a hold; releasing it again does nothing."""
        if hold.entry is None:
            return
        try:
            now = self.now()
        except BaseException:
            self.give_back(hold, None)
            raise
        entry = hold.entry
        if entry is not None and LOCK_FREE:  # noqa: SIM102  (a test that holds must not jump)
            if entry.state == CACHED and hold.entry is entry:
                hold.entry = None
                entry.holds -= 1
                entry.last_used = now
                entry.touched = True
                self._stamp = entry.stamp = self._stamp + 1
                self._other_uses += 1
                self.holding.pop(hold, None)
                if self.cached > self.max_size or self.watched:
                    self.after_release(None)
                return
        self.give_back(hold, now)

    def after_release(
        self, ended: Entry | None, spare: Entry | None = None, *, cached: bool = True
    ) -> None:
        """Do what a released hold allows: close an entry, or evict down to the bound."""
        try:
            if ended is not None:
                self.close_released(ended)
            elif cached and self.cached > self.max_size:
                self.make_capacity(spare)
        except BaseException:
            self.left_over = True
            raise
        finally:
            if self.watched:
                self.capacity_freed()

    def abandon(self, entry: Entry) -> bool:
        """Take an entry out of the cache and leave it alone: after a fork it is the parent's."""
        self._check_owner(entry.slot)
        removed: list[Entry] = []
        with self.lock:
            self._detach(entry, DISCARDED, removed)
            if entry.state in _ABANDONED:
                self._states[entry.state] -= 1
                self._states[PARENTS] += 1
                entry.state = PARENTS
                self.unclosed.pop(entry, None)
                return True
        return False

    # -- entries: closing ------------------------------------------------------------------------

    def claim(self, entry: Entry, box: list[Any]) -> bool:
        """Move the instance of a waiting entry into an empty list; whether it was there."""
        self._check_owner(entry.slot)
        box.append(None)
        with self.lock:
            _routes = entry.routes  # kept until the lock is released: it may refer to foreign code
            if entry.state == WAITING and entry.content is not None:
                box[0] = entry.content
                entry.content = None
                entry.routes = None
                return True
        box.clear()
        return False

    def unclaim(self, entry: Entry, box: list[Any]) -> None:
        """Move the instance of a claimed entry back into it: its closer was not called."""
        self._check_owner(entry.slot)
        content = box[0]
        with self.lock:
            if entry.state == WAITING and entry.content is None:
                entry.content = content
        self.left_over = True

    def settle(self, entry: Entry, state: int) -> None:
        """Give a claimed entry its final state."""
        state = index(state)
        if not WAITING < state < STATES:
            raise ValueError(f"expected a final state, got {state}")
        self._check_owner(entry.slot)
        with self.lock:
            if entry.state == WAITING:
                entry.state = state
                self._states[WAITING] -= 1
                self._states[state] += 1
                self.unclosed.pop(entry, None)

    def settle_unclosable(self, entries: list[Entry]) -> list[Entry]:
        """Let instances go that have no way to be closed; the other entries that wait for it."""
        return [
            entry
            for entry in entries
            if entry.state == WAITING and not self._settle_unclosable(entry)
        ]

    def _settle_unclosable(self, entry: Entry) -> bool:
        """Let the instance of a waiting entry go if it certainly has no way to be closed."""
        self._check_owner(entry.slot)
        options = entry.options
        # The only text that it can be is "auto".
        if entry.closer is not None or (options is not None and type(options.closer) is not str):
            return False
        content, _routes = entry.content, entry.routes  # dropped after the change
        if content is None:
            return True  # somebody closes it
        if not is_unclosable(content):
            return False
        with self.lock:
            if entry.state == WAITING and entry.content is content:
                entry.content = None
                entry.routes = None
                entry.state = NOTHING_TO_CLOSE
                self._states[WAITING] -= 1
                self._states[NOTHING_TO_CLOSE] += 1
                self.unclosed.pop(entry, None)
        return True

    def is_alone(self, box: list[Any]) -> bool:
        """Whether nothing but this list refers to what is in it, as far as that can be known."""
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return False  # of the two counts there is only a sum here, which is of no one moment
        return len(box) == 1 and _references(box) == _ALONE
