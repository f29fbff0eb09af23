"""
Builds in progress: who builds, who waits, and how a build ended.

The two tables are those of the process, by context: a cycle may go through several registries.
"""

from __future__ import annotations

from ._core import BuildRecord
from .contexts import current_context, get_ident, make_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Any, Protocol

    from ._core import Entry, Slot

    class Holder(Protocol):
        """Has at most one hold, on its entry; see `RegistryCore.give_back`."""

        entry: Entry | None

    class Constructor(Protocol):
        """What the builder needs of a registry."""

        def slot_to_build(self, class_name: str) -> Slot:
            """Return the slot of a name that may be built, or raise."""

        def build_key(self, slot: Slot) -> Any:
            """Return what builds that must not run at the same time have in common."""

        def token(self, slot: Slot) -> int:
            """Return a number that grows when the slot is cleared."""

        def find_warm(self, slot: Slot, holder: Holder) -> Any:
            """Return what is warm in a slot, and let the holder hold it; it is no look-up."""

        def prepare_build(self, build: Build) -> None:
            """Do what has to precede a build, as waiting for capacity."""

        def construct_entry(self, build: Build) -> None:
            """Run the rule or the constructor; the build holds the entry."""

        def publish_build(self, build: Build) -> bool:
            """Cache what was built, if nothing was cleared meanwhile."""

        def hold(self, entry: Entry, holder: Holder) -> bool:
            """Let a holder hold an entry."""

        def give_back(self, holder: Holder, now: float | None) -> None:
            """Release the hold of a holder, if it has one."""

        def drop(self, holder: Holder) -> None:
            """Release the hold of a holder that does not exist any more."""

        def report_build(self, build: Build, seconds: float) -> None:
            """Report a build that succeeded or failed."""

        def count(self, which: int) -> None:
            """Count what `codes` names."""


__all__ = [
    "Build",
    "Waiter",
    "blocked",
    "drop_holds",
    "innermost_build",
    "is_stuck",
    "report",
    "reset_after_fork",
    "results_of_build",
    "running",
    "waiting",
]

# Context -> the innermost build that it runs, and the build that it waits for.
running: dict[Hashable, Build] = {}
waiting: dict[Hashable, Build] = {}
# Thread -> the build that it waits for, so that no greenlet of it runs meanwhile.
blocked: dict[int | None, Build] = {}


class Waiter:
    """A context that waits for a build, and the entry on which it was given a hold."""

    __slots__ = ("asked", "entry", "instance", "lock", "served", "slot", "withdrawn")

    def __init__(self, slot: Slot, asked: int) -> None:
        self.slot = slot
        self.asked = asked  # the token of the slot when its look-up began
        self.entry: Entry | None = None
        self.instance: Any = None
        self.served = False  # the build gave it all that it gives
        self.withdrawn = False  # it takes nothing any more
        self.lock = make_lock()
        self.lock.acquire()


class Build(BuildRecord):
    """A build in progress: who builds, and how it ended."""

    __slots__ = ()

    def complete(self) -> None:
        """
        Give the waiters what they waited for, and wake them.

        It may be called again: after an interrupt, or by code that re-enters in the middle of it.
        """
        if self.entry is not None and self.instance is None:
            self.instance = self.entry.instance  # an interrupt came between the two
        if self.instance is None and self.error is None:
            # An interrupt concerns its own context alone; the waiters try again.
            self.interrupted = True
        self.done = True
        for waiter in self.waiters:
            self._serve(waiter)
        if running.get(self.owner) is self:
            if self.outer is None:
                running.pop(self.owner, None)
            else:
                running[self.owner] = self.outer
        self.completed = True

    def _serve(self, waiter: Waiter) -> None:
        entry = self.entry
        if not waiter.served:
            fits = waiter.slot is self.slot and self.token >= waiter.asked
            usable = entry is not None and self.error is None and self.replaces is None
            usable = usable and self.loop is None  # else it is not for a thread that waits
            if usable and fits and waiter.entry is None:
                waiter.instance = self.instance
                self.constructor.hold(entry, waiter)
            waiter.served = True
        if waiter.withdrawn:
            self.constructor.give_back(waiter, None)
        if waiter.lock.locked():  # else it is awake; a lock that it acquired again is not used
            waiter.lock.release()


def innermost_build(context: Hashable) -> Build | None:
    """Return the innermost build that a context runs, and that is not over."""
    build = running.get(context)
    # One that is over is there only if an interrupt came in.
    while build is not None and build.done:
        build = build.outer
    return build


def is_stuck(build: Build, context: Hashable, thread: int | None) -> bool:
    """
    Whether a build can only go on when a greenlet runs whose thread a wait for it would block.

    Args:
        build: What is to be waited for.
        context: Who would wait for it.
        thread: The thread that this would block, if any.

    A true cycle, of contexts that wait for each other, is none of this.
    """
    by_thread = False
    following: Build | None = build
    for _ in range(len(running) + len(blocked) + 1):
        if following is None or following.done:
            return False
        if following.owner == context:
            return by_thread
        if following.thread == thread:
            return True
        build, following = following, waiting.get(following.owner)
        if following is None:
            following = blocked.get(build.thread)
            by_thread = True
    return False


def results_of_build() -> list[Any]:
    """Return the list for what the rule or constructor that is about to be called returns."""
    build = innermost_build(current_context())
    return [] if build is None else build.made


def report(build: Build, seconds: float, reporting: dict[Build, None]) -> None:
    """Have a completed build reported, which is in a table meanwhile."""
    try:
        reporting[build] = None
        build.constructor.report_build(build, seconds)
    finally:
        reporting.pop(build, None)


def drop_holds(builds: Iterable[Build], reporting: dict[Build, None]) -> None:
    """Drop the holds of builds of other threads, which do not exist in a forked child."""
    here = get_ident()
    for build in (*builds, *reporting):
        if build.thread != here:
            reporting.pop(build, None)
            build.constructor.drop(build)


def reset_after_fork(context: Hashable) -> None:
    """Forget the builds of contexts that do not exist in the child."""
    kept = running.get(context)
    running.clear()
    waiting.clear()
    blocked.clear()
    if kept is not None:
        running[context] = kept
