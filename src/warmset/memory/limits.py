"""
The memory limit of this process: the lowest of those of its control groups, its resource limits,
and the memory of the machine.

On Linux, version 2 of cgroups (`memory.max`, and `memory.high`, above which the kernel slows the
process down to reclaim memory) and version 1 (`memory.limit_in_bytes`) are read, of the group of
the process and of all its parents. A soft limit on the address space (`RLIMIT_AS`, `ulimit -v`) or
on data (`RLIMIT_DATA`) makes allocations fail, and so limits the memory of the process, too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["in_bytes", "memory_limit"]

_RESOURCES = ("RLIMIT_AS", "RLIMIT_DATA")
# In version 1, a number close to 2 ** 63 means that there is no limit.
_NO_LIMIT = 2**60


def memory_limit(
    *,
    root: str = "/",
    total: Callable[[], int] | None = None,
    resources: Callable[[], Iterable[int]] | None = None,
) -> int:
    """
    Return the memory limit of this process.

    Args:
        root: The root of the file system.
        total: Returns the bytes of the machine; None asks the system.
        resources: Returns the resource limits of the process in bytes; None asks the system.

    Returns:
        Bytes.

    It is read anew at each call, because limits may change.
    """
    machine = (_total if total is None else total)()
    own = (_resource_limits if resources is None else resources)()
    return min([machine, *own, *_limits(root)])


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
    try:
        import psutil

        return int(psutil.virtual_memory().total)
    except Exception:  # it is not installed, or finds no /proc
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _resource_limits() -> list[int]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    limits = [resource.getrlimit(getattr(resource, name))[0] for name in _RESOURCES]
    return [limit for limit in limits if 0 < limit < _NO_LIMIT and limit != resource.RLIM_INFINITY]


def _limits(root: str) -> Iterator[int]:
    groups = os.path.join(root, "sys/fs/cgroup")
    for line in _text(os.path.join(root, "proc/self/cgroup")).splitlines():
        # Hierarchy, controllers, path of the group.
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            # The second is the mount point if both versions are mounted.
            for mount in (groups, os.path.join(groups, "unified")):
                yield from _upwards(mount, path, "memory.max")
                yield from _upwards(mount, path, "memory.high")
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
