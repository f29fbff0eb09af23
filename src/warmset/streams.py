"""
Results that still need their instance: coroutines, generators, and whatever behaves like them.

The instance is held until the result has ended, was closed, or was dropped, started or not.
`execute` and handles do this by themselves: only they know that the hold exists, and a caller who
had to use a helper would notice its absence when the instance is closed in the middle of an
iteration.

What needs its instance
    The type of the result decides, by the slots that the interpreter itself uses: ``__await__``,
    ``__next__``, ``__anext__`` and ``__aiter__``. This includes compiled coroutines and generators,
    `map` and cursors. Lists, strings and all else that has none of them is returned as it is.

What the caller gets
    Where Python has the type, a generator or coroutine of the same type. A future stays itself and
    releases the instance in its callback. Any other result gets a stand-in, which has the same
    methods, and the same type as far as `isinstance` can tell. A mock has every method, so it says
    nothing about what it stands for: it is returned as it is.
"""

from __future__ import annotations

import sys
from types import AsyncGeneratorType, CoroutineType, GeneratorType, coroutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Holder(Protocol):
        """A lease, or what exits one."""

        def __exit__(self, *exception: object) -> Any: ...


__all__ = [
    "PLAIN",
    "hold_while_running",
    "is_awaitable",
    "is_from_contextmanager",
    "is_running",
    "type_has",
]

# Exact types without any of the methods below: the usual results, found without a search.
PLAIN = frozenset(
    (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
)
_RUNNING = frozenset(("__next__", "__await__", "__anext__", "__aiter__"))
_ITERABLE_COROUTINE = 0x100  # the code flag of a generator that `types.coroutine` makes awaitable

# Read from `type` itself: a metaclass is foreign code, and may answer to anything or raise.
_mro: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__
_names: Callable[[type], Any] = vars(type)["__dict__"].__get__


def is_running(result: Any) -> bool:
    """
    Tell whether a result still needs the instance that it came from, from its type alone.

    Args:
        result: What a method returned.

    Returns:
        Whether it behaves like a coroutine, a generator or an iterator. Runs no foreign code.
    """
    kind = type(result)
    if kind in PLAIN:
        return False
    return any(not _RUNNING.isdisjoint(_names(base)) for base in _mro(kind))


def is_awaitable(result: Any) -> bool:
    """
    Tell whether a result behaves like a coroutine.

    Args:
        result: What a method returned.

    Returns:
        Whether it has ``__await__`` or is a generator that `types.coroutine` made awaitable. Runs
        no foreign code.
    """
    kind = type(result)
    if kind is GeneratorType:
        return bool(result.gi_code.co_flags & _ITERABLE_COROUTINE)
    return kind not in PLAIN and type_has(kind, "__await__")


def hold_while_running(lease: Holder, result: Any) -> Any:
    """
    Keep a lease until the result of a method has ended.

    Args:
        lease: Holds the instance; if it is dropped, it releases it, too.
        result: What `is_running` is true of.

    Returns:
        What does the same as the result, and exits the lease at its end; see the module.
    """
    kind = type(result)
    if kind is GeneratorType:
        if is_awaitable(result):
            return _iterable_coroutine(lease, result)
        return _generator(lease, result)
    if kind is CoroutineType:
        return _coroutine(lease, result)
    if kind is AsyncGeneratorType:
        return _async_generator(lease, result)
    if _is_mock(kind):
        lease.__exit__()
        return result
    if type_has(kind, "__await__") and type_has(kind, "add_done_callback"):
        try:
            result.add_done_callback(lambda *_: lease.__exit__())
        except Exception:
            pass  # it takes no callback now: a stand-in serves as well
        else:
            return result
    return _stand_in(lease, result)


def type_has(kind: type, name: str) -> bool:
    """
    Tell whether a type has an attribute, without asking its metaclass.

    Args:
        kind: The type.
        name: The attribute.

    Returns:
        Whether the type or one of its bases defines it. Runs no foreign code.
    """
    return any(name in _names(base) for base in _mro(kind))


def _is_mock(kind: type) -> bool:
    mock = getattr(sys.modules.get("unittest.mock"), "NonCallableMock", None)
    return mock in _mro(kind)


# -- of the types that Python has ----------------------------------------------------------------


def _generator(lease: Holder, inner: Any) -> Any:
    try:
        return (yield from inner)
    finally:
        lease.__exit__()


@coroutine  # only what is a coroutine itself can be awaited, and may delegate to one
def _iterable_coroutine(lease: Holder, inner: Any) -> Any:
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


# -- stand-ins -----------------------------------------------------------------------------------


class _StandIn:
    """
    Stands in for the result of a method, and exits a lease when that has ended.

    Its subclasses have the special methods of the types that they stand in for; all other
    attributes are those of the result.
    """

    __slots__ = ("__weakref__", "_warmset_lease", "_warmset_result")

    _warmset_lease: Holder
    _warmset_result: Any

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._warmset_result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warmset_result, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._warmset_result, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._warmset_result, name)

    def __dir__(self) -> Any:
        return dir(self._warmset_result)

    def __repr__(self) -> str:
        return repr(self._warmset_result)

    def __str__(self) -> str:
        return str(self._warmset_result)

    def __format__(self, spec: str) -> str:
        return format(self._warmset_result, spec)

    def __hash__(self) -> int:
        return hash(self._warmset_result)

    def __eq__(self, other: object) -> Any:
        return self._warmset_result == _inner(other)

    def __ne__(self, other: object) -> Any:
        return self._warmset_result != _inner(other)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._warmset_result.__reduce_ex__(protocol)


def _inner(other: Any) -> Any:
    return other._warmset_result if _StandIn in _mro(type(other)) else other


def _stand_in(lease: Holder, result: Any) -> Any:
    found: dict[str, Any] = {}
    for base in _mro(type(result))[-2::-1]:  # without `object`
        found.update(_names(base))
    forwarded = frozenset(
        name
        for name, value in found.items()
        if name in _ENDS or (name[:2] == "__" == name[-2:] and name not in _OWN and callable(value))
    )
    # There are as many classes as there are sets of methods, however many types there are.
    own = _classes.get(forwarded)
    if own is None:
        methods = {name: _ENDS.get(name) or _forwarding(name) for name in forwarded}
        own = type("_StandIn", (_StandIn,), {"__slots__": (), **methods})
        own = _classes.setdefault(forwarded, own)
    stand_in: Any = object.__new__(own)
    object.__setattr__(stand_in, "_warmset_lease", lease)
    object.__setattr__(stand_in, "_warmset_result", result)
    return stand_in


_classes: dict[frozenset[str], type] = {}
# What the stand-in defines itself, and what belongs to the type and not to the object.
_OWN = frozenset(
    (
        *vars(_StandIn),
        "__annotate__",
        "__annotate_func__",
        "__class_getitem__",
        "__copy__",
        "__deepcopy__",
        "__del__",
        "__getattribute__",
        "__getstate__",
        "__init__",
        "__init_subclass__",
        "__instancecheck__",
        "__new__",
        "__reduce__",
        "__set_name__",
        "__setstate__",
        "__sizeof__",
        "__subclasscheck__",
        "__subclasshook__",
    )
)


def _forwarding(name: str) -> Callable[..., Any]:
    def method(self: _StandIn, *args: Any, **kwargs: Any) -> Any:
        result = self._warmset_result
        returned = getattr(result, name)(*map(_inner, args), **kwargs)
        return self if returned is result else returned

    method.__name__ = name
    return method


def _iterating(self: _StandIn) -> Any:
    result = self._warmset_result
    iterator = iter(result)
    return self if iterator is result else _items(self._warmset_lease, iterator)


def _items(lease: Holder, iterator: Any) -> Any:
    # Dropped before its end, it leaves the hold to the stand-in, which may be read again.
    yield from iterator
    lease.__exit__()


def _iterating_async(self: _StandIn) -> Any:
    result = self._warmset_result
    iterator = result.__aiter__()
    return self if iterator is result else _async_items(self._warmset_lease, iterator)


async def _async_items(lease: Holder, iterator: Any) -> Any:
    try:
        async for item in iterator:
            yield item
    except GeneratorExit:
        if type(iterator) is AsyncGeneratorType:
            await iterator.aclose()
        raise
    lease.__exit__()


def _ends_at(name: str, at: tuple[type[BaseException], ...], *, always: bool = False) -> Any:
    """
    A method that may end the result.

    Args:
        name: Of the method.
        at: The exceptions that say that it has ended.
        always: Whether it has ended whatever happens.

    An exception of a generator or a coroutine is its end; another iterator may go on after one.
    """

    def settle(self: _StandIn, error: BaseException | None) -> None:
        ended = always if error is None else (always or isinstance(error, at))
        if not ended and error is not None:
            kind = type(self._warmset_result)
            ended = type_has(kind, "throw") or type_has(kind, "athrow")
        if ended:
            self._warmset_lease.__exit__()

    async def finish(self: _StandIn, returned: Any) -> Any:
        try:
            value = await returned
        except BaseException as error:
            settle(self, error)
            raise
        settle(self, None)
        return self if value is self._warmset_result else value

    def method(self: _StandIn, *args: Any, **kwargs: Any) -> Any:
        try:
            returned = getattr(self._warmset_result, name)(*args, **kwargs)
        except BaseException as error:
            settle(self, error)
            raise
        if is_awaitable(returned) and name not in ("__next__", "send", "throw"):
            return finish(self, returned)
        settle(self, None)
        return self if returned is self._warmset_result else returned

    method.__name__ = name
    return method


def _awaiting(self: _StandIn) -> Any:
    return _generator(self._warmset_lease, self._warmset_result.__await__())


# The methods that may end a result, or that return what may.
_ENDS: dict[str, Any] = {
    "__await__": _awaiting,
    "__iter__": _iterating,
    "__aiter__": _iterating_async,
    "__next__": _ends_at("__next__", (StopIteration,)),
    "send": _ends_at("send", (StopIteration,)),
    "throw": _ends_at("throw", (StopIteration,)),
    "__anext__": _ends_at("__anext__", (StopAsyncIteration,)),
    "asend": _ends_at("asend", (StopAsyncIteration,)),
    "athrow": _ends_at("athrow", (StopAsyncIteration,)),
    "close": _ends_at("close", (), always=True),
    "aclose": _ends_at("aclose", (), always=True),
    "__exit__": _ends_at("__exit__", (), always=True),
    "__aexit__": _ends_at("__aexit__", (), always=True),
}


def is_from_contextmanager(made: object) -> bool:
    """Whether something is what a function returns that `contextlib.contextmanager` decorates."""
    contextlib = sys.modules.get("contextlib")
    kinds = ("_GeneratorContextManager", "_AsyncGeneratorContextManager")
    return any(type(made) is getattr(contextlib, kind, None) for kind in kinds)
