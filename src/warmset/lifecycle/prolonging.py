"""
What a method returns may go on running: a generator, a coroutine, an asynchronous generator.

The instance is held until it has finished, was closed, or was dropped, started or not. `execute`
and handles do this by themselves: only they know that the hold exists, and a caller who had to
remember a helper would be reminded when the instance was closed in the middle of an iteration.
"""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._core import RegistryCore, Slot

__all__ = ["prolong"]


class _Hold:
    """Gives back once: when it is left, or dropped."""

    __slots__ = ("_core", "_epoch", "_slot")

    def __init__(self, core: RegistryCore, slot: Slot, epoch: int) -> None:
        self._core = core
        self._slot: Slot | None = slot
        self._epoch = epoch

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            self._core._release(slot, self._epoch)

    def __del__(self) -> None:
        self.__exit__()


def prolong(core: RegistryCore, slot: Slot, epoch: int, running: Any) -> Any:
    """
    Let a hold last as long as what a method returned.

    Args:
        core: Where to give back.
        slot: Where the instance is held.
        epoch: Under which.
        running: A generator, a coroutine or an asynchronous generator.

    Returns:
        One of the same kind that does the same, and gives back at its end.
    """
    hold = _Hold(core, slot, epoch)
    if type(running) is GeneratorType:
        return _generator(hold, running)
    if type(running) is CoroutineType:
        return _coroutine(hold, running)
    return _async_generator(hold, running)


PROLONGED = (GeneratorType, CoroutineType, AsyncGeneratorType)


def _generator(hold: _Hold, inner: Any) -> Any:
    with hold:
        return (yield from inner)


async def _coroutine(hold: _Hold, inner: Any) -> Any:
    with hold:
        return await inner


async def _async_generator(hold: _Hold, inner: Any) -> Any:
    with hold:
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
