"""
One build at a time for each class, any number for different ones.

A *flight* is a build under way. It is entered into a table by one atomic step, so of many threads
that miss at once one leads and the others wait at the flight's gate. There is no lock: each step
here is a single operation on a dict with `str` or `int` keys, which no other thread sees half done,
and which a finaliser or a signal handler may come back through without meeting a lock that its own
thread holds.

A thread that waits is entered, before it waits, with the flight it waits for; each flight knows its
owner. So a cycle, within a thread or across several, is seen by the one that would close it.
"""

from __future__ import annotations

import sys
from _thread import TIMEOUT_MAX, allocate_lock, get_ident
from time import monotonic, perf_counter

from ._tallies import FAILED_BUILDS, WAITS
from .errors import (
    BuildError,
    BuildTimeoutError,
    CapacityError,
    CycleError,
    MethodRegistryError,
)
from .resolver import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Slot
    from .registry import Registry

__all__ = ["Builder", "Flight"]


class Flight:
    """A build under way: who is at it, and how it ended."""

    __slots__ = (
        "asked_for",
        "began",
        "built",
        "done",
        "elsewhere",
        "epoch",
        "error",
        "gate",
        "instance",
        "interrupted",
        "opened",
        "outer",
        "owner",
        "renews",
        "sizing",
        "slot",
        "started",
        "token",
    )

    def __init__(self, slot: Slot, token: int, owner: int, outer: Flight | None) -> None:
        self.slot = slot
        self.token = token  # of the slot, at the beginning: changed by a clear
        self.owner = owner
        self.outer = outer  # the build in whose course this one was asked for
        self.instance: Any = None
        self.epoch = -1  # of the slot, where it was cached
        self.error: MethodRegistryError | None = None
        self.began = perf_counter()
        self.started: float | None = None  # by the stopwatch; None before anything is built
        self.built = 0.0  # seconds, of a build that succeeded
        self.renews: int | None = None  # the epoch of what it is to replace, if anything
        self.sizing: Any = None  # what the memory manager noted at the beginning
        # What was asked for in its course and was not warm, and the seconds that this took.
        self.asked_for: dict[str, None] = {}
        self.elsewhere = 0.0
        self.opened = False  # whether it came from a snapshot
        self.interrupted = False
        self.done = False
        self.gate = allocate_lock()
        self.gate.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait until it has landed, at most for some seconds if not negative; whether it has."""
        landed = self.gate.acquire(timeout=seconds)
        if landed:
            self.gate.release()  # each who comes through opens the gate for the next
        return landed


class _Failure:
    """A failed build that is remembered, and until when."""

    __slots__ = ("error", "until")

    def __init__(self, error: MethodRegistryError, until: float) -> None:
        self.error = error
        self.until = until


class Builder:
    """
    Builds instances: single-flight, with cycles found and failures remembered.

    Args:
        retry_after_seconds: How long a failure comes back at once; 0 tries each time, `inf` never
            tries again.
        timeout_seconds: How long a thread waits for another's build, by the system's clock; 0: as
            long as it takes.
        timer: Gives the seconds that builds are timed by and failures expire by; None takes the
            system's clocks.

    It is given its registry at each call and does not keep it: the two would be a cycle, and leave
    a dropped registry, with all its instances, to the collector.
    """

    def __init__(
        self,
        *,
        retry_after_seconds: float,
        timeout_seconds: float = 0.0,
        timer: Callable[[], float] | None = None,
    ) -> None:
        self._retry_after = retry_after_seconds
        # What a lock can wait at most, where that is less.
        self._timeout = min(timeout_seconds, TIMEOUT_MAX) if timeout_seconds > 0.0 else -1
        self._now = monotonic if timer is None else timer
        self._stopwatch = perf_counter if timer is None else timer
        self._flights: dict[str, Flight] = {}
        self._innermost: dict[int, Flight] = {}
        self._waiting: dict[int, Flight] = {}
        self._failures: dict[str, _Failure] = {}

    def _reset_after_fork(self) -> None:
        # Of the threads only this one is left; what it is building it goes on building.
        me = get_ident()
        self._flights = {n: flight for n, flight in self._flights.items() if flight.owner == me}
        self._innermost = {me: self._innermost[me]} if me in self._innermost else {}
        self._waiting = {}

    # -- building --------------------------------------------------------------------------------

    def obtain(self, registry: Registry, class_name: str) -> tuple[Any, Slot | None, int]:
        """
        Give the instance of a class: built here, by another thread meanwhile, or just before.

        Args:
            registry: Constructs the instance, and publishes it in the slot of the name.
            class_name: A name whose look-up was counted as a miss.

        Returns:
            The instance, its slot and the epoch under which it is held there for the caller; no
            slot, if it was not cached.

        Raises:
            MethodRegistryError: The name is not registered, the registry is closed, or the build
                failed, now or within `retry_after_seconds` before.
            CycleError: This build waits for itself; the chain is named.
            BuildTimeoutError: Another thread's build took too long.

        Safe under threads.
        """
        me = get_ident()
        outer = self._innermost.get(me)
        if outer is None:
            return self._obtain(registry, class_name, me)
        asked = self._stopwatch()
        try:
            return self._obtain(registry, class_name, me)
        finally:
            outer.elsewhere += max(0.0, self._stopwatch() - asked)

    def _obtain(self, registry: Registry, class_name: str, me: int) -> tuple[Any, Slot | None, int]:
        while True:
            # Anew each time round: the name may mean another slot after a wait, or nothing.
            slot = registry._slot_to_build(class_name)
            mine = Flight(slot, registry._token(slot), me, self._innermost.get(me))
            if mine.outer is not None:
                mine.outer.asked_for[slot.name] = None
            try:
                flight = self._flights.setdefault(slot.name, mine)
                if flight is mine:
                    return self._lead(mine, registry)
            finally:
                # From the very step that enters it on, whatever interrupts this thread.
                if self._flights.get(slot.name) is mine:
                    self._land(mine)
                    # Only now: who is told may ask for this very class.
                    if not mine.interrupted:
                        self._tell(mine, registry)
            self._wait_for(flight, registry, me)
            # Who came after a clear must not take what was begun before it.
            stale = flight.token != mine.token or flight.slot is not slot
            if stale or flight.interrupted or flight.renews is not None:
                continue
            if flight.error is not None:
                raise flight.error._again() from flight.error.__cause__
            if flight.epoch < 0:
                return flight.instance, None, -1
            epoch = registry._hold(slot, flight.instance)
            if epoch >= 0:
                return flight.instance, slot, epoch
            # It has left since, and may be closed: look again.
            found = registry._peek(slot)
            if found is not None:
                return found[0], slot, found[1]

    def _lead(self, flight: Flight, registry: Registry) -> tuple[Any, Slot | None, int]:
        slot = flight.slot
        self._innermost[flight.owner] = flight
        # Another build may have ended between the miss and the take-off.
        warm = registry._peek(slot)
        if warm is not None:
            flight.instance, flight.epoch = warm
            return flight.instance, slot, flight.epoch
        # Begun now: what left up to here, that other build too, does not make this one stale.
        flight.token = registry._token(slot)
        remembered = self.failure(slot.name)
        if remembered is not None:
            flight.error = remembered
            raise remembered._again() from remembered.__cause__
        outer = sys.exc_info()[1]
        flight.started = self._stopwatch()
        try:
            if registry._room is not None:
                registry._room.wait(registry, slot)
            flight.instance = self._build(flight, registry)
        except MethodRegistryError as error:
            registry._tally(FAILED_BUILDS)
            flight.error = error
            if not isinstance(error, CapacityError):  # nothing is wrong with the class
                self.remember(slot.name, error, outer=outer)
            raise
        return flight.instance, slot if flight.epoch >= 0 else None, flight.epoch

    def renew(self, registry: Registry, class_name: str) -> bool:
        """
        Build an instance anew while the old one serves, and put it into the old one's place.

        Args:
            registry: As for `obtain`.
            class_name: A name.

        Returns:
            Whether it was replaced: not if it was not warm, or left before the build ended, or is
            being built by another thread.

        Raises:
            MethodRegistryError: The build failed; the old one stays, and the failure is not
                remembered.

        Safe under threads.
        """
        me = get_ident()
        slot = registry._slot_to_build(class_name)
        mine = Flight(slot, registry._token(slot), me, self._innermost.get(me))
        mine.renews = slot.epoch
        try:
            if self._flights.setdefault(slot.name, mine) is not mine:
                return False
            self._innermost[me] = mine
            if slot.instance is None or registry._token(slot) != mine.token:
                return False
            mine.started = self._stopwatch()
            try:
                mine.instance = self._build(mine, registry)
            except MethodRegistryError as error:
                registry._tally(FAILED_BUILDS)
                mine.error = error
                raise
        finally:
            if self._flights.get(slot.name) is mine:
                self._land(mine)
                if not mine.interrupted:
                    self._tell(mine, registry)
        return mine.epoch >= 0

    def _land(self, flight: Flight) -> None:
        if flight.instance is None and flight.error is None:
            # An interrupt is this thread's own; one of those who wait takes over.
            flight.interrupted = True
        if flight.outer is None:
            self._innermost.pop(flight.owner, None)
        else:
            self._innermost[flight.owner] = flight.outer
        del self._flights[flight.slot.name]
        flight.done = True
        flight.gate.release()

    def _build(self, flight: Flight, registry: Registry) -> Any:
        slot = flight.slot
        memory = registry._memory
        if memory is not None:
            flight.sizing = memory.begins(registry, slot)
        began = self._stopwatch()
        try:
            instance = registry._make(flight)
            if instance is None:
                raise BuildError(
                    f"building {slot.name!r} ({slot.path}) gave None; expected an instance",
                    class_name=slot.name,
                    class_path=slot.path,
                )
        except MethodRegistryError as error:
            # The trouble of another class, which this one asked for, is chained; a cycle is
            # everybody's.
            if error.stage == "cycle" or error.class_name == slot.name:
                raise
            raise _raised(slot, error) from error
        except Exception as error:
            raise _raised(slot, error) from error
        finally:
            flight.built = max(0.0, self._stopwatch() - began)
            if memory is not None:
                memory.ends(registry, slot, flight.sizing)
        if flight.renews is None:
            flight.epoch = registry._publish(slot, instance, flight.token, flight.built)
        else:
            renewed = registry._exchange(slot, flight.renews, flight.token, instance, flight.built)
            if renewed < 0:  # what it was to replace has left
                registry._close_unclaimed(slot, instance)
            flight.epoch = renewed
        self._failures.pop(slot.name, None)
        return instance

    def _tell(self, flight: Flight, registry: Registry) -> None:
        """Tell of a build that has landed; what was built is held for the caller meanwhile."""
        started = flight.started
        if started is None:  # it was warm already, or its failure is remembered
            return
        slot, seconds = flight.slot, flight.built
        try:
            if flight.error is not None:
                seconds = max(0.0, self._stopwatch() - started)
            elif registry._memory is not None:
                registry._memory.built(registry, slot, flight.epoch, flight.instance, flight.sizing)
            registry._build_ended(flight, seconds)
        except BaseException:  # an interrupt in a listener: nobody will give this back
            if flight.epoch >= 0 and flight.renews is None:
                registry._unhold(slot, flight.epoch)
            raise

    def _wait_for(self, flight: Flight, registry: Registry, me: int) -> None:
        before = self._waiting.get(me)  # set where a finaliser or a signal handler came in
        self._waiting[me] = flight
        try:
            chain = self._chain(flight, me)
            if chain is not None:
                raise CycleError(chain)
            registry._tally(WAITS)
            if not flight.wait(self._timeout):
                raise BuildTimeoutError(
                    flight.slot.name,
                    flight.slot.path,
                    builder=_thread_name(flight.owner),
                    seconds=perf_counter() - flight.began,
                )
        finally:
            if before is None:
                self._waiting.pop(me, None)
            else:
                self._waiting[me] = before

    def _chain(self, flight: Flight, me: int) -> list[str] | None:
        """The names along the cycle that waiting for a flight would close, if it would."""
        wanted = [flight]
        while wanted[-1].owner != me:
            following = self._waiting.get(wanted[-1].owner)
            if following is None or following in wanted:
                return None
            wanted.append(following)
        if any(hop.done for hop in wanted):
            # One hop ended while we looked, so nobody waits along this way any more. While none
            # has ended, each owner is still where we saw it.
            return None
        chain: list[str] = []
        for hop in wanted:
            names = []
            inner = self._innermost.get(hop.owner)
            while inner is not None and inner is not hop:
                names.append(inner.slot.name)
                inner = inner.outer
            chain += [hop.slot.name, *reversed(names)]
        return [*chain, flight.slot.name]

    # -- seeing inside ---------------------------------------------------------------------------

    def under_way(self) -> list[tuple[str, int, float, int]]:
        """Give name, thread, seconds so far, and how many wait, of each build that is going on."""
        now = perf_counter()
        waiting = list(self._waiting.values())
        return [
            (name, flight.owner, max(0.0, now - flight.began), waiting.count(flight))
            for name, flight in list(self._flights.items())
        ]

    def waiting(self) -> int:
        """Give how many threads wait for a build that another thread leads."""
        return len(self._waiting)

    # -- failures --------------------------------------------------------------------------------

    def failure(self, class_name: str) -> MethodRegistryError | None:
        """Give the error of a failed build that is still remembered."""
        failure = self._failures.get(class_name)
        return failure.error if failure is not None and self._now() < failure.until else None

    def failed(self) -> list[str]:
        """Give the names whose failures are remembered, in the order in which they failed."""
        if not self._failures:
            return []
        now = self._now()
        return [name for name, failure in list(self._failures.items()) if now < failure.until]

    def failures(self) -> list[tuple[str, MethodRegistryError, float]]:
        """Give name, error, and seconds until the next try (or inf) of what is remembered."""
        now = self._now()
        return [
            (name, failure.error, failure.until - now)
            for name, failure in list(self._failures.items())
            if now < failure.until
        ]

    def remember(
        self,
        class_name: str,
        error: MethodRegistryError,
        *,
        seconds: float | None = None,
        outer: BaseException | None = None,
    ) -> None:
        """
        Let an error come back at once for a time, by default `retry_after_seconds`.

        `outer` is what was being handled when the build began.
        """
        _clear_locals(error.__cause__, outer)
        seconds = self._retry_after if seconds is None else seconds
        if seconds <= 0.0:
            return
        kept = error._again()
        self._failures[class_name] = _Failure(kept, self._now() + seconds)

    def forget(self, class_name: str | None = None) -> int:
        """Forget one failure, or all; how many were remembered."""
        if class_name is not None:
            return int(self._failures.pop(class_name, None) is not None)
        forgotten = len(self.failed())
        self._failures.clear()
        return forgotten


def _thread_name(ident: int) -> str:
    import threading

    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return f"thread {ident}"


def _raised(slot: Slot, error: Exception) -> BuildError:
    return BuildError(
        f"building {slot.name!r} ({slot.path}) raised {told(error)}",
        class_name=slot.name,
        class_path=slot.path,
    )


def _clear_locals(error: BaseException | None, outer: BaseException | None) -> None:
    """
    Let go of what the frames of a failed build hold, which may be half a model.

    The tracebacks stay readable. What was being handled when the build began, `outer`, is somebody
    else's, and so is all behind it.
    """
    seen: set[int] = set()
    while error is not None and error is not outer and id(error) not in seen:
        seen.add(id(error))
        if error.__traceback__ is not None:
            try:
                from traceback import clear_frames
            except ImportError:  # at the end of the interpreter
                return
            clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
