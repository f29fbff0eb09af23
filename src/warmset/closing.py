"""
Closing removed instances: at most once, outside every lock; an error of a closer is not raised.

An instance that was only ever leased is closed when its last hold has ended. A caller who received
it without a lease may still use it; then it is closed only if nothing else refers to it, which the
interpreter's reference count tells. Otherwise it is left to its own finaliser, and counted as left
open.

How an instance is closed
    1. By the `closer` of its class, if it has one; None closes nothing.
    2. By its `aclose()`, if an event loop waits for the removal.
    3. By its `close()`: of its class, of the instance itself, or what a proxy answers with.
    4. By its `__exit__`, if its class has both that and `__enter__`.

    `close()` comes first because it has one meaning, while leaving a context has several: that of
    a database connection commits. A proxy has the `__exit__` of what it wraps, so step 4 is reached
    only after the proxy was asked for a `close()` and denied having one.

Which of them an instance has
    A *static* type is one that overrides neither `__getattribute__` nor `__getattr__`. It is
    searched without running foreign code: class dicts in the method resolution order, then the dict
    or the slot of the instance. The metaclass is not asked, and a property is data, not a method.
    Instances of any other type are *dynamic*, as proxies are: each instance is asked, and whatever
    it raises, except an AttributeError or a LookupError, is a failure to close it. One that answers
    to a name that nobody uses answers to any name, as a remote procedure client does: its `close`
    means nothing unless its class has it, and its `__exit__` is not called.
"""

from __future__ import annotations

from _operator import attrgetter, methodcaller
from _thread import get_ident
from weakref import ref

from .codes import CLOSE_FAILED, CLOSED, LEFT_OPEN, NOTHING_TO_CLOSE, WAITING
from .foreign import (
    CLOSER,
    MISSING,
    contain,
    decides_by_code,
    find_in_type,
    find_own,
    is_bound_by_code,
)
from .providers import finish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from ._core import Entry
    from .classes import Classes
    from .owners import Entries, Owners

    class Owner(Entries, Protocol):
        """What closing needs of a registry."""

        classes: Classes
        owners: Owners
        closed_instances: ClosedInstances
        left_at_close: list[tuple[str, Any]] | None
        left_over: bool

        @property
        def close_entry(self) -> Callable[[Any, Entry], None]:
            """What closes an entry: `close_entry`, or what closes it elsewhere, or later."""

        def settle_unclosable(self, entries: list[Entry]) -> list[Entry]:
            """Let instances go that have no way to be closed; the other entries that wait."""

        def claim(self, entry: Entry, box: list[Any]) -> bool:
            """Move the instance of an entry that waits to be closed into an empty list."""

        def unclaim(self, entry: Entry, box: list[Any]) -> None:
            """Move it back, to be closed later."""

        def settle(self, entry: Entry, state: int) -> None:
            """Give the entry its final state."""

        def is_alone(self, box: list[Any]) -> bool:
            """Whether nothing else refers to what is in the box."""


__all__ = ["ClosedInstances", "close_entry", "close_left_over", "close_removed"]

_UNUSED_NAME = "_warmset_has_no_such_attribute"


_MOST_KNOWN = 10_000


class ClosedInstances:
    """
    The instances that a registry has closed and that still exist, because others refer to them.

    They are referred to weakly; those whose type has no weak references are not known. Thread-safe:
    each step is one operation on a dict.
    """

    __slots__ = ("by_id", "in_progress")

    def __init__(self) -> None:
        self.by_id: dict[int, ref[Any]] = {}
        self.in_progress: dict[int, _Closing] = {}  # by the identity of the instance

    def reset_after_fork(self) -> None:
        """Forget what threads are closing that do not exist in the child."""
        self.in_progress.clear()

    def add(self, box: list[Any]) -> None:
        """Add what is in the box."""
        known, key = self.by_id, id(box[0])
        if len(known) >= _MOST_KNOWN:
            return

        def forget(reference: ref[Any]) -> None:
            if known.get(key) is reference:
                known.pop(key, None)

        try:
            known[key] = ref(box[0], forget)
        except TypeError:
            return

    def __contains__(self, instance: object) -> bool:
        reference = self.by_id.get(id(instance))
        return reference is not None and reference() is instance


def close_entry(registry: Owner, entry: Entry) -> None:
    """
    Close the instance of an entry that waits for it; it does nothing for any other one.

    Args:
        registry: The registry of the entry; it counts the outcome.
        entry: The entry. Its instance is taken out of it.

    What the closer raises is logged with its traceback and counted; an interrupt is raised.

    Several entries may have one instance. Threads that close them take turns: one of them closes
    the first entry, and what the others would have closed when that is done.
    """
    key = _identity(entry)
    if key is None:
        return  # it is claimed, or was closed
    in_progress = registry.closed_instances.in_progress
    mine = _Closing()
    # It has the instance while that is in the table: another one could have its number else.
    box: list[Any] = []
    try:
        first = in_progress.setdefault(key, mine)
        if first is mine:
            mine.closed = _close_claimed(registry, entry, _close, box)
    finally:
        try:
            _leave(in_progress, key, mine)
        except BaseException:
            _leave(in_progress, key, mine)  # an interrupt at the call above
            raise
    del box  # not emptied: what is left open is kept in it
    if first is not mine:
        first.others.append(entry)
        if in_progress.get(key) is not first:  # it may not have seen this one
            _close_other(registry, entry, first)
    for other in mine.others:
        _close_other(registry, other, mine)


def _identity(entry: Entry) -> int | None:
    instance = entry.instance
    return None if instance is None else id(instance)


def _leave(in_progress: dict[int, _Closing], key: int, closing: _Closing) -> None:
    if in_progress.get(key) is closing:
        del in_progress[key]


def _close_other(registry: Owner, entry: Entry, first: _Closing) -> None:
    """Close an entry after another one that had the same instance."""
    if first.closed and entry.closer is None:
        _close_claimed(registry, entry, _close_nothing, [])
    else:
        registry.close_entry(registry, entry)


def _close_claimed(
    registry: Owner, entry: Entry, close: Callable[..., int], box: list[Any]
) -> bool:
    """Claim an entry, whose instance is in the box then, and close it; whether it was called."""
    call = _Call()
    try:
        if registry.claim(entry, box):
            name = entry.name
            call.state = contain(
                CLOSER, close, registry, entry, box, call, failed=CLOSE_FAILED, class_name=name
            )
    finally:
        if box:
            try:
                _settle(registry, entry, box, call)
            except BaseException:
                _settle(registry, entry, box, call)  # an interrupt at the call above
                raise
    return call.state in _CALLED


_CALLED = frozenset((CLOSED, CLOSE_FAILED, WAITING))


def _close_nothing(*_: Any) -> int:
    return NOTHING_TO_CLOSE


def close_removed(registry: Owner, entries: list[Entry]) -> None:
    """
    Close those entries that wait for it, the newest first.

    Args:
        registry: Their registry.
        entries: Removed entries; those that are held are closed when their last hold ends.

    An interrupt is raised when the others are closed.
    """
    if registry.close_entry is close_entry:
        waiting = registry.settle_unclosable(entries)
    else:  # something closes them elsewhere, or later
        waiting = [entry for entry in entries if entry.state == WAITING]
    if len(waiting) > 1:
        # A later one may refer to an earlier one, which would be left open because of it.
        waiting.sort(key=_serial, reverse=True)
    if waiting:
        _close_all(registry, waiting)


_serial = attrgetter("serial")


def _close_all(registry: Owner, entries: list[Entry]) -> None:
    entries.reverse()
    try:
        _close_reversed(registry, entries)
    except BaseException:
        registry.left_over = True
        raise
    finally:
        if entries:
            _close_all(registry, entries[::-1])


def _close_reversed(registry: Owner, entries: list[Entry]) -> None:
    while entries:
        registry.close_entry(registry, entries.pop())


def close_left_over(registry: Owner) -> None:
    """Close the entries that wait for it; those that an interrupt leaves are left over again."""
    try:
        registry.left_over = False
        _close_all(registry, _with_instance(registry.unclosed))
    except BaseException:
        registry.left_over = True
        raise


def _with_instance(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in list(entries) if entry.instance is not None]


class _Closing:
    """One thread closes an instance; other entries that have it wait for that."""

    __slots__ = ("closed", "others")

    def __init__(self) -> None:
        self.closed = False  # whether a closer was called
        self.others: list[Entry] = []  # complete when it has left the table


class _Call:
    """How far the call of a closer came, which an interrupt may have ended."""

    __slots__ = ("results", "state")

    def __init__(self) -> None:
        self.state: int | None = None  # that the entry is to have; None: it was not called
        self.results: list[Any] = []  # what the closer returned


def _settle(registry: Owner, entry: Entry, box: list[Any], call: _Call) -> None:
    state = call.state
    if state is None:  # an interrupt came before the closer was called
        registry.unclaim(entry, box)
        return
    if state == CLOSE_FAILED and call.results and not _is_awaitable(call.results[0]):
        state = CLOSED  # an interrupt came after it
    if state != WAITING:  # else an event loop settles it
        registry.settle(entry, state)
    # What a provider yields may be yielded again: it may come from a pool.
    if state in (CLOSED, CLOSE_FAILED) and entry.closer is None:
        call.results.clear()
        if not registry.is_alone(box):
            registry.closed_instances.add(box)
    if state == LEFT_OPEN and registry.left_at_close is not None:
        registry.left_at_close.append((entry.name, box[0]))


def _is_awaitable(result: Any) -> bool:
    return result is not None and find_in_type(type(result), "__await__") is not MISSING


def _close(registry: Owner, entry: Entry, box: list[Any], call: _Call) -> int:
    """Close what is in the box; the state that the entry has afterwards."""
    if entry.closer is not None:
        call.state = CLOSE_FAILED  # also if an interrupt ends it
        return finish(registry, entry, box)
    known = registry.closed_instances
    if known.by_id and box[0] in known:
        return NOTHING_TO_CLOSE  # it was returned by two rules, or written into the cache twice
    options = entry.options
    awaited = registry.classes.awaiting.get(get_ident())
    if options is not None and options.closer != "auto":
        close = options.closer
        if close is None:
            return NOTHING_TO_CLOSE
    else:
        close = _closer(box, awaited is not None)
        if close is None:
            # Only an event loop that waits for the removal can run an `aclose`.
            return NOTHING_TO_CLOSE if _method(box, "aclose") is None else LEFT_OPEN
    regardless = options is not None and options.close_when_removed
    if not registry.is_alone(box):
        if registry.owners.other_has(registry, entry, box):
            return NOTHING_TO_CLOSE  # the last entry that has it closes it
        if entry.shared and not regardless:
            return LEFT_OPEN
    calls = map(close, box)
    # No other call from here to the result of the closer, so that no interrupt comes in between.
    call.state = CLOSE_FAILED
    call.results.extend(calls)
    if not call.results:
        raise RuntimeError("it raised StopIteration")
    if _is_awaitable(call.results[0]):
        _finish(call.results[0], awaited)
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


def _closer(box: list[Any], in_loop: bool) -> Callable[[Any], Any] | None:
    """Return what closes the instance; see the module."""
    close = _method(box, "aclose") if in_loop else None
    close = close or _method(box, "close")
    if close is not None:
        return close
    kind = type(box[0])
    if not callable(find_in_type(kind, "__exit__")) or not callable(
        find_in_type(kind, "__enter__")
    ):
        return None
    if _answers_to_anything(box):
        raise TypeError(
            f"an instance of {kind.__qualname__} answers to any attribute name, so it cannot be "
            f"told how to close it: register the class with closer=..., or with closer=None"
        )
    return _call_exit


def _method(box: list[Any], name: str) -> Callable[[Any], Any] | None:
    """Return what calls a method of the instance; None if it has none of that name."""
    kind = type(box[0])
    if issubclass(kind, type):
        return None  # a class has the methods of its instances, not its own
    in_type = find_in_type(kind, name)
    if _is_dynamic(kind, in_type):
        found = callable(_ask(box, name)) and (callable(in_type) or not _answers_to_anything(box))
    elif in_type is MISSING or not callable(in_type):
        found = callable(find_own(box[0], name))
    else:
        found = True
    return _CALLS[name] if found else None


def _is_dynamic(kind: type, in_type: Any) -> bool:
    """Whether only an instance can tell what its attribute is, of which its class has this."""
    if in_type is MISSING:
        return decides_by_code(kind)
    if is_bound_by_code(in_type):
        return True
    return find_in_type(kind, "__getattribute__") is not _OBJECTS_OWN


_OBJECTS_OWN = object.__dict__["__getattribute__"]


def _ask(box: list[Any], name: str) -> Any:
    try:
        return getattr(box[0], name)
    except (AttributeError, LookupError):  # the second from a `__getattr__` that looks into a dict
        return MISSING


def _answers_to_anything(box: list[Any]) -> bool:
    try:
        return hasattr(box[0], _UNUSED_NAME)
    except Exception:
        return False


_CALLS = {"aclose": methodcaller("aclose"), "close": methodcaller("close")}


def _call_exit(instance: Any) -> None:
    kind = type(instance)
    leave = find_in_type(kind, "__exit__")
    bind = find_in_type(type(leave), "__get__")
    bound = leave if bind is MISSING else bind(leave, instance, kind)
    bound(None, None, None)
