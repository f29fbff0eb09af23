"""
How much memory this process may have: the least limit of its control groups, or the machine's.

Linux: version 2 of cgroups (`memory.max`) and version 1 (`memory.limit_in_bytes`), of the group
that the process is in and of all above it. Elsewhere, and where none is set: what the machine has.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["in_bytes", "memory_limit"]

# Version 1 says "none" by a number near to 2 ** 63.
_NO_LIMIT = 2**60


def memory_limit(*, root: str = "/", total: Callable[[], int] | None = None) -> int:
    """
    Tell how much memory this process may have.

    Args:
        root: Where the file system begins.
        total: Gives the bytes that the machine has; None: by psutil.

    Returns:
        Bytes.

    It is read anew at each call: limits may be changed.
    """
    machine = (_total if total is None else total)()
    return min([machine, *_limits(root)])


def in_bytes(amount: int | float, limit: Callable[[], int] = memory_limit) -> int:
    """
    Tell an amount of memory in bytes.

    Args:
        amount: An int is bytes; a float is a part of what the process may have.
        limit: Tells that.

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
            # Where both versions are mounted.
            yield from _upwards(os.path.join(groups, "unified"), path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _upwards(os.path.join(groups, "memory"), path, "memory.limit_in_bytes")


def _upwards(mount: str, path: str, file: str) -> Iterator[int]:
    """The limits of a group and of those above it."""
    # In a container the path may be that of the host, which is not there: the mount is its group.
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
