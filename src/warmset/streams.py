"""
Results that still need their instance: generators, coroutines, asynchronous generators.

The instance is held until the result has ended, was closed, or was dropped, started or not.
`execute` and handles do this by themselves: only they know that the hold exists, and a caller who
had to use a helper would notice its absence when the instance is closed in the middle of an
iteration.
"""

from __future__ import annotations

from types import CoroutineType, GeneratorType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Holder(Protocol):
        """A lease, or what exits one."""

        def __exit__(self, *exception: object) -> Any: ...


__all__ = ["hold_while_running"]


def hold_while_running(lease: Holder, result: Any) -> Any:
    """
    Keep a lease until the result of a method has ended.

    Args:
        lease: Holds the instance; if it is dropped, it releases it, too.
        result: A generator, a coroutine or an asynchronous generator.

    Returns:
        One of the same kind that does the same, and exits the lease at its end.
    """
    if type(result) is GeneratorType:
        return _generator(lease, result)
    if type(result) is CoroutineType:
        return _coroutine(lease, result)
    return _async_generator(lease, result)


def _generator(lease: Holder, inner: Any) -> Any:
    try:
        return (yield from inner)
    finally:
        lease.__exit__()


async def _coroutine(lease: Holder, inner: Any) -> Any:
    try:
        return await inner
    finally:
        lease.__exit__()


async def _async_generator(lease: Holder, inner: Any) -> Any:
    try:
        item = await inner.__anext__()
        while True:
            # What the caller sends or throws goes to the inner one, as `yield from` does it.
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
