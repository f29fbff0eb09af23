"""
The registry: a cache, the registrations and the builder, to which capabilities attach.

It names no capability: those are extensions, see `extension.py`, which `assembly.py` makes from the
settings. `api.py` has the public class.
"""

from __future__ import annotations

import sys
from _functools import partial  # type: ignore[import-not-found]
from _thread import RLock, get_ident

from . import process_end
from ._locks import call_locked
from ._logs import info_wanted
from .builder import Builder
from .cache import Cache
from .classes import Classes
from .closing import ClosedInstances, close_entry, close_left_over, close_removed
from .codes import CLEARED, SHUTDOWN
from .errors import ClosedError, UnknownClassError
from .extension import HOOKS, Extension, wrapped
from .failures import closed_before
from .family_keys import FamilyKey, advice_on_families
from .foreign import Kind, contain
from .fork_policies import apply_fork_policies
from .reports import log_removals, report_build, report_clear
from .resolver import find_ready, near_names
from .streams import hold_while_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ._core import Entry, Lease, Slot
    from .builder import Build
    from .builds import Holder
    from .settings import RegistrySettings

    _Kind = TypeVar("_Kind", bound=Extension)

__all__ = ["BaseRegistry"]

_HOOKS_OF_BUILDS = ("before_build", "build", "built", "wait_for_capacity")
_DROPPED = Kind("removals", "closing a dropped registry failed: %s", interrupts=False)


class BaseRegistry(Cache):
    """
    Builds instances by class name, at first use, and keeps a bounded set of them warm.

    Args:
        settings: The settings.
        timer: Returns monotonic seconds; None takes the system's clock.

    Every method may be called from any thread, and from constructors, rules and finalisers.
    """

    # The names of what the constructor sets. What else a registry has belongs to a subclass, or to
    # whoever set it, and travels with a copy.
    own_attributes: frozenset[str] = frozenset()
    late_attributes: frozenset[str] = frozenset()  # of a subclass in this package

    def __init__(
        self, settings: RegistrySettings, *, timer: Callable[[], float] | None = None
    ) -> None:
        if "settings" in self.__dict__:
            raise RuntimeError(f"{self!r} was initialised already")
        before = set(self.__dict__)
        if timer is not None and not callable(timer):
            raise TypeError(f"timer must be a callable that returns seconds, got {timer!r}")
        super().__init__(
            cache_ttl_seconds=settings.cache_ttl_seconds,
            max_age_seconds=settings.max_age_seconds,
            max_cache_size=settings.first_size,
            enable_weakref=settings.enable_weakref,
            timer=timer,
        )
        self.settings = settings
        self.closed = False
        self.builder = Builder(
            retry_after_seconds=settings.retry_after_seconds,
            timeout_seconds=settings.build_timeout_seconds,
            timer=timer,
        )
        self.failed = self.builder.failures.by_key
        self.classes = Classes(self.builder)
        self.families = self.classes.families
        # How an entry is closed; an asynchronous executor has it done elsewhere.
        self.close_entry: Callable[[Any, Entry], None] = close_entry
        self.extensions: tuple[Extension, ...] = ()
        self._attaching = RLock()  # re-entrant: a finaliser may attach a listener
        self._hooks: dict[str, tuple[Any, ...]] = dict.fromkeys(HOOKS, ())
        self.closed_instances = ClosedInstances()
        # While the registry is being closed by a call: the names and instances that are left open.
        self.left_at_close: list[tuple[str, Any]] | None = None
        self._ends = False  # it is closed because it is dropped, or because the process ends
        self._inherited = 0  # up to this serial number, entries are those of the parent process
        self.copying: set[int] = set()  # the threads that pickle it
        self.plain_builds = self.builder.plain_builds(
            self.classes, self.closed_instances.by_id, self.owners, self.build_hooks()
        )
        if not BaseRegistry.own_attributes:
            BaseRegistry.own_attributes = frozenset(self.__dict__) - before
        process_end.watch(self)

    # -- extensions ------------------------------------------------------------------------------

    def attach(self, extension: _Kind, *, first: bool = False) -> _Kind:
        """
        Attach a capability, of which a registry has one of each type.

        Args:
            extension: The extension; its hooks are called from now on.
            first: Whether its hooks are called before those of the others, and not after them.

        Returns:
            The extension, or the one of its type that was attached already.
        """
        return call_locked(self._attaching, self._attach, extension, first)

    def _attach(self, extension: _Kind, first: bool) -> _Kind:
        known = self.extension(type(extension))
        if known is not None:
            return known
        others = self.extensions
        extensions: tuple[Extension, ...]
        extensions = (extension, *others) if first else (*others, extension)
        self._hooks = {
            hook: tuple(
                getattr(each, hook)
                for each in extensions
                if getattr(type(each), hook) not in (None, getattr(Extension, hook))
            )
            for hook in HOOKS
        }
        self.extensions = extensions
        if any(self._hooks[hook] for hook in _HOOKS_OF_BUILDS):
            self.plain_builds = None
        return extension

    def build_hooks(self) -> dict[str, Any]:
        """Return the methods that users replace to build otherwise, by their names."""
        return {}

    def extension(self, kind: type[_Kind]) -> _Kind | None:
        """Return the attached extension of a type, if there is one."""
        for each in self.extensions:
            if isinstance(each, kind):
                return each
        return None

    # -- the path of a miss ----------------------------------------------------------------------

    def build(self, class_name: Any, holder: Holder) -> Any:
        """Build after a miss; return the instance. The holder has a hold on its entry then."""
        if self.left_over:
            self.close_left_over()
        if self.is_of_family(class_name):
            self.families[class_name.family].count_miss()
        return self.builder.obtain(self, class_name, holder)

    def is_of_family(self, key: Any) -> bool:
        """Return whether a key is that of a registered family."""
        return type(key) is FamilyKey and key.family in self.families

    def refuse_if_closed(self, action: str, class_name: Any = None) -> None:
        """Raise if the registry is closed; all that would add to one or change it calls this."""
        if self.closed:
            what = action if class_name is None else f"{action} {str(class_name)!r}"
            raise ClosedError(f"the registry is closed: cannot {what}", class_name=class_name)

    def refuse(self, class_name: str) -> Any:
        """Raise the error for a name that cannot be looked up."""
        self.refuse_if_closed("look up", class_name)
        name = str(class_name)
        advice = advice_on_families(self.families, class_name)
        raise UnknownClassError(name, near_names(name, self.class_names()), advice=advice)

    def slot_to_build(self, class_name: Any) -> Slot:
        """Return the slot of a name that may be built, or raise."""
        slot = self.slots.get(class_name)
        if not self.closed and self.is_of_family(class_name):
            slot = self.families[class_name.family].slot_for(self, class_name)
        elif self.closed or slot is None or slot.target is None:
            self.refuse(class_name)
        return slot  # type: ignore[return-value]

    def registered_slot(self, class_name: str | type | FamilyKey) -> Slot:
        """Return the slot of a name, or raise."""
        class_name = self.name_of(class_name)
        slot = self.slots.get(class_name)
        if slot is None:
            self.refuse(class_name)
        return slot  # type: ignore[return-value]

    def name_of(self, class_name: object) -> str:
        """Return the name of a class that is registered itself, or check that it is a name."""
        return self.classes.name_of(self, class_name)

    def find_warm(self, slot: Slot, holder: Holder) -> Any:
        """Return what is warm in a slot, and let the holder hold it; it is no look-up."""
        found = self.find_held(slot, holder)
        own = self.classes.slot_of_loop(slot.key) if found is None else None
        return found if own is None else self.find_held(own, holder)

    def build_key(self, slot: Slot) -> Any:
        """Return what builds that must not run at the same time have in common."""
        return self.classes.build_key(self, slot.key)

    def prepare_build(self, build: Build) -> None:
        """Do what has to precede a build."""
        for before_build in self._hooks["before_build"]:
            before_build(self, build)

    def construct_entry(self, build: Build) -> None:
        """Run the rule or the constructor; the build holds the entry."""
        make: Callable[[Slot], Any] = self._construct_open
        # Reversed: what is attached first does its part around what the others do.
        for hook in reversed(self._hooks["build"]):
            make = wrapped(hook, self, build, make)
        made = build.made
        try:
            self.construct(build.slot, make, build)
            made.clear()
            self.owners.note(build.entry)
        except BaseException:
            if build.entry is None and made:
                self.close_unused(build.slot, made.pop())
            raise

    def construct_instance(self, slot: Slot) -> Any:
        """Import and build; foreign code runs in it."""
        key = slot.key
        return self.classes.instantiate(self, key, self.resolve_class(key))

    def resolve_class(self, class_name: Any) -> Any:
        """Return the class or the factory of a name; an import is timed apart from the build."""
        slot = self.slots.get(class_name)
        target = None if slot is None else slot.target
        if not isinstance(target, str):
            return self.classes.resolve(self, class_name)
        ready = find_ready(target)
        if ready is not None:
            return ready
        build, began = self.builder.current_build(), self.builder.stopwatch()
        try:
            return self.classes.resolve(self, class_name)
        finally:
            if build is not None:
                build.import_seconds += max(0.0, self.builder.stopwatch() - began)

    def _construct_open(self, slot: Slot) -> Any:
        """Construct an instance that was not closed before."""
        made = self.construct_instance(slot)
        if self.closed_instances.by_id and made in self.closed_instances:
            raise closed_before(slot)
        return made

    def publish_build(self, build: Build) -> bool:
        """Cache what was built, if nothing was cleared meanwhile."""
        entry, old = build.entry, build.replaces
        assert entry is not None
        if old is not None:
            return self.substitute(old, entry, build.token, build.seconds)
        family = build.slot.target if self.is_of_family(build.slot.key) else None
        if family is not None:
            family.make_capacity(self, 1)
        hooks = self._hooks["wait_for_capacity"]
        wait = partial(hooks[0], self, build) if hooks else None
        token: int | None = build.token
        if build.loop is not None:
            token = self.classes.loop_slots.place(self, entry, build.loop, build.token)
        published = token is not None and self.add(entry, token, build.seconds, wait=wait)
        if family is not None:  # another build may have ended at the same moment
            family.make_capacity(self, 0, entry)
        return published

    def report_build(self, build: Build, seconds: float) -> None:
        """Report a build that succeeded or failed, and log it."""
        for built in self._hooks["built"]:
            built(self, build)
        report_build(build)

    # -- removals --------------------------------------------------------------------------------

    def remove_from(self, slot: Slot, cause: int) -> bool:
        removed = super().remove_from(slot, cause)
        for own in self.classes.loop_slots.of_name(slot.key):
            removed |= super().remove_from(own, cause)
        return removed

    def forget_slot(self, slot: Slot, cause: int) -> bool:
        for own in self.classes.loop_slots.take(slot.key):
            super().forget_slot(own, cause)
        return super().forget_slot(slot, cause)

    def handle_removed(self, entries: list[Entry]) -> None:
        """Report removed entries, and close those that are not held."""
        try:
            for removed in self._hooks["removed"]:
                removed(self, entries)
            if info_wanted("removals"):
                log_removals(entries, self.now())
        finally:
            close_removed(self, entries)
            if self.classes.left_open.kept:
                self.classes.left_open.close(self)
            if self.watched:
                self.capacity_freed()

    def close_left_over(self) -> None:
        """Close what an interrupt kept others from closing."""
        close_left_over(self)

    def close_released(self, entry: Entry) -> None:
        """Close an entry outside the cache whose last hold has ended."""
        close_removed(self, [entry])

    def close_unused(self, slot: Slot, instance: Any) -> None:
        """
        Close an instance that was built for a slot, but is neither cached nor returned.

        Args:
            slot: The slot; its options tell how it is closed.
            instance: The instance; it gets an entry of its own, and is counted as the others.
        """
        entry = self.construct(slot, lambda _: instance)
        self.owners.note(entry)
        if entry is not None:
            self.release(entry, None)

    def check_due(self, slot: Slot, now: float) -> None:
        """Check what a slot has, if that is due."""
        for due in self._hooks["due"]:
            due(self, slot, now)

    def capacity_freed(self) -> None:
        """Report that a hold was released while somebody waits for that."""
        for released in self._hooks["released"]:
            released(self)

    def make_capacity(self, spare: Entry | None = None) -> None:
        if not self.by_policy:
            super().make_capacity(spare)
            return
        for choose in self._hooks["choose_victim"]:
            while self.cached > self.max_size and choose(self, spare, self.max_size):
                pass

    def evict_by_policy(self, more_than: int) -> bool:
        return any(choose(self, None, more_than) for choose in self._hooks["choose_victim"])

    def hold_while_running(self, lease: Lease[Any], result: Any) -> Any:
        """Keep a lease until the generator or coroutine that a method returned has ended."""
        entry = lease.entry
        if entry is not None and entry.instance is result:
            self.share(entry)
            lease.__exit__()
            return result
        return hold_while_running(lease, result)

    # -- the registry as a whole -----------------------------------------------------------------

    def class_names(self) -> list[str]:
        """
        Return the registered names, in the order in which they were registered.

        Returns:
            A new list; O(names).
        """
        return self.classes.names(self)

    def clear_entries(self) -> tuple[int, int]:
        """Remove every entry; return how many were kept strongly, and how many weakly."""
        try:
            entries = self.take_all(CLEARED)
            weak = sum(entry.weak for entry in entries)
            strong = len(entries) - weak
            if entries:
                self.handle_removed(entries)
            if self.left_over:
                self.close_left_over()
        except BaseException:
            self.left_over = True
            raise
        report_clear(strong, weak)
        return strong, weak

    def sweep(self) -> int:
        """
        Do what the sweeper does at each `sweep_interval_seconds`, now and in this thread.

        Returns:
            How many instances have expired.

        Expired instances are evicted; the memory budgets are enforced; instances that are due to be
        recycled are built anew in the background. O(cached).
        """
        if self.left_over:
            self.close_left_over()
        expired = self.evict_expired()
        if self.cached > self.max_size:
            self.make_capacity()
        if self.classes.left_open.kept:
            self.classes.left_open.close(self)
        for sweep in self._hooks["sweep"]:
            sweep(self)
        return expired

    def close(self) -> None:
        """
        Remove every instance and injected method; from now on a look-up raises `ClosedError`.

        Instances are closed in the reverse order of their building. Closing twice does nothing; a
        registry that still exists when the interpreter exits is closed then.
        """
        self.closed = True
        self.seal()
        try:
            entries = self.take_all(SHUTDOWN)
            # Reported in the order in which they are closed.
            entries.sort(key=lambda entry: entry.serial, reverse=True)
            self.handle_removed(entries)
            if self.left_over:
                self.close_left_over()
        except BaseException:
            self.left_over = True
            raise
        self.drop_injected()
        for close in self._hooks["close"]:
            close(self)

    def close_own(self) -> None:
        """Close the registry, but leave what was built before a fork to the parent process."""
        if self.closed:
            return
        self._ends = True
        if self._inherited:
            self.leave_to_parent(self._inherited)
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # Closers are foreign code, which this must contain; and the names of this module may be
        # gone when the interpreter exits, where all registries were closed before.
        if not _is_finalizing() and "_inherited" in self.__dict__:
            contain(_DROPPED, self.close_own)

    def reset_after_fork(self) -> None:
        super().reset_after_fork()
        self.builder.reset_after_fork()
        self.drop_holds(get_ident())
        self._inherited = self.builds + self.adopted
        # Kept: their finalisers are foreign code, which must not run here.
        self._parents = list(self.unclosed)
        for entry in self._parents:
            self.abandon(entry)
        self._attaching = RLock()
        self.closed_instances.reset_after_fork()
        self.classes.reset_after_fork()
        for after_fork in self._hooks["after_fork"]:
            after_fork(self)

    def resume_after_fork(self) -> None:
        """Drop and build what a child is to drop or build; all else has been reset by then."""
        for slot in self.classes.loop_slots.take():  # their loops run in the parent
            if slot.entry is not None:
                self.abandon(slot.entry)
            self.drop_slot(slot)
        apply_fork_policies(self)

    # -- reports ---------------------------------------------------------------------------------

    def waiting_threads(self) -> int:
        """Return how many threads wait for another thread's build, or for capacity."""
        return self.builder.waiting() + self.watched

    def __contains__(self, class_name: object) -> bool:
        return self.classes.is_registered(self, class_name)

    def __len__(self) -> int:
        return self.registered

    def __bool__(self) -> bool:
        return True  # an empty registry is a registry: `registry or default` must not drop it

    def __repr__(self) -> str:
        state = "closed"
        if not self.closed:
            state = f"{self.cached} of at most {self.max_size} instances warm"
        return f"<{type(self).__name__}: {self.registered} classes, {state}>"
