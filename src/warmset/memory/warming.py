"""
Warming up: classes are built ahead, the most valuable first, in parallel, and within the bounds.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from _thread import get_ident
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from .. import _logs
from .._tallies import LISTENER_FAILURES
from ..errors import ClosedError, MethodRegistryError
from ..events import RemovalCause
from ..resolver import check_name, shown, told
from .planning import Plan
from .profiles import ClassProfile, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..registry import Registry

__all__ = ["WarmUpEvent", "WarmUpReport", "warm_up"]

_EMPTY = 0  # a slot's kind
_MOST_WORKERS = 4


class WarmUpEvent(NamedTuple):
    """A class was begun, or dealt with, as `done` of `total` are; the seconds are its own."""

    class_name: str
    state: str
    """"begun", "built", "warm" (by another thread, or for one that asked), "failed", "skipped"."""
    done: int
    total: int
    seconds: float = 0.0
    reason: str | None = None
    """Why it failed or was skipped."""


class WarmUpReport(NamedTuple):
    """What a warm-up did, in the order in which it was done."""

    built: tuple[tuple[str, float], ...]
    """Name, and the seconds that it took."""
    warm: tuple[str, ...]
    """What was warm already, or when its turn came: others built it, or a build asked for it."""
    failed: tuple[tuple[str, str], ...]
    """Name, and the error."""
    skipped: tuple[tuple[str, str], ...]
    """Name, and why."""
    notes: tuple[str, ...]
    """What of the profile did not fit."""
    seconds: float
    """From its beginning to its end."""

    @property
    def build_seconds(self) -> float:
        """Seconds of all builds, one after another."""
        return sum(seconds for _, seconds in self.built)

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "built": [{"class_name": n, "seconds": s} for n, s in self.built],
            "warm": list(self.warm),
            "failed": [{"class_name": n, "error": e} for n, e in self.failed],
            "skipped": [{"class_name": n, "reason": r} for n, r in self.skipped],
            "notes": list(self.notes),
            "seconds": self.seconds,
            "build_seconds": self.build_seconds,
        }

    def __str__(self) -> str:
        lines = [
            f"built {len(self.built)} in {self.seconds:.2f} s ({self.build_seconds:.2f} s of "
            f"builds), {len(self.warm)} warm already, {len(self.failed)} failed, "
            f"{len(self.skipped)} skipped"
        ]
        lines += [f"  failed {name}: {error}" for name, error in self.failed]
        lines += [f"  skipped {name}: {reason}" for name, reason in self.skipped]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def warm_up(
    registry: Registry,
    profile_or_names: Profile | Iterable[str],
    *,
    deadline: float | None,
    max_bytes: int | None,
    workers: int | None,
    progress: Callable[[WarmUpEvent], Any] | None,
) -> WarmUpReport:
    """
    Warm a registry up; see `Registry.warm_up`.

    Args:
        registry: The registry.
        profile_or_names: What to build.
        deadline: Seconds from now.
        max_bytes: Bytes that may be built.
        workers: Threads that build.
        progress: Is told of each class.

    Returns:
        What was done.
    """
    profile = _profile_of(profile_or_names)
    threads = _checked(deadline, max_bytes, workers, progress)
    if registry._closed:
        raise ClosedError("the registry is closed: nothing is warmed up")
    _refuse_in_a_build(registry)
    registry.evict_expired()  # what would leave at its next look-up is neither warm nor in the way
    plan = Plan(registry, profile, max_bytes)
    return _WarmUp(registry, plan, deadline, progress).run(threads)


def _refuse_in_a_build(registry: Registry) -> None:
    outer = registry._builder._innermost.get(get_ident())
    if outer is None:
        # A rule that an event loop awaits runs in the loop's thread, and its build in another one.
        workers = sys.modules.get(f"{__name__.partition('.')[0]}._workers")
        course = None if workers is None else workers.course.get()
        if course is None or not course._open:
            return
    name = None if outer is None else outer.slot.name
    what = "a build" if name is None else f"the build of {name!r}"
    raise MethodRegistryError(
        f"warm_up was called in the course of {what}, and might wait for it; expected a call "
        "outside of builds",
        class_name=name,
    )


def _profile_of(given: Profile | Iterable[str]) -> Profile:
    if isinstance(given, Profile):
        return given
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise TypeError(
            f"warm_up takes a Profile or class names, got {type(given).__name__} {shown(given)}"
        )
    names = [check_name(name) for name in given]
    # The first is worth most: a use more than the next.
    return _Names({name: ClassProfile(uses=len(names) - at) for at, name in enumerate(names)})


class _Names(Profile):
    """Names in the order of their worth."""

    __slots__ = ()


def _checked(deadline: Any, max_bytes: Any, workers: Any, progress: Any) -> int:
    """Refuse what the arguments must not be; the number of workers."""
    if deadline is not None:
        if isinstance(deadline, bool) or not isinstance(deadline, (int, float)):
            raise TypeError(f"deadline must be a number of seconds or None, got {shown(deadline)}")
        if not deadline >= 0.0:
            raise ValueError(f"deadline must be 0 or more seconds, got {deadline!r}")
    for name, value, least in (("max_bytes", max_bytes, 0), ("workers", workers, 1)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number or None, got {shown(value)}")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, got {shown(progress)}")
    return min(_MOST_WORKERS, os.cpu_count() or 1) if workers is None else int(workers)


class _WarmUp:
    """A warm-up under way. The lock guards what is waiting, running and done."""

    def __init__(
        self,
        registry: Registry,
        plan: Plan,
        deadline: float | None,
        progress: Callable[[WarmUpEvent], Any] | None,
    ) -> None:
        self._registry = registry
        self._plan = plan
        self._progress = progress
        self._clock = registry._builder._stopwatch
        self._began = self._clock()
        self._deadline = deadline
        self._changed = threading.Condition()
        self._waiting = list(plan.order)
        self._running: set[str] = set()
        self._done: set[str] = set()
        self._unbuilt: dict[str, str] = {}  # what failed or was skipped, and which of the two
        self._crash: BaseException | None = None
        self._evictions = self._evictions_for_room()
        self._stopping = False
        # (name, state, seconds, reason), for the thread that called; None: a worker has ended.
        self._told: SimpleQueue[tuple[str, str, float, str | None] | None] = SimpleQueue()
        self._built: list[tuple[str, float]] = []
        self._warm: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._skipped: list[tuple[str, str]] = []

    def run(self, workers: int) -> WarmUpReport:
        """Work the plan off."""
        threads: list[threading.Thread] = []
        try:
            for number in range(min(workers, len(self._waiting))):
                thread = threading.Thread(
                    # In the context of the caller, so that a trace goes on in the builds.
                    target=copy_context().run,
                    args=(self._work,),
                    name=f"warmset-warm-up-{number + 1}",
                    daemon=True,
                )
                try:
                    thread.start()
                except RuntimeError:  # the system has no more of them
                    if not threads:
                        raise
                    break
                threads.append(thread)
            self._follow(len(threads))
        finally:
            with self._changed:  # an interrupt: begin nothing more
                self._stopping = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()
        if self._crash is not None:
            raise self._crash
        plan = self._plan
        return WarmUpReport(
            built=tuple(self._built),
            warm=(*plan.warm, *self._warm),
            failed=tuple(self._failed),
            skipped=(*plan.skipped, *self._skipped),
            notes=tuple(plan.notes),
            seconds=max(0.0, self._clock() - self._began),
        )

    def _follow(self, workers: int) -> None:
        """Tell of what the workers do, until they have ended."""
        total, done = len(self._plan.order), 0
        while workers:
            told = self._told.get()
            if told is None:
                workers -= 1
                continue
            name, state, seconds, reason = told
            done += state != "begun"
            if state == "built":
                self._built.append((name, seconds))
            elif state == "warm":
                self._warm.append(name)
            elif state == "failed":
                self._failed.append((name, reason or ""))
            elif state == "skipped":
                self._skipped.append((name, reason or ""))
            if self._progress is not None:
                self._tell(WarmUpEvent(name, state, done, total, seconds, reason))

    def _tell(self, event: WarmUpEvent) -> None:
        try:
            self._progress(event)  # type: ignore[misc]
        except Exception as error:
            self._registry._tally(LISTENER_FAILURES)
            _logs.warning(
                "listeners",
                "a progress callback failed: %r",
                self._progress,
                fields={"class_name": event.class_name, "error_type": type(error).__qualname__},
                error=error,
            )

    # -- in a worker -----------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (name := self._next()) is not None:
                self._build(name)
        except BaseException as error:  # of the timer, say: no build raises here
            self._crash = error
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
        finally:
            self._told.put(None)

    def _next(self) -> str | None:
        """The next one to build; None: there is nothing left to do."""
        while True:
            left = self._seconds_left()  # the timer may be foreign: not under the lock
            evictions = self._evictions_for_room()
            with self._changed:
                if self._stopping or not self._waiting:
                    return None
                name = next((name for name in self._waiting if self._is_ready(name)), None)
                if name is None:
                    self._changed.wait()  # something is running that the others need
                    continue
                self._waiting.remove(name)
                slot = self._registry._slots.get(name)
                if slot is not None and slot.kind != _EMPTY:
                    self._end(name, "warm", 0.0, None)
                    continue
                reason = self._refusal(name, left, evictions)
                if reason is None:
                    self._running.add(name)
                    self._told.put((name, "begun", 0.0, None))
                    return name
                self._end(name, "skipped", 0.0, reason)

    def _is_ready(self, name: str) -> bool:
        return all(needed in self._done for needed in self._plan.needs[name])

    def _refusal(self, name: str, left: float, evictions: int) -> str | None:
        """Why a class is not begun now; the lock is held."""
        registry, slots = self._registry, self._registry._slots
        for needed in self._plan.needs[name]:
            if needed in self._unbuilt:
                return f"it needs {needed!r}, which {self._unbuilt[needed]}"
        if registry._closed:
            return "the registry was closed"
        if left <= 0.0:
            return "past the deadline"
        takes = self._plan.expected_seconds(name)
        if takes > left:
            return f"it takes {takes:.3g} s, and {left:.3g} s are left until the deadline"
        if evictions > self._evictions:
            return "what is warm began to leave for want of room"
        # What is being built has its place to come, unless it has it by now.
        coming = sum(slots[each].kind == _EMPTY for each in self._running if each in slots)
        if registry._cached + coming >= registry.settings.max_cache_size:
            return "there is no room any more"
        return None

    def _build(self, name: str) -> None:
        registry = self._registry
        began = self._clock()
        # A build of another thread is waited for, and is not ours.
        theirs = any(row[0] == name for row in registry._builder.under_way())
        state, reason = "built", None
        try:
            # By a lease, and not as a caller who may keep it: who closes it need not ask who does.
            with registry.use(name):
                pass
        except BaseException as error:
            # Also what a constructor raised to end its thread, or the process: not this one's.
            state = "failed"
            reason = str(error) if isinstance(error, MethodRegistryError) else told(error)
        else:
            if theirs:
                state = "warm"
            elif registry._recorder is not None:
                registry._recorder.warmed(name)
        seconds = max(0.0, self._clock() - began)
        with self._changed:
            self._running.discard(name)
            self._end(name, state, seconds, reason)

    def _end(self, name: str, state: str, seconds: float, reason: str | None) -> None:
        """A class is dealt with; the lock is held."""
        if state == "failed":
            self._unbuilt[name] = "failed"
        elif state == "skipped":
            self._unbuilt[name] = "was skipped"
        self._done.add(name)
        self._told.put((name, state, seconds, reason))
        self._changed.notify_all()

    def _seconds_left(self) -> float:
        if self._deadline is None:
            return math.inf
        return self._deadline - (self._clock() - self._began)

    def _evictions_for_room(self) -> int:
        removals = self._registry._counters()[5]
        return removals[RemovalCause.SIZE] + removals[RemovalCause.MEMORY]
