"""
Numbers and names as the page writes them.
"""

from __future__ import annotations

from ..report import MB
from .recorder import CAUSES

__all__ = ["MB", "cause_name", "clean", "megabytes", "percent", "seconds_text"]


def cause_name(cause: int) -> str:
    """
    Name a cause of removals.

    Args:
        cause: Its index in `CAUSES`.

    Returns:
        The name of its constant, in small letters.
    """
    return CAUSES[cause].name.lower().replace("_", " ")


def clean(text: str) -> str:
    """
    Replace what neither XML nor a page can show.

    Args:
        text: Of any source.

    Returns:
        The text; control characters, lone surrogates and the like are written as escapes.
    """
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def megabytes(size: int, *, signed: bool = False) -> str:
    """
    Write a size.

    Args:
        size: Bytes.
        signed: Whether growth gets a plus.

    Returns:
        MB of 10^6 bytes, with one decimal.
    """
    text = f"{size / MB:{'+' if signed else ''},.1f}"
    return text.replace("-", "+") if text == "-0.0" else text


def percent(part: float | None) -> str:
    """
    Write a part of one.

    Args:
        part: From 0 to 1, or None.

    Returns:
        A percentage with one decimal, or a dash.
    """
    return "-" if part is None else f"{part:.1%}"


def seconds_text(seconds: float) -> str:
    """
    Write a duration with a unit that suits it.

    Args:
        seconds: The duration.

    Returns:
        Three digits that count, at most.
    """
    if seconds >= 100.0:
        return f"{seconds:,.0f} s"
    if seconds >= 1.0:
        return f"{seconds:.3g} s"
    if seconds >= 0.001:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} µs"
