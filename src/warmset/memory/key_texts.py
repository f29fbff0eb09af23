"""
The keys of families by what they are displayed as, which is how a profile on disk names them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..family_keys import FamilyKey

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["key_named"]

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'" + "|" + r'"(?:[^"\\]|\\.)*"')
_BARE = re.compile(r"[^,()\[\]'\"]*")
_NUMBER = re.compile(r"-?[0-9]+")
_COMMA = re.compile(r"(?:, |,(?=\)))?")


def key_named(families: Iterable[str], name: str) -> FamilyKey | None:
    """
    Find the key of a family by what it is displayed as.

    Args:
        families: The names of the registered ones.
        name: The text of a key.

    Returns:
        The key; None if the text is that of none, or of a long key, which is not shown whole.
    """
    for family in families:
        text = name[len(family) + 1 : -1]
        if name != f"{family}[{text}]":
            continue
        for whole in (text, f"({text})"):  # a tuple is shown without its parentheses
            read = _read(whole, 0)
            if read is not None and read[1] == len(whole):
                found = FamilyKey(family, read[0])
                if str(found) == name:
                    return found
    return None


def _read(text: str, at: int) -> tuple[Any, int] | None:
    """Read one key at a position of a text; return it and where it ends, None if there is none."""
    if text[at : at + 1] == "(":
        parts: list[Any] = []
        at += 1
        while text[at : at + 1] != ")":
            read = _read(text, at)
            if read is None:
                return None
            parts.append(read[0])
            at = read[1] + len(_COMMA.match(text, read[1])[0])  # type: ignore[index]
        return tuple(parts), at + 1
    quoted = _QUOTED.match(text, at)
    if quoted is not None:
        from ast import literal_eval

        return literal_eval(quoted[0]), quoted.end()
    end = at + len(_BARE.match(text, at)[0])  # type: ignore[index]
    word = text[at:end]
    if not word:
        return None
    if word in ("True", "False"):
        return word == "True", end
    return (int(word) if _NUMBER.fullmatch(word) else word), end
