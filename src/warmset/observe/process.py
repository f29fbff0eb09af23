"""What the process uses."""

from __future__ import annotations

__all__ = ["resident_bytes"]


def resident_bytes() -> int | None:
    """
    Give the resident set size of this process.

    Returns:
        Bytes; None where the system does not tell.
    """
    import psutil

    from .. import _process_memory

    try:
        return _process_memory.resident_bytes()
    except (psutil.Error, OSError):
        return None
