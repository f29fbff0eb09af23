"""
The observed registries by name, and the classes that have labels of their own.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from .._text import printable
from ..lifecycle.listening import build_listeners
from ..registry import BaseRegistry
from .leaks import track_leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..events import BuildEvent
    from ..stats import EntryStats

__all__ = ["OTHER", "ClassLabels", "ClassUse", "Registries", "check_limit"]

OTHER = "other"
"""The label of all classes that have none of their own."""


class Registries:
    """
    Observed registries by name; weakly referenced, and removed when closed or collected.

    Safe under threads.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[ref[BaseRegistry], Callable[[BuildEvent], Any]]] = {}

    def add_all(
        self,
        registries: BaseRegistry | Mapping[str, BaseRegistry],
        make_listener: Callable[[str], Callable[[BuildEvent], Any]],
    ) -> None:
        """
        Add one registry under the name "default", or several under their names.

        Args:
            registries: A registry, or a mapping of names to registries.
            make_listener: Makes the build listener of a registry from its name.

        Raises:
            TypeError: `registries` is neither, or contains something else.
            ValueError: The name is taken.
        """
        if isinstance(registries, BaseRegistry):
            registries = {"default": registries}
        elif not isinstance(registries, Mapping):
            raise TypeError(
                f"registries must be a registry or a mapping of names to registries, "
                f"got {registries!r}"
            )
        for name, registry in registries.items():
            self.add(name, registry, make_listener)

    def add(
        self,
        name: str,
        registry: BaseRegistry,
        make_listener: Callable[[str], Callable[[BuildEvent], Any]],
    ) -> None:
        """Add one registry; see `add_all`."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a registry must be a string, got {name!r}")
        if not isinstance(registry, BaseRegistry):
            raise TypeError(f"registry {name!r} must be a registry, got {registry!r}")
        self.alive()  # removes dead registries, so that their names are free
        listener = make_listener(name)
        entry = ref(registry), listener
        if self._known.setdefault(name, entry) is not entry:
            raise ValueError(f"another registry has the name {name!r}")
        build_listeners(registry).add(listener)
        track_leaks(registry)

    def remove(self, name: str) -> bool:
        """
        Remove one registry.

        Args:
            name: Its name.

        Returns:
            Whether there was a registry of that name.
        """
        entry = self._known.pop(name, None)
        registry = None if entry is None else entry[0]()
        if registry is not None and entry is not None:
            build_listeners(registry).remove(entry[1])
        return entry is not None

    def clear(self) -> None:
        """Remove all registries."""
        for name in list(self._known):
            self.remove(name)

    def alive(self) -> list[tuple[str, BaseRegistry, Any]]:
        """
        List the registries that are neither closed nor collected.

        Returns:
            Name, registry and listener of each.
        """
        alive = []
        for name, (reference, listener) in self._known.copy().items():
            registry = reference()
            if registry is None or registry.closed:
                self.remove(name)
            else:
                alive.append((name, registry, listener))
        return alive


class ClassUse(NamedTuple):
    """The totals of the cached instances under one class label."""

    instances: int = 0
    uses: int = 0
    holders: int = 0


class ClassLabels:
    """
    Assigns labels to classes: the most used ones get their own, all others share "other".

    Args:
        limit: The most classes with a label of their own.

    An event is counted under the label that its class has at that moment, so counters never fall
    when labels change. Labels are printable: an exporter could not encode a lone surrogate and
    would lose all other figures with it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._own: frozenset[str] = frozenset()  # replaced, never modified

    def of(self, class_name: str) -> str:
        """Get the label of a class; a new class gets its own while the limit allows."""
        class_name = printable(class_name)
        own = self._own
        if class_name in own:
            return class_name
        if len(own) >= self._limit:
            return OTHER
        self._own = own | {class_name}
        return class_name

    def rank(self, entries: Iterable[EntryStats]) -> dict[str, ClassUse]:
        """
        Reassign the labels to the classes that are used most at the moment.

        Args:
            entries: The cached instances.

        Returns:
            Label -> totals of the instances under it.
        """
        totals: dict[str, list[int]] = {}
        for entry in entries:
            total = totals.setdefault(printable(entry.class_name), [0, 0, 0])
            total[0] += 1
            total[1] += entry.uses
            total[2] += entry.holders
        uses = {label: total[1] for label, total in totals.items()}
        names = self._own | uses.keys()
        if len(names) > self._limit:
            order = heapq.nsmallest(self._limit, names, key=lambda n: (-uses.get(n, 0), n))
            names = frozenset(order)
        self._own = names
        sums = {label: total for label, total in totals.items() if label in names}
        others = [total for label, total in totals.items() if label not in names]
        if others:
            sums[OTHER] = [
                sum(figures) for figures in zip(*others, sums.get(OTHER, [0, 0, 0]), strict=True)
            ]
        return {label: ClassUse(*total) for label, total in sums.items()}

    def __contains__(self, label: str) -> bool:
        return label == OTHER or label in self._own


def check_limit(max_classes: int) -> int:
    """Check a limit on class labels; raise TypeError or ValueError if it is invalid."""
    if isinstance(max_classes, bool) or not isinstance(max_classes, int):
        raise TypeError(f"max_classes must be an int, got {max_classes!r}")
    if max_classes < 0:
        raise ValueError(f"max_classes must be 0 or more, got {max_classes!r}")
    return max_classes
