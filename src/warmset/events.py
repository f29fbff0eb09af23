"""
The events that a registry reports: an instance was removed, and why; a build ended.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class RemovalCause(IntEnum):
    """
    Why an instance was removed.

    The registry decides on an *eviction* (`evicted` is true); the caller asks for the others.
    The values are indices into the cores' counters.
    """

    IDLE = 0
    """Not used for the idle TTL of its class."""
    SIZE = 1
    """First in the eviction order when `max_cache_size` was exceeded."""
    MEMORY = 2
    """First in the eviction order when a budget was exceeded, such as `max_cache_bytes`."""
    AGED = 3
    """Built longer ago than the maximum age of its class."""
    RECYCLED = 4
    """Replaced by a newly built instance."""
    INVALID = 5
    """Found invalid by the option `validate` of its class."""
    COLLECTED = 6
    """Weak mode: its last user dropped it."""
    CLEARED = 7
    """`clear_cache`."""
    DISCARDED = 8
    """`discard`."""
    REPLACED = 9
    """Its class was given another path, or another instance was written in its place."""
    SHUTDOWN = 10
    """The registry was closed."""

    @property
    def evicted(self) -> bool:
        """Whether the registry decided, and not the caller."""
        return self <= RemovalCause.COLLECTED


class BoundChange(NamedTuple):
    """
    A registry with `max_cache_size="auto"` raised or lowered its bound.
    """

    at: float
    """By the clock of the registry."""
    before: int
    after: int
    reason: str


class RemovalEvent(NamedTuple):
    """
    An instance was removed.

    Seconds are counted back from the moment of the report; `held` means that the instance was held
    when it was removed, so that it is closed when its last lease ends.
    """

    class_name: str
    cause: RemovalCause
    age_seconds: float
    idle_seconds: float
    uses: int
    build_seconds: float
    held: bool
    bytes: int | None = None
    """Its size, where something measures it."""
    family: str | None = None
    """The family that it belongs to, if any."""
    key: Any = None
    """Its key in the family."""


class BuildEvent(NamedTuple):
    """
    A build ended: constructor, factory or rule, and the import of its module if that was needed.

    Each build that `RegistryStats.builds` or `failed_builds` counts is reported once. An
    interrupted build (`KeyboardInterrupt`) is neither, and a remembered failure that is raised
    again is no build.
    """

    class_name: str
    succeeded: bool
    started: float
    """When it began, by `time.perf_counter`, or by the registry's injected timer."""
    seconds: float
    """Its duration; for a build that succeeded, without `import_seconds`."""
    stage: str | None = None
    """Where it failed, as `MethodRegistryError.stage`: "import", "build", "cycle", ..."""
    error_type: str | None = None
    """The class of the original error, such as "OSError"; None if it succeeded."""
    error: str | None = None
    """The text of the error that the caller gets."""
    bytes: int | None = None
    """Its size, where something measures it."""
    within: str | None = None
    """The class whose build looked this one up; None if no build did."""
    asked_for: tuple[str, ...] = ()
    """The classes that the build looked up and that were not warm: built for it, or waited for."""
    own_seconds: float = 0.0
    """`seconds`, less those spent on these look-ups."""
    opened: bool = False
    """Whether it was not built, but opened from a snapshot; see `warmset.share`."""
    import_seconds: float = 0.0
    """The import of the class's module, which a later build does not repeat."""
    family: str | None = None
    """The family that it belongs to, if any."""
    key: Any = None
    """Its key in the family."""
