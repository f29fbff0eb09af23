"""
Threads that work for event loops.

A thread that builds, removes or closes (a *worker*) has a loop await what a rule or a closer gives.
While the loop is at it, the worker does what the awaited code asks `aio` for, one after the other.
So all that one build asks for is asked for by one thread, and the builder, which knows by threads
who waits for whom, sees a cycle among asynchronous rules as it sees all others.

Nothing here outlives the wait that it serves: jobs and courses hold futures and a loop, and are
dropped when these are done.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .lifecycle.closing import close_departed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._core import Lease
    from .registry import Registry

    Loop = asyncio.AbstractEventLoop
    Outcome = tuple[Any, BaseException | None]

__all__ = ["Course", "Hold", "Job", "LoopGoneError", "Threads", "close_or_collect", "collected"]

POLL_SECONDS = 0.05  # between two looks of a worker whether its loop is still there
PATIENCE = 20  # how many looks in a row may find the loop standing still


class LoopGoneError(RuntimeError):
    """What a loop awaited was cancelled, or the loop ended in the middle of it."""


class Course:
    """
    Something that a loop awaits for a worker, and the worker, which serves it meanwhile.

    Args:
        awaitable: What is awaited.
    """

    def __init__(self, awaitable: Any) -> None:
        self._awaitable = awaitable
        self._lock = threading.Lock()
        self._open = True
        # What is asked for, and at the end the outcome, a tuple.
        self._requests: SimpleQueue[Callable[[], None] | Outcome] = SimpleQueue()
        self._task: asyncio.Task[None] | None = None

    def ask(self, request: Callable[[], None]) -> bool:
        """Have the worker do something; False if it serves no more."""
        with self._lock:
            if self._open:
                self._requests.put(request)
            return self._open

    def serve(self, loop: Loop) -> Any:
        """Give what the loop gets by awaiting; the worker calls it."""
        gone = True
        try:
            result, error = self._serve(loop)
            gone = isinstance(error, LoopGoneError)
        finally:
            self._end(loop, gone)
        if error is not None:
            try:
                raise error
            finally:
                del error  # it refers to this frame
        return result

    def _serve(self, loop: Loop) -> Outcome:
        idle = 0
        try:
            loop.call_soon_threadsafe(self._start, loop, context=copy_context())
        except RuntimeError:  # it is closed
            idle = PATIENCE
        while idle < PATIENCE and not loop.is_closed():
            try:
                request = self._requests.get(timeout=POLL_SECONDS)
            except Empty:
                idle = 0 if loop.is_running() else idle + 1
                continue
            idle = 0
            if isinstance(request, tuple):
                return request
            request()
        return None, LoopGoneError("its event loop has ended, or stands still")

    def _end(self, loop: Loop, gone: bool) -> None:
        with self._lock:
            self._open = False
        while not self._requests.empty():
            request = self._requests.get()
            if not isinstance(request, tuple):
                # Of a task that the awaited code left behind: no longer this worker's.
                threading.Thread(target=request, name="warmset").start()
        awaitable = self._take()
        if hasattr(awaitable, "send"):
            awaitable.close()  # a coroutine that nobody will await
        task, self._task = self._task, None
        if task is not None and gone:
            with suppress(RuntimeError):  # if that loop should ever go on
                loop.call_soon_threadsafe(task.cancel)

    def _take(self) -> Any:
        with self._lock:
            awaitable, self._awaitable = self._awaitable, None
        return awaitable

    def _start(self, loop: Loop) -> None:
        awaitable = self._take()
        if awaitable is not None:
            self._task = loop.create_task(self._run(awaitable))

    async def _run(self, awaitable: Any) -> None:
        course.set(self)
        outcome: Outcome = None, LoopGoneError("was cancelled, or its event loop has ended")
        try:
            outcome = await awaitable, None
        except Exception as error:
            outcome = None, error
        finally:
            self._requests.put(outcome)
            del outcome, awaitable


course: ContextVar[Course | None] = ContextVar("warmset.course", default=None)


class Job:
    """
    A call that another thread makes for a coroutine, in the context of that.

    Args:
        call: What to call.
        hold: What is to be held until it has ended, also if nobody waits for it any more.
    """

    def __init__(self, call: Callable[[], Any], hold: Hold | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        # The future only wakes who waits: the loop refers to it, and so to a result, for longer.
        self._future: asyncio.Future[None] = self.loop.create_future()
        # Apart, and in no container that the worker makes: without an interpreter lock that would
        # be dropped when the worker comes to it, and what it refers to with it.
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended = False
        self._call: Callable[[], Any] | None = call
        self._hold = hold
        self._context = copy_context()
        # The thread that makes the call is busy with it, and serves nobody.
        self._context.run(course.set, None)

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None and not self._future.cancelled():
            # Never in a variable of this frame: an error refers to it, and whoever waits may go on,
            # and have it counted who refers to an instance, before this returns.
            try:
                self._result = self._context.run(call)
            except BaseException as error:
                self._error = error
        call = None
        try:
            if not self._future.cancelled():
                self.loop.call_soon_threadsafe(self._deliver)
                return
        except RuntimeError:
            pass  # the loop is closed
        self._drop()

    async def outcome(self) -> Any:
        """Wait for what the call gives, or raises."""
        try:
            await self._future
        finally:
            self._ended = self._future.done() and not self._future.cancelled()
            result, self._result = self._result, None
            error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it refers to this frame
        return result

    def take_back(self) -> Hold | None:
        """What is held, if the call has ended; else it stays with the call."""
        if not self._ended:
            return None
        hold, self._hold = self._hold, None
        return hold

    def _deliver(self) -> None:
        if self._future.cancelled():
            self._drop()
        else:
            self._future.set_result(None)

    def _drop(self) -> None:
        self._result = self._error = None
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.__exit__()


class Hold:
    """
    A lease that is left once, or dropped; what leaves the cache by that is closed by a worker.

    Args:
        lease: The lease.
        threads: Where to have things closed.
        loop: The loop that holds.
    """

    __slots__ = ("_loop", "_threads", "lease")

    def __init__(self, lease: Lease, threads: Threads, loop: Loop) -> None:
        self.lease: Lease | None = lease
        self._threads = threads
        self._loop = loop

    def leave(self) -> list[Any]:
        """Leave the lease; what left the cache is for the caller to have closed."""
        lease, self.lease = self.lease, None
        return [] if lease is None else collected(lease.__exit__)[1]

    def __exit__(self, *exception: object) -> None:
        departed = self.leave()
        if departed:
            # By way of the loop: a finaliser may run this, and must not start a thread.
            try:
                if self._loop.is_running():
                    self._loop.call_soon_threadsafe(self._threads.close_later, departed, self._loop)
                    return
            except RuntimeError:
                pass
            close_all(self._threads.registry, departed)

    def __del__(self, _is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _is_the_end():  # when the names of this module may be gone
            self.__exit__()


class Threads:
    """
    Workers, and the pool for synchronous methods.

    Args:
        registry: Whose work they do.
        max_threads: The size of the pool; None for the loop's own.
    """

    def __init__(self, registry: Registry, max_threads: int | None) -> None:
        self.registry = registry
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    async def apart(self, call: Callable[[], Any]) -> Any:
        """Have a call made by a worker: the one that serves the caller, or a new one."""
        job = Job(call)
        if not self.ask(job):
            self.begin(job.loop, job)
        return await job.outcome()

    def in_pool(self, job: Job) -> None:
        """Have a job done in the pool, or by the worker that serves the caller."""
        if self.ask(job):
            return
        pool = None
        if self._max_threads is not None:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self._max_threads, "warmset methods")
                pool = self._pool
        job.loop.run_in_executor(pool, job)

    def ask(self, job: Job) -> bool:
        """Have a job done by the worker that serves the caller, if one does."""
        serving = course.get()
        return serving is not None and serving.ask(partial(self.work, job.loop, job))

    def begin(self, loop: Loop, call: Callable[[], None], name: str = "warmset") -> None:
        """Have a call made by a new worker."""
        threading.Thread(target=self.work, args=(loop, call), name=name).start()

    def work(self, loop: Loop, call: Callable[[], None]) -> None:
        """Make a call as a worker of a loop."""
        me = threading.get_ident()
        awaiting = self.registry._awaiting
        before = awaiting.get(me)
        awaiting[me] = lambda awaitable: Course(awaitable).serve(loop)
        try:
            call()
        finally:
            if before is None:
                del awaiting[me]
            else:
                awaiting[me] = before

    async def close(self, departed: list[Any]) -> None:
        """Close what left the cache, in this order."""
        await self.apart(partial(close_all, self.registry, departed))

    def close_later(self, departed: list[Any], loop: Loop) -> None:
        """Close what left the cache; nobody waits for it."""
        self.begin(loop, partial(close_all, self.registry, departed))

    async def shut_down(self) -> None:
        """Wait for the methods in the own pool, and end its threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            await self.apart(pool.shutdown)


# -- closing -------------------------------------------------------------------------------------

_here = threading.local()


def close_or_collect(registry: Registry, departure: Any) -> None:
    """Close what left the cache; where a loop must not be held up by it, put it aside."""
    departed = getattr(_here, "departed", None)
    if departed is None:
        close_departed(registry, departure)
    else:
        departed.append(departure)


def collected(call: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """What a call gives, and what left the cache by it, in order, to be closed."""
    before = getattr(_here, "departed", None)
    departed: list[Any] = []
    _here.departed = departed
    try:
        return call(), departed
    finally:
        _here.departed = before


def close_all(registry: Registry, departed: list[Any]) -> None:
    """Close what left the cache, in order; where a worker does it, asynchronously if need be."""
    for departure in departed:
        close_departed(registry, departure)
