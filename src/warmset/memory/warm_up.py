"""
Warm-up: builds classes in advance, the most valuable first, in parallel and within the bounds.
"""

from __future__ import annotations

import math
import os
import threading
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from .. import _logs
from .._locks import locked, start_thread
from .._text import printable
from ..codes import LISTENER_FAILURES, MEMORY, SIZE
from ..errors import MethodRegistryError
from ..resolver import error_text, safe_repr
from .profiles import ClassProfile, Profile
from .recording import recorder_of
from .warm_up_plan import WarmUpPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..family_keys import FamilyKey
    from ..registry import BaseRegistry

__all__ = ["WarmUpEvent", "WarmUpReport", "warm_up"]

_MAX_DEFAULT_WORKERS = 4


class WarmUpEvent(NamedTuple):
    """Progress of a warm-up: the build of a class has started, or the class is done."""

    class_name: str
    state: str
    """"started", "built", "warm" (built by another thread or build), "failed" or "skipped"."""
    done: int
    total: int
    seconds: float = 0.0
    reason: str | None = None
    """Why the build failed or was skipped."""


class WarmUpReport(NamedTuple):
    """The results of a warm-up, in chronological order."""

    built: tuple[tuple[str, float], ...]
    """Class names and build seconds."""
    warm: tuple[str, ...]
    """Classes that were already warm at the start, or when their turn came."""
    failed: tuple[tuple[str, str], ...]
    """Class names and errors."""
    skipped: tuple[tuple[str, str], ...]
    """Class names and reasons."""
    notes: tuple[str, ...]
    """Problems with the profile."""
    seconds: float
    """The total duration."""

    @property
    def build_seconds(self) -> float:
        """The sum of the build times."""
        return sum(seconds for _, seconds in self.built)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
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
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(map(printable, lines))


def warm_up(
    registry: BaseRegistry,
    profile_or_names: Profile | Iterable[str | type | FamilyKey],
    *,
    deadline_seconds: float | None,
    max_bytes: int | None,
    workers: int | None,
    progress: Callable[[WarmUpEvent], Any] | None,
) -> WarmUpReport:
    """
    Warm up a registry; see `Registry.warm_up`.

    Args:
        registry: The registry.
        profile_or_names: The classes to build.
        deadline_seconds: None means no deadline.
        max_bytes: The maximum total size of the built instances; None means no bound.
        workers: The number of building threads; None selects it by the number of processors.
        progress: Called with a `WarmUpEvent` for each change, in the calling thread.

    Returns:
        The report.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range.
        ClosedError: The registry is closed.
        MethodRegistryError: The caller is inside a build.
    """
    profile = _profile_of(registry, profile_or_names)
    threads = _checked(deadline_seconds, max_bytes, workers, progress)
    registry.refuse_if_closed("warm up")
    _check_not_in_build(registry)
    registry.evict_expired()  # expired instances are not warm and must not take up capacity
    plan = WarmUpPlan(registry, profile, max_bytes)
    return _WarmUp(registry, plan, deadline_seconds, progress).run(threads)


def _check_not_in_build(registry: BaseRegistry) -> None:
    outer = registry.builder.current_build()
    if outer is not None:
        name = outer.slot.name
        raise MethodRegistryError(
            f"warm_up was called during the build of {name!r} and might wait for its completion; "
            "expected a call outside of builds",
            class_name=name,
        )


def _profile_of(
    registry: BaseRegistry, given: Profile | Iterable[str | type | FamilyKey]
) -> Profile:
    if isinstance(given, Profile):
        return given
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise TypeError(
            f"warm_up takes a Profile or class names, got {type(given).__name__} {safe_repr(given)}"
        )
    keys = [registry.name_of(name) for name in given]
    # Decreasing numbers of uses keep the order of the names.
    return _Names({key: ClassProfile(uses=len(keys) - at) for at, key in enumerate(keys)})


class _Names(Profile):
    """A profile made from names in the order of their value."""

    __slots__ = ()


def _checked(deadline: Any, max_bytes: Any, workers: Any, progress: Any) -> int:
    """Check the arguments and return the number of workers."""
    if deadline is not None:
        if isinstance(deadline, bool) or not isinstance(deadline, (int, float)):
            raise TypeError(
                f"deadline_seconds must be a number of seconds or None, got {safe_repr(deadline)}"
            )
        if not deadline >= 0.0:
            raise ValueError(f"deadline_seconds must be 0 or more seconds, got {deadline!r}")
    for name, value, minimum in (("max_bytes", max_bytes, 0), ("workers", workers, 1)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number or None, got {safe_repr(value)}")
        if value < minimum:
            raise ValueError(f"{name} must be {minimum} or more, got {value!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, got {safe_repr(progress)}")
    return min(_MAX_DEFAULT_WORKERS, os.cpu_count() or 1) if workers is None else int(workers)


class _WarmUp:
    """A warm-up in progress. `_changed` guards the sets of waiting, running and done classes."""

    def __init__(
        self,
        registry: BaseRegistry,
        plan: WarmUpPlan,
        deadline: float | None,
        progress: Callable[[WarmUpEvent], Any] | None,
    ) -> None:
        self._registry = registry
        self._plan = plan
        self._progress = progress
        self._clock = registry.builder.stopwatch
        self._started = self._clock()
        self._deadline = deadline
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = list(plan.order)
        self._running: set[str] = set()
        self._done: set[str] = set()
        self._unbuilt: dict[str, str] = {}  # name -> "failed" or "was skipped"
        self._worker_error: BaseException | None = None
        self._evictions = self._capacity_evictions()
        self._stopping = False
        # (name, state, seconds, reason) for the calling thread; None when a worker ends.
        self._updates: SimpleQueue[tuple[str, str, float, str | None] | None] = SimpleQueue()
        self._built: list[tuple[str, float]] = []
        self._warm: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._skipped: list[tuple[str, str]] = []

    def run(self, workers: int) -> WarmUpReport:
        """Execute the plan."""
        threads: list[threading.Thread] = []
        try:
            for number in range(min(workers, len(self._waiting))):
                thread = threading.Thread(
                    # In the context of the caller, so that builds belong to the current trace.
                    target=copy_context().run,
                    args=(self._work,),
                    name=f"warmset-warm-up-{number + 1}",
                    daemon=True,
                )
                try:
                    start_thread(thread)
                except RuntimeError:  # the system cannot start more threads
                    if not threads:
                        raise
                    break
                threads.append(thread)
            self._follow(len(threads))
        finally:
            self._stop()  # after an interrupt, start no further build
            for thread in threads:
                thread.join()
        if self._worker_error is not None:
            raise self._worker_error
        plan = self._plan
        return WarmUpReport(
            built=tuple(self._built),
            warm=(*map(str, plan.warm), *self._warm),
            failed=tuple(self._failed),
            skipped=(*((str(key), why) for key, why in plan.skipped), *self._skipped),
            notes=tuple(plan.notes),
            seconds=max(0.0, self._clock() - self._started),
        )

    @locked
    def _stop(self) -> None:
        self._stopping = True
        self._changed.notify_all()

    def _follow(self, workers: int) -> None:
        """Process the updates of the workers until all have ended."""
        total, done = len(self._plan.order), 0
        while workers:
            update = self._updates.get()
            if update is None:
                workers -= 1
                continue
            key, state, seconds, reason = update
            name = str(key)
            done += state != "started"
            if state == "built":
                self._built.append((name, seconds))
            elif state == "warm":
                self._warm.append(name)
            elif state == "failed":
                self._failed.append((name, reason or ""))
            elif state == "skipped":
                self._skipped.append((name, reason or ""))
            if self._progress is not None:
                self._report_progress(WarmUpEvent(name, state, done, total, seconds, reason))

    def _report_progress(self, event: WarmUpEvent) -> None:
        try:
            self._progress(event)  # type: ignore[misc]
        except Exception as error:
            self._registry.count(LISTENER_FAILURES)
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
            self._build_each()
        except BaseException as error:  # for example of the timer; `_build` handles build errors
            self._worker_error = error
            self._stop()
        finally:
            self._updates.put(None)

    def _build_each(self) -> None:
        while (name := self._next()) is not None:
            self._build(name)

    def _next(self) -> str | None:
        """Select the next class to build; None if there is none."""
        while True:
            left = self._seconds_left()  # outside the lock, because the timer is foreign code
            evictions = self._capacity_evictions()
            with self._changed:
                if self._stopping or not self._waiting:
                    return None
                name = next((name for name in self._waiting if self._is_ready(name)), None)
                if name is None:
                    self._changed.wait()  # the remaining classes depend on running builds
                    continue
                self._waiting.remove(name)
                slot = self._registry.slots.get(name)
                if slot is not None and slot.entry is not None:
                    self._finish(name, "warm", 0.0, None)
                    continue
                reason = self._skip_reason(name, left, evictions)
                if reason is None:
                    self._running.add(name)
                    self._updates.put((name, "started", 0.0, None))
                    return name
                self._finish(name, "skipped", 0.0, reason)

    def _is_ready(self, name: str) -> bool:
        return all(needed in self._done for needed in self._plan.needs[name])

    def _skip_reason(self, name: str, left: float, evictions: int) -> str | None:
        """Return why a class must not be built now, or None; the caller holds the lock."""
        registry = self._registry
        for needed in self._plan.needs[name]:
            if needed in self._unbuilt:
                return f"its dependency {needed!r} {self._unbuilt[needed]}"
        if registry.closed:
            return "the registry was closed"
        if left <= 0.0:
            return "the deadline has passed"
        expected = self._plan.expected_seconds(name)
        if expected > left:
            return f"its build takes {expected:.3g} s, and the deadline is in {left:.3g} s"
        if evictions > self._evictions:
            return "warm instances were evicted to free capacity"
        # Builds in progress need capacity, unless their instances are already cached.
        slots = [registry.slots.get(each) for each in self._running]
        pending = sum(slot is not None and slot.entry is None for slot in slots)
        if registry.cached + pending >= registry.max_size:
            return "no capacity is left"
        return None

    def _build(self, name: str) -> None:
        registry = self._registry
        began = self._clock()
        # If another thread is already building the class, the look-up waits for that build.
        theirs = any(row[0] == name for row in registry.builder.in_progress())
        state, reason = "built", None
        try:
            # With a lease, so that the instance does not count as returned without one.
            with registry.use(name):
                pass
        except BaseException as error:
            # Also SystemExit and the like: a constructor must not end this worker.
            state = "failed"
            reason = str(error) if isinstance(error, MethodRegistryError) else error_text(error)
        else:
            if theirs:
                state = "warm"
            else:
                recorder = recorder_of(registry)
                if recorder is not None:
                    recorder.warmed(name)
        seconds = max(0.0, self._clock() - began)
        with self._changed:
            self._running.discard(name)
            self._finish(name, state, seconds, reason)

    def _finish(self, name: str, state: str, seconds: float, reason: str | None) -> None:
        """Record that a class is done; the caller holds the lock."""
        if state == "failed":
            self._unbuilt[name] = "failed"
        elif state == "skipped":
            self._unbuilt[name] = "was skipped"
        self._done.add(name)
        self._updates.put((name, state, seconds, reason))
        self._changed.notify_all()

    def _seconds_left(self) -> float:
        if self._deadline is None:
            return math.inf
        return self._deadline - (self._clock() - self._started)

    def _capacity_evictions(self) -> int:
        removals = self._registry.counters()[6]
        return removals[SIZE] + removals[MEMORY]
