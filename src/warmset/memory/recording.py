"""
Recording a profile: a listener to builds and removals, and nothing on the way of a hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from .._adding_up import AddingUp
from ..events import BuildEvent, RemovalEvent
from .profiles import ClassProfile, Profile

if TYPE_CHECKING:
    from ..bounded import Bounded

__all__ = ["ProfileRecorder", "record"]


class _Stay(NamedTuple):
    """What an instance was used for while it stayed in the cache, so far."""

    uses: int = 0
    gaps: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, uses: int, seconds: float) -> _Stay:
        return cls(uses, max(0, uses - 1), max(0.0, seconds) if uses > 1 else 0.0)

    def since(self, before: _Stay) -> _Stay:
        """What came after an earlier look at the same instance."""
        if self.uses < before.uses:
            return self  # it is another one
        seconds = max(0.0, self.seconds - before.seconds)
        return _Stay(self.uses - before.uses, self.gaps - before.gaps, seconds)


class ProfileRecorder(AddingUp[BuildEvent | RemovalEvent | str]):
    """
    Records what a registry's classes are used for and what they cost.

    Args:
        registry: The registry; it is referred to weakly.

    What an instance was used for is known when it leaves, or when somebody asks: its uses, and the
    time from its build to its last use. An instance that was warm before the recording began counts
    with all its uses. Safe under threads, in finalisers and after a fork, and it never waits.
    """

    def __init__(self, registry: Bounded) -> None:
        super().__init__()
        self._registry = ref(registry)
        self._classes: dict[str, ClassProfile] = {}
        # What was counted already of an instance that left while it was held, and may be revived.
        self._counted: dict[str, _Stay] = {}
        self._warmed: dict[str, int] = {}
        self._final: Profile | None = None

    def _listen(self, registry: Bounded) -> None:
        registry.add_build_listener(self)
        registry.add_listener(self)

    def profile(self) -> Profile:
        """
        Give what was recorded so far, what is warm just now included.

        Returns:
            The profile. Events that another thread is just adding may be missing.

        O(classes seen + cached).
        """
        return self._so_far() if self._final is None else self._final

    def stop(self) -> Profile:
        """
        Record no more.

        Returns:
            What was recorded; `profile` gives the same from now on. Stopping twice does nothing.
        """
        if self._final is None:
            registry = self._registry()
            if registry is not None:
                registry.remove_build_listener(self)
                registry.remove_listener(self)
                if registry._recorder is self:
                    registry.__dict__.pop("_recorder", None)
            self._final = self._so_far()
        return self._final

    def warmed(self, class_name: str) -> None:
        """A warm-up looked a class up: that is no use, or each profile would keep its last one."""
        self(class_name)

    def _so_far(self) -> Profile:
        self._settle()
        classes = dict(self._classes)
        registry = self._registry()
        if registry is not None:
            for name, built_at, last_used, uses, seconds, *_ in registry._entries():
                stay = _Stay.of(uses, last_used - built_at).since(self._counted.get(name, _Stay()))
                slot = registry._slots.get(name)
                size = -1 if slot is None else slot.bytes
                entry = classes.get(name, ClassProfile())
                entry = _stayed(entry, stay, seconds, size if size >= 0 else None)
                classes[name] = entry
        for name, entry in classes.items():
            uses = max(0, entry.uses - self._warmed.get(name, 0))
            classes[name] = self._placed(name, entry._replace(uses=uses))
        return Profile(classes)

    def _placed(self, name: str, entry: ClassProfile) -> ClassProfile:
        """With the path of its class; the last one, where there is none any more."""
        registry = self._registry()
        slot = None if registry is None else registry._slots.get(name)
        path = None if slot is None else slot.path
        return entry if path is None else entry._replace(class_path=path)

    def _add(self, event: BuildEvent | RemovalEvent | str) -> None:
        if isinstance(event, str):
            self._warmed[event] = self._warmed.get(event, 0) + 1
            return
        name = event.class_name
        entry = self._placed(name, self._classes.get(name, ClassProfile()))
        if isinstance(event, BuildEvent):
            self._classes[name] = _built(entry, event)
            if event.succeeded:
                self._counted.pop(name, None)
            return
        stay = _Stay.of(event.uses, event.age_seconds - event.idle_seconds)
        new = stay.since(self._counted.pop(name, _Stay()))
        if event.held:
            self._counted[name] = stay
        self._classes[name] = _stayed(entry, new, event.build_seconds, event.bytes)


def record(registry: Bounded) -> ProfileRecorder:
    """Give the recorder of a registry, which records from now on if none did."""
    if registry._recorder is None:
        mine = ProfileRecorder(registry)
        # One step, which of two threads but one takes.
        if registry.__dict__.setdefault("_recorder", mine) is mine:
            mine._listen(registry)
    return registry._recorder or record(registry)


def _built(entry: ClassProfile, event: BuildEvent) -> ClassProfile:
    asked_for = {*entry.depends_on, *event.asked_for}
    entry = entry._replace(depends_on=tuple(sorted(asked_for)))
    if not event.succeeded:
        return entry._replace(failures=entry.failures + 1)
    return entry._replace(
        builds=entry.builds + 1,
        build_seconds=entry.build_seconds + event.seconds,
        own_build_seconds=entry.own_build_seconds + event.own_seconds,
        last_build_seconds=event.seconds,
        bytes=_larger(entry.bytes, event.bytes),
    )


def _stayed(entry: ClassProfile, stay: _Stay, seconds: float, size: int | None) -> ClassProfile:
    return entry._replace(
        uses=entry.uses + stay.uses,
        gaps=entry.gaps + stay.gaps,
        gap_seconds=entry.gap_seconds + stay.seconds,
        last_build_seconds=entry.last_build_seconds or seconds,
        bytes=_larger(entry.bytes, size),
    )


def _larger(one: int | None, other: int | None) -> int | None:
    return max((size for size in (one, other) if size is not None), default=None)
