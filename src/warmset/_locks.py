"""
Locks that no thread keeps while it waits for another thread.

A finaliser or a signal handler runs in whatever its thread is in the middle of, with the locks that
it has. If such code waited for another thread, and that one for the lock, both would wait for ever.
So locks are made here, and code that is about to wait asks whether its thread has one of them.

An interrupt, too, arrives with the locks that its thread has. CPython delivers one between the call
of `acquire` and a `try` after it; on 3.14 between that of `__enter__` and the body of its `with`;
and since 3.12 at a jump back within a `with` or `try` whose handler then does not run. So a
function that needs a lock is called by `call_locked`, or is a `locked` method.
"""

from __future__ import annotations

from _thread import RLock
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    S = TypeVar("S")

__all__ = [
    "call_if_free",
    "call_locked",
    "is_inside_lock",
    "locked",
    "make_lock",
    "start_thread",
]

_locks: dict[int, ref[Any]] = {}


def make_lock() -> Any:
    """Return a lock; it is re-entrant: a finaliser may need what its own thread has locked."""
    lock = RLock()
    key = id(lock)
    _locks[key] = ref(lock, lambda _: _locks.pop(key, None))
    return lock


def is_inside_lock() -> bool:
    """Whether the calling thread has one of these locks."""
    for reference in list(_locks.values()):
        lock = reference()
        if lock is not None and lock._is_owned():
            return True
    return False


def call_locked(lock: Any, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """
    Call a function with a lock, which is released whenever an interrupt arrives.

    Args:
        lock: An `RLock`: it knows whether its thread has it, so that a release is safe where an
            interrupt may have come before the acquisition. A thread that has it never waits for it.
        function: What is called.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        What it returns.
    """
    try:
        lock.acquire()
        result = function(*args, **kwargs)
    finally:
        # The interpreter looks for signals after this call, and not before it. `suppress` would be
        # a call before it.
        try:  # noqa: SIM105
            lock.release()
        except RuntimeError:  # it was not acquired
            pass
    return result


def call_if_free(
    lock: Any, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R | None:
    """Do what `call_locked` does, or nothing if a thread, also the calling one, has the lock."""
    if lock._is_owned():
        return None
    try:
        result = function(*args, **kwargs) if lock.acquire(False) else None
    finally:
        try:  # noqa: SIM105
            lock.release()
        except RuntimeError:
            pass
    return result


def locked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method that has the lock `_lock` of its object, an `RLock`, while it runs."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return call_locked(self._lock, method, self, *args, **kwargs)

    call.__name__, call.__qualname__ = method.__name__, method.__qualname__
    call.__doc__, call.__module__ = method.__doc__, method.__module__
    call.__wrapped__ = method  # type: ignore[attr-defined]
    return call


def start_thread(thread: Any) -> None:
    """
    Start a thread.

    An interrupt while `Thread.start` waits for the thread to begin is not safe in the standard
    library: in its place, the `Condition` there may raise that its lock is not locked. It is raised
    as the interrupt that it was.
    """
    try:
        thread.start()
    except RuntimeError as error:
        interrupt = error.__context__
        if isinstance(interrupt, KeyboardInterrupt):
            raise interrupt from None
        raise
