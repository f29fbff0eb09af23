"""
What the registry tells of its own doings: why an instance left.
"""

from __future__ import annotations

from enum import IntEnum


class RemovalCause(IntEnum):
    """
    Why an instance left the cache.

    The registry decided for an *eviction* (`evicted` is true); the caller decided for the others.
    The values are indices into the cores' counters.
    """

    IDLE = 0
    """Not used for `cache_ttl_seconds`."""
    SIZE = 1
    """The least recently used one, when `max_cache_size` was passed."""
    COLLECTED = 2
    """A weakly kept instance that nobody held any more."""
    CLEARED = 3
    """`clear_cache`, or the registry was closed."""
    DISCARDED = 4
    """`discard`."""
    REPLACED = 5
    """Another instance was written in its place."""

    @property
    def evicted(self) -> bool:
        """Whether the registry decided, and not the caller."""
        return self <= RemovalCause.COLLECTED
