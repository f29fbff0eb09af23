"""
Affinity routing: a call goes to a worker where its class is warm, unless the queue there is long.

The first call of a class assigns it to a worker by consistent hashing with bounded loads
(Mirrokni, Thorup and Zadimoghaddam, 2018). Each worker has many positions on a hash ring. A class
is assigned to the next worker on the ring that has less than its share of the classes, or to the
one after that if its queue is much shorter. As a result, independent clients agree on nearly all
assignments, adding or removing a worker moves few classes, and no worker gets too many.

Every further call goes to the worker with the earliest expected completion: a worker where the
class is warm, after its queue, or another worker, after its queue and a build. The build time is
weighted by six, because a build also costs memory and delays other calls on that worker. With a
lower weight, the simulation in `benchmarks` shows more builds without earlier completion. A class
therefore stays on its workers as long as waiting there is cheaper than building, M classes cost
about M builds, and a class that is called more often than its workers can serve is given another
worker.

A key of a family is routed like a class; the durations are those of its family. Keys are without
number, so those that were not called for longest are forgotten: their next call assigns them again,
by the hash to the same worker in most cases.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_left, insort
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from .._locks import locked
from ..family_keys import FamilyKey, check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..family_keys import SlotKey

__all__ = ["BUILD_WEIGHT", "MIN_BUILD_SECONDS", "Router", "Ticket", "duration_name"]

_RING_POSITIONS = 64  # per worker
_MAX_SHARE = 1.25  # maximum number of classes per worker, relative to the mean
BUILD_WEIGHT = 6.0  # of build seconds relative to waiting seconds
_BUSY_SECONDS = 0.5  # a new class skips a worker whose queue is longer than the next one's by this
MIN_BUILD_SECONDS = 0.2  # lower bound, because an instance that is built quickly takes memory too
_DEFAULT_CALL_SECONDS = 0.01  # for a class whose calls have not been measured
_MAX_KEYS = 10_000  # of families, that are remembered
_FORGET_SECONDS = 60.0  # an additional worker not used for this long counts as cold


class Ticket(NamedTuple):
    """A call in progress; must be passed to `Router.done` when the call ends."""

    class_name: SlotKey
    worker: str
    seconds: float
    """The expected duration."""
    built: bool
    """Whether it is the first call of its class on this worker."""


class _Worker:
    __slots__ = ("classes", "name", "queued", "threads")

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        self.classes: set[SlotKey] = set()  # the classes for which it is the first worker
        self.queued = 0.0  # expected seconds of the unfinished calls

    @property
    def wait(self) -> float:
        return self.queued / self.threads


class _Times:
    """The durations of a class, or of all keys of a family."""

    __slots__ = ("build_seconds", "call_seconds")

    def __init__(self) -> None:
        self.call_seconds: float | None = None
        self.build_seconds: float | None = None


class _Class:
    __slots__ = ("in_progress", "times", "warm_on")

    def __init__(self, times: _Times) -> None:
        self.times = times
        self.warm_on: dict[str, float] = {}  # worker -> when it was last chosen; first worker first
        self.in_progress: dict[str, int] = {}  # worker -> number of unfinished calls


class Router:
    """
    Chooses a worker for each call.

    Args:
        workers: Worker -> number of calls it executes concurrently.
        affinity: False sends each call to the worker with the shortest queue, regardless of which
            classes are warm there; for comparison.
        timer: Returns monotonic seconds.

    Thread-safe. A choice is O(log workers), or O(workers) if an additional worker is considered.
    """

    def __init__(
        self,
        workers: dict[str, int] | None = None,
        *,
        affinity: bool = True,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changes = 0
        """Counts the changes of the set of workers."""
        self._affinity = affinity
        self._timer = timer
        self._workers: dict[str, _Worker] = {}
        self._classes: dict[SlotKey, _Class] = {}
        self._keys: dict[FamilyKey, None] = {}  # those among them, the last one called last
        self._times: dict[str, _Times] = {}  # by class or family
        self._ring: list[tuple[int, str]] = []
        self._assigned = 0  # number of classes assigned to a first worker
        self._lock = RLock()
        for name, threads in (workers or {}).items():
            self.add_worker(name, threads)

    # -- workers ---------------------------------------------------------------------------------

    def workers(self) -> list[str]:
        """Return the names of the workers in the order in which they were added."""
        return list(self._workers)

    @locked
    def threads(self) -> dict[str, int]:
        """Return the number of calls that each worker executes concurrently."""
        return {name: worker.threads for name, worker in self._workers.items()}

    @locked
    def add_worker(self, name: str, threads: int = 1) -> None:
        """
        Add a worker or update its number of threads.

        Args:
            name: The name; clients that are to agree on assignments must use the same one.
            threads: The number of calls it executes concurrently.

        Raises:
            ValueError: `threads` is less than 1.

        Thread-safe; O(number of positions on the ring).
        """
        if threads < 1:
            raise ValueError(f"threads of worker {name!r} must be 1 or more, got {threads!r}")
        known = self._workers.get(name)
        if known is not None:
            self.changes += known.threads != threads
            known.threads = threads
            return
        self.changes += 1
        self._workers[name] = _Worker(name, threads)
        for index in range(_RING_POSITIONS):
            insort(self._ring, (ring_position(f"{name}#{index}"), name))

    @locked
    def remove_worker(self, name: str) -> list[SlotKey]:
        """
        Remove a worker that was lost or shut down.

        Args:
            name: The worker.

        Returns:
            The classes that were warm there. A class without a worker is assigned again at its
            next call.

        Thread-safe; O(classes + positions on the ring).
        """
        removed = self._workers.pop(name, None)
        if removed is None:
            return []
        self.changes += 1
        self._ring = [position for position in self._ring if position[1] != name]
        self._assigned -= len(removed.classes)
        lost = []
        for class_name, known in self._classes.items():
            known.in_progress.pop(name, None)
            if known.warm_on.pop(name, None) is not None:
                lost.append(class_name)
                successor = next(iter(known.warm_on), None)
                if class_name in removed.classes and successor is not None:
                    self._workers[successor].classes.add(class_name)
                    self._assigned += 1
        return lost

    def set_workers(self, workers: dict[str, int]) -> list[str]:
        """
        Replace the set of workers.

        Args:
            workers: Worker -> number of calls it executes concurrently.

        Returns:
            The names of the removed workers.
        """
        removed = [name for name in self._workers if name not in workers]
        for name in removed:
            self.remove_worker(name)
        for name, threads in workers.items():
            self.add_worker(name, threads)
        return removed

    # -- calls -----------------------------------------------------------------------------------

    @locked
    def choose(self, class_name: SlotKey) -> Ticket:
        """
        Choose the worker for a call, which counts as queued there until `done` is called.

        Args:
            class_name: The class, or the key of a family, to call.

        Returns:
            A ticket with the name of the worker.

        Raises:
            TypeError: It is neither.
            LookupError: There are no workers.
        """
        class_name, known = self._assignable(class_name)
        now = self._timer()
        worker = self._choose(class_name, known, now)
        built = worker.name not in known.warm_on
        known.warm_on[worker.name] = now
        known.in_progress[worker.name] = known.in_progress.get(worker.name, 0) + 1
        times = known.times
        seconds = _DEFAULT_CALL_SECONDS if times.call_seconds is None else times.call_seconds
        if built:
            seconds += times.build_seconds or 0.0
        worker.queued += seconds
        return Ticket(class_name, worker.name, seconds, built)

    @locked
    def place(self, class_name: SlotKey) -> str:
        """
        Assign a class to a worker without calling it.

        Args:
            class_name: The class, or the key of a family.

        Returns:
            Its first worker.

        Raises:
            TypeError: It is neither.
            LookupError: There are no workers.
        """
        class_name, known = self._assignable(class_name)
        if not known.warm_on:
            first = self._first_worker(class_name)
            first.classes.add(class_name)
            self._assigned += 1
            known.warm_on[first.name] = self._timer()
        return next(iter(known.warm_on))

    @locked
    def assign(self, class_name: SlotKey, worker: str, seconds: float) -> Ticket:
        """
        Record a call that goes to a given worker, where it counts as queued until `done`.

        Args:
            class_name: The class, or the key of a family.
            worker: The worker; one that was removed meanwhile is accepted.
            seconds: The expected duration.

        Returns:
            A ticket.
        """
        class_name = check_key(class_name)
        known = self._class_of(class_name)
        there = self._workers.get(worker)
        built = worker not in known.warm_on
        if there is not None:
            if not known.warm_on:
                there.classes.add(class_name)
                self._assigned += 1
            known.warm_on[worker] = self._timer()
            known.in_progress[worker] = known.in_progress.get(worker, 0) + 1
            there.queued += seconds
        return Ticket(class_name, worker, seconds, built)

    def _assignable(self, class_name: SlotKey) -> tuple[SlotKey, _Class]:
        """Return the checked key of a class, and what is known of it; there must be a worker."""
        key = check_key(class_name)
        if not self._workers:
            raise LookupError(f"no worker to call {key!r} on")
        return key, self._class_of(key)

    def _class_of(self, key: SlotKey) -> _Class:
        known = self._classes.get(key)
        if known is None:
            known = self._classes[key] = _Class(self._times_of(duration_name(key)))
        if type(key) is FamilyKey:
            self._keys.pop(key, None)  # to the end
            self._keys[key] = None
            for _ in range(2):  # so that what exceeds the bound shrinks again
                if len(self._keys) > _MAX_KEYS:
                    self._forget_key(next(iter(self._keys)))
        return known

    def _forget_key(self, key: FamilyKey) -> None:
        """Forget a key of a family; one that is being called becomes the last one."""
        del self._keys[key]
        if self._classes[key].in_progress:
            self._keys[key] = None
            return
        del self._classes[key]
        for worker in self._workers.values():
            if key in worker.classes:
                worker.classes.discard(key)
                self._assigned -= 1

    def _times_of(self, name: str) -> _Times:
        return self._times.setdefault(name, _Times())

    def _choose(self, class_name: SlotKey, known: _Class, now: float) -> _Worker:
        if not self._affinity:
            return min(self._workers.values(), key=_by_wait)
        if not known.warm_on:
            first = self._first_worker(class_name)
            first.classes.add(class_name)
            self._assigned += 1
            return first
        if len(known.warm_on) > 1:
            self._forget_unused(known, now)
        best = min((self._workers[name] for name in known.warm_on), key=_by_wait)
        build = known.times.build_seconds
        if build is not None:
            build = max(build, MIN_BUILD_SECONDS)
        # An unknown build time means that the first build is still in progress. A build on another
        # worker would not complete earlier.
        if build is None or best.wait <= BUILD_WEIGHT * build:
            return best
        others = (each for each in self._workers.values() if each.name not in known.warm_on)
        other = min(others, key=_by_wait, default=None)
        if other is None or other.wait + BUILD_WEIGHT * build >= best.wait:
            return best
        return other

    def _first_worker(self, class_name: SlotKey) -> _Worker:
        most = math.ceil(_MAX_SHARE * (self._assigned + 1) / len(self._workers))
        start = bisect_left(self._ring, (ring_position(str(class_name)), ""))
        first: _Worker | None = None
        for offset in range(len(self._ring)):
            worker = self._workers[self._ring[(start + offset) % len(self._ring)][1]]
            if worker is first or len(worker.classes) >= most:
                continue
            if first is None:
                first = worker
            else:
                return worker if worker.wait + _BUSY_SECONDS < first.wait else first
        assert first is not None, "every worker has reached its maximum number of classes"
        return first

    def _forget_unused(self, known: _Class, now: float) -> None:
        for name in list(known.warm_on)[1:]:
            if not known.in_progress.get(name) and now - known.warm_on[name] > _FORGET_SECONDS:
                del known.warm_on[name]

    @locked
    def done(self, ticket: Ticket) -> None:
        """
        Record that a call has ended, successfully or not.

        Args:
            ticket: The ticket of the call.
        """
        worker = self._workers.get(ticket.worker)
        if worker is not None:
            worker.queued = max(0.0, worker.queued - ticket.seconds)
        known = self._classes.get(ticket.class_name)
        if known is None:
            return
        remaining = known.in_progress.get(ticket.worker, 0) - 1
        if remaining > 0:
            known.in_progress[ticket.worker] = remaining
        else:
            known.in_progress.pop(ticket.worker, None)

    # -- measurements ----------------------------------------------------------------------------

    @locked
    def learn(
        self,
        class_name: str,
        *,
        call_seconds: float | None = None,
        build_seconds: float | None = None,
    ) -> None:
        """
        Record the measured durations of a class or a family.

        Args:
            class_name: The class or the family; see `duration_name`.
            call_seconds: The mean duration of a call; None leaves it unchanged.
            build_seconds: The duration of its last build; None leaves it unchanged.
        """
        known = self._times_of(class_name)
        if call_seconds is not None:
            known.call_seconds = call_seconds
        if build_seconds is not None:
            known.build_seconds = build_seconds

    def learn_times(
        self, call_seconds: Mapping[str, float], build_seconds: Mapping[str, float]
    ) -> None:
        """
        Record the durations measured by one worker; see `Worker.times`.

        Args:
            call_seconds: Class name -> mean seconds of a call.
            build_seconds: Class name -> seconds of its last build.
        """
        for class_name in {**call_seconds, **build_seconds}:
            self.learn(
                class_name,
                call_seconds=call_seconds.get(class_name),
                build_seconds=build_seconds.get(class_name),
            )

    @locked
    def mark_cold(self, worker: str, class_names: Iterable[SlotKey] | None = None) -> None:
        """
        Record that classes are no longer warm on a worker.

        Args:
            worker: The worker.
            class_names: The classes; None means all.

        The first worker of a class keeps its assignment.
        """
        names = list(self._classes) if class_names is None else class_names
        for class_name in names:
            known = self._classes.get(class_name)
            if known is None or known.in_progress.get(worker):
                continue
            if len(known.warm_on) > 1 and next(iter(known.warm_on)) != worker:
                known.warm_on.pop(worker, None)

    def longest_wait(self) -> float:
        """Return the length of the longest queue in seconds."""
        return max((worker.wait for worker in list(self._workers.values())), default=0.0)

    @locked
    def placements(self) -> dict[SlotKey, tuple[str, ...]]:
        """Return the workers of each class, its first worker first."""
        return {
            class_name: tuple(known.warm_on)
            for class_name, known in self._classes.items()
            if known.warm_on
        }


def _by_wait(worker: _Worker) -> float:
    return worker.wait


def duration_name(key: SlotKey) -> str:
    """Return the name by which durations are recorded: the class, or the family of a key."""
    return key.family if type(key) is FamilyKey else str(key)


def ring_position(text: str) -> int:
    """
    Map a text to a position on the hash ring.

    Args:
        text: The text.

    Returns:
        A number of 64 bits that is the same in every process, unlike `hash`.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
