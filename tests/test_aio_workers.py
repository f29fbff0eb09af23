"""
Workers of event loops are supervised as all service threads: what is sent to one loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import sys
import threading
from typing import Any

import pytest
from interrupts import STEP, files_of, undisturbed
from loops import Closable, Worker, join_workers, run, until
from reentry_points import ReentryPoints

from warmset.testing.structure import check_structure

no_disturbance = pytest.fixture(autouse=True)(undisturbed)

FILES = ("aio.workers", "aio.builds", "aio.awaiting", "lifecycle.services")


class Sent(BaseException):
    """Is sent to a thread."""


class Both(Worker, Closable):
    """Has methods of every kind, and is closed asynchronously."""


def _send() -> None:
    frame = sys._getframe(2)
    # No handler of a thread is in effect at its first instruction.
    if frame.f_code.co_name != "_run" or frame.f_lineno > frame.f_code.co_firstlineno + 1:
        raise Sent


class Traced:
    """Has an error arrive at one point of the threads that begin meanwhile."""

    def __init__(self, number: int, files: set[str]) -> None:
        self.points = ReentryPoints(number, _send, files)
        self._number = number

    def __enter__(self) -> ReentryPoints:
        sys._getframe().f_trace_opcodes = True
        threading.settrace(self.points._enter)
        # That of pytest keeps the frames.
        self._report, threading.excepthook = threading.excepthook, lambda _: None
        return self.points

    def __exit__(self, *exception: object) -> None:
        threading.settrace(None)  # type: ignore[arg-type]
        threading.excepthook = self._report


async def _ask_for_a_sibling(executor: Any, name: str) -> Any:
    """Ask for another class by a task that goes on when its rule has returned."""
    return await asyncio.gather(executor.get_instance(name), executor.get_instance(name))


@pytest.fixture(autouse=True)
def no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that pytest keeps refer to frames, and so to what was held there."""
    monkeypatch.setattr(logging.getLogger("warmset"), "propagate", False)


# Not of warmset: 3.12.1 crashes where the instructions of a new thread are traced.
needs_tracing = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="the interpreter crashes where threads are traced"
)

WAYS = ["use", "thread", "nested", "clear"]


@needs_tracing
# Of a coroutine whose worker got the error before a loop could await it.
@pytest.mark.referrers
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["rule", "async rule"])
def test_an_error_sent_to_a_worker(ws: Any, make: Any, way: str, asynchronous: bool) -> None:
    """Each task ends, by a result or by that error; each instance is closed."""
    aio = importlib.import_module("warmset.aio")
    files = files_of(FILES)
    made: list[Any] = []
    closed: list[Any] = []

    def new() -> Any:
        made.append(Both(closed))
        return made[-1]

    async def act(executor: Any) -> None:
        if way == "thread":
            await executor.execute("Alpha", "thread")
        else:
            async with executor.use("Alpha"):
                await asyncio.sleep(0)
            if way == "clear":
                await executor.clear_instance_cache()

    async def main(registry: Any, executor: Any) -> None:
        outcomes = await asyncio.gather(*[act(executor) for _ in range(2)], return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, ws.MethodRegistryError):
                outcome = outcome.__cause__
            assert outcome is None or isinstance(outcome, (Sent, aio.awaiting.LoopEndedError))
        # The name is not blocked.
        registry.builder.failures.forget("Alpha")
        registry.builder.failures.forget("Beta")
        with contextlib.suppress(Sent):  # at one of the later points
            await executor.get_instance("Alpha")
        await executor.get_instance("Alpha")
        outcomes.clear()
        # A lease that was dropped with a frame is released when that is collected.
        await until(lambda: registry.stats().held == 0 or (gc.collect() and False))
        with contextlib.suppress(Sent):  # while it is closed; the rest is closed below
            await executor.close_registry()

    number, found = 0, True
    while found:
        made.clear()
        closed.clear()
        registry = make(retry_after_seconds=0)
        executor = aio.AsyncMethodExecutor(registry, max_threads=1)

        async def build(_: type, executor: Any = executor) -> Any:
            await (_ask_for_a_sibling(executor, "Beta") if way == "nested" else asyncio.sleep(0))
            return new()

        registry.register_instantiation_rule("Alpha", build if asynchronous else lambda _: new())
        with Traced(number, files) as points:
            try:
                run(main(registry, executor))
            except BaseException as error:
                raise AssertionError(f"at point {number}, {points.where}") from error
            join_workers()
        found = points.seen > number
        registry.close()
        where = f"point {number}, {points.where}"
        check_structure(registry)
        assert registry.holders() == [], where
        stats = registry.stats()
        ended = {"closed", "close_failed", "nothing_to_close", "left_open"}
        assert {state for state, count in stats.states.items() if count} <= ended, where
        number += STEP
    assert number > STEP
