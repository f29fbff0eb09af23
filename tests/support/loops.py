"""What tests of event loops need."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

LIMIT = 30.0


def run(coroutine: Any) -> Any:
    """`asyncio.run`, with an end to what hangs."""

    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, LIMIT)

    return asyncio.run(bounded())


async def until(condition: Any) -> None:
    """Let the loop run until something holds; the limit of `run` ends what never does."""
    while not condition():
        await asyncio.sleep(0)


def join_workers() -> None:
    """Wait for the threads that build and close."""
    for thread in threading.enumerate():
        if thread.name.startswith("warmset") and "methods" not in thread.name:
            thread.join(LIMIT)


class Gate:
    """A constructor's script that tells that it was reached, and waits to be opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.thread: int | None = None

    def __call__(self, _: Any = None) -> None:
        self.thread = threading.get_ident()
        self.reached.set()
        assert self.opened.wait(LIMIT)


class Worker:
    """Has methods of every kind."""

    def thread(self) -> int:
        return threading.get_ident()

    def wait(self, gate: Gate) -> str:
        gate()
        return "done"

    async def loop(self, event: asyncio.Event | None = None) -> Any:
        if event is not None:
            await event.wait()
        return asyncio.get_running_loop()

    def late(self) -> Any:
        return self.loop()

    def count(self, to: int = 3) -> Any:
        yield from range(to)

    async def acount(self, to: int = 3) -> Any:
        for i in range(to):
            yield i

    def stop(self) -> None:
        raise StopIteration("from inside the method")


class Closable:
    """Is closed asynchronously."""

    def __init__(self, closed: list[Any]) -> None:
        self.closed = closed

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed.append((self, asyncio.get_running_loop()))

    async def work(self, event: asyncio.Event | None = None) -> None:
        if event is not None:
            await event.wait()
