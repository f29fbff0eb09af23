"""
Formats numbers and names for the page.
"""

from __future__ import annotations

from ..verdict import MB
from .recorder import CAUSES

__all__ = ["MB", "cause_name", "megabytes", "percent", "seconds_text"]


def cause_name(cause: int) -> str:
    """
    Return the name of a removal cause.

    Args:
        cause: The index of the cause in `CAUSES`.

    Returns:
        The name of the constant in lower case.
    """
    return CAUSES[cause].name.lower().replace("_", " ")


def megabytes(size: int, *, signed: bool = False) -> str:
    """
    Format a size in MB.

    Args:
        size: The size in bytes.
        signed: Whether a positive size has a plus sign.

    Returns:
        MB of 10^6 bytes, with one decimal.
    """
    text = f"{size / MB:{'+' if signed else ''},.1f}"
    return text.replace("-", "+") if text == "-0.0" else text


def percent(part: float | None) -> str:
    """
    Format a ratio as a percentage.

    Args:
        part: A number from 0 to 1, or None if it is unknown.

    Returns:
        A percentage with one decimal, or a dash.
    """
    return "-" if part is None else f"{part:.1%}"


def seconds_text(seconds: float) -> str:
    """
    Format a duration with a suitable unit.

    Args:
        seconds: The duration.

    Returns:
        The number with at most three significant digits, and its unit; in whole seconds above
        100 s.
    """
    if seconds >= 100.0:
        return f"{seconds:,.0f} s"
    if seconds >= 1.0:
        return f"{seconds:.3g} s"
    if seconds >= 0.001:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} µs"
