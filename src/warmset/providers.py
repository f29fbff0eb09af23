"""
Providers that yield: generator functions whose code after the yield closes the instance.

The yielded object is the instance. The suspended generator stays with its entry, and is resumed
once, when the instance is closed. Its frame refers to the instance, so whether others still do is
judged against the count of references right after the yield.

An asynchronous generator is resumed by its own event loop: what it opened belongs to that loop.
"""

from __future__ import annotations

import sys
from _thread import get_ident

from . import _logs
from .codes import CLOSE_FAILED, CLOSED, LEFT_OPEN, WAITING
from .foreign import CLOSER, MISSING, contain, find_in_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ._core import Entry

    class Classes(Protocol):
        """What is needed of the registrations."""

        awaiting: dict[int, Callable[[Any], Any]]
        left_open: LeftOpen

    class Owner(Protocol):
        """What is needed of a registry."""

        @property
        def classes(self) -> Classes: ...
        def settle(self, entry: Entry, state: int) -> None:
            """Give an entry that was waiting to be closed its final state."""


__all__ = [
    "LeftOpen",
    "Suspended",
    "finish",
    "is_async_generator",
    "is_generator",
    "start",
]

_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def is_generator(made: object) -> bool:
    """Whether an object is a generator, also of a compiled function."""
    return _has(made, "__next__", "send", "throw")


def is_async_generator(made: object) -> bool:
    """Whether an object is an asynchronous generator, also of a compiled function."""
    return _has(made, "__anext__", "asend", "aclose")


def _has(made: object, *names: str) -> bool:
    kind = type(made)
    return all(find_in_type(kind, name) is not MISSING for name in names)


class Suspended:
    """
    A generator that has yielded an instance, until that is closed.

    Args:
        generator: The generator.
        box: A list with the instance, to which nothing else refers but the generator, and what that
            gave it to.
        loop: The event loop of an asynchronous generator; None for others.
    """

    __slots__ = ("_generator", "_loop", "_references")

    def __init__(self, generator: Any, box: list[Any], loop: Any = None) -> None:
        self._generator = [generator]  # is taken out by the one who resumes it
        self._loop = loop
        self._references = _references(box)

    def is_alone(self, box: list[Any]) -> bool:
        """Whether no more refer to the instance in a box than right after the yield."""
        # Without an interpreter lock the count is of no one moment.
        return _HAS_GIL and _references(box) <= self._references

    def close(self, registry: Owner, entry: Entry) -> int:
        """
        Run the code after the yield, once.

        Args:
            registry: The registry of the entry.
            entry: The entry, which waits to be closed.

        Returns:
            The state of the entry from now on; WAITING where an event loop settles it later.
        """
        try:
            generator = self._generator.pop()
        except IndexError:
            return CLOSED  # it was resumed
        if self._loop is not None:
            return self._close_in_loop(registry, entry, generator)
        try:
            next(generator)
        except StopIteration:
            return CLOSED
        generator.close()
        raise _second_yield(entry)

    def _close_in_loop(self, registry: Owner, entry: Entry, generator: Any) -> int:
        loop = self._loop
        awaited = registry.classes.awaiting.get(get_ident())
        if awaited is not None and not loop.is_closed():
            state: int = awaited(_end(entry, generator, loop))
            if state != WAITING:
                return state
        # Nobody waits for it: the caller may be the thread of that very loop, or hold up another.
        later = _Later(registry, entry, generator, loop)
        try:
            loop.call_soon_threadsafe(later)
        except RuntimeError:  # it is closed
            later.leave_open()
        return WAITING


class _Later:
    """Runs the code after the yield of an asynchronous generator once its loop comes to it."""

    def __init__(self, registry: Owner, entry: Entry, generator: Any, loop: Any) -> None:
        self._waiting: Any = [(registry, entry, generator, loop)]
        self._task: Any = None

    def __call__(self) -> None:
        registry, entry, generator, loop = self._waiting.pop()

        async def end() -> None:
            state = CLOSE_FAILED
            try:
                state = await _end(entry, generator, loop)
            except BaseException as error:
                contain(CLOSER, _raise, error, class_name=entry.name)
            finally:
                registry.settle(entry, state)
                self._task = None

        self._task = loop.create_task(end())  # the loop itself only has a weak reference to it

    def leave_open(self) -> None:
        """Report that the loop does not come to it any more."""
        if self._waiting:
            registry, entry, *_ = self._waiting.pop()
            registry.settle(entry, LEFT_OPEN)
            _logs.warning(
                "removals",
                "the removed instance of %r is left open: the event loop that built it is closed",
                entry.name,
                fields={"class_name": entry.name},
            )

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _is_finalizing():
            self.leave_open()


async def _end(entry: Entry, generator: Any, loop: Any) -> int:
    """The state of the entry after the code of its generator; WAITING if this is another loop."""
    from asyncio import get_running_loop

    if get_running_loop() is not loop:
        return WAITING
    try:
        await generator.__anext__()
    except StopAsyncIteration:
        return CLOSED
    await generator.aclose()
    raise _second_yield(entry)


def _raise(error: BaseException) -> None:
    raise error


def _second_yield(entry: Entry) -> RuntimeError:
    return RuntimeError(f"the provider of {entry.name!r} yields a second time; expected its end")


def start(
    class_name: str, made: Any, awaited: Callable[[Any], Any] | None
) -> tuple[Any, Suspended]:
    """
    Run a provider up to its yield.

    Args:
        class_name: The name, for the text of an error.
        made: The generator, synchronous or not.
        awaited: Has an awaitable awaited by an event loop; None for a synchronous one.

    Returns:
        The instance, and the generator.

    Raises:
        TypeError: It yields nothing.
    """
    box: list[Any] = []
    loop = None
    if awaited is None:
        # In C from the yield to the list: no interrupt arrives in between. Where the generator ends
        # without a yield, the list stays empty.
        box.extend(map(next, (made,)))
    else:
        loop = awaited(_begin(made, box))
    if not box:
        raise TypeError(f"the provider of {class_name!r} yielded nothing; expected one instance")
    suspended = Suspended(made, box, loop)
    return box.pop(), suspended


async def _begin(generator: Any, box: list[Any]) -> Any:
    from asyncio import get_running_loop

    async for instance in generator:
        box.append(instance)
        del instance
        break
    return get_running_loop()


def finish(registry: Owner, entry: Entry, box: list[Any]) -> int:
    """
    Close the instance of an entry that a provider yielded.

    Args:
        registry: The registry of the entry.
        entry: The entry, which waits to be closed.
        box: A list with its instance, to which the entry does not refer any more.

    Returns:
        The state of the entry from now on; WAITING where an event loop settles it later.
    """
    suspended: Suspended = entry.closer
    options = entry.options
    regardless = options is not None and options.close_when_removed
    if entry.shared and not regardless and not suspended.is_alone(box):
        registry.classes.left_open.add(entry, suspended, box)
        return LEFT_OPEN
    return suspended.close(registry, entry)


def _references(box: list[Any]) -> int:
    return sys.getrefcount(box[0])


class LeftOpen:
    """
    Generators of removed instances that somebody still refers to, without a lease.

    Dropping one would end it, and so close the instance in the hands of its user. Each is resumed
    once no more refer to its instance than right after the yield.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[Any, Suspended, list[Any]]] = []

    def add(self, entry: Any, suspended: Suspended, box: list[Any]) -> None:
        """Keep a generator, and the list with its instance."""
        kept = entry, suspended, box
        _kept_alive[id(kept)] = kept
        self.kept.append(kept)

    def close(self, registry: Owner) -> None:
        """Resume those to whose instance nobody else refers any more."""
        for kept in list(self.kept):
            entry, suspended, box = kept
            if suspended.is_alone(box):
                try:
                    self.kept.remove(kept)
                except ValueError:  # another thread was quicker
                    continue
                _kept_alive.pop(id(kept), None)
                contain(CLOSER, suspended.close, registry, entry, class_name=entry.name)


# Those of all registries. The collector ends a generator that only garbage refers to, and of a
# registry that does not exist any more nobody can tell when its instances are not used.
_kept_alive: dict[int, Any] = {}
