"""
Service threads: daemon threads that survive what they run, and are started again if they die.

A thread does one step at a time, and waits in between. What a step raises is logged and counted; an
error that reaches the thread itself, as one that was sent to it, ends it, and the next one takes
over. `health()` reports both.

There is no lock that a thread would wait for: a finaliser or a signal handler may wake a service
while its own thread does so.
"""

from __future__ import annotations

import sys
import threading
from _thread import allocate_lock
from contextlib import suppress
from time import monotonic

from .. import _logs
from .._locks import start_thread
from ..foreign import SERVICE, contain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Service", "count_failure", "failures"]

_LONGEST_WAIT = 3600.0  # seconds; a lock cannot wait for as long as an interval may be
_PAUSE = 1.0  # seconds after a step that failed
_FAILED = object()
_THREAD = "thread"

_failures: dict[str, int] = {}


def count_failure(service: str) -> None:
    """
    Count a failure, which `health()` reports.

    Args:
        service: The name of the thread, of which a step failed, or which died.

    Of two failures in the same instant one may be lost: what matters is that there are any.
    """
    _failures[service] = _failures.get(service, 0) + 1


def failures() -> dict[str, int]:
    """Return the failures of the service threads of this process, by the name of the thread."""
    return _failures.copy()


class Service:
    """
    A thread that is started when there is work, and ends when there is none.

    Args:
        name: What failures are counted by.
        step: Does what is due; returns the seconds until it is to be called again, or None if there
            is nothing left to do. It is called in one thread at a time; again if it did not return.
        thread_name: The name of the thread; None: that of the service.
        daemon: Whether the end of the process ends it; otherwise it is waited for there.
        pause_seconds: The time between a step that failed and the next one.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        *,
        thread_name: str | None = None,
        daemon: bool = True,
        pause_seconds: float = _PAUSE,
    ) -> None:
        self.name = name
        self._step = step
        self._thread_name = name if thread_name is None else thread_name
        self._daemon = daemon
        self._pause = pause_seconds
        self._stopping = False
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the thread, which does not exist in the child."""
        # The one thread, from before its start to its end: each step is one operation on the dict.
        self._running: dict[str, threading.Thread] = {}
        # Unlocked while there is a signal. (In a SimpleQueue, 3.10 can wait for ever in a timed
        # `get`.)
        self._quiet = allocate_lock()
        self._quiet.acquire()
        self.thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a thread."""
        return bool(self._running)

    @property
    def is_current(self) -> bool:
        """Whether the caller is a step of the thread."""
        return self.thread is threading.current_thread()

    def wake(self) -> None:
        """Have the next step done now, in a new thread if there is none and one can be started."""
        self.signal()
        self._try_to_start()

    def start(self) -> None:
        """
        Have the next step done now, in a new thread if there is none.

        Raises:
            RuntimeError: No thread can be started.
        """
        self.signal()
        self._start()

    def signal(self) -> None:
        """Have the next step done now if there is a thread."""
        with suppress(RuntimeError):  # there is a signal already
            self._quiet.release()

    def _try_to_start(self) -> bool:
        """Start a thread if there is none; return whether there is one, or need not be."""
        try:
            self._start()
        except RuntimeError as error:  # there are too many threads, or the interpreter exits
            count_failure(self.name)
            _logs.warning(
                SERVICE.area,
                "the thread %r cannot be started: %s",
                self._thread_name,
                error,
                fields={"service": self.name},
            )
            return False
        return True

    def _start(self) -> None:
        running = self._running
        if self._stopping or running:
            return
        life = _Life(self, running)
        thread = threading.Thread(
            target=self._run, args=(life,), name=self._thread_name, daemon=self._daemon
        )
        try:
            # Entered by the one who starts it: so no two are started.
            if running.setdefault(_THREAD, thread) is not thread:
                return
            self.thread = life.thread = thread
            start_thread(thread)
        except BaseException:
            # Otherwise it runs: an interrupt ended the wait for its begin.
            if thread.ident is None and running.get(_THREAD) is thread:
                self.thread = life.thread = None  # so that it ends at once if it begins after all
                running.clear()
            raise

    def _run(self, life: _Life) -> None:
        try:
            try:
                if self.thread is threading.current_thread():
                    self._do_steps(life)
                else:  # it was withdrawn
                    life.ended = True
            except BaseException as error:  # it was sent to the thread
                self._report_death(error)
            finally:
                self._hand_over(life)
        except BaseException as error:  # another one, or it came in there
            try:
                self._report_death(error)
            finally:
                self._hand_over(life)

    def _report_death(self, error: BaseException | None) -> None:
        count_failure(self.name)
        _logs.warning(
            SERVICE.area,
            "the thread %r died, and another one takes over",
            self._thread_name,
            fields={
                "service": self.name,
                "error_type": "" if error is None else type(error).__qualname__,
            },
            error=error,
        )

    def _hand_over(self, life: _Life) -> None:
        """Let another thread do what is left, if anything is; it may be called again."""
        me, running = threading.current_thread(), life.running
        if self.thread is me:
            self.thread = None
        if running.get(_THREAD) is me:
            running.clear()
        # After that: who woke it before has counted on this thread.
        if (not life.ended or not self._quiet.locked()) and not self._try_to_start():
            contain(SERVICE, self._step, about=self.name)  # at least what is due now
        life.over = True

    def _do_steps(self, life: _Life) -> None:
        while not self._stopping:
            self._quiet.acquire(False)
            wait = contain(SERVICE, self._step, failed=_FAILED, about=self.name)
            if wait is _FAILED:
                count_failure(self.name)
                wait = self._pause
            if wait is None:
                break
            self._quiet.acquire(timeout=min(max(0.0, wait), _LONGEST_WAIT))
        life.ended = True

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait until there is no thread; return whether there is none."""
        until = None if timeout_seconds is None else monotonic() + timeout_seconds
        while (thread := self.thread) is not None and thread is not threading.current_thread():
            thread.join(None if until is None else max(0.0, until - monotonic()))
            if thread.is_alive():
                return False
        return self.thread is None

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread after its current step, for good; for the end of the process."""
        self._stopping = True
        self.signal()
        self.join(timeout_seconds)


class _Life:
    """
    What only one thread of a service refers to, until it ends.

    Args:
        service: The service.
        running: Its table of threads, which a forked child replaces.

    When it is dropped, and an error ended the thread where nothing could handle that, another
    thread takes over.
    """

    __slots__ = ("ended", "over", "running", "service", "thread")

    def __init__(self, service: Service, running: dict[str, threading.Thread]) -> None:
        self.service = service
        self.running = running
        self.thread: threading.Thread | None = None
        self.ended = False  # the steps are done
        self.over = False  # and it handed over

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.over or self.thread is not threading.current_thread() or _is_finalizing():
            return
        self.service._report_death(None)
        self.service._hand_over(self)
