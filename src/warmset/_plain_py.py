"""
Builds for which nothing takes part but the class that is called: the shortest path of a miss.

`Builder.obtain` provides for whatever a build can involve. Most involve none of it, and then cost
more than they have to. `PlainBuilds` takes those that certainly involve nothing, by the same tables
and with the same result, and leaves all others to the builder; so does it whatever fails.
"""

from __future__ import annotations

import sys
from _functools import partial  # type: ignore[import-not-found]
from _thread import get_ident
from time import perf_counter

from .resolver import find_ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from ._entry_py import Entry, Holder, Slot
    from .errors import MethodRegistryError

__all__ = ["BuildRecord", "PlainBuilds"]


class BuildRecord:
    """What is known of a build in progress; see `builds.Build`."""

    # What most builds leave as it is belongs to the class, which is a third of a miss.
    loop: Any = None  # the event loop that its instance belongs to, if any
    entry: Entry | None = None  # the build holds it
    instance: Any = None
    closer: Any = None  # of this very instance, where a provider yielded it
    published = False  # whether the entry was cached
    error: MethodRegistryError | None = None
    started: float | None = None  # by the stopwatch; None: nothing had to be built
    seconds = 0.0  # of a build that succeeded, without the import of its module
    import_seconds = 0.0
    elsewhere = 0.0  # seconds that it spent on looking up names that were not warm
    replaces: Entry | None = None  # the entry that is recycled, if any
    aside = False  # for its caller alone, and not cached: see `Builder`
    opened = False  # whether it came from a snapshot
    interrupted = False
    done = False  # whoever begins to wait from here on is not served
    completed = False  # all waiters are awake

    def __init__(
        self, constructor: Any, slot: Slot, token: int, owner: Hashable, outer: Any
    ) -> None:
        self.constructor = constructor
        self.slot = slot
        self.key: Any = slot.key  # of builds with the same one, there is one at a time
        self.loop_key: Any = slot.key  # what builds of that loop have in common
        self.token = token  # of the slot when the build began
        self.owner = owner  # its context
        self.thread: int = owner if type(owner) is int else get_ident()
        self.outer = outer  # the build that asked for this one
        self.began = perf_counter()
        self.made: list[Any] = []  # what its rule or constructor returned, until an entry has it
        self.notes: dict[Any, Any] = {}  # of extensions, by extension
        self.asked_for: dict[str, None] = {}  # the names it looked up that were not warm
        self.waiters: list[Any] = []


class PlainBuilds:
    """
    Builds that call a class, with the arguments it is registered with, and do nothing else.

    Args:
        build_type: Makes the record of a build.
        builds: The builds in progress, by the keys of their slots.
        running: The innermost build of each context.
        rules: By class name.
        failures: Those that are remembered, by the keys of slots.
        awaiting: By thread, what awaits for it in an event loop.
        closed: By identity, what the registry closed and what still exists.
        owners: Has to know each entry once it was searched; see `owners.Owners`.
        hooks: The names of methods that users replace to build otherwise, and what these are.
        current_context: Returns the number of the thread, or the greenlet; see `contexts`.
        stopwatch: Returns seconds.
        returned_none: Returns the error for a class that returned None.
        fail: Counts a build that raised something, and may raise what that means.
        end: Ends a build that raised something, and gives its hold back.
        info_wanted: Tells whether a log record of a build would be emitted.
    """

    def __init__(
        self,
        *,
        build_type: Any,
        builds: dict[Any, Any],
        running: dict[Any, Any],
        rules: dict[Any, Any],
        failures: dict[Any, Any],
        awaiting: dict[Any, Any],
        closed: dict[Any, Any],
        owners: Any,
        hooks: dict[str, Any],
        current_context: Callable[[], Any],
        stopwatch: Callable[[], float],
        returned_none: Callable[[Slot], Exception],
        fail: Callable[..., None],
        end: Callable[..., None],
        info_wanted: Callable[[str], bool],
    ) -> None:
        self._build_type = build_type
        self._builds = builds
        self._running = running
        self._rules = rules
        self._failures = failures
        self._awaiting = awaiting
        self._closed = closed
        self._owners = owners
        self._hooks = hooks
        self._current_context = current_context
        self._stopwatch = stopwatch
        self._returned_none = returned_none
        self._fail = fail
        self._end = end
        self._info_wanted = info_wanted

    def build(self, core: Any, class_name: str, holder: Holder) -> Any:
        """
        Build an instance after a miss.

        Args:
            core: The registry.
            class_name: The name that was looked up.
            holder: Gets the hold on its entry.

        Returns:
            The instance; None where the builder has to build it.
        """
        me = self._current_context()
        slot = core.slots.get(class_name)
        target = None if slot is None else self._target(core, slot, me)
        if target is None:
            return None
        handled = sys.exc_info()[1]
        mine = self._build_type(core, slot, 0, me, None)
        try:
            if self._builds.setdefault(slot.key, mine) is not mine:
                return None
            self._running[me] = mine
            mine.token = core.token(slot)
            if slot.entry is not None:  # another build has completed meanwhile
                self._end(mine)
                return None
            mine.started = began = self._stopwatch()
            make, arguments = target, ()
            if slot.options is not None:
                arguments = slot.options.args
                if slot.options.kwargs:
                    make = partial(target, **slot.options.kwargs)
            if core.construct(slot, make, mine, arguments) is None:
                raise self._returned_none(slot)
            mine.instance = mine.entry.content
            mine.seconds = max(0.0, self._stopwatch() - began)
            if self._owners.found is not None:
                self._owners.note(mine.entry)
            mine.published = core.add(mine.entry, mine.token, mine.seconds)
            del self._builds[slot.key]
            mine.complete()
            if self._info_wanted("builds"):
                core.report_build(mine, mine.seconds)
            # No call and no jump from here on: an interrupt would lose the hold.
            holder.entry = mine.entry
            mine.entry = None
            return mine.instance
        except BaseException as raised:
            try:
                self._fail(mine, raised, handled)
            finally:
                try:
                    self._end(mine)
                except BaseException:
                    self._end(mine)  # an interrupt in it
                    raise
            raise

    def _target(self, core: Any, slot: Slot, me: Hashable) -> Any:
        """Return the class that is called, if that is all; or None."""
        target, key = slot.target, slot.key
        if slot.entry is not None or core.left_over or core.sealed:
            return None
        if key in self._rules or key in self._failures or self._closed:
            return None
        # It runs in a build, for an event loop, or in a greenlet.
        if me in self._running or me in self._awaiting or type(me) is not int:
            return None
        replaced, kind = core.__dict__, type(core)
        for name, method in self._hooks.items():
            if name in replaced or getattr(kind, name) is not method:
                return None
        if type(target) is str:
            return find_ready(target)
        return target if issubclass(type(target), type) else None
