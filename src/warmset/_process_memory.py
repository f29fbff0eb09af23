"""
Memory use of this process, and control over the free memory that the C library retains.

glibc retains freed blocks of up to 32 MB for reuse (its mmap threshold follows the largest block
freed so far) and has one arena per thread. The amount of retained memory varies from run to run,
so RSS varies by tens of MB even if the program's live memory is constant.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

# From glibc's malloc.h.
_M_ARENA_MAX = -8


def resident_bytes() -> int:
    """
    Measure the resident set size of this process.

    Returns:
        The size in bytes.

    Raises:
        OSError: The system does not tell.
    """
    try:
        import psutil

        return int(psutil.Process().memory_info().rss)
    except Exception as error:  # it is not installed, or finds no /proc
        try:
            with open("/proc/self/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError, AttributeError):
            raise OSError(
                f"the memory of the process is unknown: {type(error).__name__}: {error}"
            ) from error


def unshared_bytes() -> int:
    """
    Measure the resident set size of this process without the shared memory that it has mapped.

    Returns:
        The size in bytes. Shared memory, for example the object store of an engine, counts towards
        the RSS of every process that has read it and must not be taken for growth.
    """
    resident = resident_bytes()
    try:
        with open("/proc/self/status", "rb") as file:
            shared = next((line for line in file if line.startswith(b"RssShmem:")), b"RssShmem: 0")
        return resident - 1024 * int(shared.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return resident


def give_back_free_memory() -> bool:
    """
    Return free memory that the C library retains to the system.

    Returns:
        Whether the C library supports this; only glibc does.
    """
    trim = _glibc("malloc_trim")
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


def share_one_heap() -> bool:
    """
    Make all threads allocate from the main heap, which is the only one that glibc fully trims.

    Must be called before other threads start; cannot be undone.

    Returns:
        Whether the C library supports this; only glibc does.
    """
    option = _glibc("mallopt")
    return option is not None and bool(option(_M_ARENA_MAX, 1))


def _glibc(name: str) -> Any:
    # `malloc_trim` identifies glibc. In other C libraries `mallopt` may have another meaning.
    try:
        library = ctypes.CDLL(None)
        return getattr(library, name) if hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):
        # Windows: None does not refer to a library.
        return None
