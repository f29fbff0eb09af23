"""
The pure-Python calls: leases, handles, and `execute`.

Each looks an instance up and holds it in one step, runs a method, and releases the hold.
"""

from __future__ import annotations

import sys

from ._entry_py import Hold
from ._generic import Generic, K, P, R, T
from ._ring_py import LOCK_FREE
from .errors import MethodRegistryError
from .resolver import method_of
from .streams import PLAIN, is_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from ._entry_py import Entry, Slot
    from .family_keys import FamilyKey

    class RegistryCore(Protocol):
        """What calls need of `_core_py.RegistryCore`, which is built on them."""

        _injected: dict[str, dict[str, Injected]]

        @property
        def injected(self) -> Mapping[str, Mapping[str, Injected]]: ...
        @property
        def lock(self) -> Any: ...
        @property
        def now(self) -> Callable[[], float]: ...
        def get_instance(self, class_name: Any) -> Any: ...
        def enter(self, class_name: str, hold: Hold) -> Any: ...
        def leave(self, hold: Hold) -> None: ...
        def name_of(self, class_name: object) -> str: ...
        @property
        def holding(self) -> dict[Hold, None]: ...
        def build(self, class_name: str, holder: Hold) -> Any: ...
        def hold_while_running(self, lease: Lease[Any], result: Any) -> Any: ...
        def _find_injected(self, class_name: str, method_name: str) -> Injected | None: ...
        def _check_owner(self, slot: Slot) -> None: ...


FREE, ENTERING, HELD = 0, 1, 2  # states of a lease


class Injected:
    """An injected method, and the route that `execute` compiled for it."""

    __slots__ = ("method", "plan")

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.plan: Any = None


class Lease(Generic[T]):
    """
    Holds an instance for the time of a ``with`` block; made by `Registry.use`.

    It may be entered again after its exit, but not while it is held. A lease that is dropped
    while it is held releases its instance.
    """

    __slots__ = ("_core", "_hold", "_state", "class_name", "instance")

    def __init__(self, core: RegistryCore, class_name: Any) -> None:
        if hasattr(self, "_state"):
            raise RuntimeError("this lease was initialised already")
        self._core = core
        self._state = FREE
        self._hold = Hold()
        self.class_name = class_name
        self.instance: Any = None

    if not TYPE_CHECKING:  # else a type checker takes any attribute for one of a lease

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"a lease has no attribute {name!r}; enter it to get the instance: "
                "with registry.use(...) as instance"
            )

    @property
    def entry(self) -> Entry | None:
        """The entry that is held; None while there is none."""
        return self._hold.entry

    def __enter__(self) -> T:
        if self._state != FREE:
            raise RuntimeError(f"this lease already holds {self.class_name!r}")
        self._state = ENTERING  # nobody else can enter it, however long a build takes
        try:
            self._hold = Hold()
            self.instance = instance = self._core.enter(self.class_name, self._hold)
            self._state = HELD
        except BaseException:
            self._leave()
            raise
        return instance  # type: ignore[no-any-return]

    def take(self, find: Callable[[Hold], Any]) -> bool:
        """Hold what a callable finds for a holder, which it returns; False if that is nothing."""
        core = self._core
        now = core.now()
        if self._state != FREE:
            raise RuntimeError(f"this lease already holds {self.class_name!r}")
        self._state = ENTERING
        try:
            self._hold = hold = Hold()
            hold.since = now
            instance = find(hold)
            if instance is None or hold.entry is None:
                self._state = FREE
                return False
            core._check_owner(hold.entry.slot)
            core.holding[hold] = None
            self.instance = instance
            self._state = HELD
        except BaseException:
            self._leave()
            raise
        return True

    def adopt(self, hold: Hold) -> Lease[Any]:
        """Take over a hold that a call has."""
        self._hold, self._state = hold, HELD
        return self

    def __exit__(self, *exception: object) -> None:
        if self._state == HELD:
            try:
                self._leave()
            except BaseException:
                self._leave()  # an interrupt at the call above
                raise

    def _leave(self) -> None:
        self._state = FREE
        self.instance = None
        self._core.leave(self._hold)

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # When the interpreter exits, a daemon thread may be frozen with the lock, and the names of
        # this module may be gone.
        hold = getattr(self, "_hold", None)  # none after an interrupt in `__init__`
        if hold is not None and hold.entry is not None and not _is_finalizing():
            self._leave()

    def __reduce__(self) -> Any:
        raise TypeError("a lease holds an instance of this process: it cannot be pickled or copied")

    def __repr__(self) -> str:
        state = "held" if self._state == HELD else "not held"
        return f"<warmset lease of {self.class_name!r}, {state}>"


class FamilyCore(Generic[K, T]):
    """
    The part of a family that a hit runs through.

    Args:
        registry: The registry.
        keys: Those keys that are str -> what their instances are found by.
    """

    def __init__(self, registry: RegistryCore, keys: dict[str, FamilyKey]) -> None:
        self._core = registry
        self._keys = keys

    def get(self, key: K) -> T:
        """
        Return the instance of a key, building it if it is not warm.

        Args:
            key: A str, an int, or a tuple of them.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            TypeError: The key is of another type.
            MethodRegistryError: As `Registry.get_instance`.

        Thread-safe; O(1) on a hit.
        """
        known = self._keys.get(key) if type(key) is str else None  # type: ignore[call-overload]
        name: Any = self.key(key) if known is None else known
        return self._core.get_instance(name)  # type: ignore[no-any-return]

    if TYPE_CHECKING:

        def key(self, key: K) -> FamilyKey:
            """Return what the instance of a key is found by."""


class Handle(Generic[P, R]):
    """
    Calls one method of one class's instance, building it when it is not warm.

    Made by `Registry.bind`. Each call looks the instance up and holds it until the method
    returns, or until the generator or coroutine that it returned has ended; the arguments go to the
    method as they are. A handle is pickled by its names, with its registry.
    """

    __slots__ = ("_core", "class_name", "method_name")

    def __init__(self, core: RegistryCore, class_name: Any, method_name: str) -> None:
        self._core = core
        self.class_name = class_name
        self.method_name = method_name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        core = self._core
        if core._injected:
            injected = core._find_injected(self.class_name, self.method_name)
            if injected is not None:
                return injected.method(*args, **kwargs)  # type: ignore[no-any-return]
        hold = Hold()
        method: Any = None
        result: Any
        try:
            instance = core.enter(self.class_name, hold)
            method = method_of(instance, self.class_name, self.method_name)
            result = method(*args, **kwargs)
            if type(result) not in PLAIN and is_running(result):
                lease = Lease(core, self.class_name).adopt(hold)
                hold = Hold()
                return core.hold_while_running(lease, result)  # type: ignore[no-any-return]
            return result  # type: ignore[no-any-return]
        finally:
            method = instance = None  # at the last release, other references to it are counted
            try:
                core.leave(hold)
            except BaseException:
                core.leave(hold)  # an interrupt at the call above
                raise

    def __reduce__(self) -> Any:
        from operator import methodcaller

        return methodcaller("bind", self.class_name, self.method_name), (self._core,)

    def __repr__(self) -> str:
        return f"<warmset handle of {self.class_name}.{self.method_name}>"


class Route:
    """A compiled plan, and the function that it was compiled from."""

    __slots__ = ("plan", "token")

    def __init__(self, token: Any, plan: Any) -> None:
        self.token = token
        self.plan = plan


class ExecutorCore:
    """
    The part of an executor that a call on a warm instance runs through.

    Args:
        registry: The registry that provides the instances.
    """

    def __init__(self, registry: RegistryCore) -> None:
        if "_registry" in self.__dict__:
            raise RuntimeError("this executor was initialised already")
        self._registry = registry
        self._routes = 0
        self._refusals = 0
        self._drops_prevented = 0

    def execute(
        self,
        class_name: str | type | FamilyKey = "",
        method_name: str = "",
        /,
        **arguments: Any,
    ) -> Any:
        """
        Call a method by name, its arguments routed by name and checked before it runs.

        Args:
            class_name: A registered name, or one that a method was injected for. The two names
                may also be given by keyword, where the method has no parameters of these names.
            method_name: The method.
            arguments: The payload, by parameter name. The instance is held while the method runs.

        Returns:
            What the method returned. If that is a generator or a coroutine, the instance is held
            until it has ended.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; the method did
                not run.
            AttributeError: The method is not available; the cause is chained. In degraded mode
                None is returned and a warning is logged instead.

        Safe under threads; O(arguments) beyond the method's own cost on a hit.
        """
        if (
            type(class_name) is not str
            or type(method_name) is not str
            or not class_name
            or not method_name
        ):
            return self._execute_named(class_name, method_name, **arguments)
        core = self._registry
        if core._injected and core._find_injected(class_name, method_name) is not None:
            return self._execute_injected(class_name, method_name, **arguments)
        hold = Hold()
        instance: Any = None
        method: Any = None
        try:
            try:
                instance = core.enter(class_name, hold)
                method = method_of(instance, class_name, method_name)
            except MethodRegistryError as error:
                return self.unavailable(class_name, method_name, error)
            plan = self._plan_of(hold.entry, instance, method_name, method)
            self._count_route()
            args, keywords = self._route(plan, method, class_name, method_name, arguments)
            result = method(*args, **keywords)
            if type(result) not in PLAIN and hold.entry is not None and is_running(result):
                lease = Lease(core, class_name).adopt(hold)
                hold = Hold()
                return core.hold_while_running(lease, result)
            return result
        finally:
            instance = method = None  # at the last release, other references to it are counted
            try:
                core.leave(hold)
            except BaseException:
                core.leave(hold)  # an interrupt at the call above
                raise

    if TYPE_CHECKING:  # what the executor defines

        def _execute_named(self, /, *names: Any, **payload: Any) -> Any:
            """Execute a call whose names are not two exact str, or are in the payload."""

        def _execute_injected(self, class_name: str, method_name: str, /, **payload: Any) -> Any:
            """Execute an injected method."""

        def _plan_of(self, entry: Entry | None, instance: Any, name: str, method: Any) -> Any:
            """Return the compiled signature of a method."""

        def _route(
            self,
            plan: Any,
            method: Any,
            class_name: str,
            method_name: str,
            arguments: dict[str, Any],
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            """Return positional and keyword arguments for a payload."""

        def unavailable(self, class_name: str, method_name: str, error: MethodRegistryError) -> Any:
            """Answer a call whose method is not available."""

    def _count_route(self) -> None:
        """Count a routed payload."""
        if LOCK_FREE:
            self._routes += 1
            return
        with self._registry.lock:
            self._routes += 1

    def _known_route(self, entry: Entry, method_name: str) -> Route | None:
        """Return the route that an entry has for a method, or None."""
        routes = entry.routes
        return None if routes is None else routes.get(method_name)

    def _keep_route(self, entry: Entry, method_name: str, token: Any, plan: Any) -> None:
        """Keep a compiled plan in an entry, as long as the name finds what it was compiled from."""
        route = Route(token, plan)
        fresh: dict[str, Route] = {}
        with self._registry.lock:
            routes = fresh if entry.routes is None else entry.routes
            _known = routes.get(method_name)  # kept until the lock is released
            if entry.content is not None:
                entry.routes = routes
                routes[method_name] = route

    def _count_refusal(self, drops: int) -> None:
        """Count a refused payload, and the arguments in it that the method does not take."""
        with self._registry.lock:
            self._refusals += 1
            self._drops_prevented += drops
