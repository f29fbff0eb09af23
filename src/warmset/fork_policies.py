"""
What a forked child does with the instances of its parent: it keeps, drops or builds them anew.
"""

from __future__ import annotations

from .foreign import Kind, contain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from ._core import Entry, Slot

    class Registry(Protocol):
        """What the policies need of a registry."""

        @property
        def slots(self) -> Mapping[str, Slot]: ...
        def abandon(self, entry: Entry) -> bool: ...
        def get_instance(self, class_name: str) -> Any: ...


__all__ = ["apply_fork_policies"]

_REBUILD = Kind("builds", "building %r anew after a fork failed", interrupts=False)


def apply_fork_policies(registry: Registry) -> None:
    """Apply the option `after_fork` of each class, in a child in which all locks are reset."""
    for slot in list(registry.slots.values()):
        options, entry = slot.options, slot.entry
        if options is None or entry is None or options.after_fork == "keep":
            continue
        if registry.abandon(entry) and options.after_fork == "rebuild":
            contain(_REBUILD, registry.get_instance, slot.key, class_name=slot.name)
