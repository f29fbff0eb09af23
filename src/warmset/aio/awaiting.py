"""
Awaitables that loops await for workers, and the workers that serve their code meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .._locks import locked, start_thread
from ..builder import serving_worker
from ..foreign import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..registry import BaseRegistry

    Loop = asyncio.AbstractEventLoop
    Outcome = tuple[Any, BaseException | None]

__all__ = ["LoopEndedError", "awaiting_in", "not_awaiting", "request_of_worker"]

POLL_SECONDS = 0.05  # how often a worker checks whether its loop still runs
MAX_IDLE_POLLS = 20  # how often in a row the loop may be found stopped


class LoopEndedError(RuntimeError):
    """An awaitable was cancelled, or its loop ended before it."""


class AwaitedCode:
    """
    An awaitable that a loop awaits for a worker, and the worker that serves it meanwhile.

    Args:
        awaitable: What is awaited.
    """

    def __init__(self, awaitable: Any) -> None:
        self._awaitable = awaitable
        self._lock = threading.RLock()
        self._open = True
        self._process = os.getpid()
        # The requests and, at the end, the outcome, which is a tuple.
        self._queue: SimpleQueue[Callable[[], None] | Outcome] = SimpleQueue()
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
            self._queue.put(call)
        return self._open

    def result(self, loop: Loop) -> Any:
        """Return what the loop gets by awaiting; the worker calls it."""
        ended = True
        try:
            result, error = self._serve(loop)
            ended = isinstance(error, LoopEndedError)
        finally:
            self._close(loop, ended)
        if error is not None:
            try:
                raise error
            finally:
                del error  # it refers to this frame
        return result

    def _serve(self, loop: Loop) -> Outcome:
        idle_polls = 0
        try:
            loop.call_soon_threadsafe(self._start, loop, context=copy_context())
        except RuntimeError:  # it is closed
            idle_polls = MAX_IDLE_POLLS
        while idle_polls < MAX_IDLE_POLLS and not loop.is_closed():
            try:
                request = self._queue.get(timeout=POLL_SECONDS)
            except Empty:
                idle_polls = 0 if loop.is_running() else idle_polls + 1
                continue
            idle_polls = 0
            if isinstance(request, tuple):
                return request
            request()
        return None, LoopEndedError("its event loop has ended or does not run")

    def _close(self, loop: Loop, ended: bool) -> None:
        self._end()
        while not self._queue.empty():
            request = self._queue.get()
            if not isinstance(request, tuple):
                # Of a task that the awaited code started, and that is not this worker's any more.
                start_thread(threading.Thread(target=request, name="warmset"))
        awaitable = self._take()
        if hasattr(awaitable, "send"):
            awaitable.close()  # a coroutine that nobody will await
        task, self._task = self._task, None
        if task is not None and ended:
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
        outcome: Outcome = None, LoopEndedError("it was cancelled, or its event loop has ended")
        try:
            outcome = await awaitable, None
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # An exit is the failure of what was awaited: raised here, it would end the loop.
            outcome = None, error
            if is_interrupt(error):
                raise
        finally:
            self._queue.put(outcome)
            del outcome, awaitable


def request_of_worker(call: Callable[[], None]) -> bool:
    """Have the worker that serves the current code make a call; False if no worker serves it."""
    code = serving_worker.get()
    return isinstance(code, AwaitedCode) and code.request(call)


class AwaitingIn:
    """Has awaitables awaited by a loop; the thread of a worker calls it."""

    __slots__ = ("loop",)

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __call__(self, awaitable: Any) -> Any:
        return AwaitedCode(awaitable).result(self.loop)


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
