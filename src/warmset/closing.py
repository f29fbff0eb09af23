"""
Closing removed instances: at most once, outside every lock; an error of a closer is not raised.

An instance that was only ever leased is closed when its last hold has ended. A caller who received
it without a lease may still use it; then it is closed only if nothing else refers to it, which the
interpreter's reference count tells. Otherwise it is left to its own finaliser, and counted as left
open.
"""

from __future__ import annotations

import atexit
from _thread import get_ident
from weakref import WeakSet

from . import _logs
from .codes import CLOSE_FAILED, CLOSED, LEFT_OPEN, NOTHING_TO_CLOSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ._core import Entry
    from .classes import Classes
    from .options import ClassOptions

    class Owner(Protocol):
        """What closing needs of a registry."""

        classes: Classes

        def claim(self, entry: Entry) -> list[Any]:
            """Take the instance of an entry that waits to be closed."""

        def settle(self, entry: Entry, state: int) -> None:
            """Give the entry its final state."""

        def is_alone(self, box: list[Any]) -> bool:
            """Whether nothing else refers to what is in the box."""

        def close(self) -> None:
            """Close the registry."""


__all__ = ["close_entry", "watch_exit"]


def close_entry(registry: Owner, entry: Entry) -> None:
    """
    Close the instance of an entry that waits for it; it does nothing for any other one.

    Args:
        registry: The registry of the entry; it counts the outcome.
        entry: The entry. Its instance is taken out of it.

    An exception of the closer is logged with its traceback and counted; an interrupt is raised.
    """
    box = registry.claim(entry)
    if not box:
        return
    state = CLOSE_FAILED  # also if an interrupt ends it
    try:
        state = _close(registry, entry, box)
    finally:
        registry.settle(entry, state)


def _close(registry: Owner, entry: Entry, box: list[Any]) -> int:
    """Close what is in the box; the state that the entry has afterwards."""
    options = entry.options
    awaited = registry.classes.awaiting.get(get_ident())
    close = _closer(options, box, awaited is not None)
    if close is None:
        # Only an event loop that waits for the removal can run an `aclose`.
        return LEFT_OPEN if hasattr(type(box[0]), "aclose") else NOTHING_TO_CLOSE
    regardless = options is not None and options.close_when_removed
    if entry.shared and not regardless and not registry.is_alone(box):
        return LEFT_OPEN
    try:
        result = close(box[0])
        if hasattr(type(result), "__await__"):
            _finish(result, awaited)
    except Exception as error:
        _logs.warning(
            "removals",
            "closing the removed instance of %r failed",
            entry.name,
            fields={"class_name": entry.name, "error_type": type(error).__qualname__},
            error=error,
        )
        return CLOSE_FAILED
    return CLOSED


def _finish(closing: Any, awaited: Callable[[Any], Any] | None) -> None:
    if awaited is not None:
        awaited(closing)
        return
    if hasattr(closing, "send"):
        closing.close()  # a coroutine that nobody will await
    raise TypeError(
        "the closer is asynchronous, and no event loop waits for this removal; "
        "remove the instance through warmset.aio.AsyncMethodExecutor"
    )


def _closer(
    options: ClassOptions | None, box: list[Any], in_loop: bool
) -> Callable[[Any], Any] | None:
    """
    Return the closer of the class; else the instance's own `close`; else its `__exit__`.

    Before these, its `aclose`, where an event loop waits for the removal.
    """
    if options is not None and options.closer != "auto":
        return options.closer  # type: ignore[return-value]
    kind = type(box[0])
    if in_loop and callable(getattr(kind, "aclose", None)):
        return _call_aclose
    if callable(getattr(kind, "close", None)) or callable(_own(box, "close")):
        return _call_close
    if hasattr(kind, "__exit__") and hasattr(kind, "__enter__"):
        return _call_exit
    return None


def _own(box: list[Any], name: str) -> Any:
    # Of the instance itself, without running a `__getattr__` that answers to every name.
    return getattr(box[0], "__dict__", {}).get(name)


def _call_aclose(instance: Any) -> Any:
    return instance.aclose()


def _call_close(instance: Any) -> Any:
    return instance.close()


def _call_exit(instance: Any) -> None:
    type(instance).__exit__(instance, None, None, None)


_open: WeakSet[Owner] = WeakSet()


def watch_exit(registry: Owner) -> None:
    """Close a registry when the interpreter exits, if it still exists then."""
    _open.add(registry)


def _close_all() -> None:
    for registry in list(_open):
        registry.close()


atexit.register(_close_all)
