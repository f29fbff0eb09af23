"""
Threads in tests: calls that run at once, conditions that another thread brings about.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0  # seconds until a test gives up on another thread; no test waits for it to pass


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that another thread, or another process, brings about."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("the condition never held")


class Running:
    """A call that runs in a thread of its own; made by `in_thread`."""

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], name: str | None) -> None:
        self._call, self._args = call, args
        self._result: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call(*self._args)
        except BaseException as error:
            self._error = error

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.thread.is_alive()

    def outcome(self) -> Any:
        """Wait for the end of the call; return its result, or the error that it raised."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the thread hangs"
        return self._result if self._error is None else self._error

    def result(self) -> Any:
        """Wait for the end of the call; return its result, or raise its error."""
        self.outcome()
        if self._error is not None:
            raise self._error
        return self._result


def in_thread(call: Callable[..., Any], *args: Any, name: str | None = None) -> Running:
    """Start a call in a thread."""
    return Running(call, args, name)


def outcomes(running: list[Running]) -> list[Any]:
    """Wait for the end of calls; return the result of each, or the error that it raised."""
    return [each.outcome() for each in running]


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls at once; return the result of each, or the error that it raised."""
    return outcomes([in_thread(call) for call in calls])


class Gate:
    """A constructor's script, or a rule's, that waits until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.thread: int | None = None

    def __call__(self, _: Any = None) -> None:
        self.thread = threading.get_ident()
        self.reached.set()
        assert self.opened.wait(PATIENCE), "the gate was never opened"

    def wait(self) -> None:
        """Wait until a thread is in it."""
        assert self.reached.wait(PATIENCE), "nothing came to the gate"

    def open(self) -> None:
        """Let the thread in it go on, and all others from now on."""
        self.opened.set()
