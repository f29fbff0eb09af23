"""
Text from elsewhere: what it may contain before it reaches a terminal, a log line or a page.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: object, *, keep: str = "") -> str:
    r"""
    Escape the characters that a terminal, a log or a page would interpret instead of showing.

    Args:
        text: Any text: a name, a path, an error, a program. Other objects are converted by `str`.
        keep: Characters that are not escaped, such as ``"\n\t"`` for a traceback.

    Returns:
        An exact str. Control characters, terminal escapes, line separators, bidirectional
        controls and other invisible characters, and lone surrogates are replaced by their escapes,
        such as ``\x1b``, ``\n`` or ``\u202e``. The result can be encoded in UTF-8.

    It is for display: two texts may have one result.
    """
    # An override in a subclass of `str` is foreign code that may return anything.
    text = str.__str__(text if isinstance(text, str) else str(text))
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else repr(character)[1:-1]
        for character in text
    )
