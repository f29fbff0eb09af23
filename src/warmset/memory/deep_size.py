"""
The deep size of an object: the size of all objects reachable from it, each counted once.

Modules, types, functions, frames and registries are not traversed, because the whole program is
reachable from them. An array counts with the buffer that it owns; a view counts its base.
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
from ..foreign import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["deep_size"]

_POINTER = 8
_OBJECTS_PER_CLOCK_CHECK = 512
_NOT_TRAVERSED = (
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
    Add up the sizes of all objects reachable from an object.

    Args:
        instance: The object.
        time_limit_seconds: The maximum duration.
        seen: The objects that have already been counted, id -> object. It is extended, so that
            objects shared by several instances are counted with the first.
        clock: Returns seconds.

    Returns:
        The size in bytes, and whether the time limit was reached, in which case the size is a
        lower bound.

    Objects that other threads modify meanwhile are counted in their old or new state. O(reachable
    objects).
    """
    seen = {} if seen is None else seen  # keeps the objects alive, so that ids stay unique
    until = clock() + time_limit_seconds
    total, count = 0, 0
    pending = [instance]
    while pending:
        item = pending.pop()
        kind = type(item)
        if id(item) in seen or issubclass(kind, _NOT_TRAVERSED):
            continue
        seen[id(item)] = item
        size, parts = _size_and_parts(item, kind, seen)
        total += size
        pending += parts
        count += 1
        if count % _OBJECTS_PER_CLOCK_CHECK == 0 and clock() > until:
            return total, True
    return total, False


def _size_and_parts(item: Any, kind: type, seen: dict[int, Any]) -> tuple[int, list[Any]]:
    """Return the size of the object itself, and the objects that it refers to."""
    special = _SPECIAL.get(f"{kind.__module__}.{kind.__qualname__}")
    if special is None:
        for base in kind.__mro__[1:-1]:
            special = _SPECIAL.get(f"{base.__module__}.{base.__qualname__}")
            if special is not None:
                break
    size, parts = _shallow_size(item, kind), gc.get_referents(item)
    if special is not None:
        more, others = special(item, seen)
        return size + more, parts + others
    if kind.__dictoffset__ and kind.__dictoffset__ < 0:
        # The attributes are stored inline, without a dict that `get_referents` would return.
        size += _POINTER * (len(parts) + 2)
    return size, parts


def _shallow_size(item: Any, kind: type) -> int:
    try:
        return sys.getsizeof(item)
    except BaseException as error:  # raised by a custom `__sizeof__`
        if is_interrupt(error):
            raise
        return kind.__basicsize__


def _array(array: Any, seen: dict[int, Any]) -> tuple[int, list[Any]]:
    # `getsizeof` of an array includes the buffer that it owns.
    base = array.base
    parts = [] if base is None else [base]
    if array.dtype.hasobject:
        parts += array.ravel().tolist()
    return 0, parts


def _tensor(tensor: Any, seen: dict[int, Any]) -> tuple[int, list[Any]]:
    storage = tensor.untyped_storage()
    key = -1 - int(storage.data_ptr())  # negative, so it cannot be the id of an object
    if key in seen:
        return 0, []
    seen[key] = None
    return int(storage.nbytes()), []


_SPECIAL: dict[str, Callable[[Any, dict[int, Any]], tuple[int, list[Any]]]] = {
    "numpy.ndarray": _array,
    "torch.Tensor": _tensor,
}
