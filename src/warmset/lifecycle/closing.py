"""
Closing what left: at most once, outside every lock, and whatever it raises stays here.

An instance that was only ever leased is closed when nobody holds it any more. One that was handed
out without a lease may still be in somebody's hands; it is closed only if nobody else refers to it,
which the interpreter's reference count tells. Otherwise it is left to its own finaliser, and
counted as left open.
"""

from __future__ import annotations

import atexit
from _thread import get_ident
from weakref import WeakSet

from .. import _logs
from .._tallies import CLOSE_FAILURES, CLOSED, LEFT_OPEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..registry import Registry
    from .options import ClassOptions

__all__ = ["close_departed", "watch_exit"]


def close_departed(registry: Registry, departure: Any) -> None:
    """
    Close an instance that left and that nobody holds.

    Args:
        registry: Knows how the class is closed, and counts.
        departure: What left; the instance is taken out of it.

    An exception of the closer is logged with its traceback and counted; an interrupt passes.
    """
    box = [departure.instance]
    departure.instance = departure.routes = None
    if departure.weak or box[0] is None:
        return
    class_name = departure.class_name
    options = registry._options.get(class_name)
    awaited = registry._awaiting.get(get_ident())
    close = _closer(options, box, awaited is not None)
    if close is None:
        if hasattr(type(box[0]), "aclose"):
            registry._tally(LEFT_OPEN)  # it can be closed only where an event loop waits for that
        return
    regardless = options is not None and options.close_when_removed
    if departure.shared and not regardless and not registry._is_alone(box):
        registry._tally(LEFT_OPEN)
        return
    try:
        result = close(box[0])
        if hasattr(type(result), "__await__"):
            _finish(result, awaited)
    except Exception as error:
        registry._tally(CLOSE_FAILURES)
        _logs.warning(
            "removals",
            "closing the removed instance of %r failed",
            class_name,
            fields={"class_name": class_name, "error_type": type(error).__qualname__},
            error=error,
        )
    else:
        registry._tally(CLOSED)


def _finish(closing: Any, awaited: Callable[[Any], Any] | None) -> None:
    if awaited is not None:
        awaited(closing)
        return
    if hasattr(closing, "send"):
        closing.close()  # a coroutine that nobody will await
    raise TypeError(
        "the closer is asynchronous, and no event loop waits for this removal; "
        "remove by way of warmset.aio.AsyncMethodExecutor"
    )


def _closer(
    options: ClassOptions | None, box: list[Any], in_loop: bool
) -> Callable[[Any], Any] | None:
    """
    The hook of the class; else its own `close`; else its context manager's exit.

    Before them its `aclose`, where an event loop waits for the removal.
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
    # Of the instance itself, without running a `__getattr__` that has an answer to everything.
    return getattr(box[0], "__dict__", {}).get(name)


def _call_aclose(instance: Any) -> Any:
    return instance.aclose()


def _call_close(instance: Any) -> Any:
    return instance.close()


def _call_exit(instance: Any) -> None:
    type(instance).__exit__(instance, None, None, None)


_open: WeakSet[Registry] = WeakSet()


def watch_exit(registry: Registry) -> None:
    """Close a registry when the interpreter exits, if it still lives then."""
    _open.add(registry)


def _close_all() -> None:
    for registry in list(_open):
        registry.close()


atexit.register(_close_all)
