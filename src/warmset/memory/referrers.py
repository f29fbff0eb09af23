"""
The search for the referrers of an object, reported as paths such as ``mypkg.cache._memo['A'][3]``.

A path starts at a root (a module, a frame, the exception of a thread, or an object without
referrers of its own) and names each step. The search runs no foreign code: for objects of
user-defined types it reports the type name, and reads attributes only from the instance dict and
from slots.
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

__all__ = ["ReferrerSearch"]

_UNNAMED_VALUE = "a value in "
_LRU_CACHE = "the lru_cache of "
_MAX_PATHS = 5  # per object
_MAX_STEPS = 6  # per path
_MAX_REFERRERS = 64  # examined per object
_MAX_SEARCHES = 60  # per object, each over all objects known to the garbage collector


class ReferrerSearch:
    """
    Finds the paths by which objects are referenced.

    Args:
        time_limit_seconds: The time limit for all searches together.
        clock: Returns seconds.

    Not thread-safe. Each step searches all objects known to the garbage collector.
    """

    def __init__(
        self,
        *,
        time_limit_seconds: float = 10.0,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._clock = clock
        self._until = clock() + time_limit_seconds
        self._own: set[int] = set()  # ids of the objects and frames of the search itself
        self._running: set[int] = set()  # ids of the frames of functions that have not returned

    def paths_to(self, target: Any) -> tuple[str, ...]:
        """
        Find the paths to an object.

        Args:
            target: The object. The variable of the caller is not reported.

        Returns:
            At most five paths, those from a root first.
        """
        self._own = {id(self.__dict__)}
        self._running = set()
        paths = self._variables(target)
        # Breadth first, so that the shortest paths are found first.
        pending: list[tuple[Any, str, int]] = [(target, "", 0)]
        self._own.add(id(pending))
        seen = {id(target)}
        searches = 0
        while pending and len(paths) < _MAX_PATHS:
            if searches >= _MAX_SEARCHES or self._clock() > self._until:
                break
            item, path, steps = pending.pop(0)
            searches += 1
            found = gc.get_referrers(item)
            self._own.add(id(found))
            foreign = 0
            for referrer in found[:_MAX_REFERRERS]:
                if self._is_own(referrer, pending):
                    continue
                foreign += 1
                root, step = self._step(referrer, item)
                if step is None:
                    continue
                if type(item) is dict and _owns(referrer, item):
                    path = _dotted(path)
                if root:
                    paths.append(step if step.startswith(_LRU_CACHE) else step + path)
                elif id(referrer) not in seen and steps < _MAX_STEPS:
                    seen.add(id(referrer))
                    entry = (referrer, step + path, steps + 1)
                    self._own.add(id(entry))
                    pending.append(entry)
                else:
                    paths.append(f"{_type_name(referrer)}{step}{path}")
            if not foreign and path:
                # The referrer is not known to the collector: C code, or the stack of a thread.
                variables = self._variables(item)
                paths += [f"{variable}: {path}" for variable in variables] or [
                    f"{_type_name(item)}{path}"
                ]
            # Not kept until the next search: they may refer to the frame of this one.
            referrer = found = item = entry = None  # type: ignore[assignment]
        for item, path, _ in pending:
            if len(paths) < _MAX_PATHS and path:
                paths.append(f"{_type_name(item)}{path}")
        return tuple(dict.fromkeys(paths))[:_MAX_PATHS]

    def _variables(self, target: Any) -> list[str]:
        """Find the local variables of running functions that refer to an object."""
        paths = []
        tops = sys._current_frames()
        frame: FrameType | None
        for ident, frame in tops.items():
            while frame is not None:
                self._running.add(id(frame))
                if frame.f_globals.get("__name__", "").partition(".")[0] == "warmset":
                    self._own.add(id(frame))  # a frame of the search or of its caller
                else:
                    path = _of_a_frame(frame, target)
                    if not path.startswith(_UNNAMED_VALUE):
                        paths.append(f"{path} in {_thread_name(ident)}")
                        self._own.add(id(frame))
                frame = frame.f_back
        tops.clear()  # the frame of this function is among them, and a cycle would keep the target
        return paths

    def _step(self, referrer: Any, target: Any) -> tuple[bool, str | None]:
        """Return whether a referrer is a root, and the text of the step; None: not a path."""
        if type(referrer) is FrameType:
            text = _of_a_frame(referrer, target)
            if id(referrer) in self._running:
                return True, text
            return False, f" -> {text}, which has ended"
        return _step(referrer, target)

    def _is_own(self, referrer: Any, pending: list[Any]) -> bool:
        if id(referrer) in self._own or referrer is pending:
            return True
        # An entry of `pending`.
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


def _type_name(item: Any) -> str:
    kind = type(item)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _owns(item: Any, table: Any) -> bool:
    """Whether a dict is the attribute dict of a class or an object."""
    if issubclass(type(item), type):
        return True
    return type(item) not in (dict, list, tuple) and _attribute(item, table) == ""


def _dotted(path: str) -> str:
    """Write the key of an attribute dict as an attribute."""
    name, end, rest = path.removeprefix("['").partition("']")
    return f".{name}{rest}" if end and path.startswith("['") and name.isidentifier() else path


def _key(key: Any) -> str:
    if type(key) is str and len(key) <= 40:
        return repr(key)
    return repr(key) if type(key) in (int, bool, type(None)) else f"<{_type_name(key)}>"


def _step(referrer: Any, target: Any) -> tuple[bool, str | None]:
    """As `ReferrerSearch._step`, for what is no frame."""
    kind = type(referrer)
    for kinds, describe in _STEPS_BY_TYPE:
        if kind is kinds or (type(kinds) is tuple and kind in kinds):
            return describe(referrer, target)
    if issubclass(kind, BaseException):
        step = _attribute(referrer, target)
        return False, ".__traceback__" if step is None else step
    if issubclass(kind, type):
        return _of_a_class(referrer, target)
    if kind is functools._lru_cache_wrapper:
        return True, f"{_LRU_CACHE}{referrer.__module__}.{referrer.__qualname__}()"
    step = _attribute(referrer, target)
    return False, " -> " if step is None else step


def _attribute(referrer: Any, target: Any) -> str | None:
    """Find the attribute that refers to the target, in the instance dict or in slots."""
    attributes = None
    for base in type(referrer).__mro__:
        own = base.__dict__.get("__dict__")
        if own is not None:
            # Not if the class defines `__dict__` as a property, which would run foreign code.
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
    # The dict of a module is reported as the module.
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


def _of_a_frame(frame: FrameType, target: Any) -> str:
    code = frame.f_code
    place = f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}()"
    where = f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
    names = _variables_of(frame, target)
    if not names:
        return f"{_UNNAMED_VALUE}{place} ({where})"
    return f"the local variable {names[0]} of {place} ({where})"


def _variables_of(frame: FrameType, target: Any) -> list[str]:
    """Return the names of the local variables that refer to an object."""
    values = frame.f_locals
    try:
        return _names_of(dict(values), target)
    except Exception:
        return []
    finally:
        # Before 3.13 the frame of a function keeps this dict, and the dict the values, also of
        # variables that are assigned or deleted after this. It is emptied unless somebody else has
        # it: it is what `locals()` returned, too.
        if (
            type(values) is dict
            and frame.f_code.co_flags & _OPTIMIZED
            and sys.getrefcount(values) <= _references_of_locals
        ):
            values.clear()


def _names_of(values: dict[str, Any], target: Any) -> list[str]:
    return [name for name, value in values.items() if value is target]


_OPTIMIZED = 1  # CO_OPTIMIZED: the locals of a function, and no namespace


def _count_references_of_locals() -> int:
    frame = sys._getframe()
    values = frame.f_locals
    return sys.getrefcount(values)


_references_of_locals = _count_references_of_locals()


def _of_a_running(running: Any, target: Any) -> tuple[bool, str | None]:
    frame = getattr(running, "gi_frame", None) or getattr(running, "cr_frame", None)
    names = [] if frame is None else _variables_of(frame, target)
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
    return False, ""  # the function that refers to the cell reports the closure


def _of_a_traceback(traceback: Any, target: Any) -> tuple[bool, str]:
    return False, " -> the traceback of an exception"


def _of_a_class(kind: Any, target: Any) -> tuple[bool, str]:
    for name, value in list(type.__getattribute__(kind, "__dict__").items()):
        if value is target:
            return True, f"{kind.__module__}.{kind.__qualname__}.{name}"
    return True, f"{kind.__module__}.{kind.__qualname__}"


_STEPS_BY_TYPE: tuple[tuple[Any, Callable[[Any, Any], tuple[bool, str | None]]], ...] = (
    (ModuleType, _of_a_module),
    (dict, _of_a_dict),
    ((list, tuple), _of_a_sequence),
    ((set, frozenset), _of_a_set),
    (MethodType, _of_a_method),
    (BuiltinMethodType, _of_a_builtin_method),
    ((GeneratorType, CoroutineType), _of_a_running),
    (FunctionType, _of_a_function),
    (CellType, _of_a_cell),
    (TracebackType, _of_a_traceback),
)
