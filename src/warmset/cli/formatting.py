"""Numbers in at most five characters, for the tables of the live view."""

from __future__ import annotations


def format_bytes(number: int | None) -> str:
    """Write a size in bytes in at most five characters; M is 10^6, "-" stands for unknown."""
    if number is None:
        return "-"
    for scale, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= scale:
            return f"{number / scale:.{1 if number < 100 * scale else 0}f}{unit}"
    return str(number)


def format_count(number: int | None) -> str:
    """Write a count in at most five characters; "-" stands for unknown."""
    if number is None:
        return "-"
    return str(number) if number < 100_000 else format_bytes(number)
