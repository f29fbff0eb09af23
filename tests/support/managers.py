"""The memory manager of a registry, for tests that replace parts of it."""

from __future__ import annotations

from typing import Any


def manager_of(registry: Any) -> Any:
    """Return the memory manager of a registry; None if it has none."""
    # Of the copy of the package that the registry belongs to.
    from warmset.memory.manager import MemoryManager

    return registry.extension(MemoryManager)
