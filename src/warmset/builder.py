"""
Single flight: one build at a time for each class name, any number for different ones.

A build in progress is entered into a table by one atomic step, so of many contexts (threads,
greenlets) that miss at once one builds and the others wait. There is no lock: each step here is a
single operation on a dict or a list, which no other thread sees half done, and which a finaliser or
a signal handler can re-enter without meeting a lock that its own thread holds.

A context that waits is entered, before it waits, with the build it waits for, and each build knows
its owner. So a cycle, within a context or across several, is found by the one that would close it.
When a build completes, the hold of each waiter is taken on its behalf before any of them runs.

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
from ._locks import is_inside_lock
from .builds import Build, Waiter, blocked, innermost_build, running, waiting
from .codes import FAILED_BUILDS, WAITS
from .contexts import (
    blocked_thread,
    current_context,
    get_ident,
    importing_in_cycle,
    is_importing,
    wait_for,
)
from .errors import BuildError, BuildTimeoutError, CycleError, MethodRegistryError
from .failures import Failures, failure_of, raised_in_build

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
        self._builds = {key: build for key, build in self._builds.items() if build.owner == me}
        builds.reset_after_fork(me)

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
                    if self._must_not_wait(build, me):
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
                    self._complete(mine)
                except BaseException:
                    self._complete(mine)  # an interrupt in it
                    raise
                # After the completion: a listener may ask for this very class.
                if not mine.interrupted:
                    self._report(mine)
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
            error = self._count_failure(build, raised)
            if error is not None:
                path = slot.target if type(slot.target) is str else None
                self.failures.remember(slot.key, error, outer=outer, path=path)
            # This frame is in the traceback of the error: the two would be a cycle.
            del error
            raise

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
                build.complete()
            except BaseException:
                build.complete()  # an interrupt in it
                raise
            if not build.interrupted:
                self._report(build)

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
                raise BuildError(
                    f"building {slot.name!r} ({slot.path}) returned None; expected an instance",
                    class_name=slot.name,
                    class_path=slot.path,
                )
            build.instance = build.entry.content
        except MethodRegistryError as error:
            # The error of another class, which this one asked for, is chained; a cycle concerns
            # all classes in it.
            if error.stage == "cycle" or error.class_name == slot.name:
                raise
            raise raised_in_build(slot, error) from error
        except Exception as error:
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

    def _must_not_wait(self, build: Build, me: Hashable) -> bool:
        """Whether the context that builds could not go on while this one waits."""
        if build.owner == me:
            return False  # a cycle, which is found when it begins to wait
        return is_inside_lock() or builds.is_stuck(build, me, blocked_thread())

    def _wait_for(
        self, build: Build, waiter: Waiter, constructor: Constructor, me: Hashable
    ) -> bool:
        """
        Wait for a build of another context.

        Args:
            build: The build.
            waiter: Is entered for it.
            constructor: As for `obtain`.
            me: This context.

        Returns:
            Whether the waiter was given a hold; if not, the name has to be looked up again.
        """
        before = waiting.get(me)  # set where a finaliser or a signal handler re-entered
        here = blocked_thread()
        blocked_before = blocked.get(here)
        # One call each, without a jump before it: an interrupt cannot skip it.
        restore: Any = waiting.pop if before is None else waiting.__setitem__
        restore_blocked: Any = blocked.pop if blocked_before is None else blocked.__setitem__
        try:
            waiting[me] = build
            if here is not None:
                blocked[here] = build
            build.waiters.append(waiter)
            if build.done:  # it completed before this context was among its waiters
                waiter.withdrawn = True
                constructor.give_back(waiter, None)
                return False
            self._complete_own(me)
            chain = self._chain(build, me)
            if chain is not None:
                raise CycleError(chain)
            if builds.is_stuck(build, me, here):  # seen again: it is entered by now
                waiter.withdrawn = True
                constructor.give_back(waiter, None)
                return False
            constructor.count(WAITS)
            if not wait_for(waiter.lock, self._timeout, self._import_check(build)):
                raise BuildTimeoutError(
                    build.slot.name,
                    build.slot.path,
                    builder=_thread_name(build.thread),
                    seconds=perf_counter() - build.began,
                )
        finally:
            try:
                restore(me, before)
            finally:
                restore_blocked(here, blocked_before)
        if waiter.entry is not None:
            return True
        fits = waiter.slot is build.slot and build.token >= waiter.asked
        if build.error is not None and build.replaces is None and fits:
            raise build.error.fresh_copy() from build.error.__cause__
        return False

    def _complete_own(self, me: Hashable) -> None:
        """Wake those who wait for a build of this context, whose completion was re-entered."""
        build = running.get(me)
        while build is not None:
            following = build.outer
            if build.done and not build.completed:
                build.complete()
            build = following

    def _import_check(self, build: Build) -> Callable[[], None] | None:
        """Return what raises if a build waits for an import of this thread, if it has one."""
        here = get_ident()
        if not is_importing(here):
            return None

        def check() -> None:
            module = importing_in_cycle(here, build.thread)
            if module is not None:
                name = build.slot.name
                raise CycleError([name, f"import of {module}", name])

        return check

    def _chain(self, build: Build, me: Hashable) -> list[str] | None:
        """Return the names along the cycle that waiting for a build would close, if it would."""
        wanted = [build]
        while wanted[-1].owner != me:
            following = waiting.get(wanted[-1].owner)
            if following is None or following in wanted:
                return None
            wanted.append(following)
        if any(hop.done for hop in wanted):
            # One hop completed meanwhile, so nobody waits along this path any more. While none has,
            # each owner still waits where it was seen.
            return None
        chain: list[str] = []
        for hop in wanted:
            names = []
            inner = innermost_build(hop.owner)
            while inner is not None and inner is not hop:
                names.append(inner.slot.name)
                inner = inner.outer
            chain += [hop.slot.name, *reversed(names)]
        return [*chain, build.slot.name]

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


def _thread_name(ident: int) -> str:
    import threading

    return {each.ident: each.name for each in threading.enumerate()}.get(ident, f"thread {ident}")
