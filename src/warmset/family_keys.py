"""
Keys of families: names of instances that one factory builds for many keys.
"""

from __future__ import annotations

from .resolver import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


__all__ = ["FamilyKey", "advice_on_families", "check_key"]

_LONGEST = 60  # characters of a key that are shown
_DECIMAL_BITS = 256  # of an int; a longer one is shown in hexadecimal digits, whose number is free
_NEVER_BARE = frozenset("()[]'\"\\,")  # have a meaning in the text of a tuple or a quoted key


class FamilyKey(tuple):  # type: ignore[type-arg]
    """
    The name of one instance of a family, for everything that takes a class name.

    Args:
        family: The name of the family, an exact str.
        key: A str, an int, or a tuple of keys.

    Raises:
        TypeError: The key is of another type.

    Keys are the same if their types and values are: ``1``, ``"1"`` and ``True`` differ. None equals
    a str: a class may be registered under what a key is displayed as. Different keys of a family
    are displayed as different texts, so that each has a row of its own in every report.
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

    @property
    def key_text(self) -> str:
        """The key as a text, of any length, that no other key has."""
        return _shown(self[2])

    @property
    def loop_number(self) -> int | None:
        """The number of the event loop that the instance belongs to; None: it is for all."""
        return self[3] if len(self) > 3 else None

    def of_loop(self, number: int) -> FamilyKey:
        """Return what the instance of this key for one event loop is found by."""
        return tuple.__new__(FamilyKey, (*self[:3], number))

    def __str__(self) -> str:
        key = self[2]
        text = _shown(key)
        if type(key) is tuple and len(key) > 1:
            text = text[1:-1]
        of_loop = f" (event loop {self[3]})" if len(self) > 3 else ""
        return f"{self[0]}[{text if len(text) <= _LONGEST else _shortened(text)}]{of_loop}"

    def __repr__(self) -> str:
        return repr(str(self))

    def __reduce__(self) -> Any:
        return FamilyKey, (self[0], self[2])


if TYPE_CHECKING:
    SlotKey = str | FamilyKey  # what a slot is found by


def check_key(key: object) -> SlotKey:
    """
    Check that something is a class name or the key of a family, without a registry.

    Args:
        key: A non-empty str, or a `FamilyKey`.

    Returns:
        The key; a name as an exact str.

    Raises:
        TypeError: It is neither.
        ValueError: The name is empty.
    """
    return key if type(key) is FamilyKey else check_name(key)


def advice_on_families(families: Iterable[str], unknown: Any) -> str | None:
    """
    Tell what was meant by an unknown name that has to do with families.

    Args:
        families: The names of the registered ones.
        unknown: A name, or the key of a family.

    Returns:
        The advice; None if it has nothing to do with them.
    """
    if type(unknown) is FamilyKey:
        return f"there is no family {unknown.family!r}"
    family = unknown.partition("[")[0]
    if family not in families:
        return None
    return (
        f"{family!r} is a family, whose instances are looked up by their keys: "
        f"FamilyKey({family!r}, key), or get(key) of what registry.family returned"
    )


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
    kind = type(key)
    if kind is tuple:
        return f"({', '.join(map(_shown, key))}{',' if len(key) == 1 else ''})"
    if kind is int and key.bit_length() > _DECIMAL_BITS:
        return hex(key)
    if kind is str and _is_plain(key):
        return str.__str__(key)
    return repr(key)


def _is_plain(key: str) -> bool:
    """Whether a str is shown without quotes: it cannot be taken for a key of another type."""
    return (
        key.isprintable()
        and key.strip() == key != ""
        and _NEVER_BARE.isdisjoint(key)
        and not key.lstrip("-")[:1].isdigit()
        and key not in ("True", "False")
        and "..." not in key  # it ends the part of a long key that is shown
    )


def _shortened(text: str) -> str:
    """Return the beginning of a text, and digits that tell it from others with that beginning."""
    from hashlib import sha256

    digits = sha256(text.encode()).hexdigest()[:16]
    return f"{text[: _LONGEST - len(digits) - 3]}...{digits}"
