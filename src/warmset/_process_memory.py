"""
The memory of this process: how much there is, and how to keep the C library's reserve out of it.

glibc keeps freed blocks of up to 32 MB for later (its threshold for asking the system anew follows
the largest block freed so far), and has a heap for each thread. What lies in reserve changes from
run to run, and RSS with it, by tens of MB in either direction, although nothing is held any more.
"""

from __future__ import annotations

import ctypes
from typing import Any

# From glibc's malloc.h.
_M_ARENA_MAX = -8


def resident_bytes() -> int:
    """
    Measure the resident set size of this process.

    Returns:
        Bytes.
    """
    import psutil

    return int(psutil.Process().memory_info().rss)


def unshared_bytes() -> int:
    """
    Measure the resident set size of this process without the shared memory that it looks at.

    Returns:
        Bytes. What lies in the object store of an engine, say, counts for every process that has
        read it, as long as it is there, and is nobody's growth.
    """
    resident = resident_bytes()
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"RssShmem:"):
                    return resident - 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return resident


def give_back_free_memory() -> bool:
    """
    Make the C library give memory that it holds, but that is free, back to the system.

    Returns:
        Whether the C library can be asked; it is glibc that can.
    """
    trim = _glibc("malloc_trim")
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


def share_one_heap() -> bool:
    """
    Make all threads allocate from one heap, the only one that is given back to its end.

    To be called before there are other threads; it is for the rest of the process's life.

    Returns:
        Whether the C library can be asked; it is glibc that can.
    """
    option = _glibc("mallopt")
    return option is not None and bool(option(_M_ARENA_MAX, 1))


def _glibc(name: str) -> Any:
    # `malloc_trim` tells glibc from others, such as musl, whose `mallopt` may mean something else.
    try:
        library = ctypes.CDLL(None)
        return getattr(library, name) if hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):
        # There is no such library to open: Windows.
        return None
