"""The memory of this process."""

from __future__ import annotations

from .. import _process_memory
from ..foreign import PROBE, contain

__all__ = ["resident_bytes"]

_logged: set[str] = set()


def resident_bytes() -> int | None:
    """
    Measure the resident set size of this process.

    Returns:
        Bytes; None if it cannot be measured, which is logged once.
    """
    size: int | None = contain(
        PROBE, _process_memory.resident_bytes, about="reports lack it", logged=_logged
    )
    return size
