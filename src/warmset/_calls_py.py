"""
The pure-Python calls: leases, handles, and `execute`.

Each looks an instance up and holds it in one step, runs a method, and releases the hold.
"""

from __future__ import annotations

import sys
from types import BuiltinMethodType, FunctionType, MethodType

from ._entry_py import Hold
from .errors import MethodNotFoundError, MethodRegistryError
from .resolver import check_name
from .streams import PLAIN, is_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from ._entry_py import Entry, Slot

    class RegistryCore(Protocol):
        """What calls need of `_core_py.RegistryCore`, which is built on them."""

        @property
        def slots(self) -> Mapping[str, Slot]: ...
        @property
        def injected(self) -> Mapping[str, Mapping[str, Injected]]: ...
        @property
        def lock(self) -> Any: ...
        @property
        def now(self) -> Callable[[], float]: ...
        def enter(self, class_name: str, hold: Hold) -> Any: ...
        def leave(self, hold: Hold) -> None: ...
        def hold(self, entry: Entry) -> bool: ...
        def build(self, class_name: str) -> tuple[Any, Entry]: ...
        def take_over(self, entry: Entry, hold: Hold, now: float) -> None: ...
        def look_up(
            self, slot: Slot, now: float, hold: Hold | None, *, count: bool = True
        ) -> tuple[Any, Entry] | None: ...
        def count_miss(self) -> None: ...
        def find_injected(self, class_name: str, method_name: str) -> Injected | None: ...
        def hold_while_running(self, lease: Lease, result: Any) -> Any: ...


FREE, ENTERING, HELD = 0, 1, 2  # states of a lease


def method_of(instance: Any, class_name: str, method_name: str) -> Callable[..., Any]:
    """Return the method of an instance, as attribute access finds it."""
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


class Injected:
    """An injected method, and the route that `execute` compiled for it."""

    __slots__ = ("method", "plan")

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.plan: Any = None


class Lease:
    """
    Holds an instance for the time of a ``with`` block; made by `RegistryCore.use`.

    It may be entered again after its exit, but not while it is held. A lease that is dropped
    while it is held releases its instance.
    """

    __slots__ = ("_core", "_hold", "_state", "class_name", "instance")

    def __init__(self, core: RegistryCore, class_name: str) -> None:
        self._core = core
        self._state = FREE
        self._hold = Hold()
        self.class_name = class_name
        self.instance: Any = None

    @property
    def entry(self) -> Entry | None:
        """The entry that is held; None while there is none."""
        return self._hold.entry

    def __enter__(self) -> Any:
        if self._state != FREE:
            raise RuntimeError(f"this lease already holds {self.class_name!r}")
        self._state = ENTERING  # nobody else can enter it, however long a build takes
        self._hold = hold = Hold()
        try:
            self.instance = instance = self._core.enter(self.class_name, hold)
            self._state = HELD
        except BaseException:
            self._core.leave(hold)
            self._state = FREE
            raise
        return instance

    def enter_warm(self, *, count: bool = True) -> bool:
        """Hold the instance if it is warm, and tell whether it is; else, at most, count a miss."""
        core = self._core
        now = core.now()
        slot = core.slots.get(self.class_name)
        if slot is None:
            if count:
                core.count_miss()
            return False
        hold = self._hold = Hold()
        found = core.look_up(slot, now, hold, count=count)
        if found is None:
            return False
        self.instance = found[0]
        self._state = HELD
        return True

    def enter_built(self) -> None:
        """Go on after a miss: hold what this thread, or another one, builds."""
        core = self._core
        hold = self._hold = Hold()
        self.instance, entry = core.build(self.class_name)
        core.take_over(entry, hold, core.now())
        self._state = HELD

    def again(self) -> Lease:
        """Return another lease on the same instance; it is no look-up."""
        core, instance, entry = self._core, self.instance, self._hold.entry
        lease = Lease(core, self.class_name)
        if instance is not None and entry is not None and core.hold(entry):
            core.take_over(entry, lease._hold, self._hold.since)
            lease.instance = instance
            lease._state = HELD
        return lease

    def adopt(self, hold: Hold) -> Lease:
        """Take over a hold that a call has."""
        self._hold, self._state = hold, HELD
        return self

    def share(self) -> None:
        """Note that somebody else has the instance, too, without a lease."""
        entry = self._hold.entry
        if entry is not None:
            entry.shared = True

    def __exit__(self, *exception: object) -> None:
        if self._state == HELD:
            self._state = FREE
            self.instance = None
            self._core.leave(self._hold)

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # When the interpreter exits, a daemon thread may be frozen with the lock, and the names of
        # this module may be gone.
        if not _is_finalizing():
            self.__exit__()

    def __reduce__(self) -> Any:
        raise TypeError("a lease holds an instance of this process: it cannot be pickled or copied")

    def __repr__(self) -> str:
        state = "held" if self._state == HELD else "not held"
        return f"<warmset lease of {self.class_name!r}, {state}>"


class Handle:
    """
    Calls one method of one class's instance, building it when it is not warm.

    Made by `RegistryCore.bind`. Each call looks the instance up and holds it until the method
    returns, or until the generator or coroutine that it returned has ended; the arguments go to the
    method as they are. A handle is pickled by its names, with its registry.
    """

    __slots__ = ("_core", "class_name", "method_name")

    def __init__(self, core: RegistryCore, class_name: str, method_name: str) -> None:
        self._core = core
        self.class_name = class_name
        self.method_name = method_name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        core = self._core
        if core.injected:
            injected = core.find_injected(self.class_name, self.method_name)
            if injected is not None:
                return injected.method(*args, **kwargs)
        hold = Hold()
        method: Any = None
        try:
            instance = core.enter(self.class_name, hold)
            method = method_of(instance, self.class_name, self.method_name)
            result = method(*args, **kwargs)
            if type(result) not in PLAIN and is_running(result):
                lease = Lease(core, self.class_name).adopt(hold)
                hold = Hold()
                return core.hold_while_running(lease, result)
            return result
        finally:
            method = instance = None  # at the last release, other references to it are counted
            core.leave(hold)

    def __reduce__(self) -> Any:
        from operator import methodcaller

        return methodcaller("bind", self.class_name, self.method_name), (self._core,)

    def __repr__(self) -> str:
        return f"<warmset handle of {self.class_name}.{self.method_name}>"


def _state_of(method: Any) -> tuple[Any, Any, Any] | None:
    """What a reload exchanges in a function; None for what is no function."""
    function = method.__func__ if type(method) is MethodType else method
    if type(function) is not FunctionType:
        return None
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _is_current(method: Any, state: tuple[Any, Any, Any] | None) -> bool:
    now = _state_of(method)
    if now is None or state is None:
        return now is state
    return now[0] is state[0] and now[1] is state[1] and now[2] is state[2]


def _same_builtin(one: Any, other: Any) -> bool:
    """Whether two routes are those of the same method of a class written in C."""
    return type(one) is tuple and type(other) is tuple and one == other


class ExecutorCore:
    """
    The part of an executor that a call on a warm instance runs through.

    Args:
        registry: The registry that provides the instances.
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
            What the method returned. If that is a generator or a coroutine, the instance is held
            until it has ended.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; the method did
                not run.
            AttributeError: The method is not available; the cause is chained. In degraded mode
                None is returned and a warning is logged instead.

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
        hold = Hold()
        instance: Any = None
        method: Any = None
        try:
            try:
                class_name = check_name(class_name)
                injected = core.find_injected(class_name, method_name)
                if injected is not None:
                    method, plan = injected.method, self._plan_of_injected(injected)
                else:
                    instance = core.enter(class_name, hold)
            except MethodRegistryError as error:
                return self.unavailable(class_name, method_name, error)
            if injected is None:
                try:
                    method = method_of(instance, class_name, method_name)
                except MethodNotFoundError as error:
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
            core.leave(hold)

    def prepare(
        self, source: Lease | Injected, class_name: str, method_name: str, payload: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Do what `execute` does up to the call: find the method, and route its arguments."""
        if isinstance(source, Injected):
            method, plan = source.method, self._plan_of_injected(source)
        else:
            instance = source.instance
            method = method_of(instance, class_name, method_name)
            plan = self._plan_of(source.entry, instance, method_name, method)
        self._count_route()
        return (method, *self._route(plan, method, class_name, method_name, payload))

    def _count_route(self) -> None:
        with self._registry.lock:
            self._routes += 1

    def _plan_of_injected(self, injected: Injected) -> Any:
        known = injected.plan
        if known is None or not _is_current(injected.method, known[0]):
            state = _state_of(injected.method)
            known = injected.plan = state, self._compile(injected.method, None)
        return known[1]

    def _plan_of(self, entry: Entry | None, instance: Any, method_name: str, method: Any) -> Any:
        """
        Return the compiled signature of a method, from its entry where that is still valid.

        It is valid while the name finds the same function with the same code and defaults, so a
        method that is replaced on the class or on the instance, or reloaded, is compiled again. The
        routes go with the entry.
        """
        if type(method) is MethodType:
            token: Any = method.__func__
            weak = entry is not None and entry.weak
            if weak and getattr(type(instance), method_name, None) is not token:
                # An attribute of the instance, which it may refer to.
                return self._compile(method, type(instance))
        elif type(method) is BuiltinMethodType and method.__self__ is instance:
            token = (type(instance), method.__name__)
        elif entry is not None and not entry.weak:
            token = method  # of the instance, which the entry keeps alive anyhow
        else:
            return self._compile(method, type(instance))
        routes = None if entry is None else entry.routes
        if routes is not None:
            known = routes.get(method_name)
            if (
                known is not None
                and (known[0] is token or _same_builtin(known[0], token))
                and _is_current(token, known[1])
            ):
                return known[2]
        state = _state_of(token)
        plan = self._compile(method, type(instance))
        if entry is not None:
            route = token, state, plan
            fresh: dict[str, tuple[Any, Any, Any]] = {}
            with self._registry.lock:
                routes = fresh if entry.routes is None else entry.routes
                known = routes.get(method_name)  # kept until the lock is released
                if entry.content is not None:
                    entry.routes = routes
                    routes[method_name] = route
        return plan

    # -- what the executor overrides -------------------------------------------------------------

    def _compile(self, method: Any, owner: type | None) -> Any:
        """Return the plan by which the arguments of a method of a type are routed."""
        raise NotImplementedError

    def _route(
        self,
        plan: Any,
        method: Any,
        class_name: str,
        method_name: str,
        arguments: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments for a payload."""
        raise NotImplementedError

    def unavailable(self, class_name: str, method_name: str, error: MethodRegistryError) -> Any:
        """Answer a call whose method is not available."""
        raise error

    def _count_refusal(self, drops: int) -> None:
        """Count a refused payload, and the arguments in it that the method does not take."""
        with self._registry.lock:
            self._refusals += 1
            self._drops_prevented += drops
