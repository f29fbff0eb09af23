"""
Execution contexts: who builds and who waits, where threads are not all there is.

A context is a thread, or a greenlet other than the main one of its thread. Two greenlets of one
thread can each be in the middle of a build; only one of them runs. A greenlet that waits for
another one of its own thread has to switch to it, which needs a hub: gevent's. A lock of the
interpreter would stop the thread, and with it the greenlet that is waited for.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any, Protocol

    class Lock(Protocol):
        """A lock of the interpreter, or one of gevent's."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
        def release(self) -> None: ...
        def locked(self) -> bool: ...


__all__ = [
    "blocked_thread",
    "can_switch",
    "current_context",
    "get_ident",
    "importing_in_cycle",
    "is_importing",
    "make_lock",
    "wait_for",
]


def _original(name: str) -> Any:
    """Return a function of `_thread`, not what gevent has put into its place."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(_thread, name) if monkey is None else monkey.get_original("_thread", name)


get_ident: Any = _original("get_ident")
_allocate_lock: Any = _original("allocate_lock")

# How often a thread that imports looks whether it is waited for; see `importing_in_cycle`.
_IMPORT_CHECK_SECONDS = 0.05


def current_context() -> Hashable:
    """Return what stands for the calling thread or greenlet, as the key of a dict."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None:
        getcurrent = getattr(greenlet, "getcurrent", None)  # none in the middle of its import
        if getcurrent is not None:
            current = getcurrent()
            if current.parent is not None:
                return current  # type: ignore[no-any-return]
    return get_ident()  # type: ignore[no-any-return]


def _hub() -> Any:
    """Return gevent's hub of this thread, if it has one that can be switched to."""
    find = getattr(sys.modules.get("gevent._hub_local"), "get_hub_if_exists", None)
    hub = None if find is None else find()
    # A callback of the event loop runs in the hub itself, and cannot wait.
    if hub is None or hub is sys.modules["greenlet"].getcurrent():
        return None
    return hub


def can_switch() -> bool:
    """Whether other greenlets of this thread run while the current one waits."""
    return _hub() is not None


def blocked_thread() -> int | None:
    """Return the calling thread, if none of its greenlets runs while the current one waits."""
    return None if can_switch() else get_ident()


def make_lock() -> Lock:
    """Return a lock on which this context can wait, and which any other one can release."""
    if _hub() is None:
        return _allocate_lock()  # type: ignore[no-any-return]
    return __import__("gevent.thread").thread.allocate_lock()  # type: ignore[no-any-return]


# -- imports -------------------------------------------------------------------------------------
# While a module is imported, its thread has a lock of that module. If the module asks for a class
# which another thread is building, and that build imports the module, both wait for ever: the
# import system does not know of builds. Its locks tell who waits for whom.


def _locks_of_imports() -> list[Any]:
    bootstrap = sys.modules.get("_frozen_importlib")
    locks = getattr(bootstrap, "_module_locks", {})
    return [lock for reference in list(locks.values()) if (lock := reference()) is not None]


def is_importing(thread: int) -> bool:
    """Whether a thread is in the middle of an import."""
    return any(getattr(lock, "owner", None) == thread for lock in _locks_of_imports())


def importing_in_cycle(thread: int, builder: int) -> str | None:
    """Return the name of a module that a thread imports, and for which a builder waits."""
    blocking = getattr(sys.modules.get("_frozen_importlib"), "_blocking_on", {})
    waited_for = blocking.get(builder)
    for lock in waited_for if isinstance(waited_for, list) else [waited_for]:
        if lock is not None and getattr(lock, "owner", None) == thread:
            return str(lock.name)
    return None


def wait_for(lock: Lock, seconds: float, is_pointless: Any) -> bool:
    """
    Wait until another context releases a lock.

    Args:
        lock: What `make_lock` returned, acquired.
        seconds: How long at most; negative: for ever.
        is_pointless: Raises an error if the other one waits for an import of this thread; called
            now and then while this thread is in the middle of one. None: it is not.

    Returns:
        Whether it was released.
    """
    if is_pointless is None:
        return lock.acquire(True, seconds if seconds >= 0.0 else -1)
    while seconds != 0.0:
        step = _IMPORT_CHECK_SECONDS if seconds < 0.0 else min(seconds, _IMPORT_CHECK_SECONDS)
        if lock.acquire(True, step):
            return True
        is_pointless()
        if seconds > 0.0:
            seconds = max(0.0, seconds - step)
    return lock.acquire(False)
