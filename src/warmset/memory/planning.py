"""
Planning a warm-up: what is built, in which order, and what is not, and why.

What a class is worth: the seconds that its build takes itself, times its uses in a recording, by
its bytes where sizes are known; and what those are worth whose builds ask for it. A class is taken
with all that its build asks for, or not at all: that would be built in any case. Of names without a
profile the first is worth most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from ..registry import Registry
    from .profiles import Profile

__all__ = ["Plan"]

_EMPTY = 0  # a slot's kind


class Plan:
    """What is to be built, and in which order; and what is not, and why."""

    def __init__(self, registry: Registry, profile: Profile, max_bytes: int | None) -> None:
        self.warm: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.notes = list(profile.skipped)
        self._known = dict(profile.classes)
        possible = [name for name in self._known if self._may_be_built(registry, name)]
        self.needs = self._dependencies(registry, set(possible))
        # What nobody used is built only for those that ask for it.
        wanted = [name for name in possible if self._known[name].uses]
        self.order: list[str] = []
        worth = self._worth(self._needed_first(wanted), profile.recordings)
        wanted.sort(key=worth.__getitem__, reverse=True)
        self._choose(registry, wanted, max_bytes)
        left_out = {name for name, _ in self.skipped}.union(self.order, wanted)
        self.skipped += [
            (name, "nobody used it in the recording") for name in possible if name not in left_out
        ]

    def expected_seconds(self, name: str) -> float:
        """How long it will take, what it asks for not counted: that is warm by then."""
        return self._known[name].mean_own_build_seconds if name in self._known else 0.0

    def _may_be_built(self, registry: Registry, name: str) -> bool:
        slot = registry._slots.get(name)
        if slot is None or slot.path is None:
            self.skipped.append((name, "no class of that name is registered"))
        elif registry.settings.enable_weakref:
            self.skipped.append((name, "kept by weak reference only, it would not stay"))
        elif slot.kind != _EMPTY:
            self.warm.append(name)
        else:
            path = self._known[name].class_path
            if path not in (None, slot.path):
                self.notes.append(f"{name} was {path} when it was recorded, and is {slot.path} now")
            return True
        return False

    def _dependencies(self, registry: Registry, wanted: set[str]) -> dict[str, list[str]]:
        """Name -> what is to be built before it; without cycles."""
        needs: dict[str, list[str]] = {}
        ended: set[str] = set()

        for first in sorted(wanted):
            # By hand and not by recursion: a profile may have a chain of any length.
            path: list[tuple[str, list[str]]] = []
            above: set[str] = {first}
            self._enter(first, wanted, needs, path, ended)
            while path:
                name, left = path[-1]
                if not left:
                    path.pop()
                    above.discard(name)
                    ended.add(name)
                    continue
                needed = left.pop()
                if needed in above:
                    needs[name].remove(needed)
                    self.notes.append(f"a cycle: {name} asks for {needed}, which comes before it")
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
            needs[name] = [n for n in self._known[name].depends_on if n in wanted and n != name]
            path.append((name, list(needs[name])))

    def _worth(self, wanted: list[str], recordings: int) -> dict[str, float]:
        """Worth by byte of each, with a share in what its dependents are worth."""
        worth = {}
        for name in wanted:
            known = self._known[name]
            seconds = known.mean_own_build_seconds or 1e-9
            worth[name] = seconds * known.uses / max(recordings, 1)
        # Dependents come before what they need, so that each passes on all that it got itself.
        for name in reversed(self._needed_first(wanted)):
            for needed in self.needs[name]:
                worth[needed] += worth[name]
        sizes = sorted(size for n in wanted if (size := self._known[n].bytes))
        usual = sizes[len(sizes) // 2] if sizes else 1
        return {name: value / (self._known[name].bytes or usual) for name, value in worth.items()}

    def _needed_first(self, names: list[str], taken: Container[str] = ()) -> list[str]:
        """All names and what they need, less what is taken, each after what it needs."""
        order: dict[str, None] = {}
        for first in names:
            if first in taken:
                continue
            stack = [(first, iter(self.needs[first]))]
            while stack:
                name, left = stack[-1]
                needed = next((n for n in left if n not in order and n not in taken), None)
                if needed is not None:
                    stack.append((needed, iter(self.needs[needed])))
                else:
                    stack.pop()
                    order[name] = None
        return list(order)

    def _choose(self, registry: Registry, wanted: list[str], max_bytes: int | None) -> None:
        """Take the best that fit, each with what it needs."""
        settings = registry.settings
        places = settings.max_cache_size - registry._cached
        most = math.inf if max_bytes is None else max_bytes
        if settings.max_cache_bytes:
            most = min(most, settings.max_cache_bytes - registry._bytes)
        taken: dict[str, None] = {}
        for name in wanted:
            more = self._needed_first([name], taken)
            sizes = [self._known[n].bytes for n in more]
            if len(taken) + len(more) > places:
                also = f" with {len(more) - 1} that it needs" if len(more) > 1 else ""
                self.skipped.append((name, f"no room for it{also} in {settings.max_cache_size}"))
                continue
            if max_bytes is not None and None in sizes:
                self.skipped.append((name, "its size is not known, and max_bytes is given"))
                continue
            size = sum(s for s in sizes if s is not None)
            if size > most:
                self.skipped.append(
                    (name, f"{size} bytes are more than the {max(0, int(most))} that are left")
                )
                continue
            most -= size
            taken.update(dict.fromkeys(more))
        self.order = list(taken)
