"""
Single flight: one build at a time for each class name, any number for different ones.

A build in progress is entered into a table by one atomic step, so of many threads that miss at once
one builds and the others wait. There is no lock: each step here is a single operation on a dict
with `str` or `int` keys, which no other thread sees half done, and which a finaliser or a signal
handler can re-enter without meeting a lock that its own thread holds.

A thread that waits is entered, before it waits, with the build it waits for, and each build knows
its owner. So a cycle, within a thread or across several, is found by the thread that would close
it. When a build completes, the hold of each waiter is taken on its behalf before any of them runs.
"""

from __future__ import annotations

import sys
from _contextvars import ContextVar
from _thread import TIMEOUT_MAX, LockType, allocate_lock, get_ident
from time import perf_counter

from .codes import FAILED_BUILDS, WAITS
from .errors import BuildError, BuildTimeoutError, CapacityError, CycleError, MethodRegistryError
from .failures import Failures, failure_of, raised_in_build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ._core import Entry, Slot

    class Constructor(Protocol):
        """What the builder needs of a registry."""

        def slot_to_build(self, class_name: str) -> Slot:
            """Return the slot of a name that may be built, or raise."""

        def token(self, slot: Slot) -> int:
            """Return a number that grows when the slot is cleared."""

        def find_warm(self, slot: Slot) -> tuple[Any, Entry] | None:
            """Return what is warm in a slot, held, and not counted as a look-up."""

        def prepare_build(self, build: Build) -> None:
            """Do what has to precede a build, as waiting for capacity."""

        def construct_entry(self, build: Build) -> Entry | None:
            """Run the rule or the constructor; the entry is held once."""

        def publish_build(self, build: Build) -> bool:
            """Cache what was built, if nothing was cleared meanwhile."""

        def hold(self, entry: Entry) -> bool:
            """Take a hold."""

        def release(self, entry: Entry, now: float | None) -> None:
            """Release a hold."""

        def report_build(self, build: Build, seconds: float) -> None:
            """Report a build that succeeded or failed."""

        def count(self, which: int) -> None:
            """Count what `codes` names."""

    class ServingWorker(Protocol):
        """A thread that makes calls for code while an event loop awaits that for it."""

        thread: int

        @property
        def is_open(self) -> bool: ...


__all__ = ["Build", "Builder", "serving_worker"]

# The worker for which an event loop awaits the current code; see `aio.workers`.
serving_worker: ContextVar[ServingWorker | None] = ContextVar("warmset.worker", default=None)


class _Waiter:
    """A thread that waits for a build, and the entry on which it was given a hold."""

    __slots__ = ("asked", "entry", "instance", "lock", "slot")

    def __init__(self, slot: Slot, asked: int) -> None:
        self.slot = slot
        self.asked = asked  # the token of the slot when its look-up began
        self.entry: Entry | None = None
        self.instance: Any = None
        self.lock = allocate_lock()
        self.lock.acquire()


class Build:
    """A build in progress: who builds, and how it ended."""

    __slots__ = (
        "asked_for",
        "began",
        "closer",
        "done",
        "elsewhere",
        "entry",
        "error",
        "instance",
        "interrupted",
        "notes",
        "opened",
        "outer",
        "owner",
        "published",
        "replaces",
        "seconds",
        "slot",
        "started",
        "token",
        "waiters",
    )

    def __init__(self, slot: Slot, token: int, owner: int, outer: Build | None) -> None:
        self.slot = slot
        self.token = token  # of the slot when the build began
        self.owner = owner
        self.outer = outer  # the build that asked for this one
        self.entry: Entry | None = None
        self.instance: Any = None
        self.closer: Any = None  # of this very instance, where a provider yielded it
        self.published = False  # whether the entry was cached
        self.error: MethodRegistryError | None = None
        self.began = perf_counter()
        self.started: float | None = None  # by the stopwatch; None: nothing had to be built
        self.seconds = 0.0  # of a build that succeeded
        self.replaces: Entry | None = None  # the entry that is recycled, if any
        self.notes: dict[Any, Any] = {}  # of extensions, by extension
        # The names it asked for that were not warm, and the seconds that this took.
        self.asked_for: dict[str, None] = {}
        self.elsewhere = 0.0
        self.opened = False  # whether it came from a snapshot
        self.interrupted = False
        self.done = False
        self.waiters: dict[_Waiter, None] = {}


class Builder:
    """
    Builds instances: single flight, with cycles found and failures remembered.

    Args:
        retry_after_seconds: How long a failure is raised again at once; 0 tries each time, `inf`
            never tries again.
        timeout_seconds: How long a thread waits for another one's build, by the system's clock;
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
        self._timeout = min(timeout_seconds, TIMEOUT_MAX) if timeout_seconds > 0.0 else -1
        self.stopwatch = perf_counter if timer is None else timer
        self._builds: dict[str, Build] = {}
        self._innermost: dict[int, Build] = {}
        self._waiting: dict[int, Build] = {}
        self.failures = Failures(retry_after_seconds, timer)

    def reset_after_fork(self) -> None:
        """Forget the builds of threads that do not exist in the child."""
        me = get_ident()
        self._builds = {name: build for name, build in self._builds.items() if build.owner == me}
        self._innermost = {me: self._innermost[me]} if me in self._innermost else {}
        self._waiting = {}

    # -- building --------------------------------------------------------------------------------

    def obtain(self, constructor: Constructor, class_name: str) -> tuple[Any, Entry]:
        """
        Return the instance of a class: built here, by another thread meanwhile, or just before.

        Args:
            constructor: Constructs the instance, and publishes it.
            class_name: A name whose look-up was counted as a miss.

        Returns:
            The instance and its entry, on which the caller has a hold.

        Raises:
            MethodRegistryError: The name is not registered, the registry is closed, or the build
                failed, now or within `retry_after_seconds` before.
            CycleError: This build waits for itself; the chain is named.
            BuildTimeoutError: Another thread's build took too long.

        Thread-safe.
        """
        me = get_ident()
        outer = self._innermost.get(me)
        if outer is None:
            return self._obtain(constructor, class_name, me)
        asked = self.stopwatch()
        try:
            return self._obtain(constructor, class_name, me)
        finally:
            outer.elsewhere += max(0.0, self.stopwatch() - asked)

    def _obtain(self, constructor: Constructor, class_name: str, me: int) -> tuple[Any, Entry]:
        asked: tuple[Slot, int] | None = None
        while True:
            # Each time anew: after a wait the name may mean another slot, or nothing.
            slot = constructor.slot_to_build(class_name)
            token = constructor.token(slot)
            if asked is None or asked[0] is not slot:
                asked = slot, token
            mine = Build(slot, token, me, self._innermost.get(me))
            if mine.outer is not None:
                mine.outer.asked_for[slot.name] = None
            try:
                build = self._enter(mine, constructor, self._lead)
            except BaseException:
                # An interrupt in a listener or a closer: the caller will not release the entry.
                if mine.entry is not None:
                    mine.instance = None
                    constructor.release(mine.entry, None)
                raise
            if build is mine:
                assert mine.entry is not None
                return mine.instance, mine.entry
            found = self._wait_for(build, _Waiter(slot, asked[1]), constructor, me)
            if found is not None:
                return found

    def _enter(
        self, mine: Build, constructor: Constructor, run: Callable[[Build, Constructor], None]
    ) -> Build:
        """Run a build, unless another one of its name is in progress; return the one that is."""
        name = mine.slot.name
        try:
            build = self._builds.setdefault(name, mine)
            if build is mine:
                self._innermost[mine.owner] = mine
                run(mine, constructor)
        finally:
            # It is in the table from that one step on, whatever interrupts this thread.
            if self._builds.get(name) is mine:
                self._complete(mine, constructor)
                # After the completion: a listener may ask for this very class.
                if not mine.interrupted:
                    self._report(mine, constructor)
        return build

    def _lead(self, build: Build, constructor: Constructor) -> None:
        slot = build.slot
        # Another build may have completed between the miss and the entry into the table.
        warm = constructor.find_warm(slot)
        if warm is not None:
            build.instance, build.entry = warm
            build.published = True
            return
        # What was removed up to here does not make this build stale.
        build.token = constructor.token(slot)
        remembered = self.failures.get(slot.name)
        if remembered is not None:
            build.error = remembered
            raise remembered.fresh_copy() from remembered.__cause__
        outer = sys.exc_info()[1]
        build.started = self.stopwatch()
        try:
            constructor.prepare_build(build)
            self._construct(build, constructor)
        except BaseException as raised:
            error = self._count_failure(build, constructor, raised)
            # Nothing is wrong with the class where it lacks capacity.
            if error is not None and not isinstance(error, CapacityError):
                self.failures.remember(slot.name, error, outer=outer)
            raise

    def renew(self, constructor: Constructor, class_name: str) -> bool:
        """
        Build an instance anew while the old one serves, and put it into the old one's place.

        Args:
            constructor: As for `obtain`.
            class_name: A name.

        Returns:
            Whether it was replaced: not if it was not warm, or was removed before the build ended,
            or is being built by another thread.

        Raises:
            MethodRegistryError: The build failed; the old one stays, and the failure is not
                remembered.

        Thread-safe.
        """
        me = get_ident()
        slot = constructor.slot_to_build(class_name)
        mine = Build(slot, constructor.token(slot), me, self._innermost.get(me))
        mine.replaces = slot.entry
        try:
            self._enter(mine, constructor, self._replace)
        finally:
            if mine.entry is not None:
                mine.instance = None
                constructor.release(mine.entry, None)
        return mine.published

    def _replace(self, build: Build, constructor: Constructor) -> None:
        if build.replaces is None or build.replaces.weak:
            return
        build.started = self.stopwatch()
        try:
            constructor.prepare_build(build)
            self._construct(build, constructor)
        except BaseException as raised:
            self._count_failure(build, constructor, raised)
            raise

    def _count_failure(
        self, build: Build, constructor: Constructor, raised: BaseException
    ) -> MethodRegistryError | None:
        """Count a failed build, and return its error; None if it was interrupted."""
        build.error = failure_of(build.slot, raised)
        if build.error is not None:
            constructor.count(FAILED_BUILDS)
        return build.error

    def _construct(self, build: Build, constructor: Constructor) -> None:
        slot = build.slot
        began = self.stopwatch()
        try:
            entry = constructor.construct_entry(build)
            if entry is None:
                raise BuildError(
                    f"building {slot.name!r} ({slot.path}) returned None; expected an instance",
                    class_name=slot.name,
                    class_path=slot.path,
                )
            # Before the timer is read, which may raise: from here on the entry is released.
            build.entry, build.instance = entry, entry.content
        except MethodRegistryError as error:
            # The error of another class, which this one asked for, is chained; a cycle concerns
            # all classes in it.
            if error.stage == "cycle" or error.class_name == slot.name:
                raise
            raise raised_in_build(slot, error) from error
        except Exception as error:
            raise raised_in_build(slot, error) from error
        finally:
            build.seconds = max(0.0, self.stopwatch() - began)
        build.published = constructor.publish_build(build)
        self.failures.forget(slot.name)

    def _complete(self, build: Build, constructor: Constructor) -> None:
        """Take a build out of the table, and give the waiters what they waited for."""
        if build.entry is None and build.error is None:
            # An interrupt concerns this thread alone; the waiters try again.
            build.interrupted = True
        if build.outer is None:
            self._innermost.pop(build.owner, None)
        else:
            self._innermost[build.owner] = build.outer
        del self._builds[build.slot.name]
        build.done = True  # before the waiters are taken: who enters later looks at it
        locks = []
        while build.waiters:
            try:
                waiter, _ = build.waiters.popitem()
            except KeyError:  # the last one withdrew
                break
            locks.append(waiter.lock)
            entry = build.entry
            fits = waiter.slot is build.slot and build.token >= waiter.asked
            if entry is not None and fits and build.replaces is None and constructor.hold(entry):
                waiter.instance = build.instance
                waiter.entry = entry
        # In C: no interrupt arrives between two of them.
        list(map(LockType.release, locks))

    def _report(self, build: Build, constructor: Constructor) -> None:
        """Report a completed build; its entry is held for the caller meanwhile."""
        started = build.started
        if started is None:  # it was warm already, or its failure is remembered
            return
        seconds = build.seconds
        if build.error is not None:
            seconds = max(0.0, self.stopwatch() - started)
        constructor.report_build(build, seconds)

    def _wait_for(
        self, build: Build, waiter: _Waiter, constructor: Constructor, me: int
    ) -> tuple[Any, Entry] | None:
        """
        Wait for a build of another thread.

        Args:
            build: The build.
            waiter: Is entered for it.
            constructor: As for `obtain`.
            me: This thread.

        Returns:
            Instance and entry, on which a hold was taken; None: try again.
        """
        before = self._waiting.get(me)  # set where a finaliser or a signal handler re-entered
        self._waiting[me] = build
        build.waiters[waiter] = None
        try:
            chain = self._chain(build, me)
            if chain is not None:
                raise CycleError(chain)
            constructor.count(WAITS)
            if build.done and build.waiters.pop(waiter, waiter) is None:
                return None  # it completed before this thread was among its waiters
            if not waiter.lock.acquire(timeout=self._timeout):
                raise BuildTimeoutError(
                    build.slot.name,
                    build.slot.path,
                    builder=_thread_name(build.owner),
                    seconds=perf_counter() - build.began,
                )
            entry, waiter.entry = waiter.entry, None
        except BaseException:
            if build.waiters.pop(waiter, waiter) is not None:
                # The build was completing: it may have taken a hold for this thread.
                waiter.lock.acquire(timeout=1.0)
            if waiter.entry is not None:
                constructor.release(waiter.entry, None)
            raise
        finally:
            if before is None:
                self._waiting.pop(me, None)
            else:
                self._waiting[me] = before
        if entry is not None:
            return waiter.instance, entry
        fits = waiter.slot is build.slot and build.token >= waiter.asked
        if build.error is not None and build.replaces is None and fits:
            raise build.error.fresh_copy() from build.error.__cause__
        return None

    def _chain(self, build: Build, me: int) -> list[str] | None:
        """Return the names along the cycle that waiting for a build would close, if it would."""
        wanted = [build]
        while wanted[-1].owner != me:
            following = self._waiting.get(wanted[-1].owner)
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
            inner = self._innermost.get(hop.owner)
            while inner is not None and inner is not hop:
                names.append(inner.slot.name)
                inner = inner.outer
            chain += [hop.slot.name, *reversed(names)]
        return [*chain, build.slot.name]

    def current_build(self) -> Build | None:
        """Return the innermost build that the calling code is part of, if any."""
        build = self._innermost.get(get_ident())
        if build is None:
            worker = serving_worker.get()
            if worker is not None and worker.is_open:
                return self._innermost.get(worker.thread)
        return build

    # -- reports ---------------------------------------------------------------------------

    def in_progress(self) -> list[tuple[str, int, float, int]]:
        """Return name, thread, seconds so far and waiters of each build in progress."""
        now = perf_counter()
        waiting = list(self._waiting.values())
        return [
            (name, build.owner, max(0.0, now - build.began), waiting.count(build))
            for name, build in self._builds.copy().items()
        ]

    def waiting(self) -> int:
        """Return how many threads wait for a build of another thread."""
        return len(self._waiting)


def _thread_name(ident: int) -> str:
    import threading

    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return f"thread {ident}"
