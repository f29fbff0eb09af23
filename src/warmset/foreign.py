"""
Calls of foreign code: what is raised, what is counted, and what is logged.

Foreign code is whatever users provide: constructors, rules, closers, listeners, policies, sizers,
hooks, timers, and the attributes of their instances. It may raise anything, also what does not
derive from `Exception`: `SystemExit`, `CancelledError`, `GeneratorExit`, the panic of a Rust
extension. Only an interrupt concerns the thread and not the call; see `is_interrupt`.

=================  ==================================  =================  ==========================
foreign code       raised to the caller                counted            logged at WARNING
=================  ==================================  =================  ==========================
constructor, rule  everything: an `Exception` as       failed_builds; it  builds
                   `BuildError`, others as they are    is remembered
closer             interrupts                          close_failures     removals
listener           interrupts, after the others were   listener_failures  listeners
                   called
policy             interrupts                          -                  memory, once
sizer, size hook   interrupts                          -                  memory, once per class
probe of memory    interrupts                          -                  memory, once
attribute          interrupts; otherwise the default   -                  -
timer              everything                          -                  -
step of a service  nothing                             health()           services
thread
=================  ==================================  =================  ==========================
"""

from __future__ import annotations

import sys
from _functools import partial  # type: ignore[import-not-found]  # `functools` loads collections
from types import FunctionType

from . import _logs
from .codes import LISTENER_FAILURES
from .resolver import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    class Counts(Protocol):
        """What counts failures: a registry."""

        def count(self, which: int) -> None:
            """Count what `codes` names."""


__all__ = [
    "ATTRIBUTE",
    "BUILD_LISTENER",
    "CLOSER",
    "MISSING",
    "POLICY",
    "PROBE",
    "REMOVAL_LISTENER",
    "SERVICE",
    "SIZER",
    "Kind",
    "call_each",
    "can_have_method",
    "contain",
    "decides_by_code",
    "find_in_type",
    "find_own",
    "is_bound_by_code",
    "is_interrupt",
    "is_property",
    "is_unclosable",
    "read_attribute",
]


class Kind:
    """
    A kind of foreign code: one row of the table.

    Args:
        area: The last part of the logger's name; "": nothing is logged.
        message: A %-format string, which takes what the call is about; the error is appended.
        counter: What `codes` names; None: nothing, or the caller counts what it is given.
        interrupts: Whether interrupts are raised.
    """

    __slots__ = ("area", "counter", "interrupts", "message")

    def __init__(
        self, area: str, message: str, *, counter: int | None = None, interrupts: bool = True
    ) -> None:
        self.area = area
        self.message = message
        self.counter = counter
        self.interrupts = interrupts


CLOSER = Kind("removals", "closing the removed instance of %r failed")
REMOVAL_LISTENER = Kind("listeners", "a removal listener failed: %r", counter=LISTENER_FAILURES)
BUILD_LISTENER = Kind("listeners", "a build listener failed: %r", counter=LISTENER_FAILURES)
POLICY = Kind("memory", "the policy %r failed: where it does, only the last use counts")
SIZER = Kind("memory", "cannot determine the size of %r")
PROBE = Kind("memory", "the memory of the process cannot be measured, so %s")
ATTRIBUTE = Kind("", "")
SERVICE = Kind("services", "a step of a service thread failed: %s", interrupts=False)

MISSING: Any = object()
"""Returned for an attribute that does not exist."""


def is_interrupt(error: BaseException) -> bool:
    """
    Return whether an error was sent to a thread or a greenlet, and not raised by what it called.

    Args:
        error: The error.

    Returns:
        True for `KeyboardInterrupt`, and for what gevent sends to a greenlet: `GreenletExit`, and
        its `Timeout`.
    """
    # `isinstance` would read `__class__` of the error, which is foreign code.
    kind = type(error)
    if issubclass(kind, KeyboardInterrupt):
        return True
    if issubclass(kind, (Exception, SystemExit, GeneratorExit)):
        return False
    for module, name in (("greenlet", "GreenletExit"), ("gevent.timeout", "Timeout")):
        sent = getattr(sys.modules.get(module), name, None)
        if type(sent) is type and issubclass(kind, sent):
            return True
    return False


def contain(
    kind: Kind,
    call: Callable[..., Any],
    *arguments: Any,
    failed: Any = None,
    about: object = None,
    class_name: str | None = None,
    registry: Counts | None = None,
    logged: set[str] | None = None,
) -> Any:
    """
    Call foreign code, and contain what it raises, as far as its kind provides for that.

    Args:
        kind: The kind.
        call: The foreign code.
        arguments: Its arguments.
        failed: What is returned if it raises.
        about: What the log record names; None: the class.
        class_name: The class that it is called for; a field of the log record.
        registry: Counts the failure, if its kind has a counter.
        logged: What was logged already, by class name (or "", without one), is not logged again.

    Returns:
        What the call returns.
    """
    try:
        return call(*arguments)
    except BaseException as error:
        if kind.interrupts and is_interrupt(error):
            raise
        if registry is not None and kind.counter is not None:
            registry.count(kind.counter)
        key = class_name or ""
        if kind.area and (logged is None or key not in logged):
            if logged is not None:
                logged.add(key)
            fields = {"error_type": type(error).__qualname__}
            if class_name is not None:
                fields["class_name"] = class_name
            _logs.warning(
                kind.area,
                f"{kind.message}: %s",
                class_name if about is None else about,
                error_text(error),
                fields=fields,
                error=error,
            )
        return failed


def call_each(
    kind: Kind,
    calls: Iterable[Callable[..., Any]],
    *arguments: Any,
    class_name: str | None = None,
    registry: Counts | None = None,
) -> None:
    """
    Call each of several functions; an interrupt is raised when all have been called.

    Args:
        kind: The kind of all.
        calls: The functions.
        arguments: Their arguments.
        class_name: As for `contain`.
        registry: As for `contain`.
    """
    one = partial(_call_one, kind, arguments, class_name, registry)
    _exhaust(map(one, calls))


def _call_one(
    kind: Kind,
    arguments: tuple[Any, ...],
    class_name: str | None,
    registry: Counts | None,
    call: Callable[..., Any],
) -> None:
    contain(kind, call, *arguments, about=call, class_name=class_name, registry=registry)


def _exhaust(steps: Iterable[None]) -> None:
    ended = False
    try:
        for _ in steps:
            pass
        ended = True
    finally:
        if not ended:  # an interrupt: what remains comes first
            _exhaust(steps)


# -- attributes ----------------------------------------------------------------------------------

_mro_of = type.__dict__["__mro__"].__get__
_names_in = type.__dict__["__dict__"].__get__
_OBJECTS_OWN = object.__dict__["__getattribute__"]
_own_dict = type(type.__dict__["__dict__"])  # the type of a `__dict__` in a class
_slot = type(type.__dict__["__basicsize__"])  # the type of a slot in a class


def find_in_type(kind: type, name: str) -> Any:
    """
    Find an attribute in a class and its bases, without running foreign code.

    Args:
        kind: The class. Its metaclass is not asked, nor is a descriptor bound.
        name: The name.

    Returns:
        What the first of the classes in the method resolution order has; or `MISSING`.
    """
    for base in _mro_of(kind):
        names = _names_in(base)
        if name in names:
            return names[name]
    return MISSING


def find_own(instance: object, name: str) -> Any:
    """
    Find an attribute of an instance itself, without running foreign code.

    Args:
        instance: The instance; what its class says about its `__dict__` is not believed.
        name: The name.

    Returns:
        What its dict, or the slot of that name, has; or `MISSING`.
    """
    kind = type(instance)
    in_type = find_in_type(kind, name)
    if type(in_type) is _slot:
        try:
            return in_type.__get__(instance, kind)
        except AttributeError:
            return MISSING
    for base in _mro_of(kind):
        own = _names_in(base).get("__dict__")
        if type(own) in (_own_dict, _slot):  # the second in a module
            found = own.__get__(instance, kind)
            return dict.get(found, name, MISSING) if isinstance(found, dict) else MISSING
    return MISSING


def is_property(in_type: Any) -> bool:
    """Return whether what a class has is a property, cached or not."""
    descriptor = type(in_type)
    return issubclass(descriptor, property) or descriptor.__name__ == "cached_property"


def is_bound_by_code(in_type: Any) -> bool:
    """
    Return whether what a class has is a descriptor that may return a method, and no property.

    Those of classes written in C, as a slot is, are data.
    """
    return (
        not callable(in_type)
        and not is_property(in_type)
        and type(in_type) not in (_own_dict, _slot)
        and find_in_type(type(in_type), "__get__") is not MISSING
    )


def decides_by_code(kind: type) -> bool:
    """Return whether a class has code that decides which attributes its instances have."""
    return (
        find_in_type(kind, "__getattr__") is not MISSING
        or find_in_type(kind, "__getattribute__") is not _OBJECTS_OWN
    )


def can_have_method(kind: type, name: str, instance: object = None) -> bool:
    """
    Tell whether instances of a class can be expected to have a method; runs no foreign code.

    Args:
        kind: The class.
        name: The name of the method.
        instance: An instance, whose own attributes count, too; None if there is none.

    Returns:
        Whether a callable was found. True also where nothing is known against it: for a property,
        and if the class has a `__getattr__` or `__getattribute__`.
    """
    in_type = find_in_type(kind, name)
    if (
        instance is not None
        and type(in_type) is FunctionType
        and type(kind) is type
        and kind.__getattribute__ is _OBJECTS_OWN
    ):
        return callable(getattr(instance, name))  # it runs no code then
    if in_type is not MISSING and is_property(in_type):
        return True
    if instance is not None:
        own = find_own(instance, name)
        if own is not MISSING:
            return callable(own)
    if in_type is not MISSING:
        return callable(in_type) or is_bound_by_code(in_type)
    get = find_in_type(kind, "__getattribute__")
    if find_in_type(kind, "__getattr__") is not MISSING or type(get) is FunctionType:
        return True
    # A class written in C need not differ from `object`; asking it runs no code of a property,
    # because it has none of that name.
    return get is not _OBJECTS_OWN and callable(read_attribute(instance, name))


def read_attribute(instance: object, name: str, default: Any = None) -> Any:
    """
    Read an attribute, whatever that runs and raises.

    Args:
        instance: The object.
        name: The name.
        default: What is returned if it cannot be read.

    Returns:
        The attribute.
    """
    return contain(ATTRIBUTE, getattr, instance, name, failed=default)


def is_unclosable(instance: Any) -> bool:
    """
    Return whether an instance certainly has none of the methods by which it could be closed.

    Args:
        instance: The instance; no code of its class runs.

    Returns:
        False also where only a search, as in `closing`, can tell.
    """
    kind = type(instance)
    if type(kind) is not type:
        return False
    try:
        return (
            kind.__getattribute__ is _OBJECTS_OWN
            and getattr(kind, "__getattr__", None) is None
            and getattr(kind, "__exit__", None) is None
            and getattr(kind, "close", None) is None
            and getattr(kind, "aclose", None) is None
            # Only the instance can have one now, and there is no code that these run.
            and getattr(instance, "close", None) is None
            and getattr(instance, "aclose", None) is None
        )
    except Exception:  # of a descriptor; the full search reports it
        return False
