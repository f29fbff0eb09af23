"""
Builds that event loops wait for.

One worker builds for all who wait for a class, on whatever loops. It uses the registry's builder,
so it shares its build with threads that ask for the class, too. Each waiter has a future of its
own, which lives no longer than the wait: cancelling it does not affect the others. When a build
completes, the lease of each waiter is taken before any of them runs.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from .._locks import locked
from ..builder import serving_worker
from ..codes import WAITS
from ..errors import AsyncRuleError, BuildTimeoutError, MethodRegistryError
from .awaiting import LoopEndedError
from .workers import AsyncHold, Job, put_aside

if TYPE_CHECKING:
    from .._core import Lease, Slot
    from ..registry import BaseRegistry
    from .workers import Loop, Outcome, Workers

__all__ = ["Builds"]


class _Asked(NamedTuple):
    """The slot that a look-up found, and its token at that time."""

    slot: Slot | None
    token: int


class _Waiter:
    """A coroutine that waits for a build, and what it gets."""

    __slots__ = ("asked", "future", "given", "lease", "loop", "outcome")

    def __init__(self, loop: Loop, asked: _Asked) -> None:
        self.loop = loop
        self.future: asyncio.Future[Outcome] = loop.create_future()
        self.asked = asked
        self.lease: Lease[Any] | None = None  # taken for it
        self.outcome: Outcome | None = None  # what it gets
        self.given = False  # its loop gave it that, or dropped it

    def settle(self) -> None:
        """Give it its outcome; its loop calls this."""
        if self.given or self.outcome is None:
            return
        self.given = True
        outcome, self.outcome, self.lease = self.outcome, None, None
        if not self.future.done():
            self.future.set_result(outcome)
        elif outcome[0] is not None:
            outcome[0].__exit__()


class _Build:
    """A build that loops wait for."""

    __slots__ = ("asked", "began", "error", "interrupted", "key", "lease", "made", "waiters")

    def __init__(self, asked: _Asked, key: tuple[str, int]) -> None:
        self.asked = asked  # when it began
        self.key = key
        self.began = perf_counter()
        self.waiters: list[_Waiter] = []
        self.made = False  # the worker has nothing left to do but to serve the waiters
        self.lease: Lease[Any] | None = None  # on what was built
        self.error: BaseException | None = None
        self.interrupted = False  # one of the waiters got the interrupt

    def fits(self, waiter: _Waiter) -> bool:
        """Whether nothing was cleared between the begin of this build and a waiter's look-up."""
        return waiter.asked.slot is self.asked.slot and waiter.asked.token <= self.asked.token


class Builds:
    """
    Looks instances up for loops, and has one worker build for all that wait for the same class.

    Args:
        registry: The registry that provides the instances.
        workers: They build.

    Safe under threads, and under any number of loops.
    """

    def __init__(self, registry: BaseRegistry, workers: Workers) -> None:
        self._registry = registry
        self._workers = workers
        self._slots = registry.classes.loop_slots
        self._lock = threading.RLock()  # guards the builds and their waiters
        self._builds: dict[tuple[str, int], _Build] = {}

    async def obtain(self, class_name: str) -> AsyncHold:
        """
        Hold an instance.

        Args:
            class_name: A name.

        Returns:
            The hold.

        Raises:
            MethodRegistryError: As `Registry.get_instance`.

        A look-up is counted once, whatever it waits for. O(1) and without a thread on a hit.
        """
        loop = asyncio.get_running_loop()
        lease = self._registry.use(class_name)
        hold = AsyncHold(lease, self._workers, loop)
        asked: _Asked | None = None
        while True:
            warm, removed = put_aside(partial(self._enter_warm, lease, loop, asked is None))
            if removed:
                try:
                    await self._workers.close(removed)
                except BaseException:
                    hold.__exit__()
                    raise
            if warm:
                return hold
            now = self._ask(class_name)
            if asked is None or asked.slot is not now.slot:
                asked = now
            failure = self._registry.builder.failures.get(class_name)
            if failure is not None and not _is_caused_by(failure, AsyncRuleError):
                raise failure.fresh_copy() from failure.__cause__
            if serving_worker.get() is not None and await self._request(lease, hold):
                return hold
            built = await self._wait(class_name, loop, asked, now)
            if built is not None:
                return built

    def _enter_warm(self, lease: Lease[Any], loop: Loop, is_first: bool) -> bool:
        """Hold what is warm; the first attempt is counted as a look-up."""
        registry = self._registry
        slot = registry.slots.get(lease.class_name)
        own = self._slots.find(lease.class_name, loop)
        if own is not None and own.entry is not None and (slot is None or slot.entry is None):
            slot = own
        if is_first:
            key = lease.class_name if slot is None else slot.key
            return lease.take(partial(registry.look_up, key))
        return slot is not None and lease.take(partial(registry.find_held, slot))

    def _ask(self, class_name: str) -> _Asked:
        slot = self._registry.slots.get(class_name)
        return _Asked(slot, 0 if slot is None else self._registry.token(slot))

    async def _request(self, lease: Lease[Any], hold: AsyncHold) -> bool:
        """Have the worker that serves the caller build or wait; False if none serves it."""
        job = Job(partial(self._enter_built, lease), hold)
        if not self._workers.request(job):
            return False
        try:
            await job.outcome()
        except BaseException:
            if job.take_hold() is not None:
                hold.__exit__()
            raise
        job.take_hold()
        return True

    async def _wait(
        self, class_name: str, loop: Loop, asked: _Asked, now: _Asked
    ) -> AsyncHold | None:
        """Wait for a build, which is begun if there is none; None: look the name up again."""
        waiter = _Waiter(loop, asked)
        future = waiter.future
        key = class_name, 0
        if self._registry.classes.is_asynchronous(self._registry, class_name):
            key = class_name, id(loop)  # each loop builds its own
        build, is_first = self._join(key, now, waiter)
        try:
            if is_first:
                self._begin(class_name, build, loop)
            else:
                self._registry.count(WAITS)
                await self._wait_in_time(class_name, build, future)
            built, error = await future
        except BaseException:
            if future.done() and not future.cancelled():
                built, _ = future.result()  # it arrived at the same moment
                if built is not None:
                    built.__exit__()
            raise
        if error is not None:
            try:
                raise error
            finally:
                del error, future, waiter, build  # it refers to this frame, and so to them
        return built  # type: ignore[no-any-return]

    @locked
    def _join(self, key: tuple[str, int], now: _Asked, waiter: _Waiter) -> tuple[_Build, bool]:
        """Return the build of a key, which a waiter waits for from now on, and if it is new."""
        build = self._builds.get(key)
        is_first = build is None
        if build is None:
            build = self._builds[key] = _Build(now, key)
        build.waiters.append(waiter)
        return build, is_first

    @locked
    def _end(self, build: _Build) -> None:
        # A look-up from now on finds the instance, or begins another build.
        if self._builds.get(build.key) is build:
            del self._builds[build.key]

    async def _wait_in_time(
        self, class_name: str, build: _Build, future: asyncio.Future[Outcome]
    ) -> None:
        seconds = self._registry.settings.build_timeout_seconds
        if seconds > 0.0:
            try:
                await asyncio.wait((future,), timeout=min(seconds, threading.TIMEOUT_MAX))
            except asyncio.CancelledError:
                future.cancel()
                raise
            if future.cancel():
                slot = self._registry.slots.get(class_name)
                raise BuildTimeoutError(
                    class_name,
                    None if slot is None else slot.path,
                    builder=_worker_name(class_name),
                    seconds=perf_counter() - build.began,
                )

    def _begin(self, class_name: str, build: _Build, loop: Loop) -> None:
        context = copy_context()
        context.run(serving_worker.set, None)
        call = partial(context.run, self._build, class_name, build, loop)
        try:
            self._workers.start(loop, call, _worker_name(class_name))
        except BaseException as error:  # no thread can be started
            build.made, build.error = True, error
            self._complete(build, loop)

    def _build(self, class_name: str, build: _Build, loop: Loop) -> None:
        """Build, and serve the waiters; it may be called again."""
        if not build.made:
            lease = self._registry.use(class_name)
            try:
                self._enter_built(lease)
                build.lease, lease = lease, None  # type: ignore[assignment]
            except BaseException as error:
                build.error = error
                if _is_caused_by(error, LoopEndedError):  # nothing is wrong with the class
                    self._forget(error)
            build.made = True
        self._complete(build, loop)

    def _complete(self, build: _Build, loop: Loop) -> None:
        """Give each waiter a lease of its own, or the error; it may be called again."""
        self._end(build)
        lease = build.lease
        for waiter in build.waiters:
            if waiter.outcome is None and not waiter.given:
                waiter.outcome = self._outcome(build, waiter, loop)
        if lease is not None:
            lease.__exit__()  # before a waiter runs, which may expect that nothing else holds it
        build.error = None  # it refers to a frame that refers to the build
        for waiter in build.waiters:
            try:
                waiter.loop.call_soon_threadsafe(waiter.settle)
            except RuntimeError:  # that loop is closed: nobody waits there
                waiter.outcome = None
        build.waiters.clear()

    def _outcome(self, build: _Build, waiter: _Waiter, loop: Loop) -> Outcome:
        """Return what a waiter gets: a hold, an error, or neither, so that it tries again."""
        lease, error = build.lease, build.error
        entry = None if lease is None else lease.entry
        # What was built for one loop is not for another, and the end of one does not affect others.
        of_one = entry is not None and self._slots.reference(entry.slot) is not None
        of_one = of_one or (error is not None and _is_caused_by(error, LoopEndedError))
        # A look-up after a clear must not get what was begun before it.
        again = not build.fits(waiter) or (of_one and waiter.loop is not loop)
        if again or build.interrupted or waiter.future.cancelled():
            return None, None
        if lease is not None:
            # Else an error came before there was a hold; one that it dropped has ended its lease.
            if waiter.lease is None or waiter.lease.entry is None:
                waiter.lease = self._registry.copy_lease(lease)
            return AsyncHold(waiter.lease, self._workers, waiter.loop), None
        if isinstance(error, MethodRegistryError):
            copy = error.fresh_copy()
            copy.__cause__ = error.__cause__
            return None, copy
        # An interrupt is for one waiter; the others try again.
        build.interrupted = not isinstance(error, Exception)
        return None, error

    def _enter_built(self, lease: Lease[Any]) -> None:
        try:
            lease.take(partial(self._registry.build, lease.class_name))
        except MethodRegistryError as error:
            if not _is_caused_by(error, AsyncRuleError):
                raise
            self._forget(error)
        else:
            return
        # A synchronous caller was first, and had no loop for a rule. This one has.
        lease.take(partial(self._registry.build, lease.class_name))

    def _forget(self, error: BaseException | None) -> None:
        while error is not None:
            if isinstance(error, MethodRegistryError):
                self._registry.builder.failures.forget_error(error)
            error = error.__cause__


def _worker_name(class_name: str) -> str:
    return f"warmset build of {class_name!r}"


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error is not None
