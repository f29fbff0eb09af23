"""
Which worker a call goes to: where its class is warm, and to others only when its queue says so.

The first call of a class places it: on a ring on which each worker stands at many points, the class
goes to the next worker that has not its share of the classes already (consistent hashing with
bounded loads, Mirrokni, Thorup and Zadimoghaddam, 2018), or to the one after that, if much less is
queued there. So clients that know nothing of each other place nearly all classes alike, a worker
that comes or goes moves few, and none gets too many.

Every further call goes to where it is expected to be done first: to a worker that has the class,
after what is queued there, or to any other, after what is queued there and a build. That counts
six times, for others pay for it with memory and with the time of that worker: with less there are
more builds than classes and calls are done no sooner, by the simulation in `benchmarks`. So a class
stays where it is while that costs less than building, and M classes cost about M builds; a class
that is called more than its workers can take gets one more.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_left, insort
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from ..resolver import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Router", "Ticket"]

_POINTS = 64  # on the ring, for each worker
_SHARE = 1.25  # of the mean number of classes, that a worker takes before the next one on the ring
_BUILD_COUNTS = 6.0  # times, against waiting
_BUSY_SECONDS = 0.5  # by which a queue is longer that a class is not placed in
_LEAST_BUILD_SECONDS = 0.2  # for what is quickly built takes memory, too
_FIRST_GUESS = 0.01  # seconds of a call of which nothing is known
_FORGET_SECONDS = 60.0  # after which a worker that a class was spread to counts as cold


class Ticket(NamedTuple):
    """A call that is under way; it is given back to `Router.done`."""

    class_name: str
    worker: str
    seconds: float
    """That it is expected to take."""
    built: bool
    """Whether it is the first call of its class there."""


class _Worker:
    __slots__ = ("classes", "name", "queued", "threads")

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        self.classes: set[str] = set()  # whose first worker it is
        self.queued = 0.0  # seconds of calls that are not done

    @property
    def wait(self) -> float:
        return self.queued / self.threads


class _Class:
    __slots__ = ("build_seconds", "call_seconds", "holders", "under_way")

    def __init__(self) -> None:
        self.holders: dict[str, float] = {}  # worker -> when it was chosen last; in order
        self.under_way: dict[str, int] = {}  # worker -> calls that are not done
        self.call_seconds: float | None = None
        self.build_seconds: float | None = None


class Router:
    """
    Chooses a worker for each call.

    Args:
        workers: Worker -> how many calls it does at once.
        affinity: False sends each call to the worker with the shortest queue, whatever is warm
            there; for comparison.
        timer: Gives monotonic seconds.

    Safe under threads; a choice is O(log workers), and O(workers) where spreading is considered.
    """

    def __init__(
        self,
        workers: dict[str, int] | None = None,
        *,
        affinity: bool = True,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._affinity = affinity
        self._timer = timer
        self._workers: dict[str, _Worker] = {}
        self._classes: dict[str, _Class] = {}
        self._ring: list[tuple[int, str]] = []
        self._placed = 0  # classes, of all workers
        self._lock = RLock()
        for name, threads in (workers or {}).items():
            self.add_worker(name, threads)

    # -- workers ---------------------------------------------------------------------------------

    def workers(self) -> list[str]:
        """Give the workers that there are, in the order in which they came."""
        return list(self._workers)

    def add_worker(self, name: str, threads: int = 1) -> None:
        """
        Let calls go to a worker.

        Args:
            name: What it is known by; clients that shall agree use the same.
            threads: How many calls it does at once.

        Raises:
            ValueError: `threads` is less than 1.
        """
        if threads < 1:
            raise ValueError(f"threads of worker {name!r} must be 1 or more, got {threads!r}")
        with self._lock:
            known = self._workers.get(name)
            if known is not None:
                known.threads = threads
                return
            self._workers[name] = _Worker(name, threads)
            for at in range(_POINTS):
                insort(self._ring, (_point(f"{name}#{at}"), name))

    def remove_worker(self, name: str) -> list[str]:
        """
        Let no call go to a worker any more; it was lost, or it left.

        Args:
            name: The worker.

        Returns:
            The classes that were to be found there; each is placed anew at its next call.
        """
        with self._lock:
            gone = self._workers.pop(name, None)
            if gone is None:
                return []
            self._ring = [point for point in self._ring if point[1] != name]
            self._placed -= len(gone.classes)
            lost = []
            for class_name, known in self._classes.items():
                known.under_way.pop(name, None)
                if known.holders.pop(name, None) is not None:
                    lost.append(class_name)
                    heir = next(iter(known.holders), None)
                    if class_name in gone.classes and heir is not None:
                        self._workers[heir].classes.add(class_name)
                        self._placed += 1
            return lost

    def set_workers(self, workers: dict[str, int]) -> list[str]:
        """
        Let the workers be these.

        Args:
            workers: Worker -> how many calls it does at once.

        Returns:
            Those that are gone.
        """
        gone = [name for name in self._workers if name not in workers]
        for name in gone:
            self.remove_worker(name)
        for name, threads in workers.items():
            self.add_worker(name, threads)
        return gone

    # -- calls -----------------------------------------------------------------------------------

    def choose(self, class_name: str) -> Ticket:
        """
        Choose the worker of a call, which counts as queued there until `done`.

        Args:
            class_name: The class that is called.

        Returns:
            A ticket that names the worker.

        Raises:
            TypeError: The name is no string.
            LookupError: There is no worker.
        """
        class_name = check_name(class_name)
        with self._lock:
            if not self._workers:
                raise LookupError(f"no worker to call {class_name!r} on")
            known = self._classes.get(class_name)
            if known is None:
                known = self._classes[class_name] = _Class()
            now = self._timer()
            worker = self._choose(class_name, known, now)
            built = worker.name not in known.holders
            known.holders[worker.name] = now
            known.under_way[worker.name] = known.under_way.get(worker.name, 0) + 1
            seconds = _FIRST_GUESS if known.call_seconds is None else known.call_seconds
            if built:
                seconds += known.build_seconds or 0.0
            worker.queued += seconds
            return Ticket(class_name, worker.name, seconds, built)

    def _choose(self, class_name: str, known: _Class, now: float) -> _Worker:
        if not self._affinity:
            return min(self._workers.values(), key=_by_wait)
        if not known.holders:
            first = self._place(class_name)
            first.classes.add(class_name)
            self._placed += 1
            return first
        if len(known.holders) > 1:
            self._forget(known, now)
        best = min((self._workers[name] for name in known.holders), key=_by_wait)
        build = known.build_seconds
        if build is not None:
            build = max(build, _LEAST_BUILD_SECONDS)
        # While nothing is known of its build, it is under way: another one would not be sooner.
        if build is None or best.wait <= _BUILD_COUNTS * build:
            return best
        others = (each for each in self._workers.values() if each.name not in known.holders)
        other = min(others, key=_by_wait, default=None)
        if other is None or other.wait + _BUILD_COUNTS * build >= best.wait:
            return best
        return other

    def _place(self, class_name: str) -> _Worker:
        most = math.ceil(_SHARE * (self._placed + 1) / len(self._workers))
        start = bisect_left(self._ring, (_point(class_name), ""))
        first: _Worker | None = None
        for at in range(len(self._ring)):
            worker = self._workers[self._ring[(start + at) % len(self._ring)][1]]
            if worker is first or len(worker.classes) >= most:
                continue
            if first is None:
                first = worker
            else:
                return worker if worker.wait + _BUSY_SECONDS < first.wait else first
        assert first is not None, "no worker has at most its share"
        return first

    def _forget(self, known: _Class, now: float) -> None:
        for name in list(known.holders)[1:]:
            if not known.under_way.get(name) and now - known.holders[name] > _FORGET_SECONDS:
                del known.holders[name]

    def done(self, ticket: Ticket) -> None:
        """
        Note that a call has ended, well or not.

        Args:
            ticket: Of the call.
        """
        with self._lock:
            worker = self._workers.get(ticket.worker)
            if worker is not None:
                worker.queued = max(0.0, worker.queued - ticket.seconds)
            known = self._classes.get(ticket.class_name)
            if known is None:
                return
            left = known.under_way.get(ticket.worker, 0) - 1
            if left > 0:
                known.under_way[ticket.worker] = left
            else:
                known.under_way.pop(ticket.worker, None)

    # -- what is known ---------------------------------------------------------------------------

    def learn(
        self,
        class_name: str,
        *,
        call_seconds: float | None = None,
        build_seconds: float | None = None,
    ) -> None:
        """
        Take what calls and builds of a class were measured to take.

        Args:
            class_name: The class.
            call_seconds: Of a call, on the mean; None: not known.
            build_seconds: Of its last build; None: not known.
        """
        with self._lock:
            known = self._classes.get(class_name)
            if known is None:
                known = self._classes[class_name] = _Class()
            if call_seconds is not None:
                known.call_seconds = call_seconds
            if build_seconds is not None:
                known.build_seconds = build_seconds

    def learn_times(
        self, call_seconds: Mapping[str, float], build_seconds: Mapping[str, float]
    ) -> None:
        """
        Take what one worker measured; see `Worker.times`.

        Args:
            call_seconds: Class name -> seconds of a call.
            build_seconds: Class name -> seconds of its last build.
        """
        for class_name in {**call_seconds, **build_seconds}:
            self.learn(
                class_name,
                call_seconds=call_seconds.get(class_name),
                build_seconds=build_seconds.get(class_name),
            )

    def cooled(self, worker: str, class_names: Iterable[str] | None = None) -> None:
        """
        Note that classes are no longer warm on a worker.

        Args:
            worker: The worker.
            class_names: The classes; None: all.
        """
        with self._lock:
            names = list(self._classes) if class_names is None else class_names
            for class_name in names:
                known = self._classes.get(class_name)
                if known is None or known.under_way.get(worker):
                    continue
                if len(known.holders) > 1 and next(iter(known.holders)) != worker:
                    known.holders.pop(worker, None)

    def longest_wait(self) -> float:
        """Give the seconds that are queued where most is queued."""
        return max((worker.wait for worker in list(self._workers.values())), default=0.0)

    def placements(self) -> dict[str, tuple[str, ...]]:
        """Give the workers of each class, the first one first."""
        with self._lock:
            return {
                class_name: tuple(known.holders)
                for class_name, known in self._classes.items()
                if known.holders
            }


def _by_wait(worker: _Worker) -> float:
    return worker.wait


def _point(text: str) -> int:
    # Not `hash`, which differs from process to process.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
