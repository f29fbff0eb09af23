"""
Threads that work for event loops.

A *worker* is a thread that builds, removes or closes for a loop. If a rule or a closer returns an
awaitable to it, the loop awaits that. Meanwhile the worker serves the awaited code: it makes the
calls which that code requests from this package, one after the other. So all that one build asks
for is asked for by one thread, and the builder, which knows by threads who waits for whom, finds a
cycle among asynchronous rules as it finds all others.

No object here outlives the wait that it serves: it refers to futures and a loop, and is dropped
when these are done.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from .._locks import locked
from ..builder import serving_worker
from ..closing import close_entry
from ..lifecycle.services import count_failure
from .awaiting import WORKER, awaiting_in, not_awaiting, request_of_worker, start_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Entry, Lease
    from ..registry import BaseRegistry

    Loop = asyncio.AbstractEventLoop
    Outcome = tuple[Any, BaseException | None]

__all__ = [
    "AsyncHold",
    "Job",
    "PutAside",
    "Workers",
    "close_or_put_aside",
    "put_aside",
]


class Job:
    """
    A call that another thread makes for a coroutine, in the context of the coroutine.

    Args:
        call: What to call.
        hold: What is held until the call has ended, also if nobody waits for it any more.
        even_if_cancelled: Whether the call is made although the coroutine was cancelled before.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        hold: AsyncHold | None = None,
        *,
        even_if_cancelled: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        # The future only wakes the coroutine: the loop refers to it, and so to a result, longer.
        self._future: asyncio.Future[None] = self.loop.create_future()
        # Separate, and in no container that the worker makes: without an interpreter lock that
        # would be dropped later than the coroutine goes on, with all that it refers to.
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended = False
        self._call: Callable[[], Any] | None = call
        self._hold = hold
        self._even_if_cancelled = even_if_cancelled
        self._context = copy_context()
        # The thread that makes the call is busy with it, and serves nobody.
        self._context.run(serving_worker.set, None)

    def __call__(self) -> None:
        """Make the call, if it was not made before, and deliver; it may be called again."""
        call = None
        wanted = self._even_if_cancelled or not self._future.cancelled()
        if wanted and self._call is not None:
            # Never in a variable of this frame: an error refers to it, and the coroutine may go on,
            # and have the references to an instance counted, before this returns.
            try:
                call, self._call = self._call, None
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
        """Wait for what the call returns or raises."""
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

    def cancel(self) -> None:
        """Have nobody wait for the call, which is not made any more."""
        self._future.cancel()
        self._drop()

    def take_hold(self) -> AsyncHold | None:
        """Return what is held if the call has ended; else it stays with the call."""
        if not self._ended:
            return None
        hold, self._hold = self._hold, None
        return hold

    def _deliver(self) -> None:
        if self._future.cancelled():
            self._drop()
        elif not self._future.done():  # else it was delivered before
            self._future.set_result(None)

    def _drop(self) -> None:
        self._result = self._error = None
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.__exit__()


class AsyncHold:
    """
    A lease that is exited once, or dropped; a worker closes the entries that this removes.

    Args:
        lease: The lease.
        workers: They close.
        loop: The loop that holds.
    """

    __slots__ = ("_loop", "_workers", "lease")

    def __init__(self, lease: Lease[Any], workers: Workers, loop: Loop) -> None:
        self.lease: Lease[Any] | None = lease
        self._workers = workers
        self._loop = loop

    def release(self) -> PutAside:
        """Exit the lease, and return the removed entries, which the caller has closed."""
        lease, self.lease = self.lease, None
        return PutAside() if lease is None else put_aside(lease.__exit__)[1]

    def __exit__(self, *exception: object) -> None:
        removed = self.release()
        if not removed:
            return
        # Through the loop: a finaliser may run this, and must not start a thread.
        with suppress(RuntimeError):  # the loop is closed
            if self._loop.is_running():
                self._loop.call_soon_threadsafe(self._workers.close_later, removed, self._loop)
                return
        removed.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of the process the names of this module may be gone.
        if not _is_finalizing() and getattr(self, "lease", None) is not None:
            self.__exit__()


class Workers:
    """
    Starts workers for one registry, and has the pool for synchronous methods.

    Args:
        registry: The registry.
        max_threads: The size of the pool; None for that of the loop.
    """

    def __init__(self, registry: BaseRegistry, max_threads: int | None) -> None:
        self._registry = registry
        self._max_threads = max_threads
        self._lock = threading.RLock()
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, call: Callable[[], Any]) -> Any:
        """Have a worker make a call: the one that serves the caller, or a new one."""
        job = Job(call)
        if not self.request(job):
            self.start(job.loop, job)
        return await job.outcome()

    def call_in_pool(self, job: Job) -> None:
        """Have a job done in the pool, or by the worker that serves the caller."""
        if self.request(job):
            return
        pool = None if self._max_threads is None else self._own_pool(self._max_threads)
        self._pool_call(job, pool)

    def _pool_call(self, job: Job, pool: ThreadPoolExecutor | None) -> None:
        def settle(future: asyncio.Future[None]) -> None:
            if future.cancelled():
                job.cancel()
            elif future.exception() is not None:  # it was sent to the thread
                count_failure(WORKER)
                self._pool_call(job, pool)

        job.loop.run_in_executor(pool, job).add_done_callback(settle)

    @locked
    def _own_pool(self, max_threads: int) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_threads, "warmset methods")
        return self._pool

    @locked
    def _take_pool(self) -> ThreadPoolExecutor | None:
        pool, self._pool = self._pool, None
        return pool

    def request(self, job: Job) -> bool:
        """Have the worker that serves the caller do a job; False if no worker serves it."""
        return request_of_worker(partial(self._work, job.loop, job))

    def start(self, loop: Loop, call: Callable[[], None], name: str = "warmset") -> None:
        """
        Have a new worker make a call.

        Args:
            loop: The loop that awaits what closers and rules return meanwhile.
            call: The call; it is made again if an error that was sent to the worker ends it.
            name: The name of the thread.

        Raises:
            RuntimeError: No thread can be started.
        """
        start_worker(partial(self._work, loop, call), name)

    def _work(self, loop: Loop, call: Callable[[], None]) -> None:
        before = getattr(_here, "loop", None)
        _here.loop = loop
        try:
            with awaiting_in(self._registry, loop):
                call()
        finally:
            _here.loop = before

    async def close(self, removed: PutAside) -> None:
        """Have removed entries closed, also if the caller is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        job = Job(removed.close, even_if_cancelled=True)
        if not self.request(job):
            try:
                self.start(loop, job)
            except RuntimeError:  # no thread can be started
                removed.close()
                return
        await job.outcome()

    def close_later(self, removed: PutAside, loop: Loop) -> None:
        """Have removed entries closed, and do not wait for it."""
        with suppress(RuntimeError):  # no thread can be started: they are closed when dropped
            self.start(loop, removed.close)

    async def shut_down(self) -> None:
        """Wait for the methods in the executor's own pool, and end its threads."""
        pool = self._take_pool()
        if pool is not None:
            await self.call(pool.shutdown)


# -- closing -------------------------------------------------------------------------------------


class PutAside:
    """
    Removed entries that still have to be closed, each by its own registry.

    If it is dropped before `close` was called, they are closed then, and no loop awaits a closer.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[BaseRegistry, Entry]] | deque[tuple[BaseRegistry, Entry]] = []

    def add(self, registry: BaseRegistry, entry: Entry) -> None:
        """Add an entry."""
        self._entries.append((registry, entry))

    def close(self) -> None:
        """Close the entries in their order; an interrupt is raised when the others are closed."""
        if type(self._entries) is list:
            self._entries = deque(self._entries)
        try:
            self._close_each(self._entries)  # type: ignore[arg-type]
        finally:
            if self._entries:
                self.close()

    def _close_each(self, entries: deque[tuple[BaseRegistry, Entry]]) -> None:
        while entries:
            # Taken out after it: an interrupt may come before the closer, and twice does no harm.
            close_or_put_aside(*entries[0])
            entries.popleft()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._entries and not _is_finalizing():
            self.close()


# Of this thread: what is put aside, if it is; and the loop that it works for, if it is a worker.
_here = threading.local()


def close_or_put_aside(registry: BaseRegistry, entry: Entry) -> None:
    """Close a removed entry; or put it aside, where its closer must not stop a loop."""
    removed: PutAside | None = getattr(_here, "removed", None)
    if removed is not None:
        removed.add(registry, entry)
        return
    loop: Loop | None = getattr(_here, "loop", None)
    awaiting = registry.classes.awaiting.get(threading.get_ident())
    reference = registry.classes.loop_slots.reference(entry.slot)
    bound = None if reference is None else reference()
    if loop is None or (reference is None and awaiting is not None):
        close_entry(registry, entry)
    elif reference is None:
        with awaiting_in(registry, loop):  # a worker of another registry
            close_entry(registry, entry)
    elif bound is not None and bound.is_running():
        with awaiting_in(registry, bound):  # whatever loop removes it
            close_entry(registry, entry)
    else:  # nobody can await for it any more
        with not_awaiting(registry):
            close_entry(registry, entry)


def put_aside(call: Callable[[], Any]) -> tuple[Any, PutAside]:
    """
    Make a call in a loop's thread, and close none of the entries that it removes.

    Args:
        call: A look-up or a release.

    Returns:
        What it returned, and the entries, of whatever registry, in the order of their removal.
    """
    before = getattr(_here, "removed", None)
    _here.removed = removed = PutAside()
    try:
        return call(), removed
    finally:
        _here.removed = before
