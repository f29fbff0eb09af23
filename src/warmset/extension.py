"""
The protocol by which a capability attaches to a registry.

An extension overrides the hooks that it needs; a hook that no extension overrides costs nothing.
Every hook gets the registry, a `BaseRegistry`, as an argument. An extension does not keep it: the
two would be a cycle, and the instances of a dropped registry would wait for the garbage collector.
No lock of the registry is held while a hook runs, and no hook runs on a hit.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Entry, Slot
    from .builder import Build

__all__ = ["HOOKS", "Extension", "wrapped"]


class Extension:
    """A capability of one registry; all hooks do nothing."""

    __slots__ = ()

    def before_build(self, registry: Any, build: Build) -> None:
        """Prepare for a build; what it raises is raised to the caller of the look-up."""

    def build(self, registry: Any, build: Build, make: Callable[[Slot], Any]) -> Any:
        """
        Provide the instance of a build.

        Args:
            registry: The registry.
            build: The build in progress.
            make: Runs what the extensions that were attached after this one do, and then the rule
                or the constructor.

        Returns:
            The instance.
        """
        return make(build.slot)

    def built(self, registry: Any, build: Build) -> None:
        """Report a build that succeeded or failed; its entry is held meanwhile."""

    def removed(self, registry: Any, entries: list[Entry]) -> None:
        """Report entries that were removed from the cache, before any of them is closed."""

    def released(self, registry: Any) -> None:
        """Report that a hold was released or an entry removed; see `RegistryCore.watch`."""

    # Takes the registry and a build, and waits until what was built can be cached within the bound,
    # or raises. None: builds do not wait, and the bound is exceeded while all instances are held.
    wait_for_capacity: Callable[[Any, Build], None] | None = None

    def choose_victim(self, registry: Any, spare: Entry | None, more_than: int) -> bool:
        """
        Evict one entry because too many are cached.

        Args:
            registry: The registry; its `by_policy` is set.
            spare: An entry that was just built.
            more_than: Only while more than so many are cached.

        Returns:
            Whether another call may evict more.
        """
        return False

    def stats(self, registry: Any) -> dict[str, Any]:
        """Return figures to be merged into those of the registry."""
        return {}

    def due(self, registry: Any, slot: Slot, now: float) -> None:
        """Check what a slot has, where a look-up is past the deadline; see `Registry.validates`."""

    def sweep(self, registry: Any) -> None:
        """Do what is due because time has passed."""

    def after_fork(self, registry: Any) -> None:
        """Reset what belongs to threads that do not exist in the child; run no foreign code."""

    def close(self, registry: Any) -> None:
        """Release what the extension has; the registry has been closed."""


HOOKS = (
    "before_build",
    "build",
    "built",
    "removed",
    "released",
    "choose_victim",
    "wait_for_capacity",
    "stats",
    "due",
    "sweep",
    "after_fork",
    "close",
)


def wrapped(
    hook: Callable[..., Any], registry: Any, build: Build, make: Callable[[Slot], Any]
) -> Callable[[Slot], Any]:
    """Return what runs a hook `build` around what makes an instance."""
    return lambda slot: hook(registry, build, make)
