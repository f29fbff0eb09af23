"""The window of a judgement."""

from __future__ import annotations

from math import inf

__all__ = ["check_window"]


def check_window(window_seconds: object) -> float:
    """
    Check the length of a window.

    Args:
        window_seconds: The length.

    Returns:
        The length.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not above 0 and finite.
    """
    if isinstance(window_seconds, bool) or not isinstance(window_seconds, (int, float)):
        raise TypeError(f"window_seconds must be a number, got {window_seconds!r}")
    if not 0 < window_seconds < inf:
        raise ValueError(f"window_seconds must be above 0 and finite, got {window_seconds!r}")
    return float(window_seconds)
