"""
Who refers to an object: by name where there is one, up to something that is there in any case.

A way begins at a root, a module, a frame, a thread's exception or what has no referrers of its own,
and names each step: ``mypkg.cache._memo['Tagger'][3]``. No foreign code is run: of objects that are
not the interpreter's own, only the type's name is told, and their attributes are read from the dict
that they have.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from time import perf_counter
from types import (
    BuiltinMethodType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Referrers"]

_NO_VARIABLE = "a value in "
_CACHE = "the lru_cache of "
_WAYS = 5  # for each object
_STEPS = 6
_LOOKED_AT = 64  # referrers of one object
_SEARCHES = 60  # of one object's ways, each through all that the collector knows


class Referrers:
    """
    Finds who refers to objects.

    Args:
        time_limit_seconds: For all together.
        clock: Gives seconds.

    Each search goes through all objects that the collector knows.
    """

    def __init__(
        self,
        *,
        time_limit_seconds: float = 10.0,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._clock = clock
        self._until = clock() + time_limit_seconds
        self._own: set[int] = set()  # lists and frames of this search

    def of(self, target: Any) -> tuple[str, ...]:
        """
        Tell who refers to an object.

        Args:
            target: The object; the caller's own variable is not told.

        Returns:
            The ways to it, those from a root first; at most five.
        """
        self._own = {id(self.__dict__)}
        ways = self._running(target)
        # Breadth first: the shortest way is the one to be told.
        pending: list[tuple[Any, str, int]] = [(target, "", 0)]
        self._own.add(id(pending))
        seen = {id(target)}
        searches = 0
        while pending and len(ways) < _WAYS:
            if searches >= _SEARCHES or self._clock() > self._until:
                break
            one, way, steps = pending.pop(0)
            searches += 1
            found = gc.get_referrers(one)
            self._own.add(id(found))
            higher = 0
            for referrer in found[:_LOOKED_AT]:
                if self._is_ours(referrer, pending):
                    continue
                higher += 1
                root, step = _step(referrer, one)
                if step is None:
                    continue
                if type(one) is dict and _owns(referrer, one):
                    way = _dotted(way)
                if root:
                    ways.append(step if step.startswith(_CACHE) else step + way)
                elif id(referrer) not in seen and steps < _STEPS:
                    seen.add(id(referrer))
                    entry = (referrer, step + way, steps + 1)
                    self._own.add(id(entry))
                    pending.append(entry)
                else:
                    ways.append(f"{_type_name(referrer)}{step}{way}")
            if not higher and way:
                # Nothing that the collector knows: C code, or a thread's stack.
                ways.append(f"{_type_name(one)}{way}")
            del found, one
        for one, way, _ in pending:
            if len(ways) < _WAYS and way:
                ways.append(f"{_type_name(one)}{way}")
        return tuple(dict.fromkeys(ways))[:_WAYS]

    def _running(self, target: Any) -> list[str]:
        """The variables of running functions that are the object: most are no objects' own."""
        ways = []
        for ident, top in sys._current_frames().items():
            frame: FrameType | None = top
            while frame is not None:
                if frame.f_globals.get("__name__", "").partition(".")[0] == "warmset":
                    self._own.add(id(frame))  # of the search, and of who asked for it
                else:
                    if frame.f_locals is not frame.f_globals:
                        self._own.add(id(frame.f_locals))  # made by looking at it
                    way = _of_a_frame(frame, target)[1]
                    if not way.startswith(_NO_VARIABLE):
                        ways.append(f"{way} in {_thread_name(ident)}")
                        self._own.add(id(frame))
                frame = frame.f_back
        return ways

    def _is_ours(self, referrer: Any, pending: list[Any]) -> bool:
        if id(referrer) in self._own or referrer is pending:
            return True
        # An entry of the list above, while it is being looked at.
        return (
            type(referrer) is tuple
            and len(referrer) == 3
            and any(referrer is entry for entry in pending)
        )


def _thread_name(ident: int) -> str:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return f"thread {ident}"


def _type_name(one: Any) -> str:
    kind = type(one)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _owns(one: Any, table: Any) -> bool:
    """Whether a dict is that of a class's or an object's attributes."""
    if issubclass(type(one), type):
        return True
    return type(one) not in (dict, list, tuple) and _attribute(one, table) == ""


def _dotted(way: str) -> str:
    """A way through a dict of attributes, told as the attribute."""
    name, end, rest = way.removeprefix("['").partition("']")
    return f".{name}{rest}" if end and way.startswith("['") and name.isidentifier() else way


def _key(key: Any) -> str:
    if type(key) is str and len(key) <= 40:
        return repr(key)
    return repr(key) if type(key) in (int, bool, type(None)) else f"<{_type_name(key)}>"


def _step(referrer: Any, target: Any) -> tuple[bool, str | None]:
    """Whether a referrer is a root, and the step from it, with its name if it is; None: no way."""
    kind = type(referrer)
    for kinds, tell in _STEPS_OF:
        if kind is kinds or (type(kinds) is tuple and kind in kinds):
            return tell(referrer, target)
    if issubclass(kind, BaseException):
        way = _attribute(referrer, target)
        return False, ".__traceback__" if way is None else way
    if issubclass(kind, type):
        return _of_a_class(referrer, target)
    if kind is functools._lru_cache_wrapper:
        return True, f"{_CACHE}{referrer.__module__}.{referrer.__qualname__}()"
    way = _attribute(referrer, target)
    return False, " -> " if way is None else way


def _attribute(referrer: Any, target: Any) -> str | None:
    """The name of an attribute, from the dict that an object has, or from its slots."""
    attributes = None
    for base in type(referrer).__mro__:
        own = base.__dict__.get("__dict__")
        if own is not None:
            # Not a property of the class's, which would be foreign code.
            attributes = own.__get__(referrer) if type(own) in (_GETSET, _MEMBER) else None
            break
    if type(attributes) is dict:
        for name, value in list(attributes.items()):
            if value is target:
                return f".{name}" if type(name) is str else f"[{_key(name)}]"
        if attributes is target:
            return ""
    for base in type(referrer).__mro__:
        for name, member in list(base.__dict__.items()):
            if type(member) is _MEMBER:
                try:
                    value = member.__get__(referrer)
                except Exception:
                    continue
                if value is target:
                    return f".{name}"
    return None


class _Slotted:
    __slots__ = ("member",)


_MEMBER = type(_Slotted.member)  # type: ignore[attr-defined]
_GETSET = type(FunctionType.__dict__["__code__"])


def _of_a_module(module: Any, target: Any) -> tuple[bool, str]:
    return True, module.__name__


def _of_a_dict(table: Any, target: Any) -> tuple[bool, str]:
    # The dict of a module is told as the module.
    name = table.get("__name__") if "__builtins__" in table or "__spec__" in table else None
    module = sys.modules.get(name) if type(name) is str else None
    is_module = type(module) is ModuleType and module.__dict__ is table
    for key, value in list(table.items()):
        if value is target:
            if is_module or (type(name) is str and type(key) is str):
                return True, f"{name}.{key}"
            return False, f"[{_key(key)}]"
        if key is target:
            return False, " (a key)"
    return False, "[...]"


def _of_a_sequence(sequence: Any, target: Any) -> tuple[bool, str]:
    for index, value in enumerate(list(sequence)):
        if value is target:
            return False, f"[{index}]"
    return False, "[...]"


def _of_a_set(members: Any, target: Any) -> tuple[bool, str]:
    return False, "{...}"


def _of_a_method(method: Any, target: Any) -> tuple[bool, str]:
    name = getattr(method.__func__, "__name__", "?")
    return False, f" -> the bound method {name}"


def _of_a_builtin_method(method: Any, target: Any) -> tuple[bool, str]:
    return False, f" -> the bound method {method.__name__}"


def _of_a_frame(frame: Any, target: Any) -> tuple[bool, str]:
    code = frame.f_code
    place = f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}()"
    where = f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
    try:
        names = [name for name, value in dict(frame.f_locals).items() if value is target]
    except Exception:
        names = []
    if not names:
        return True, f"{_NO_VARIABLE}{place} ({where})"
    return True, f"the local variable {names[0]} of {place} ({where})"


def _of_a_running(running: Any, target: Any) -> tuple[bool, str | None]:
    frame = getattr(running, "gi_frame", None) or getattr(running, "cr_frame", None)
    names: list[str] = []
    if frame is not None:
        if frame.f_locals is target:
            return False, None  # the dict that looking at its variables has made
        names = [name for name, value in dict(frame.f_locals).items() if value is target]
    word = "generator" if type(running) is GeneratorType else "coroutine"
    name = running.__qualname__
    return False, f" -> the {word} {name}(), its variable {names[0] if names else '?'}"


def _of_a_function(function: Any, target: Any) -> tuple[bool, str]:
    name = f"{function.__module__}.{function.__qualname__}"
    for index, value in enumerate(function.__defaults__ or ()):
        if value is target:
            return False, f" -> the default {index} of {name}()"
    closure = function.__closure__
    if closure is target or (closure and any(cell is target for cell in closure)):
        return False, f" -> the closure of {name}()"
    return False, f" -> {name}()"


def _of_a_cell(cell: Any, target: Any) -> tuple[bool, str]:
    return False, ""  # the function tells of its closure


def _of_a_traceback(traceback: Any, target: Any) -> tuple[bool, str]:
    return False, " -> the traceback of an exception"


def _of_a_class(kind: Any, target: Any) -> tuple[bool, str]:
    for name, value in list(type.__getattribute__(kind, "__dict__").items()):
        if value is target:
            return True, f"{kind.__module__}.{kind.__qualname__}.{name}"
    return True, f"{kind.__module__}.{kind.__qualname__}"


_STEPS_OF: tuple[tuple[Any, Callable[[Any, Any], tuple[bool, str | None]]], ...] = (
    (ModuleType, _of_a_module),
    (dict, _of_a_dict),
    ((list, tuple), _of_a_sequence),
    ((set, frozenset), _of_a_set),
    (MethodType, _of_a_method),
    (BuiltinMethodType, _of_a_builtin_method),
    (FrameType, _of_a_frame),
    ((GeneratorType, CoroutineType), _of_a_running),
    (FunctionType, _of_a_function),
    (CellType, _of_a_cell),
    (TracebackType, _of_a_traceback),
)
