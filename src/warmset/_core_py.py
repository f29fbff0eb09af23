"""
The pure-Python core: look-ups, with idle TTL, maximum age, holds and counters.

With `_entry_py`, `_ring_py`, `_changes_py` and `_calls_py` it is the reference for behaviour;
`_core_c` is the compiled twin of the five. `docs/ARCHITECTURE.md` has the drawing. `_ring_py` tells
why no half-made change is ever visible; the same rules hold here.
"""

from __future__ import annotations

from math import ldexp
from time import monotonic
from types import MappingProxyType

from ._calls_py import ExecutorCore, FamilyCore, Handle, Injected, Lease
from ._entry_py import Entry, Hold, Slot
from ._holds_py import Holds
from ._plain_py import BuildRecord, PlainBuilds
from ._ring_py import LOCK_FREE
from .codes import CAUSES, COLLECTED, COUNTERS, NO_LIMIT, STATES
from .resolver import check_method_name, check_name, method_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._entry_py import Holder
    from .family_keys import FamilyKey

__all__ = [
    "BuildRecord",
    "Entry",
    "ExecutorCore",
    "FamilyCore",
    "Handle",
    "Injected",
    "Lease",
    "PlainBuilds",
    "RegistryCore",
    "Slot",
]


class RegistryCore(Holds):
    """
    The part of a registry that a hit runs through, and the operations that change its cache.

    Args:
        cache_ttl_seconds: Idle seconds after which an instance is evicted; 0 disables it.
        max_age_seconds: Seconds since its build after which an instance is evicted; 0 disables it.
        max_cache_size: How many instances are cached at most.
        enable_weakref: Keep instances by weak reference only.
        timer: Returns monotonic seconds; None takes the clock of the system.

    Single calls are thread-safe. A hit costs one probe for its slot and a few stores.
    """

    def __init__(
        self,
        *,
        cache_ttl_seconds: float = 300.0,
        max_age_seconds: float = 0.0,
        max_cache_size: int = 100,
        enable_weakref: bool = False,
        timer: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self._idle_limit = cache_ttl_seconds if cache_ttl_seconds > 0.0 else NO_LIMIT
        self._age_limit = max_age_seconds if max_age_seconds > 0.0 else NO_LIMIT
        self._one_limit = self._age_limit == NO_LIMIT
        self.max_size = max_cache_size
        self.weak_mode = enable_weakref
        # An exact float: arithmetic with anything else could run Python code amid a hit.
        self.now = monotonic if timer is None else lambda: ldexp(timer(), 0)
        self.tick = 0.0  # seconds by which the clock may lag
        self._injected: dict[str, dict[str, Injected]] = {}
        self.injected = MappingProxyType(self._injected)  # a read-only view
        self.validates = False  # whether an entry may be due to be validated
        self.by_policy = False  # whether an extension chooses victims, and not the ring
        self.misses = 0
        self.failed: dict[Any, Any] = {}  # the failures that are remembered, by the keys of slots
        self.plain_builds: PlainBuilds | None = None  # None: a capability takes part in builds

    @property
    def hits(self) -> int:
        """Look-ups that found a live instance."""
        # Every use has a stamp, and most are hits: so a hit counts only its stamp.
        return self._stamp - self._other_uses

    @hits.setter
    def hits(self, count: int) -> None:
        self._other_uses = self._stamp - count

    # -- look-up ---------------------------------------------------------------------------------

    def get_instance(self, class_name: str) -> Any:
        """
        Return the instance of a class, building it if it is not warm.

        Args:
            class_name: A registered name.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            MethodRegistryError: The subclass tells the stage: unknown name, path, import,
                attribute, class, build, cycle, closed.

        Thread-safe; O(1) on a hit. A miss runs the import and the constructor, and waits if
        another thread is building the same class.
        """
        if type(class_name) is not str:
            class_name = self.name_of(class_name)
        now = self.now()  # first: an injected timer is foreign code
        try:
            slot: Slot | None = self._slots[class_name]
        except KeyError:
            slot = None
        if slot is not None and LOCK_FREE:
            entry = slot.entry
            if entry is not None:  # noqa: SIM102  (a test that holds must not jump)
                if now - entry.last_used <= slot.idle_limit and now <= entry.deadline:
                    entry.last_used = now
                    entry.uses += 1
                    entry.shared = True
                    entry.touched = True
                    self._stamp = entry.stamp = self._stamp + 1
                    return entry.content
        return self._look_up_or_build(class_name, slot, now, None)

    def get_method(self, class_name: str, method_name: str) -> Callable[..., Any]:
        """
        Return a bound method of a class's instance, or the callable injected under the two names.

        Args:
            class_name: A registered name, or one that a method was injected for.
            method_name: The attribute of the instance.

        Returns:
            The callable. It keeps its instance alive, but holds no lease on it.

        Raises:
            MethodNotFoundError: The instance has no such callable.
            MethodRegistryError: As `get_instance`.

        Thread-safe; O(1) on a hit.
        """
        if type(class_name) is not str:
            class_name = self.name_of(class_name)
        if type(method_name) is not str:
            method_name = check_method_name(method_name)
        if self._injected:
            injected = self._find_injected(class_name, method_name)
            if injected is not None:
                return injected.method
        return method_of(self.get_instance(class_name), class_name, method_name)

    def has_method(self, class_name: str | type | FamilyKey, method_name: str) -> bool:
        """
        Tell whether a method can be expected, without building or importing anything.

        Args:
            class_name: A name, or a class that is registered itself.
            method_name: A method name.

        Returns:
            True for an injected method. False for a name that is unknown or whose build failed.
            For a warm instance, whether it has such a callable. For any other, what the class says
            if its module is imported already and no rule may build something else; else True, also
            for a property, which is not run.
            An attribute that only the constructor sets is known once the instance is warm.

        Thread-safe; O(1).
        """
        return self.expects_method(class_name, method_name)

    def use(self, class_name: str) -> Lease[Any]:
        """
        Look up and hold an instance for the time of a ``with`` block.

        Args:
            class_name: A registered name.

        Returns:
            A context manager that returns the instance. While it is held, the instance is not
            evicted, and its idle clock is stopped; the clock starts again at release.

        Raises:
            MethodRegistryError: On entry, as `get_instance`.

        Thread-safe; O(1) on a hit.
        """
        return Lease(self, self.name_of(class_name))

    def inject(self, class_name: str, method_name: str, method: Callable[..., Any]) -> None:
        """Let a method be found under two names before anything else."""
        injected = Injected(method)
        with self.lock:
            self._injected.setdefault(class_name, {})[method_name] = injected

    def _find_injected(self, class_name: str, method_name: str) -> Injected | None:
        methods = self._injected.get(class_name)
        return None if methods is None else methods.get(method_name)

    def show_classes(self, slots: list[Slot]) -> None:
        """Let these slots be found by the classes that are their targets; a hint for look-ups."""

    def drop_injected(self) -> None:
        """Forget all injected methods."""
        with self.lock:
            self._injected.clear()

    if TYPE_CHECKING:  # what the registry defines; it is called while no lock is held

        def expects_method(self, class_name: Any, method_name: str) -> bool:
            """Do what `has_method` does, also where the instance is not warm."""

        def name_of(self, class_name: object) -> str:
            """Return the name of a class that is registered itself, or check that it is a name."""

        def build(self, class_name: str, holder: Holder) -> Any:
            """Build after a miss; return the instance. The holder has a hold on its entry then."""

        def check_due(self, slot: Slot, now: float) -> None:
            """Validate what a slot has, if that is due."""

        def handle_removed(self, entries: list[Entry]) -> None:
            """Report removed entries, and close those that are not held."""

        def hold_while_running(self, lease: Lease[Any], result: Any) -> Any:
            """Keep a lease until the generator or coroutine that a method returned has ended."""

    # -- the paths of a look-up ------------------------------------------------------------------

    def enter(self, class_name: str, hold: Hold) -> Any:
        """
        Look an instance up, building it if need be, and hold it.

        Args:
            class_name: An exact str.
            hold: Is filled in the same step that takes the hold on the entry.

        Returns:
            The instance.
        """
        now = self.now()
        slot = self._slots.get(class_name)
        if slot is not None and LOCK_FREE:
            entry = slot.entry
            if entry is not None:  # noqa: SIM102  (a test that holds must not jump)
                if now - entry.last_used <= slot.idle_limit and now <= entry.deadline:
                    entry.last_used = now
                    entry.uses += 1
                    entry.holds += 1
                    entry.touched = True
                    self._stamp = entry.stamp = self._stamp + 1
                    hold.entry = entry
                    hold.since = now
                    self.holding[hold] = None
                    return entry.content
        return self._look_up_or_build(class_name, slot, now, hold)

    def _look_up_or_build(
        self, class_name: str, slot: Slot | None, now: float, hold: Hold | None
    ) -> Any:
        found = self._look_up(class_name, slot, now, hold)
        if found is not None:
            return found[0]
        # It has the hold before the build returns: an interrupt can arrive after a return.
        built = Hold() if hold is None else hold
        built.since = now
        try:
            instance = None
            if self.plain_builds is not None:
                instance = self.plain_builds.build(self, class_name, built)
            if instance is None:
                instance = self.build(class_name, built)
            if hold is not None:
                self.holding[hold] = None
            else:
                self.give_back(built, None, share=True)
        except BaseException:
            instance = None
            self.give_back(built, None)
            raise
        return instance

    def look_up(self, class_name: str, holder: Hold) -> Any:
        """Look up, for a holder; return the instance, or None after counting a miss."""
        found = self._look_up(class_name, self._slots.get(class_name), self.now(), holder)
        return None if found is None else found[0]

    def _look_up(
        self, class_name: str, slot: Slot | None, now: float, hold: Hold | None
    ) -> tuple[Any, Entry] | None:
        """Find what is warm; an entry that is stale, or was collected, is removed."""
        try:
            return self._find(class_name, slot, now, hold)
        except BaseException:
            self.left_over = True
            raise

    def _find(
        self, class_name: str, slot: Slot | None, now: float, hold: Hold | None
    ) -> tuple[Any, Entry] | None:
        if slot is not None:
            self._check_owner(slot)
        elif type(class_name) is str:
            check_name(class_name)
        if self.validates and slot is not None:
            self.check_due(slot, now)
        removed: list[Entry] = []
        instance = found = None
        while True:
            with self.lock:
                entry = None if slot is None else slot.entry
                if entry is None:
                    self.misses += 1
                    break
                instance = entry.content
                if entry.weak:
                    instance = instance()
                    if instance is None:
                        self._detach(entry, COLLECTED, removed)
                        continue
                elif self._expire(entry, now, removed):
                    continue
                holding = hold is not None
                target = hold if holding else Hold()
                if entry.slot.entry is entry:
                    entry.last_used = now
                    entry.uses += 1
                    entry.touched = True
                    self._stamp = entry.stamp = self._stamp + 1
                    entry.shared |= not holding
                    entry.holds += holding
                    target.since = now  # type: ignore[union-attr]
                    target.entry = entry  # type: ignore[union-attr]
                    if holding:  # it holds where there is more to do
                        self.holding[target] = None  # type: ignore[index]
                    found = instance, entry
                    break
        if removed:
            instance = entry = None  # other references to what was removed are counted
            self.handle_removed(removed)
        return found

    # -- what is seen of it ----------------------------------------------------------------------

    def counters(
        self,
    ) -> tuple[int, int, int, int, int, float, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """
        Return the counters, of one moment.

        Returns:
            Hits, misses, evictions, builds, adopted, build seconds, removals by cause, entries by
            state, and the counters that `codes` names.
        """
        whole = slice(None)
        removals, states, counts = [0] * CAUSES, [0] * STATES, [0] * COUNTERS
        with self.lock:
            # Without a call and a new container in between.
            removals[whole] = self._removals
            states[whole] = self._states
            counts[whole] = self._counts
            stamp, others, misses = self._stamp, self._other_uses, self.misses
            builds, adopted, evictions = self.builds, self.adopted, self.evictions
            seconds = self.build_seconds
        return (
            stamp - others,
            misses,
            evictions,
            builds,
            adopted,
            seconds,
            tuple(removals),
            tuple(states),
            tuple(counts),
        )
