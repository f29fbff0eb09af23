"""
The deep size of an object: of all that is reached from it, each part counted once.

Modules, types, functions, frames and registries are not entered: they are the program's, and from
them everything is reached. Arrays are counted by the buffer that they own; a view counts its base.
"""

from __future__ import annotations

import gc
import sys
from time import perf_counter
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import TYPE_CHECKING
from weakref import ReferenceType

from .._core import ExecutorCore, RegistryCore

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["deep_size"]

_POINTER = 8
_LOOK_AT_THE_CLOCK = 512  # objects
_NOT_ENTERED = (
    ModuleType,
    type,
    FunctionType,
    BuiltinFunctionType,
    CodeType,
    FrameType,
    GeneratorType,
    ReferenceType,
    RegistryCore,
    ExecutorCore,
)


def deep_size(
    instance: Any,
    *,
    time_limit_seconds: float = 1.0,
    seen: dict[int, Any] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[int, bool]:
    """
    Add up what is reached from an object.

    Args:
        instance: Where to begin.
        time_limit_seconds: When to stop.
        seen: What was counted already, id -> object; it is added to, so that parts which several
            share are counted with the first.
        clock: Gives seconds.

    Returns:
        Bytes, and whether it was stopped by the time limit: then they are the least.

    What other threads change meanwhile is counted before or after that. O(objects reached).
    """
    seen = {} if seen is None else seen  # the objects are kept: an id is for their lifetime
    until = clock() + time_limit_seconds
    total, count = 0, 0
    pending = [instance]
    while pending:
        one = pending.pop()
        kind = type(one)
        if id(one) in seen or issubclass(kind, _NOT_ENTERED):
            continue
        seen[id(one)] = one
        size, inside = _parts(one, kind, seen)
        total += size
        pending += inside
        count += 1
        if count % _LOOK_AT_THE_CLOCK == 0 and clock() > until:
            return total, True
    return total, False


def _parts(one: Any, kind: type, seen: dict[int, Any]) -> tuple[int, list[Any]]:
    """The bytes of an object itself, and what it refers to."""
    special = _SPECIAL.get(f"{kind.__module__}.{kind.__qualname__}")
    if special is None:
        for base in kind.__mro__[1:-1]:
            special = _SPECIAL.get(f"{base.__module__}.{base.__qualname__}")
            if special is not None:
                break
    size, inside = _shallow(one, kind), gc.get_referents(one)
    if special is not None:
        more, others = special(one, seen)
        return size + more, inside + others
    if kind.__dictoffset__ and kind.__dictoffset__ < 0:
        # Its attributes are kept in line, in no dict that could be seen.
        size += _POINTER * (len(inside) + 2)
    return size, inside


def _shallow(one: Any, kind: type) -> int:
    try:
        return sys.getsizeof(one)
    except Exception:  # a `__sizeof__` of its own
        return kind.__basicsize__


def _array(array: Any, seen: dict[int, Any]) -> tuple[int, list[Any]]:
    # Its own size has the buffer in it, if it owns one.
    base = array.base
    inside = [] if base is None else [base]
    if array.dtype.hasobject:
        inside += array.ravel().tolist()
    return 0, inside


def _tensor(tensor: Any, seen: dict[int, Any]) -> tuple[int, list[Any]]:
    storage = tensor.untyped_storage()
    place = -1 - int(storage.data_ptr())  # no object has such an id
    if place in seen:
        return 0, []
    seen[place] = None
    return int(storage.nbytes()), []


_SPECIAL: dict[str, Callable[[Any, dict[int, Any]], tuple[int, list[Any]]]] = {
    "numpy.ndarray": _array,
    "torch.Tensor": _tensor,
}
