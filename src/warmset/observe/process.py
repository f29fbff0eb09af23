"""The memory of this process."""

from __future__ import annotations

__all__ = ["resident_bytes"]


def resident_bytes() -> int | None:
    """
    Measure the resident set size of this process.

    Returns:
        Bytes; None if the system does not report it.
    """
    import psutil

    from .. import _process_memory

    try:
        return _process_memory.resident_bytes()
    except (psutil.Error, OSError):
        return None
