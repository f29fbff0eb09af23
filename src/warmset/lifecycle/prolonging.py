"""
What a method returns may go on running: a generator, a coroutine, an asynchronous generator.

The instance is held until it has finished, was closed, or was dropped, started or not. `execute`
and handles do this by themselves: only they know that the hold exists, and a caller who had to
remember a helper would be reminded when the instance was closed in the middle of an iteration.
"""

from __future__ import annotations

from types import CoroutineType, GeneratorType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._core import Lease

__all__ = ["prolong"]


def prolong(lease: Lease, running: Any) -> Any:
    """
    Let a lease last as long as what a method returned.

    Args:
        lease: Holds the instance; one that is dropped gives it back, too.
        running: A generator, a coroutine or an asynchronous generator.

    Returns:
        One of the same kind that does the same, and leaves the lease at its end.
    """
    if type(running) is GeneratorType:
        return _generator(lease, running)
    if type(running) is CoroutineType:
        return _coroutine(lease, running)
    return _async_generator(lease, running)


def _generator(lease: Lease, inner: Any) -> Any:
    try:
        return (yield from inner)
    finally:
        lease.__exit__()


async def _coroutine(lease: Lease, inner: Any) -> Any:
    try:
        return await inner
    finally:
        lease.__exit__()


async def _async_generator(lease: Lease, inner: Any) -> Any:
    try:
        item = await inner.__anext__()
        while True:
            # What the caller sends or throws goes to the inner one, as `yield from` would do.
            try:
                sent = yield item
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as error:
                item = await inner.athrow(error)
            else:
                item = await inner.asend(sent)
    except StopAsyncIteration:
        return
    finally:
        lease.__exit__()
