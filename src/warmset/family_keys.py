"""
Keys of families: names of instances that one factory builds for many keys.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FamilyKey"]

_LONGEST = 60  # characters of a key that are shown


class FamilyKey(tuple):  # type: ignore[type-arg]
    """
    The name of one instance of a family, for everything that takes a class name.

    Args:
        family: The name of the family, an exact str.
        key: A str, an int, or a tuple of keys.

    Raises:
        TypeError: The key is of another type.

    Keys are the same if their types and values are: ``1``, ``"1"`` and ``True`` differ. None equals
    a str: a class may be registered under what a key is displayed as.
    """

    # Exact types in a tuple: comparing and hashing them runs no code but that of the interpreter.
    __slots__ = ()

    def __new__(cls, family: str, key: Any) -> FamilyKey:
        return tuple.__new__(cls, (family, _types_of(key), key))

    @property
    def family(self) -> str:
        """The name of the family."""
        return self[0]  # type: ignore[no-any-return]

    @property
    def key(self) -> Any:
        """The key."""
        return self[2]

    def __str__(self) -> str:
        text = _shown(self[2])
        return f"{self[0]}[{text if len(text) <= _LONGEST else f'{text[: _LONGEST - 3]}...'}]"

    def __repr__(self) -> str:
        return repr(str(self))

    def __reduce__(self) -> Any:
        return FamilyKey, (self[0], self[2])


def _types_of(key: object) -> str:
    kind = type(key)
    if kind is str:
        return "s"
    if kind is int:
        return "i"
    if kind is bool:
        return "b"
    if kind is tuple:
        return f"({''.join(map(_types_of, key))})"  # type: ignore[call-overload]
    raise TypeError(
        f"a key of a family must be a str, an int, or a tuple of them, got {kind.__name__} {key!r}"
    )


def _shown(key: Any) -> str:
    if type(key) is tuple:
        return ", ".join(map(_shown, key))
    if type(key) is str and key.isprintable():
        return key
    return repr(key)
