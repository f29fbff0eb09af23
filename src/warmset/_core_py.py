"""
The pure-Python core: look-ups, with idle TTL, size bound and counters, over slots and ring.

With `_slots_py`, `_ring_py`, `_changes_py` and `_calls_py` it is the reference for behaviour;
`_core_c` is the compiled twin of the five. `docs/ARCHITECTURE.md` has the drawing.
"""

from __future__ import annotations

from _thread import get_ident
from time import monotonic

from ._calls_py import ExecutorCore, Handle, Injected, Lease, method_of
from ._changes_py import Changes
from ._slots_py import (
    AGED,
    COLLECTED,
    EMPTY,
    IDLE,
    NO_LIMIT,
    WEAK,
    Departure,
    Slot,
)
from .errors import MethodRegistryError
from .resolver import check_name

TALLIES = 6  # names in `_tallies`

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ExecutorCore", "Handle", "Lease", "RegistryCore", "Slot"]


class RegistryCore(Changes):
    """
    The part of a registry that a hit runs through.

    Args:
        cache_ttl_seconds: Idle seconds after which an instance leaves; 0 switches it off.
        max_age_seconds: Seconds since its build after which an instance leaves; 0 switches it off.
        max_cache_size: How many instances are kept at most.
        enable_weakref: Keep instances by weak reference only.
        revive: Whether a held instance that was removed is handed out again, and kept, when its
            name is asked for before its last release; else another one is built.
        timer: Gives monotonic seconds; None takes the clock of the system.

    Single calls are safe under threads. A hit costs one probe for its slot and a few stores.
    """

    def __init__(
        self,
        *,
        cache_ttl_seconds: float = 300.0,
        max_age_seconds: float = 0.0,
        max_cache_size: int = 100,
        enable_weakref: bool = False,
        revive: bool = True,
        timer: Callable[[], float] | None = None,
    ) -> None:
        # Of classes that have no limits of their own.
        self._idle_limit = cache_ttl_seconds if cache_ttl_seconds > 0.0 else NO_LIMIT
        self._age_limit = max_age_seconds if max_age_seconds > 0.0 else NO_LIMIT
        self._one_limit = self._age_limit == NO_LIMIT  # for all, and no age limit
        self._by_policy = False  # whether `_choose_room` says who leaves, and not the ring
        self._max_size = max_cache_size
        self._weak_mode = enable_weakref
        self._revives = revive
        self._timer = timer
        self._now: Callable[[], float] = monotonic if timer is None else timer
        super().__init__()
        self._injected: dict[str, dict[str, Injected]] = {}
        self._hits = 0
        self._misses = 0
        self._builds = 0
        self._build_seconds = 0.0
        self._tallies = [0] * TALLIES
        self._blocked = 0  # builds that wait for room, and what passes
        self._holding: dict[object, tuple[str, int, float]] = {}

    # -- look-up ---------------------------------------------------------------------------------

    def get_instance(self, class_name: str) -> Any:
        """
        Give the instance of a class, building it if it is not warm.

        Args:
            class_name: A registered name.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            MethodRegistryError: The subclass tells the stage: unknown name, path, import,
                attribute, class, build, cycle, closed.

        Safe under threads; O(1) on a hit. A miss runs the import and the constructor, and waits if
        another thread is at it.
        """
        return self._obtain(check_name(class_name), False)[0]

    def get_method(self, class_name: str, method_name: str) -> Callable[..., Any]:
        """
        Give a bound method of a class's instance, or the callable injected under the two names.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The attribute of the instance.

        Returns:
            The callable. It keeps its instance alive, but holds no lease on it.

        Raises:
            MethodNotFoundError: The instance has no such callable.
            MethodRegistryError: As `get_instance`.

        Safe under threads; O(1) on a hit.
        """
        class_name = check_name(class_name)
        injected = self._find_injected(class_name, method_name)
        if injected is not None:
            return injected.method
        return method_of(self._obtain(class_name, False)[0], class_name, method_name)

    def use(self, class_name: str) -> Lease:
        """
        Look up and hold an instance for the time of a ``with`` block.

        Args:
            class_name: A registered name.

        Returns:
            A context manager that gives the instance. While it is held, the instance is not
            evicted, and its idle clock stands still; the clock starts again at release.

        Raises:
            MethodRegistryError: On entry, as `get_instance`.

        Safe under threads; O(1) on a hit.
        """
        return Lease(self, check_name(class_name))

    def bind(self, class_name: str, method_name: str) -> Handle:
        """
        Give a handle: a callable that outlives evictions, and holds the instance while it runs.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The method that each call runs.

        Returns:
            The handle. Nothing is built until it is called.

        Raises:
            UnknownClassError: The name is not registered, and no such method was injected.

        Safe under threads; O(1).
        """
        class_name, method_name = check_name(class_name), check_name(method_name)
        if class_name not in self._slots and self._find_injected(class_name, method_name) is None:
            self._refuse(class_name)
        return Handle(self, class_name, method_name)

    def inject_method(self, class_name: str, method_name: str, method: Callable[..., Any]) -> None:
        """
        Give a method from outside; it wins over the class's own, and needs no class behind it.

        Args:
            class_name: Any name, registered or not.
            method_name: The name to find it by.
            method: The callable.

        Raises:
            TypeError: A name is not a string, or the method is not callable.

        Safe under threads; O(1).
        """
        class_name, method_name = check_name(class_name), check_name(method_name)
        if not callable(method):
            raise TypeError(
                f"method injected as {class_name}.{method_name} must be callable, got {method!r}"
            )
        injected = Injected(method)
        self._injected.setdefault(class_name, {})[method_name] = injected

    def evict_expired(self) -> int:
        """
        Evict the instances that have been idle for longer than the TTL, or are past their age.

        Returns:
            How many left.

        Safe under threads; O(evicted + held), it stops at the first live instance; O(cached) where
        there is a maximum age, or a class has limits of its own.
        """
        if self._one_limit and self._idle_limit == NO_LIMIT:
            return 0
        now = self._now()
        departed: list[Departure] = []
        with self._lock:
            root = self._root
            slot = root.newer
            while slot is not root:
                if slot is None:  # unlinked by a finaliser that ran in this loop: begin again
                    slot = root.newer
                    continue
                newer = slot.newer
                gone = self._expire(slot, now, departed)
                if self._one_limit and not (gone or slot.holds or slot.pinned):
                    break
                slot = newer
        if departed:
            self._departed(departed)
        return len(departed)

    def _expire(self, slot: Slot, now: float, departed: list[Departure]) -> bool:
        """Evict what is in a slot if it is past its age, or was idle for too long; if it was."""
        epoch = slot.epoch
        # Written so that a clock that gives NaN makes it leave.
        if not now - slot.built_at <= slot.age_limit:
            self._detach(slot, epoch, AGED, departed)
            return True
        if not now - slot.last_used <= slot.idle_limit and not slot.holds and not slot.pinned:
            self._detach(slot, epoch, IDLE, departed)
            return True
        return False

    # -- the ways of a look-up -------------------------------------------------------------------

    def _obtain(self, class_name: str, hold: bool) -> tuple[Any, Slot | None, int]:
        """The instance, and where it is held: the slot and its epoch, or no slot."""
        # The time is read first: an injected timer is foreign code.
        now = self._now()
        slot = self._slots.get(class_name)
        if slot is None:
            with self._lock:
                self._misses += 1
        else:
            found = self._look_up(slot, now, hold, True)
            if found is not None:
                return found[0], slot, found[1]
        # What a build gives is held, so that nobody closes it before it is in its caller's hands.
        instance, slot, epoch = self._build(class_name)
        if hold or slot is None:
            return instance, slot, epoch
        with self._lock:
            if slot.epoch == epoch:
                slot.shared = True
                slot.holds -= 1
                epoch = -1
        if epoch >= 0:
            self._give_back(slot, epoch, now, share=True)
        else:
            if self._cached > self._max_size:  # its closers built others while it was held
                self._trim(slot)
            if self._blocked:
                self._made_room()
        return instance, None, -1

    def _look_up(self, slot: Slot, now: float, hold: bool, count: bool) -> tuple[Any, int] | None:
        """The instance and the epoch of a warm slot; None if there is none, or none any more."""
        departed: list[Departure] = []
        with self._lock:
            if slot.leaving and self._revives:
                self._revive(slot, now)
            while True:
                kind, epoch, content = slot.kind, slot.epoch, slot.instance
                if kind == EMPTY:
                    break
                if kind == WEAK:
                    instance = content()
                    if instance is None:
                        self._detach(slot, epoch, COLLECTED, departed)
                        continue
                else:
                    instance = content
                    fresh = now - slot.last_used <= slot.idle_limit
                    fresh &= now - slot.built_at <= slot.age_limit
                    if not fresh and self._expire(slot, now, departed):
                        continue
                if slot.epoch == epoch and slot.kind == kind:
                    slot.last_used = now
                    slot.uses += count
                    slot.holds += hold
                    slot.shared |= not hold
                    self._hits += count
                    # As `_move_to_front`, which cannot be called: at the end of the stack the call
                    # would fail, and nobody would give back what is held by now.
                    root = self._root
                    newest, newer, older = root.older, slot.newer, slot.older
                    if newest is not slot and newer is not None:
                        newer.older = older
                        older.newer = newer  # type: ignore[union-attr]
                        slot.older = newest
                        slot.newer = root
                        newest.newer = slot  # type: ignore[union-attr]
                        root.older = slot
                    return instance, epoch
            self._misses += count
        if departed:
            instance = content = None  # who else refers to what left is counted
            self._departed(departed)
        return None

    def _hold(self, slot: Slot, instance: Any) -> int:
        """Hold what another thread has built; its epoch, or -1 if it has left already."""
        with self._lock:
            kind, epoch, content = slot.kind, slot.epoch, slot.instance
            kept = content() if kind == WEAK else content
            if kind != EMPTY and kept is instance and slot.epoch == epoch:
                slot.holds += 1
                return epoch
        return -1

    def _enter(self, slot: Slot | None) -> object:
        """Note who holds from now on; what is given goes to `_release`."""
        hold = object()
        if slot is not None:
            self._holding[hold] = slot.name, get_ident(), slot.last_used
        return hold

    def _release(self, slot: Slot | None, epoch: int, hold: object = None) -> None:
        if slot is None:
            return
        self._holding.pop(hold, None)
        try:
            now = self._now()
        except BaseException:
            self._give_back(slot, epoch, slot.last_used)
            raise
        self._give_back(slot, epoch, now)

    def _give_back(self, slot: Slot, epoch: int, now: float, *, share: bool = False) -> None:
        departed: list[Departure] = []
        with self._lock:
            place: Slot | Departure | None = slot
            # Here, and not by a call, for what could be held at the end of the stack can be given
            # back there: this is as deep as the look-up was.
            if slot.epoch == epoch:
                slot.holds -= 1
                slot.shared |= share
            else:
                place = self._account(slot, epoch, -1, share)
            if place is slot:
                if slot.epoch == epoch:
                    slot.last_used = now
                    self._move_to_front(slot)
                if self._cached > self._max_size and not self._by_policy:
                    self._make_room(self._max_size, departed)
        try:
            if departed:
                self._departed(departed)
            elif place is slot and self._by_policy and self._cached > self._max_size:
                self._trim()
        finally:
            if isinstance(place, Departure):
                self._let_go(place)
            if self._blocked:
                self._made_room()

    def _find_injected(self, class_name: str, method_name: str) -> Injected | None:
        if not self._injected:
            return None
        methods = self._injected.get(class_name)
        return None if methods is None else methods.get(method_name)

    def _is_injected(self, class_name: str, method_name: str) -> bool:
        return self._find_injected(class_name, method_name) is not None

    def _drop_injected(self) -> None:
        self._injected.clear()

    def _build(self, class_name: str) -> tuple[Any, Slot | None, int]:
        """A miss calls up: the registry overrides it, and gives what it built as held."""
        return self._refuse(class_name), None, -1

    def _prolong(self, lease: Lease, running: Any) -> Any:
        """A method returned what goes on running; the registry overrides it."""
        lease.__exit__()
        return running

    def _refuse(self, class_name: str) -> Any:
        raise MethodRegistryError(f"no class {class_name!r}", class_name=class_name)

    # -- what the registry calls -----------------------------------------------------------------

    @property
    def _tick(self) -> float:
        """Seconds by which the clock may lag; 0.0 where it is precise or injected."""
        return 0.0

    def _peek(self, slot: Slot) -> tuple[Any, int] | None:
        """A warm instance, held but not counted as a look-up: that was counted as a miss."""
        return self._look_up(slot, self._now(), True, False)

    def _holders(self) -> list[tuple[str, int, float]]:
        """Class name, thread and time of each hold, oldest first."""
        return list(self._holding.values())

    def _weak_alive(self) -> int:
        """How many weakly kept instances are alive."""
        if not self._weak:
            return 0
        slots = list(self._slots.values())
        return sum(slot.kind == WEAK and slot.instance() is not None for slot in slots)

    def _block(self, count: int) -> None:
        """From now on there are so many more, or fewer, that a release has to tell of."""
        with self._lock:
            self._blocked += count

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._blocked = 0

    def _tally(self, which: int) -> None:
        """Count one more of what `_tallies` names."""
        with self._lock:
            self._tallies[which] += 1

    def _counters(
        self,
    ) -> tuple[int, int, int, int, float, tuple[int, ...], tuple[int, ...]]:
        """
        The counters, of one moment.

        Hits, misses, evictions, builds, build seconds, removals by cause, and the tallies.
        """
        with self._lock:
            return (
                self._hits,
                self._misses,
                self._evictions,
                self._builds,
                self._build_seconds,
                tuple(self._removals),
                tuple(self._tallies),
            )
