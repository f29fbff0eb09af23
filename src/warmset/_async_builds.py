"""
Builds that event loops wait for.

One worker builds for all who wait for a class, on whatever loops; it goes through the registry's
builder, so it shares its build with threads that ask for the class, too. Each who waits has a
future of its own, which lives no longer than the wait: cancelling it takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from ._tallies import WAITS
from ._workers import Hold, Job, LoopGoneError, collected, course
from .errors import AsyncRuleError, BuildTimeoutError, MethodRegistryError

if TYPE_CHECKING:
    from ._core import Lease
    from ._workers import Loop, Outcome, Threads
    from .registry import Registry

__all__ = ["Builds"]


class _Build:
    """A build that loops wait for."""

    __slots__ = ("began", "token", "waiters")

    def __init__(self, token: int | None) -> None:
        self.token = token  # of the slot, at the beginning: changed by a clear
        self.waiters: list[tuple[Loop, asyncio.Future[Outcome], int | None]] = []
        self.began = perf_counter()


class Builds:
    """
    Looks instances up for loops, and has one worker build for all that wait for the same class.

    Args:
        registry: Where instances come from.
        threads: Gives workers.

    Safe under threads, and under any number of loops.
    """

    def __init__(self, registry: Registry, threads: Threads) -> None:
        self._registry = registry
        self._threads = threads
        self._lock = threading.Lock()  # guards the builds and who waits for them
        self._builds: dict[str, _Build] = {}

    async def obtain(self, class_name: str) -> Hold:
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
        hold = Hold(lease, self._threads, loop)
        count = True
        while True:
            warm, departed = collected(partial(lease._enter_warm, count))
            if departed:
                await self._threads.close(departed)
            if warm:
                return hold
            count = False
            failure = self._registry._builder.failure(class_name)
            if failure is not None and not _caused(failure, AsyncRuleError):
                raise failure._again() from failure.__cause__
            if course.get() is not None and await self._served(lease, hold):
                return hold
            built = await self._built(class_name, loop)
            if built is not None:
                return built

    async def _served(self, lease: Lease, hold: Hold) -> bool:
        """Have the worker that serves the caller build, or wait; False if it serves no more."""
        job = Job(partial(self._enter_built, lease), hold)
        if not self._threads.ask(job):
            return False
        try:
            await job.outcome()
        except BaseException:
            if job.take_back() is not None:
                hold.__exit__()
            raise
        job.take_back()
        return True

    async def _built(self, class_name: str, loop: Loop) -> Hold | None:
        """Wait for a build, that is begun if there is none; None: look again."""
        slot = self._registry._slots.get(class_name)
        token = None if slot is None else self._registry._token(slot)
        future: asyncio.Future[Outcome] = loop.create_future()
        with self._lock:
            build = self._builds.get(class_name)
            first = build is None
            if build is None:
                build = self._builds[class_name] = _Build(token)
            build.waiters.append((loop, future, token))
        try:
            if first:
                self._begin(class_name, build, loop)
            else:
                self._registry._tally(WAITS)
                await self._in_time(class_name, build, future)
            built, error = await future
        except BaseException:
            if future.done() and not future.cancelled():
                built, _ = future.result()  # it came at the same moment
                if built is not None:
                    built.__exit__()
            raise
        if error is not None:
            try:
                raise error
            finally:
                del error, future, build  # it refers to this frame, and so to them
        return built  # type: ignore[no-any-return]

    async def _in_time(
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
                slot = self._registry._slots.get(class_name)
                raise BuildTimeoutError(
                    class_name,
                    None if slot is None else slot.path,
                    builder=_worker_name(class_name),
                    seconds=perf_counter() - build.began,
                )

    def _begin(self, class_name: str, build: _Build, loop: Loop) -> None:
        context = copy_context()
        context.run(course.set, None)
        call = partial(context.run, self._build, class_name, build, loop)
        try:
            self._threads.begin(loop, call, _worker_name(class_name))
        except BaseException as error:  # no thread can be had
            self._land(class_name, build, loop, None, error)

    def _build(self, class_name: str, build: _Build, loop: Loop) -> None:
        lease = self._registry.use(class_name)
        try:
            self._enter_built(lease)
        except BaseException as error:
            if _caused(error, LoopGoneError):  # nothing is wrong with the class
                self._forget(error)
            self._land(class_name, build, loop, None, error)
        else:
            self._land(class_name, build, loop, lease, None)

    def _land(
        self,
        class_name: str,
        build: _Build,
        loop: Loop,
        lease: Lease | None,
        error: BaseException | None,
    ) -> None:
        """Give those who wait a lease each, or the error."""
        with self._lock:
            # Who comes from now on finds the instance, or begins another build.
            if self._builds.get(class_name) is build:
                del self._builds[class_name]
        gone = error is not None and _caused(error, LoopGoneError)
        interrupted = False
        outcomes: list[Outcome] = []
        for theirs, future, token in build.waiters:
            outcome: Outcome = None, None
            # Who came after a clear must not take what was begun before it, and the end of one
            # loop is no trouble of another.
            again = token != build.token or (gone and theirs is not loop) or interrupted
            if again or future.cancelled():
                pass
            elif lease is not None:
                outcome = Hold(lease._again(), self._threads, theirs), None
            elif isinstance(error, MethodRegistryError):
                copy = error._again()
                copy.__cause__ = error.__cause__
                outcome = None, copy
            else:
                # An interrupt is for one; the others try for themselves.
                outcome = None, error
                interrupted = not isinstance(error, Exception)
            outcomes.append(outcome)
        if lease is not None:
            lease.__exit__()  # before anybody goes on, who may want it to be held no more
        error = None
        for (theirs, future, _), outcome in zip(build.waiters, outcomes, strict=True):
            try:
                theirs.call_soon_threadsafe(_settle, future, outcome)
            except RuntimeError:  # that loop is closed: nobody waits there
                if outcome[0] is not None:
                    outcome[0].__exit__()

    def _enter_built(self, lease: Lease) -> None:
        try:
            lease._enter_built()
        except MethodRegistryError as error:
            if not _caused(error, AsyncRuleError):
                raise
            self._forget(error)
        else:
            return
        # A synchronous caller was first, and had no loop for a rule. This one has.
        lease._enter_built()

    def _forget(self, error: BaseException | None) -> None:
        while error is not None:
            if isinstance(error, MethodRegistryError) and error.class_name is not None:
                self._registry._builder.forget(error.class_name)
            error = error.__cause__


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
    elif outcome[0] is not None:
        outcome[0].__exit__()


def _worker_name(class_name: str) -> str:
    return f"warmset build of {class_name!r}"


def _caused(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error is not None
