"""
The pure-Python core: slots, recency ring, idle TTL, counters, leases, handles and `execute`.

It is the reference for behaviour; `_core_c` is its compiled twin. `docs/ARCHITECTURE.md` has the
drawing.

Why nothing half done is ever seen
    Everything that changes a slot happens under one re-entrant lock, so other threads wait. The
    *same* thread can come back into the middle of a change by two doors: a finaliser run by the
    garbage collector, and a signal handler. CPython opens both only at a call, a backward jump, or
    (before 3.12) the creation of a container. So each change below is a straight line of stores
    without call, loop or new container, and begins by testing that it still applies; where steps
    are repeated, the loop survives a ring that changed meanwhile. A plain lock would deadlock at
    the same doors.

Why foreign code never runs under the lock
    Dropping the last reference to an instance runs its finaliser. What leaves a slot is therefore
    handed out of the locked block and dropped after it.
"""

from __future__ import annotations

from _thread import RLock
from time import monotonic
from types import BuiltinMethodType, MethodType
from weakref import ReferenceType
from weakref import ref as weak_reference

from . import _fork
from .errors import MethodNotFoundError, MethodRegistryError
from .resolver import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ExecutorCore", "Handle", "Lease", "RegistryCore", "Slot"]

EMPTY, STRONG, WEAK = 0, 1, 2
IDLE, SIZE, COLLECTED = 0, 1, 2  # values of `events.RemovalCause`; these are evictions
CLEARED, REPLACED = 3, 5
CAUSES = 6


class Slot:
    """
    The record of one class name; instances move in and out of it.

    `epoch` counts the departures, so that a lease or a build can tell whether the slot still holds
    what it held when they began.
    """

    __slots__ = (
        "build_seconds",
        "built_at",
        "epoch",
        "holds",
        "instance",
        "kind",
        "last_used",
        "name",
        "newer",
        "older",
        "path",
        "routes",
        "uses",
    )

    def __init__(self, name: str, path: str | None) -> None:
        self.name = name
        self.path = path
        self.instance: Any = None
        self.newer: Slot | None = None
        self.older: Slot | None = None
        self.last_used = 0.0
        self.built_at = 0.0
        self.build_seconds = 0.0
        self.uses = 0
        self.holds = 0
        self.epoch = 0
        self.kind = EMPTY
        self.routes: dict[str, tuple[Any, Any]] | None = None

    def __repr__(self) -> str:
        kind = ("empty", "strong", "weak")[self.kind]
        return f"<slot {self.name!r}: {kind}, {self.uses} uses, {self.holds} holds>"


class Injected:
    """A method that was given from outside, and the route that `execute` compiled for it."""

    __slots__ = ("method", "plan")

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.plan: Any = None


class RegistryCore:
    """
    The part of a registry that a hit runs through.

    Args:
        cache_ttl_seconds: Idle seconds after which an instance leaves; 0 switches it off.
        max_cache_size: How many instances are kept at most.
        enable_weakref: Keep instances by weak reference only.
        timer: Gives monotonic seconds; None takes the clock of the system.

    Single calls are safe under threads. A hit costs one dictionary probe and a few stores.
    """

    def __init__(
        self,
        *,
        cache_ttl_seconds: float = 300.0,
        max_cache_size: int = 100,
        enable_weakref: bool = False,
        timer: Callable[[], float] | None = None,
    ) -> None:
        self._ttl = cache_ttl_seconds
        self._max_size = max_cache_size
        self._weak_mode = enable_weakref
        self._timer = timer
        self._now: Callable[[], float] = monotonic if timer is None else timer
        self._slots: dict[str, Slot] = {}
        self._injected: dict[str, dict[str, Injected]] = {}
        self._generation = 0
        self._cached = 0
        self._weak = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        self._builds = 0
        self._build_seconds = 0.0
        self._removals = [0] * CAUSES
        # The ring's root: its `older` is the newest slot, its `newer` the oldest.
        self._root = root = Slot("", None)
        root.newer = root.older = root
        self._reset_after_fork()
        _fork.watch(self)

    def __del__(self) -> None:
        # The ring is a cycle, and a dropped registry's instances must not wait for the collector.
        if hasattr(self, "_lock"):
            self._clear(CLEARED)

    def _reset_after_fork(self) -> None:
        # Whoever held the lock at the fork does not exist in the child; what it guards is whole,
        # because a thread is never switched in the middle of a change (see the module's text).
        self._lock = RLock()

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
        return self._method_of(self._obtain(class_name, False)[0], class_name, method_name)

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
        class_name = check_name(class_name)
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
        Evict the instances that have been idle for longer than the TTL.

        Returns:
            How many left.

        Safe under threads; O(evicted + held), it stops at the first live instance.
        """
        ttl = self._ttl
        if ttl <= 0.0:
            return 0
        now = self._now()
        departed: list[Any] = []
        with self._lock:
            root = self._root
            slot = root.newer
            while slot is not root:
                if slot is None:  # unlinked by a finaliser that ran in this loop: begin again
                    slot = root.newer
                    continue
                newer = slot.newer
                if not slot.holds:
                    if now - slot.last_used <= ttl:
                        break
                    self._detach(slot, slot.epoch, IDLE, departed)
                slot = newer
        return len(departed) // 2

    # -- the ways of a look-up -------------------------------------------------------------------

    def _obtain(self, class_name: str, hold: bool) -> tuple[Any, Slot | None, int]:
        """The instance, and where it is held: the slot and its epoch."""
        # The time is read first: an injected timer is foreign code.
        now = self._now()
        slot = self._slots.get(class_name)
        if slot is None:
            with self._lock:
                self._misses += 1
            return self._build(class_name), None, -1
        found = self._look_up(slot, now, hold, True)
        if found is not None:
            return found[0], slot, found[1]
        instance = self._build(class_name)
        return instance, slot, self._hold(slot, instance) if hold else -1

    def _look_up(self, slot: Slot, now: float, hold: bool, count: bool) -> tuple[Any, int] | None:
        """The instance and the epoch of a warm slot; None if there is none, or none any more."""
        departed: list[Any] = []
        with self._lock:
            kind, epoch, content = slot.kind, slot.epoch, slot.instance
            if kind == STRONG:
                ttl = self._ttl
                if ttl <= 0.0 or slot.holds or now - slot.last_used <= ttl:
                    slot.last_used = now
                    if count:
                        self._hits += 1
                        slot.uses += 1
                    if hold:
                        slot.holds += 1
                    self._move_to_front(slot)
                    return content, epoch
                self._detach(slot, epoch, IDLE, departed)
            elif kind == WEAK:
                instance = content()
                if instance is not None:
                    if count:
                        self._hits += 1
                    if slot.epoch == epoch:
                        slot.last_used = now
                        slot.uses += count
                        slot.holds += hold
                    return instance, epoch
                self._detach(slot, epoch, COLLECTED, departed)
            if count:
                self._misses += 1
        return None

    def _hold(self, slot: Slot, instance: Any) -> int:
        """Hold what was just built; the epoch, or -1 if it was not kept or has left already."""
        with self._lock:
            kind, epoch, content = slot.kind, slot.epoch, slot.instance
            kept = content() if kind == WEAK else content
            if kind != EMPTY and kept is instance and slot.epoch == epoch:
                slot.holds += 1
                return epoch
        return -1

    def _release(self, slot: Slot | None, epoch: int) -> None:
        if slot is None or epoch < 0:
            return
        try:
            now = self._now()
        except BaseException:
            self._give_back(slot, epoch, slot.last_used)
            raise
        self._give_back(slot, epoch, now)

    def _give_back(self, slot: Slot, epoch: int, now: float) -> None:
        departed: list[Any] = []
        with self._lock:
            if slot.epoch == epoch:
                slot.holds -= 1
                slot.last_used = now
                if slot.kind == STRONG:
                    self._move_to_front(slot)
                    if self._cached > self._max_size:
                        self._make_room(self._max_size, departed)

    def _method_of(self, instance: Any, class_name: str, method_name: str) -> Callable[..., Any]:
        try:
            method = getattr(instance, method_name)
        except AttributeError as error:
            raise MethodNotFoundError(
                f"the instance of {class_name!r}, a {type(instance).__qualname__}, "
                f"has no method {method_name!r}",
                class_name=class_name,
                method_name=method_name,
            ) from error
        if not callable(method):
            raise MethodNotFoundError(
                f"{class_name}.{method_name} is not callable, "
                f"it is of type {type(method).__qualname__}",
                class_name=class_name,
                method_name=method_name,
            )
        return method  # type: ignore[no-any-return]

    def _find_injected(self, class_name: str, method_name: str) -> Injected | None:
        if not self._injected:
            return None
        methods = self._injected.get(class_name)
        return None if methods is None else methods.get(method_name)

    def _is_injected(self, class_name: str, method_name: str) -> bool:
        return self._find_injected(class_name, method_name) is not None

    def _drop_injected(self) -> None:
        self._injected.clear()

    def _build(self, class_name: str) -> Any:
        """A miss calls up: the registry overrides it."""
        self._refuse(class_name)

    def _refuse(self, class_name: str) -> Any:
        raise MethodRegistryError(f"no class {class_name!r}", class_name=class_name)

    # -- changes, each whole in itself -----------------------------------------------------------

    def _move_to_front(self, slot: Slot) -> None:
        root = self._root
        newest, newer, older = root.older, slot.newer, slot.older
        if newest is slot or newer is None:
            return
        newer.older = older
        older.newer = newer  # type: ignore[union-attr]
        slot.older = newest
        slot.newer = root
        newest.newer = slot  # type: ignore[union-attr]
        root.older = slot

    def _detach(self, slot: Slot, epoch: int, cause: int, departed: list[Any]) -> None:
        """
        Take the instance of this epoch out of its slot and count it, if it is still there.

        It goes to `departed`, which the caller drops after the lock.
        """
        if slot.kind == EMPTY or slot.epoch != epoch:
            return
        instance, routes = slot.instance, slot.routes
        newer, older = slot.newer, slot.older
        if newer is not None:
            newer.older = older
            older.newer = newer  # type: ignore[union-attr]
            slot.newer = slot.older = None
            self._cached -= 1
        else:
            self._weak -= 1
        slot.kind = EMPTY
        slot.instance = slot.routes = None
        slot.holds = 0
        slot.epoch = epoch + 1
        self._removals[cause] += 1
        if cause <= COLLECTED:
            self._evictions += 1
        departed.append(instance)
        departed.append(routes)

    def _attach(
        self,
        slot: Slot,
        content: Any,
        kind: int,
        older: Slot | None,
        built_at: float,
        last_used: float,
        uses: int,
        build_seconds: float,
    ) -> None:
        """
        Put an instance into an empty slot.

        It is linked next to `older`, or as the newest; a weak reference is not linked.
        """
        if slot.kind != EMPTY:
            return
        slot.built_at = built_at
        slot.last_used = last_used
        slot.uses = uses
        slot.build_seconds = build_seconds
        slot.instance = content
        slot.kind = kind
        if kind == STRONG:
            if older is None or older.newer is None:
                older = self._root.older
            newer = older.newer  # type: ignore[union-attr]
            slot.older = older
            slot.newer = newer
            newer.older = slot  # type: ignore[union-attr]
            older.newer = slot  # type: ignore[union-attr]
            self._cached += 1
        else:
            self._weak += 1

    def _make_room(self, limit: int, departed: list[Any]) -> None:
        """Evict the least recent instances that nobody holds until `limit` are cached."""
        root = self._root
        slot = root.newer
        while self._cached > limit and slot is not root:
            if slot is None:
                slot = root.newer
                continue
            newer = slot.newer
            if not slot.holds:
                self._detach(slot, slot.epoch, SIZE, departed)
            slot = newer

    def _place(self, slot: Slot, last_used: float) -> Slot | None:
        """The neighbour on the older side that a last use at this time gives to a slot."""
        root = self._root
        older = root.older
        while older is not root:
            if older is None:
                older = root.older
            elif older is slot or older.last_used > last_used:
                older = older.older
            else:
                break
        return older

    # -- what the registry calls -----------------------------------------------------------------

    @property
    def _tick(self) -> float:
        """Seconds by which the clock may lag; 0.0 where it is precise or injected."""
        return 0.0

    def _add_slot(self, class_name: str, class_path: str | None) -> Slot:
        slot = self._slots.setdefault(class_name, Slot(class_name, class_path))
        slot.path = class_path
        return slot

    def _drop_slot(self, slot: Slot, cause: int) -> None:
        self._slots.pop(slot.name, None)
        self._remove(slot, cause)

    def _token(self, slot: Slot) -> int:
        """Changes when an instance leaves the slot, or all are cleared: see `_publish`."""
        return slot.epoch + self._generation

    def _peek(self, slot: Slot) -> tuple[Any, int] | None:
        """A warm instance, used but not counted as a look-up: that was counted as a miss."""
        return self._look_up(slot, self._now(), False, False)

    def _publish(self, slot: Slot, instance: Any, token: int, build_seconds: float) -> None:
        """Cache what was built, unless the slot or the registry was cleared since `token`."""
        now = self._now()
        content, kind = instance, STRONG
        if self._weak_mode:
            try:
                content, kind = weak_reference(instance), WEAK
            except TypeError:
                kind = STRONG  # its type has no weak references: under TTL and size bound, then
        departed: list[Any] = []
        with self._lock:
            self._builds += 1
            self._build_seconds += build_seconds
            if slot.epoch + self._generation == token:
                if kind == STRONG:
                    self._make_room(self._max_size - 1, departed)
                self._attach(slot, content, kind, None, now, now, 1, build_seconds)

    def _insert(
        self, slot: Slot, instance: Any, built_at: float, last_used: float, uses: int
    ) -> None:
        """Write an instance into a slot, at the place in the ring that its last use gives it."""
        departed: list[Any] = []
        with self._lock:
            self._vacate(slot, REPLACED, departed)
            older = self._place(slot, last_used)
            self._attach(slot, instance, STRONG, older, built_at, last_used, uses, 0.0)

    def _insert_weak(self, slot: Slot, reference: ReferenceType[Any]) -> None:
        """Write a weak reference into a slot."""
        now = self._now()
        departed: list[Any] = []
        with self._lock:
            self._vacate(slot, REPLACED, departed)
            self._attach(slot, reference, WEAK, None, now, now, 1, 0.0)

    def _amend(self, slot: Slot, built_at: float, last_used: float, uses: int) -> None:
        """Rewrite the times and the count of a cached instance, and move it where they put it."""
        with self._lock:
            older = self._place(slot, last_used)
            newer, own_older = slot.newer, slot.older
            if newer is None or older is None or older.newer is None:
                return
            slot.built_at = built_at
            slot.last_used = last_used
            slot.uses = uses
            newer.older = own_older
            own_older.newer = newer  # type: ignore[union-attr]
            newer = older.newer
            slot.older = older
            slot.newer = newer
            newer.older = slot
            older.newer = slot

    def _vacate(self, slot: Slot, cause: int, departed: list[Any]) -> None:
        """Empty a slot, and let no build that is under way fill it."""
        slot.epoch += slot.kind == EMPTY
        self._detach(slot, slot.epoch, cause, departed)

    def _remove(self, slot: Slot, cause: int) -> bool:
        departed: list[Any] = []
        with self._lock:
            self._vacate(slot, cause, departed)
        return bool(departed)

    def _clear(self, cause: int) -> tuple[int, int]:
        """Take everything out; how many were kept strongly and how many weakly."""
        departed: list[Any] = []
        with self._lock:
            self._generation += 1
            root = self._root
            while (slot := root.newer) is not root and slot is not None:
                self._detach(slot, slot.epoch, cause, departed)
            strong = len(departed)
            if self._weak:
                for slot in list(self._slots.values()):
                    if slot.kind == WEAK:
                        self._detach(slot, slot.epoch, cause, departed)
        return strong // 2, (len(departed) - strong) // 2

    def _trim(self) -> None:
        departed: list[Any] = []
        with self._lock:
            self._make_room(self._max_size, departed)

    def _counters(self) -> tuple[int, int, int, int, float, tuple[int, ...]]:
        """Hits, misses, evictions, builds, build seconds, removals by cause: of one moment."""
        with self._lock:
            return (
                self._hits,
                self._misses,
                self._evictions,
                self._builds,
                self._build_seconds,
                tuple(self._removals),
            )

    def _entries(self) -> list[tuple[str, float, float, int, float, int]]:
        """Name, built at, last used, uses, build seconds, holds: of the cached, newest first."""
        entries = []
        with self._lock:
            root = self._root
            slot = root.older
            while slot is not root and slot is not None:
                entries.append(
                    (
                        slot.name,
                        slot.built_at,
                        slot.last_used,
                        slot.uses,
                        slot.build_seconds,
                        slot.holds,
                    )
                )
                slot = slot.older
        return entries

    def _weak_alive(self) -> int:
        """How many weakly kept instances are alive."""
        if not self._weak:
            return 0
        slots = list(self._slots.values())
        return sum(slot.kind == WEAK and slot.instance() is not None for slot in slots)

    def _ring(self, *, from_oldest: bool = False) -> list[str]:
        """The names along one direction of the links, for the structural check."""
        names = []
        with self._lock:
            slot = self._root.newer if from_oldest else self._root.older
            while slot is not self._root:
                names.append(slot.name)  # type: ignore[union-attr]
                slot = slot.newer if from_oldest else slot.older  # type: ignore[union-attr]
        return names


class Lease:
    """
    Holds an instance for the time of a ``with`` block; made by `RegistryCore.use`.

    It may be entered again after it was left, but not while it is held. A lease that is dropped
    without being left gives its instance back.
    """

    __slots__ = ("_class_name", "_core", "_epoch", "_held", "_instance", "_slot")

    def __init__(self, core: RegistryCore, class_name: str) -> None:
        self._core = core
        self._class_name = class_name
        self._instance: Any = None
        self._slot: Slot | None = None
        self._epoch = -1
        self._held = False

    def __enter__(self) -> Any:
        if self._held:
            raise RuntimeError(f"this lease already holds {self._class_name!r}")
        instance, self._slot, self._epoch = self._core._obtain(self._class_name, True)
        self._instance = instance
        self._held = True
        return instance

    def __exit__(self, *exception: object) -> None:
        if self._held:
            self._held = False
            self._instance = None
            self._core._release(self._slot, self._epoch)

    def __del__(self) -> None:
        self.__exit__()

    def __repr__(self) -> str:
        state = "held" if self._held else "not held"
        return f"<warmset lease of {self._class_name!r}, {state}>"


class Handle:
    """
    Calls one method of one class's instance, building it when it is not warm.

    Made by `RegistryCore.bind`. Each call looks the instance up and holds it until the method
    returns; the arguments go to the method as they are.
    """

    __slots__ = ("_core", "class_name", "method_name")

    def __init__(self, core: RegistryCore, class_name: str, method_name: str) -> None:
        self._core = core
        self.class_name = class_name
        self.method_name = method_name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        core = self._core
        injected = core._find_injected(self.class_name, self.method_name)
        if injected is not None:
            return injected.method(*args, **kwargs)
        instance, slot, epoch = core._obtain(self.class_name, True)
        try:
            return core._method_of(instance, self.class_name, self.method_name)(*args, **kwargs)
        finally:
            core._release(slot, epoch)

    def __repr__(self) -> str:
        return f"<warmset handle of {self.class_name}.{self.method_name}>"


class ExecutorCore:
    """
    The part of an executor that a call on a warm instance runs through.

    Args:
        registry: Where instances come from.
    """

    def __init__(self, registry: RegistryCore) -> None:
        self._registry = registry
        self._routes = 0
        self._refusals = 0
        self._drops_prevented = 0

    def execute(self, class_name: str = "", method_name: str = "", /, **arguments: Any) -> Any:
        """
        Call a method by name, its arguments routed by name and checked before it runs.

        Args:
            class_name: A registered name, or one that a method was injected for. The two names
                may also be given by keyword, where the method has no parameters of these names.
            method_name: The method.
            arguments: The payload, by parameter name. The instance is held while the method runs.

        Returns:
            What the method returned.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; the method did
                not run.
            AttributeError: The method cannot be had, with the cause chained. In degraded mode
                None is returned and a warning logged instead.

        Safe under threads; O(arguments) beyond the method's own cost on a hit.
        """
        if class_name == "":
            class_name = arguments.pop("class_name", "")
        if method_name == "":
            method_name = arguments.pop("method_name", "")
        if class_name == "" or method_name == "":
            raise TypeError("execute() needs a class name and a method name")
        if type(method_name) is not str:
            method_name = check_name(method_name)
        core = self._registry
        try:
            class_name = check_name(class_name)
            injected = core._find_injected(class_name, method_name)
            if injected is not None:
                instance, slot, epoch, method = None, None, -1, injected.method
            else:
                instance, slot, epoch = core._obtain(class_name, True)
        except MethodRegistryError as error:
            return self._unavailable(class_name, method_name, error)
        try:
            if injected is None:
                try:
                    method = core._method_of(instance, class_name, method_name)
                except MethodNotFoundError as error:
                    return self._unavailable(class_name, method_name, error)
                plan = self._plan_of(slot, epoch, instance, method_name, method)
            else:
                plan = injected.plan
                if plan is None:
                    plan = injected.plan = self._compile(method)
            with core._lock:
                self._routes += 1
            args, keywords = self._route(plan, class_name, method_name, arguments)
            return method(*args, **keywords)
        finally:
            core._release(slot, epoch)

    def _plan_of(
        self, slot: Slot | None, epoch: int, instance: Any, method_name: str, method: Any
    ) -> Any:
        """
        The compiled signature of a method, from the slot where it is still true.

        It is true while the same function answers to the name, so a method that is replaced on the
        class or on the instance is compiled anew. A slot drops its routes with its instance.
        """
        if type(method) is MethodType:
            token: Any = method.__func__
        elif type(method) is BuiltinMethodType and method.__self__ is instance:
            token = type(instance)
        elif slot is not None and slot.kind == STRONG:
            token = method  # of the instance, which the slot keeps alive anyhow
        else:
            return self._compile(method)
        routes = None if slot is None else slot.routes
        if routes is not None:
            known = routes.get(method_name)
            if known is not None and known[0] is token:
                return known[1]
        plan = self._compile(method)
        if slot is not None:
            routes = {} if slot.routes is None else slot.routes
            routes[method_name] = token, plan
            with self._registry._lock:
                if slot.kind != EMPTY and slot.epoch == epoch:
                    slot.routes = routes
        return plan

    def _compile(self, method: Any) -> Any:
        """The executor overrides it."""
        raise NotImplementedError

    def _route(
        self, plan: Any, class_name: str, method_name: str, arguments: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The executor overrides it."""
        raise NotImplementedError

    def _unavailable(self, class_name: str, method_name: str, error: MethodRegistryError) -> Any:
        """The executor overrides it."""
        raise error

    def _refused(self, drops: int) -> None:
        """Count a payload that was refused, and the arguments that nothing would have taken."""
        with self._registry._lock:
            self._refusals += 1
            self._drops_prevented += drops
