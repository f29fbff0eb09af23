"""
Single flight: one build at a time for each class name, any number for different ones.

A build in progress is entered into a table by one atomic step, so of many contexts (threads,
greenlets) that miss at once one builds and the others wait. There is no lock: each step here is a
single operation on a dict or a list, which no other thread sees half done, and which a finaliser or
a signal handler can re-enter without meeting a lock that its own thread holds.

How a context waits for another one's build is in `waits`. When a build completes, the hold of each
waiter is taken on its behalf before any of them runs.

Where a context must not wait, because the one that builds could never go on, it builds an entry of
its own, *aside*, which is not cached: a greenlet whose thread has no hub that could switch to the
other one, and code that a finaliser or a signal handler runs while its thread has a lock of ours.

An interrupt can arrive at any call here. What was taken is then in an object that is given back, a
`Build` or a `Waiter`, and a step that may have been cut off is done again: each can be repeated.
"""

from __future__ import annotations

import sys
from _contextvars import ContextVar
from _thread import TIMEOUT_MAX
from time import perf_counter

from . import builds
from ._core import PlainBuilds
from ._logs import info_wanted
from .builds import Build, Waiter, innermost_build, running, waiting
from .codes import FAILED_BUILDS
from .contexts import current_context
from .errors import CycleError, MethodRegistryError
from .failures import (
    Failures,
    explained,
    failure_of,
    is_of_build,
    raised_in_build,
    returned_none,
)
from .waits import must_not_wait, wait_for_build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, Protocol

    from ._core import Slot
    from .builds import Constructor, Holder
    from .family_keys import SlotKey

    class ServingWorker(Protocol):
        """A thread that makes calls for code while an event loop awaits that for it."""

        thread: int

        @property
        def is_open(self) -> bool: ...


__all__ = ["Build", "Builder", "serving_worker"]

# The worker for which an event loop awaits the current code; see `aio.workers`.
serving_worker: ContextVar[ServingWorker | None] = ContextVar("warmset.worker", default=None)


class Builder:
    """
    Builds instances: single flight, with cycles found and failures remembered.

    Args:
        retry_after_seconds: How long a failure is raised again at once; 0 tries each time, `inf`
            never tries again.
        timeout_seconds: How long a context waits for another one's build, by the system's clock;
            0: as long as it takes.
        timer: Returns the seconds by which builds are timed and failures expire; None takes the
            system's clocks.

    It gets the constructor at each call and does not keep it: the two would be a cycle, and leave
    a dropped registry, with all its instances, to the collector.
    """

    def __init__(
        self,
        *,
        retry_after_seconds: float,
        timeout_seconds: float = 0.0,
        timer: Callable[[], float] | None = None,
    ) -> None:
        self._timeout = min(timeout_seconds, TIMEOUT_MAX) if timeout_seconds > 0.0 else -1.0
        self.stopwatch = perf_counter if timer is None else timer
        self._builds: dict[Any, Build] = {}  # by the keys of their slots
        self._reporting: dict[Build, None] = {}
        self.failures = Failures(retry_after_seconds, timer)

    def reset_after_fork(self) -> None:
        """Forget the builds of contexts that do not exist in the child, and drop their holds."""
        me = current_context()
        builds.drop_holds(self._builds.values(), self._reporting)
        for key, build in list(self._builds.items()):
            if build.owner != me:
                del self._builds[key]
        builds.reset_after_fork(me)

    def plain_builds(
        self, classes: Any, closed: dict[int, Any], owners: Any, hooks: dict[str, Any]
    ) -> PlainBuilds:
        """Return what makes plain builds by the tables of this builder; see `PlainBuilds`."""
        return PlainBuilds(
            build_type=Build,
            builds=self._builds,
            running=running,
            rules=classes.rules,
            failures=self.failures.by_key,
            awaiting=classes.awaiting,
            closed=closed,
            owners=owners,
            hooks=hooks,
            current_context=current_context,
            stopwatch=self.stopwatch,
            returned_none=returned_none,
            fail=self.fail_plainly,
            end=self.end_plainly,
            info_wanted=info_wanted,
        )

    # -- building --------------------------------------------------------------------------------

    def obtain(self, constructor: Constructor, class_name: str, holder: Holder) -> Any:
        """
        Return the instance of a class: built here, by another context meanwhile, or just before.

        Args:
            constructor: Constructs the instance, and publishes it.
            class_name: A name whose look-up was counted as a miss.
            holder: Gets a hold on the entry.

        Returns:
            The instance.

        Raises:
            MethodRegistryError: The name is not registered, the registry is closed, or the build
                failed, now or within `retry_after_seconds` before.
            CycleError: This build waits for itself; the chain is named.
            BuildTimeoutError: Another context's build took too long.

        Thread-safe.
        """
        me = current_context()
        outer = innermost_build(me)
        if outer is None:
            return self._obtain(constructor, class_name, me, None, holder)
        asked = self.stopwatch()
        try:
            return self._obtain(constructor, class_name, me, outer, holder)
        finally:
            outer.elsewhere += max(0.0, self.stopwatch() - asked)

    def _obtain(
        self,
        constructor: Constructor,
        class_name: str,
        me: Hashable,
        outer: Build | None,
        holder: Holder,
    ) -> Any:
        asked: int | None = None
        asked_of: Slot | None = None
        while True:
            # Each time anew: after a wait the name may mean another slot, or nothing.
            slot = constructor.slot_to_build(class_name)
            token = constructor.token(slot)
            if asked is None or asked_of is not slot:
                asked, asked_of = token, slot
            mine = Build(constructor, slot, token, me, outer)
            waiter = None
            if outer is not None:
                outer.asked_for[slot.name] = None
            try:
                build = self._enter(mine, self._lead)
                if build is not mine:
                    if must_not_wait(build, me):
                        self._build_aside(mine)
                    else:
                        waiter = Waiter(slot, asked)
                        if not self._wait_for(build, waiter, constructor, me):
                            continue
                found = mine if waiter is None else waiter
                # No call and no jump from here on: an interrupt would lose the hold.
                holder.entry = found.entry
                found.entry = None
                return found.instance
            except BaseException:
                # An interrupt, also in a listener or a closer: the caller will not release it.
                self._give_up(mine, waiter)
                raise

    def _give_up(self, mine: Build, waiter: Waiter | None) -> None:
        mine.instance = None
        if waiter is not None:
            waiter.instance = None
            waiter.withdrawn = True
            mine.constructor.give_back(waiter, None)
        mine.constructor.give_back(mine, None)

    def _enter(self, mine: Build, run: Callable[[Build], None]) -> Build:
        """Run a build, unless another one of its name is in progress; return the one that is."""
        build = None
        try:
            mine.key = mine.constructor.build_key(mine.slot)
            build = self._builds.setdefault(mine.key, mine)
            if build is mine:
                running[mine.owner] = mine
                run(mine)
        finally:
            # It is in the table from that one step on, whatever interrupts this thread.
            if build is None or build is mine:
                try:
                    self._end(mine)
                except BaseException:
                    self._end(mine)  # an interrupt in it
                    raise
        return build

    def _complete(self, build: Build) -> None:
        """Take a build out of the table, and serve its waiters; it may be done again."""
        for key in (build.key, build.loop_key):
            if self._builds.get(key) is build:
                del self._builds[key]
        build.complete()

    def _lead(self, build: Build) -> None:
        slot, constructor = build.slot, build.constructor
        # Another build may have completed between the miss and the entry into the table.
        instance = constructor.find_warm(slot, build)
        if instance is not None:
            build.instance = instance
            build.published = True
            return
        # What was removed up to here does not make this build stale.
        build.token = constructor.token(slot)
        self._try(build)

    def _try(self, build: Build) -> None:
        """Build, unless a failure is remembered; remember a failure."""
        slot, constructor = build.slot, build.constructor
        remembered = self.failures.get(slot.key)
        if remembered is not None:
            build.error = remembered
            raise remembered.fresh_copy() from remembered.__cause__
        outer = sys.exc_info()[1]
        build.started = self.stopwatch()
        try:
            constructor.prepare_build(build)
            self._construct(build)
        except BaseException as raised:
            self._remember(build, raised, outer)
            raise

    def _remember(self, build: Build, raised: BaseException, outer: BaseException | None) -> None:
        """Count a failed build, and have its error raised again at once for a while."""
        slot = build.slot
        error = self._count_failure(build, raised)
        if error is not None:
            path = slot.target if type(slot.target) is str else None
            self.failures.remember(slot.key, error, outer=outer, path=path)

    def fail_plainly(
        self, build: Build, raised: BaseException, outer: BaseException | None
    ) -> None:
        """
        Count a build of `PlainBuilds` that raised something.

        Args:
            build: The build.
            raised: What was raised.
            outer: What was being handled when the build began.

        Raises:
            MethodRegistryError: What `obtain` would raise because of that. Where it would raise
                this very error, nothing is raised here.
        """
        if build.completed:
            return  # an interrupt in its report
        constructs = build.entry is None and isinstance(raised, Exception)
        if not constructs or is_of_build(build.slot, raised):
            self._remember(build, raised, outer)
            return
        cause = explained(build.slot, raised)
        try:
            raise raised_in_build(build.slot, cause) from cause
        except MethodRegistryError as error:
            self._remember(build, error, outer)
            raise

    def end_plainly(self, build: Build) -> None:
        """End a build of `PlainBuilds` that raised something; again, it does nothing."""
        try:
            self._end(build)
        finally:
            self._give_up(build, None)

    def _end(self, build: Build) -> None:
        """Complete and report a build, whatever became of it; again, after an interrupt in it."""
        if not build.completed:
            self._complete(build)
            # After the completion: a listener may ask for this very class.
            if not build.interrupted:
                self._report(build)

    def _build_aside(self, build: Build) -> None:
        chain = [build.slot.name]
        outer = build.outer
        while outer is not None:
            chain.append(outer.slot.name)
            if outer.slot is build.slot:
                raise CycleError(chain[::-1])
            outer = outer.outer
        build.aside = True
        try:
            running[build.owner] = build
            self._try(build)
        finally:
            try:
                self._end(build)
            except BaseException:
                self._end(build)  # an interrupt in it
                raise

    def renew(self, constructor: Constructor, class_name: str) -> bool:
        """
        Build an instance anew while the old one serves, and put it into the old one's place.

        Args:
            constructor: As for `obtain`.
            class_name: A name.

        Returns:
            Whether it was replaced: not if it was not warm, or was removed before the build ended,
            or is being built by another context.

        Raises:
            MethodRegistryError: The build failed; the old one stays, and the failure is not
                remembered.

        Thread-safe.
        """
        me = current_context()
        slot = constructor.slot_to_build(class_name)
        mine = Build(constructor, slot, constructor.token(slot), me, innermost_build(me))
        mine.replaces = slot.entry
        try:
            self._enter(mine, self._replace)
            published = mine.published
            self._give_up(mine, None)
        except BaseException:
            self._give_up(mine, None)
            raise
        return published

    def _replace(self, build: Build) -> None:
        if build.replaces is None or build.replaces.weak:
            return
        build.started = self.stopwatch()
        try:
            build.constructor.prepare_build(build)
            self._construct(build)
        except BaseException as raised:
            self._count_failure(build, raised)
            raise

    def _count_failure(self, build: Build, raised: BaseException) -> MethodRegistryError | None:
        """Count a failed build, and return its error; None if it was interrupted."""
        build.error = failure_of(build.slot, raised)
        if build.error is not None:
            build.constructor.count(FAILED_BUILDS)
        return build.error

    def _construct(self, build: Build) -> None:
        slot = build.slot
        began = self.stopwatch()
        try:
            build.constructor.construct_entry(build)
            if build.entry is None:
                raise returned_none(slot)
            build.instance = build.entry.content
        except Exception as error:
            if is_of_build(slot, error):
                raise
            raise raised_in_build(slot, error) from error
        finally:
            build.seconds = max(0.0, self.stopwatch() - began - build.import_seconds)
        if not build.aside:
            build.published = build.constructor.publish_build(build)
        self.failures.forget(slot.key)

    def _report(self, build: Build) -> None:
        """Report a completed build; its entry is held for the caller meanwhile."""
        started = build.started
        if started is None:  # it was warm already, or its failure is remembered
            return
        seconds = build.seconds
        if build.error is not None:
            seconds = max(0.0, self.stopwatch() - started)
        builds.report(build, seconds, self._reporting)

    # -- waiting ---------------------------------------------------------------------------------

    def _wait_for(
        self, build: Build, waiter: Waiter, constructor: Constructor, me: Hashable
    ) -> bool:
        return wait_for_build(build, waiter, constructor, me, self._timeout)

    def current_build(self) -> Build | None:
        """Return the innermost build that the calling code is part of, if any."""
        build = innermost_build(current_context())
        if build is None:
            worker = serving_worker.get()
            if worker is not None and worker.is_open:
                return innermost_build(worker.thread)
        return build

    def bind_to_loop(self, build: Build, loop: Any, key: Any) -> None:
        """Let what a build makes belong to a loop; later look-ups from there join it by a key."""
        build.loop, build.loop_key = loop, key
        self._builds.setdefault(key, build)

    # -- reports ---------------------------------------------------------------------------

    def in_progress(self) -> list[tuple[SlotKey, int, float, int]]:
        """Return key, thread, seconds so far and waiters of each build in progress."""
        now = perf_counter()
        waited_for = list(waiting.copy().values())
        return [
            (build.slot.key, build.thread, max(0.0, now - build.began), waited_for.count(build))
            for build in dict.fromkeys(self._builds.copy().values())
        ]

    def is_building(self, key: object) -> bool:
        """Return whether a build for a key is in progress, also one for an event loop."""
        return any(build.slot.key == key for build in self._builds.copy().values())

    def waiting(self) -> int:
        """Return how many contexts wait for a build of another one."""
        own = list(self._builds.values())
        return sum(build in own for build in list(waiting.values()))
