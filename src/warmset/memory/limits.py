"""
The memory limit of this process: the lowest limit of its control groups, or that of the machine.

On Linux, version 2 of cgroups (`memory.max`) and version 1 (`memory.limit_in_bytes`) are read, of
the group of the process and of all its parents. Elsewhere, and if no limit is set, it is the memory
of the machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["in_bytes", "memory_limit"]

# In version 1, a number close to 2 ** 63 means that there is no limit.
_NO_LIMIT = 2**60


def memory_limit(*, root: str = "/", total: Callable[[], int] | None = None) -> int:
    """
    Return the memory limit of this process.

    Args:
        root: The root of the file system.
        total: Returns the bytes of the machine; None takes psutil.

    Returns:
        Bytes.

    It is read anew at each call, because limits may change.
    """
    machine = (_total if total is None else total)()
    return min([machine, *_limits(root)])


def in_bytes(amount: int | float, limit: Callable[[], int] = memory_limit) -> int:
    """
    Convert an amount of memory to bytes.

    Args:
        amount: An int is a number of bytes; a float is a fraction of the limit.
        limit: Returns the memory limit in bytes.

    Returns:
        Bytes.
    """
    return int(amount * limit()) if isinstance(amount, float) else amount


def _total() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _limits(root: str) -> Iterator[int]:
    groups = os.path.join(root, "sys/fs/cgroup")
    for line in _text(os.path.join(root, "proc/self/cgroup")).splitlines():
        # Hierarchy, controllers, path of the group.
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _upwards(groups, path, "memory.max")
            # The mount point if both versions are mounted.
            yield from _upwards(os.path.join(groups, "unified"), path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _upwards(os.path.join(groups, "memory"), path, "memory.limit_in_bytes")


def _upwards(mount: str, path: str, file: str) -> Iterator[int]:
    """Yield the limits of a group and of its parents."""
    # In a container, the path may be that of the host, and the mount point is the group itself.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        text = _text(os.path.join(mount, *parts[:length], file)).strip()
        if text.isdecimal() and 0 < int(text) < _NO_LIMIT:
            yield int(text)


def _text(file: str) -> str:
    try:
        with open(file, encoding="ascii", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
