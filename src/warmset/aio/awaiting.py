"""
Awaitables that loops await for workers, and the workers that serve their code meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .._locks import locked
from ..builder import serving_worker
from ..foreign import is_interrupt
from ..lifecycle.services import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..registry import BaseRegistry

    Loop = asyncio.AbstractEventLoop

__all__ = [
    "WORKER",
    "LoopEndedError",
    "awaiting_in",
    "not_awaiting",
    "request_of_worker",
    "start_worker",
]

WORKER = "warmset-worker"  # what failures of all workers are counted by

POLL_SECONDS = 0.05  # how often a worker checks whether its loop still runs
MAX_IDLE_POLLS = 20  # how often in a row the loop may be found stopped


class LoopEndedError(RuntimeError):
    """An awaitable was cancelled, or its loop ended before it."""


class AwaitedCode:
    """
    An awaitable that a loop awaits for a worker, and the worker that serves it meanwhile.

    Args:
        awaitable: What is awaited.
        results: The list to which the loop appends what it gets.
    """

    def __init__(self, awaitable: Any, results: list[Any]) -> None:
        self._awaitable = awaitable
        self._results = results
        self._lock = threading.RLock()
        self._open = True
        self._process = os.getpid()
        # A call is taken out when it was made: one that an error cut off is made by another worker.
        self._requests: deque[Callable[[], None]] = deque()
        self._ended: list[BaseException | None] = []  # None: there is a result
        self._signals: SimpleQueue[None] = SimpleQueue()
        self._task: asyncio.Task[None] | None = None
        self.thread = threading.get_ident()

    @property
    def is_open(self) -> bool:
        """Whether the worker still serves the code."""
        # After a fork the worker is a thread of the parent.
        return self._open and self._process == os.getpid()

    def request(self, call: Callable[[], None]) -> bool:
        """Have the worker make a call; False if it does not serve the code any more."""
        return self.is_open and self._put(call)

    @locked
    def _put(self, call: Callable[[], None]) -> bool:
        if self._open:
            self._requests.append(call)
            self._signals.put(None)
        return self._open

    def result(self, loop: Loop) -> Any:
        """Return what the loop gets by awaiting; the worker calls it."""
        error: BaseException | None = None
        try:
            self._serve(loop)
            if self._ended:
                error = self._ended[0]
            else:
                error = LoopEndedError("its event loop has ended or does not run")
        finally:
            try:
                self._close(loop)
            except BaseException:
                self._close(loop)  # an interrupt in it
                raise
        if error is not None:
            try:
                raise error
            finally:
                self._ended.clear()
                del error  # it refers to this frame
        return self._results[-1]

    def _serve(self, loop: Loop) -> None:
        idle_polls = 0
        try:
            loop.call_soon_threadsafe(self._start, loop, context=copy_context())
        except RuntimeError:  # it is closed
            idle_polls = MAX_IDLE_POLLS
        while idle_polls < MAX_IDLE_POLLS and not loop.is_closed():
            while self._requests:
                self._requests[0]()
                self._requests.popleft()
            if self._ended:
                return
            try:
                self._signals.get(timeout=POLL_SECONDS)
            except Empty:
                idle_polls = 0 if loop.is_running() else idle_polls + 1
            else:
                idle_polls = 0

    def _close(self, loop: Loop) -> None:
        self._end()
        while self._requests:
            # Of a task that the awaited code started, and that is not this worker's any more; or
            # one that an error cut off.
            start_worker(self._requests[0], "warmset")
            self._requests.popleft()
        awaitable = self._take()
        if hasattr(awaitable, "send"):
            awaitable.close()  # a coroutine that nobody will await
        task, self._task = self._task, None
        if task is not None and (not self._ended or isinstance(self._ended[0], LoopEndedError)):
            with suppress(RuntimeError):  # in case that loop runs again
                loop.call_soon_threadsafe(task.cancel)

    @locked
    def _end(self) -> None:
        self._open = False

    @locked
    def _take(self) -> Any:
        awaitable, self._awaitable = self._awaitable, None
        return awaitable

    def _start(self, loop: Loop) -> None:
        awaitable = self._take()
        if awaitable is not None:
            self._task = loop.create_task(self._run(awaitable))

    async def _run(self, awaitable: Any) -> None:
        serving_worker.set(self)
        error: BaseException | None
        error = LoopEndedError("it was cancelled, or its event loop has ended")
        try:
            self._results.append(await awaitable)
            error = None
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            # An exit is the failure of what was awaited: raised here, it would end the loop.
            error = raised
            if is_interrupt(error):
                raise
        finally:
            self._ended.append(error)
            self._signals.put(None)
            del error, awaitable


def start_worker(call: Callable[[], None], name: str) -> None:
    """
    Start a thread for one call, which is made again if an error that was sent to it ends it.

    Args:
        call: The call.
        name: The name of the thread.

    Raises:
        RuntimeError: No thread can be started.
    """
    Service(WORKER, call, thread_name=name, daemon=False, pause_seconds=0.0).start()


def request_of_worker(call: Callable[[], None]) -> bool:
    """Have the worker that serves the current code make a call; False if no worker serves it."""
    code = serving_worker.get()
    return isinstance(code, AwaitedCode) and code.request(call)


class AwaitingIn:
    """Has awaitables awaited by a loop, for a list of results; the thread of a worker calls it."""

    __slots__ = ("loop",)

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __call__(self, awaitable: Any, results: list[Any] | None = None) -> Any:
        return AwaitedCode(awaitable, [] if results is None else results).result(self.loop)


@contextmanager
def awaiting_in(registry: BaseRegistry, loop: Loop) -> Iterator[None]:
    """Have a loop await what rules and closers of a registry return to this thread."""
    awaiting, me = registry.classes.awaiting, threading.get_ident()
    before = awaiting.get(me)
    awaiting[me] = AwaitingIn(loop)
    try:
        yield
    finally:
        if before is None:
            awaiting.pop(me, None)
        else:
            awaiting[me] = before


@contextmanager
def not_awaiting(registry: BaseRegistry) -> Iterator[None]:
    """Have nothing awaited for this thread."""
    awaiting, me = registry.classes.awaiting, threading.get_ident()
    before = awaiting.pop(me, None)
    try:
        yield
    finally:
        if before is not None:
            awaiting[me] = before
