"""
The plan of a warm-up: which classes are built, in which order, and which are skipped.

The value of a class is its own build time, multiplied by its uses per recording and divided by its
size if sizes are known, plus the value of the classes that depend on it. A class is selected only
together with its dependencies, because its build would build them anyway. For plain names, the
first one has the highest value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

    from ..registry import BaseRegistry
    from .profiles import Profile

__all__ = ["WarmUpPlan"]


class WarmUpPlan:
    """
    The build order of a warm-up, and the skipped classes with reasons.

    Args:
        registry: The registry.
        profile: The classes to build.
        max_bytes: The maximum total size; None means no bound.
    """

    def __init__(self, registry: BaseRegistry, profile: Profile, max_bytes: int | None) -> None:
        self.warm: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.notes = list(profile.skipped)
        self._keys = {name: _key(registry, name) for name in profile.classes}
        self._known = {self._keys[name]: known for name, known in profile.classes.items()}
        possible = [name for name in self._known if self._may_be_built(registry, name)]
        self.needs = self._dependencies(set(possible))
        # A class without uses is built only as a dependency.
        wanted = [name for name in possible if self._known[name].uses]
        self.order: list[str] = []
        value = self._values(self._dependencies_first(wanted), profile.recordings)
        wanted.sort(key=value.__getitem__, reverse=True)
        self._choose(registry, wanted, max_bytes)
        decided = {name for name, _ in self.skipped}.union(self.order, wanted)
        self.skipped += [
            (name, "it was not used in the recording") for name in possible if name not in decided
        ]

    def expected_seconds(self, name: str) -> float:
        """The expected build time without dependencies, which are warm by then."""
        return self._known[name].mean_own_build_seconds if name in self._known else 0.0

    def _may_be_built(self, registry: BaseRegistry, name: str) -> bool:
        slot = registry.slots.get(name)
        of_family = registry.is_of_family(name)
        if not of_family and (slot is None or slot.path is None):
            self.skipped.append((name, "no class of that name is registered"))
        elif registry.settings.enable_weakref:
            self.skipped.append((name, "the registry keeps weak references only"))
        elif slot is not None and slot.entry is not None:
            self.warm.append(name)
        else:
            path = self._known[name].class_path
            if slot is not None and path not in (None, slot.path):
                self.notes.append(f"{name} was recorded as {path} and is now {slot.path}")
            return True
        return False

    def _dependencies(self, wanted: set[str]) -> dict[str, list[str]]:
        """Name -> dependencies to build first, with cycles removed."""
        needs: dict[str, list[str]] = {}
        ended: set[str] = set()

        for first in sorted(wanted, key=str):
            # An explicit stack instead of recursion, because chains can have any length.
            path: list[tuple[str, list[str]]] = []
            above: set[str] = {first}
            self._enter(first, wanted, needs, path, ended)
            while path:
                name, remaining = path[-1]
                if not remaining:
                    path.pop()
                    above.discard(name)
                    ended.add(name)
                    continue
                needed = remaining.pop()
                if needed in above:
                    needs[name].remove(needed)
                    self.notes.append(
                        f"cyclic dependency: {name} also needs {needed}; ignored for the order"
                    )
                elif needed not in ended:
                    above.add(needed)
                    self._enter(needed, wanted, needs, path, ended)
        return needs

    def _enter(
        self,
        name: str,
        wanted: set[str],
        needs: dict[str, list[str]],
        path: list[tuple[str, list[str]]],
        ended: set[str],
    ) -> None:
        if name not in ended:
            depends_on = [self._keys.get(each, each) for each in self._known[name].depends_on]
            needs[name] = [each for each in depends_on if each in wanted and each != name]
            path.append((name, list(needs[name])))

    def _values(self, wanted: list[str], recordings: int) -> dict[str, float]:
        """The value per byte of each class, including the values of its dependents."""
        value = {}
        for name in wanted:
            known = self._known[name]
            seconds = known.mean_own_build_seconds or 1e-9
            value[name] = seconds * known.uses / max(recordings, 1)
        # Dependents first, so that each passes on the values that it has received itself.
        for name in reversed(self._dependencies_first(wanted)):
            for needed in self.needs[name]:
                value[needed] += value[name]
        sizes = sorted(size for n in wanted if (size := self._known[n].bytes))
        typical = sizes[len(sizes) // 2] if sizes else 1
        return {name: total / (self._known[name].bytes or typical) for name, total in value.items()}

    def _dependencies_first(self, names: list[str], taken: Container[str] = ()) -> list[str]:
        """The names and their dependencies, without `taken`, in topological order."""
        order: dict[str, None] = {}
        for first in names:
            if first in taken:
                continue
            stack = [(first, iter(self.needs[first]))]
            while stack:
                name, remaining = stack[-1]
                needed = next((n for n in remaining if n not in order and n not in taken), None)
                if needed is not None:
                    stack.append((needed, iter(self.needs[needed])))
                else:
                    stack.pop()
                    order[name] = None
        return list(order)

    def _choose(self, registry: BaseRegistry, wanted: list[str], max_bytes: int | None) -> None:
        """Select the most valuable classes that fit, each with its dependencies."""
        places = registry.max_size - registry.cached
        most = math.inf if max_bytes is None else max_bytes
        budget = registry.settings.max_cache_bytes
        if budget:
            most = min(most, budget - registry.known_bytes)
        taken: dict[str, None] = {}
        for name in wanted:
            more = self._dependencies_first([name], taken)
            sizes = [self._known[n].bytes for n in more]
            if len(taken) + len(more) > places:
                also = f" and its dependencies ({len(more) - 1})" if len(more) > 1 else ""
                self.skipped.append(
                    (name, f"no capacity for it{also}: max_cache_size={registry.max_size}")
                )
                continue
            if max_bytes is not None and None in sizes:
                self.skipped.append((name, "its size is unknown and max_bytes is set"))
                continue
            size = sum(s for s in sizes if s is not None)
            if size > most:
                self.skipped.append(
                    (name, f"{size} bytes exceed the remaining {max(0, int(most))}")
                )
                continue
            most -= size
            taken.update(dict.fromkeys(more))
        self.order = list(taken)


def _key(registry: BaseRegistry, name: Any) -> Any:
    """Return the key of a family that a profile names by its text; or the name as it is."""
    if type(name) is not str or not registry.families or name in registry:
        return name
    from .key_texts import key_named

    return key_named(registry.families, name) or name
