"""
Which registries are observed, under which names, and which classes have a label of their own.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from ..registry import Registry
from .leaving import watch_leaving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..events import BuildEvent
    from ..stats import EntryStats

__all__ = ["OTHER", "ClassLabels", "ClassUse", "Registries", "check_limit"]

OTHER = "other"
"""The label of the classes that have none of their own."""


class Registries:
    """
    Registries by name, kept weakly; one that was closed or dropped is here no more.

    Safe under threads.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[ref[Registry], Callable[[BuildEvent], Any]]] = {}

    def add_all(
        self,
        registries: Registry | Mapping[str, Registry],
        make_listener: Callable[[str], Callable[[BuildEvent], Any]],
    ) -> None:
        """
        Observe one more, which is called "default", or several by name.

        Args:
            registries: The registry, or a mapping of names to registries.
            make_listener: Makes the build listener of each, from its name.

        Raises:
            TypeError: What is given is none of these.
            ValueError: Another registry has the name.
        """
        if isinstance(registries, Registry):
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
        registry: Registry,
        make_listener: Callable[[str], Callable[[BuildEvent], Any]],
    ) -> None:
        """Observe one more; see `add_all`."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a registry must be a string, got {name!r}")
        if not isinstance(registry, Registry):
            raise TypeError(f"registry {name!r} must be a registry, got {registry!r}")
        self.alive()  # drop what is gone, and with it its name
        listener = make_listener(name)
        entry = ref(registry), listener
        if self._known.setdefault(name, entry) is not entry:
            raise ValueError(f"there is a registry of the name {name!r} already")
        registry.add_build_listener(listener)
        watch_leaving(registry)

    def remove(self, name: str) -> bool:
        """
        Observe one no more.

        Args:
            name: Its name.

        Returns:
            Whether it was there.
        """
        entry = self._known.pop(name, None)
        registry = None if entry is None else entry[0]()
        if registry is not None and entry is not None:
            registry.remove_build_listener(entry[1])
        return entry is not None

    def clear(self) -> None:
        """Observe none any more."""
        for name in list(self._known):
            self.remove(name)

    def alive(self) -> list[tuple[str, Registry, Any]]:
        """
        Give what is neither closed nor dropped.

        Returns:
            Name, registry and listener of each.
        """
        alive = []
        for name, (reference, listener) in list(self._known.items()):
            registry = reference()
            if registry is None or registry._closed:
                self.remove(name)
            else:
                alive.append((name, registry, listener))
        return alive


class ClassUse(NamedTuple):
    """What the warm instances under one class label add up to."""

    instances: int = 0
    uses: int = 0
    holders: int = 0


class ClassLabels:
    """
    Gives at most so many classes a label of their own: the most used; the rest is "other".

    Args:
        limit: How many.

    A class is counted under the label that it has at that moment, so no counter ever falls because
    its label changed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._own: frozenset[str] = frozenset()  # replaced as a whole

    def of(self, class_name: str) -> str:
        """The label of a class; a new one gets its own while there are any."""
        own = self._own
        if class_name in own:
            return class_name
        if len(own) >= self._limit:
            return OTHER
        self._own = own | {class_name}
        return class_name

    def rank(self, entries: Iterable[EntryStats]) -> dict[str, ClassUse]:
        """
        Give the labels to those that are used most now.

        Args:
            entries: What is warm.

        Returns:
            Label -> sums over the instances under it.
        """
        uses = {entry.class_name: entry.uses for entry in entries}
        names = self._own | uses.keys()
        if len(names) > self._limit:
            order = heapq.nsmallest(self._limit, names, key=lambda n: (-uses.get(n, 0), n))
            names = frozenset(order)
        self._own = names
        sums: dict[str, ClassUse] = {}
        for entry in entries:
            label = entry.class_name if entry.class_name in names else OTHER
            before = sums.get(label, ClassUse())
            sums[label] = ClassUse(
                before.instances + 1, before.uses + entry.uses, before.holders + entry.holders
            )
        return sums

    def __contains__(self, label: str) -> bool:
        return label == OTHER or label in self._own


def check_limit(max_classes: int) -> int:
    """A limit on class labels, or a TypeError or ValueError that says what was expected."""
    if isinstance(max_classes, bool) or not isinstance(max_classes, int):
        raise TypeError(f"max_classes must be an int, got {max_classes!r}")
    if max_classes < 0:
        raise ValueError(f"max_classes must be 0 or more, got {max_classes!r}")
    return max_classes
