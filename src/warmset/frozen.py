"""
Immutable values: equality, hash, representation and pickling by fields.

`dataclasses` is not used, since its import costs 5 ms.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ["Frozen", "rebuild"]


class Frozen:
    """Base class of immutable values: their fields are the `__slots__` of the class."""

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).__slots__}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), *self._fields().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), self._fields())


def rebuild(cls: Callable[..., object], fields: dict[str, Any]) -> object:
    """
    Make a value from a pickle.

    Args:
        cls: The class of the value.
        fields: Its fields, by name. Fields that the pickle lacks, because an older version wrote
            it, take the defaults of the constructor.

    Returns:
        The value, checked by its constructor.
    """
    return cls(**fields)
