"""
Event loops in tests: what runs in them, and classes for them.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from threads import PATIENCE, Gate


def run(coroutine: Any) -> Any:
    """`asyncio.run`, which fails where the coroutine hangs."""

    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(bounded())


async def until(condition: Any) -> None:
    """Let the loop run until a condition holds; `run` fails if it never does."""
    while not condition():
        await asyncio.sleep(0)


def join_workers() -> None:
    """Wait for the threads that build and close."""
    for thread in threading.enumerate():
        name = thread.name
        if name.startswith("warmset") and "methods" not in name and "live-view" not in name:
            thread.join(PATIENCE)


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
