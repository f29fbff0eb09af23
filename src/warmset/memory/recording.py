"""
Recording a profile: from builds and removals, and never from a hit.
"""

from __future__ import annotations

from _thread import RLock
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from .._event_accumulator import EventAccumulator
from .._locks import locked
from ..event_logs import build_event
from ..events import BuildEvent
from ..extension import Extension
from ..planning.uses import UseLog, UseSequence
from .profiles import ClassProfile, Profile

if TYPE_CHECKING:
    from .._core import Entry
    from ..builder import Build
    from ..registry import BaseRegistry

__all__ = ["ProfileRecorder", "record", "recorder_of"]


_MOST_KNOWN = 1_000_000  # instances whose uses are followed
_MOST_NAMES = 10_000  # of classes and keys in a profile, before keys of families are forgotten
_MANY_CACHED, _LEAST_SECONDS = 10_000, 1.0  # so many are not read more often than this


class _Residence(NamedTuple):
    """The uses of one instance while it was cached, so far."""

    class_name: str
    uses: int
    gaps: int
    seconds: float  # the sum of the gaps
    build_seconds: float
    bytes: int | None

    @classmethod
    def of(cls, entry: Entry) -> _Residence:
        uses = entry.uses
        seconds = max(0.0, entry.last_used - entry.built_at) if uses > 1 else 0.0
        size = None if entry.bytes < 0 else entry.bytes
        return cls(entry.name, uses, max(0, uses - 1), seconds, entry.build_seconds, size)


class _Seen(NamedTuple):
    """The uses of one instance until now, for the order of uses."""

    last_used: float
    built_at: float
    serial: int
    class_name: str
    uses: int
    removed: bool

    @classmethod
    def of(cls, entry: Entry, *, removed: bool = False) -> _Seen:
        # The number before the time: a use between the two is counted the next time.
        uses = entry.uses
        return cls(entry.last_used, entry.built_at, entry.serial, entry.name, uses, removed)


class _UseOrder:
    """
    Derives the order of uses from what entries tell at builds, removals and sweeps.

    Args:
        start: The time when the recording begins.
        warm: What is warm then; its earlier uses are not recorded.
    """

    def __init__(self, start: float, warm: list[Entry]) -> None:
        self._start = start
        self._log = UseLog()
        self._known = {entry.serial: entry.uses for entry in warm}  # uses that were recorded
        self._warmed_up: dict[str, int] = {}  # builds of a warm-up that were not seen yet

    def add(self, seen: _Seen) -> None:
        """Record the uses of an instance that are not recorded yet."""
        known = self._known.get(seen.serial)
        if known is None:
            known = 1
            if self._warmed_up.get(seen.class_name):
                self._warmed_up[seen.class_name] -= 1
            else:
                self._log.add(seen.built_at - self._start, seen.class_name, 1)
        if seen.uses > known:
            self._log.add(seen.last_used - self._start, seen.class_name, seen.uses - known)
        if seen.removed:
            self._known.pop(seen.serial, None)
            return
        self._known[seen.serial] = max(known, seen.uses)
        if len(self._known) > _MOST_KNOWN:  # some were seen after the report of their removal
            del self._known[next(iter(self._known))]

    def warmed_up(self, class_name: str) -> None:
        """Do not record the next build of a class."""
        self._warmed_up[class_name] = self._warmed_up.get(class_name, 0) + 1

    def sequence(self) -> UseSequence:
        """Return what was recorded."""
        return self._log.sequence()


class ProfileRecorder(EventAccumulator["BuildEvent | _Residence | str | list[_Seen]"]):
    """
    Records how the classes of a registry are used and what they cost.

    Args:
        registry: The registry; it is referred to weakly.

    The uses of an instance are known at its removal, or when the profile is read: their number, and
    the time from its build to its last use. An instance that was warm before the recording began
    counts with all its uses. The order of uses is known from the last uses of all instances at
    each build, removal and sweep, and at each call of `note_uses`: what one class was used in
    between counts as uses in a row. Thread-safe, also in finalisers and after a fork; it never
    waits.
    """

    def __init__(self, registry: BaseRegistry) -> None:
        super().__init__()
        self._registry = ref(registry)
        self._classes: dict[str, ClassProfile] = {}
        self._warmed: dict[str, int] = {}
        self._forget_at = 0
        self._final: Profile | None = None
        self._noted_at = registry.now()
        self._order = _UseOrder(self._noted_at, registry.warm_entries())

    def profile(self) -> Profile:
        """
        Return what was recorded so far, including the warm instances.

        Returns:
            The profile. Events that another thread is just adding may be missing.

        O(classes seen + cached).
        """
        return self._so_far() if self._final is None else self._final

    def stop(self) -> Profile:
        """
        Stop recording.

        Returns:
            What was recorded; `profile` returns the same from now on. Stopping twice does nothing.
        """
        if self._final is None:
            registry = self._registry()
            recording = None if registry is None else registry.extension(_Recording)
            if recording is not None:
                recording.stop(self)
            self._final = self._so_far()
        return self._final

    def warmed(self, class_name: str) -> None:
        """
        Report the look-up of a class by a warm-up, which does not count as a use.

        Args:
            class_name: The class name.

        Otherwise a class that was used once would be in every later profile.
        """
        self(class_name)

    def note_uses(self) -> None:
        """
        Record the order of the uses since the last call.

        Builds, removals and sweeps do the same. Calls between them, as after each request, make
        the recorded order more precise. O(cached).
        """
        registry = self._registry()
        if registry is None or self._final is not None:
            return
        now, before = registry.now(), self._noted_at
        if registry.cached > _MANY_CACHED and now - before < _LEAST_SECONDS:
            return
        self._noted_at = now
        seen = []
        for entry in registry.warm_entries():  # the most recently used first
            if entry.last_used < before:
                break
            seen.append(_Seen.of(entry))
        if seen:
            seen.sort()
            self(seen)

    def _so_far(self) -> Profile:
        self._noted_at -= _LEAST_SECONDS  # not skipped, however many are cached
        self.note_uses()
        self._settle()
        classes = dict(self._classes)
        registry = self._registry()
        if registry is not None:
            for entry in registry.warm_entries():
                known = classes.get(entry.name, ClassProfile())
                classes[entry.name] = _with_residence(known, _Residence.of(entry))
        for name, known in classes.items():
            uses = max(0, known.uses - self._warmed.get(name, 0))
            classes[name] = self._with_path(name, known._replace(uses=uses))
        return Profile(classes, uses=self._order.sequence())

    def _with_path(self, name: str, known: ClassProfile) -> ClassProfile:
        """Add the current path of the class, or keep the last one if it is not registered."""
        registry = self._registry()
        slot = None if registry is None else registry.slots.get(name)
        path = None if slot is None else slot.path
        return known if path is None else known._replace(class_path=path)

    def _add(self, event: BuildEvent | _Residence | str | list[_Seen]) -> None:
        if isinstance(event, str):
            self._warmed[event] = self._warmed.get(event, 0) + 1
            self._order.warmed_up(event)
            return
        if isinstance(event, list):
            for seen in event:
                self._order.add(seen)
            return
        name = event.class_name
        if name not in self._classes and len(self._classes) >= max(_MOST_NAMES, self._forget_at):
            self._forget_names()
        known = self._with_path(name, self._classes.get(name, ClassProfile()))
        if isinstance(event, BuildEvent):
            self._classes[name] = _with_build(known, event)
        else:
            self._classes[name] = _with_residence(known, event)

    def _forget_names(self) -> None:
        """Forget keys of families, which are without number, down to half of the bound."""
        registry = self._registry()
        unknown = [name for name in self._classes if registry is None or name not in registry]
        # The most used ones stay.
        unknown.sort(key=lambda name: self._classes[name].uses)
        for name in unknown[: len(self._classes) - _MOST_NAMES // 2]:
            del self._classes[name]
            self._warmed.pop(name, None)
        self._forget_at = 2 * len(self._classes)  # so that each costs a few steps on average


class _Recording(Extension):
    """Reports the builds and removals of one registry to its recorder, while it has one."""

    def __init__(self) -> None:
        self.recorder: ProfileRecorder | None = None
        self._lock = RLock()  # re-entrant: a finaliser may start or stop a recording

    def start(self, registry: BaseRegistry) -> ProfileRecorder:
        """Return the recorder, made if there is none."""
        return self._start(ProfileRecorder(registry))

    @locked
    def _start(self, fresh: ProfileRecorder) -> ProfileRecorder:
        if self.recorder is None:
            self.recorder = fresh
        return self.recorder

    @locked
    def stop(self, recorder: ProfileRecorder) -> None:
        """Report nothing more to a recorder."""
        if self.recorder is recorder:
            self.recorder = None

    def before_build(self, registry: BaseRegistry, build: Build) -> None:
        recorder = self.recorder
        if recorder is not None:
            recorder.note_uses()

    def built(self, registry: BaseRegistry, build: Build) -> None:
        recorder = self.recorder
        if recorder is not None:
            recorder(build_event(build))

    def sweep(self, registry: BaseRegistry) -> None:
        recorder = self.recorder
        if recorder is not None:
            recorder.note_uses()

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        recorder = self.recorder
        if recorder is not None:
            for entry in entries:
                recorder(_Residence.of(entry))
            recorder([_Seen.of(entry, removed=True) for entry in entries])

    def after_fork(self, registry: BaseRegistry) -> None:
        self._lock = RLock()


def record(registry: BaseRegistry) -> ProfileRecorder:
    """
    Record the profile of a registry from now on, unless it is being recorded.

    Args:
        registry: The registry.

    Returns:
        Its recorder.
    """
    recording = registry.extension(_Recording)
    if recording is None:
        recording = registry.attach(_Recording())
    return recording.start(registry)


def recorder_of(registry: BaseRegistry) -> ProfileRecorder | None:
    """
    Return the recorder of a registry.

    Args:
        registry: The registry.

    Returns:
        The recorder; None if nothing is recorded.
    """
    recording = registry.extension(_Recording)
    return None if recording is None else recording.recorder


def _with_build(known: ClassProfile, event: BuildEvent) -> ClassProfile:
    asked_for = {*known.depends_on, *event.asked_for}
    known = known._replace(depends_on=tuple(sorted(asked_for)))
    if not event.succeeded:
        return known._replace(failures=known.failures + 1)
    return known._replace(
        builds=known.builds + 1,
        # With the import, which the process that is warmed up has to make, too.
        build_seconds=known.build_seconds + event.seconds + event.import_seconds,
        own_build_seconds=known.own_build_seconds + event.own_seconds + event.import_seconds,
        last_build_seconds=event.seconds + event.import_seconds,
        bytes=_larger(known.bytes, event.bytes),
    )


def _with_residence(known: ClassProfile, residence: _Residence) -> ClassProfile:
    return known._replace(
        uses=known.uses + residence.uses,
        gaps=known.gaps + residence.gaps,
        gap_seconds=known.gap_seconds + residence.seconds,
        last_build_seconds=known.last_build_seconds or residence.build_seconds,
        bytes=_larger(known.bytes, residence.bytes),
    )


def _larger(one: int | None, other: int | None) -> int | None:
    return max((size for size in (one, other) if size is not None), default=None)
