"""
The pure-Python calls: leases, handles, and `execute`.

Each looks an instance up and holds it in one step, runs what is to be run, and gives it back.
"""

from __future__ import annotations

import sys
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CoroutineType,
    GeneratorType,
    MethodType,
)

from ._slots_py import EMPTY, STRONG, WEAK
from .errors import MethodNotFoundError, MethodRegistryError
from .resolver import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core_py import RegistryCore
    from ._slots_py import Slot


FREE, ENTERING, HELD = 0, 1, 2  # states of a lease

# What a method may return that goes on running, and on which its instance is held.
RUNNING = (GeneratorType, CoroutineType, AsyncGeneratorType)


def method_of(instance: Any, class_name: str, method_name: str) -> Callable[..., Any]:
    """The callable of a name, as the instance gives it."""
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
    """A method that was given from outside, and the route that `execute` compiled for it."""

    __slots__ = ("method", "plan")

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.plan: Any = None


class Lease:
    """
    Holds an instance for the time of a ``with`` block; made by `RegistryCore.use`.

    It may be entered again after it was left, but not while it is held. A lease that is dropped
    without being left gives its instance back.
    """

    __slots__ = ("_class_name", "_core", "_epoch", "_hold", "_instance", "_slot", "_state")

    def __init__(self, core: RegistryCore, class_name: str) -> None:
        self._core = core
        self._class_name = class_name
        self._instance: Any = None
        self._slot: Slot | None = None
        self._epoch = -1
        self._state = FREE
        self._hold: object = None

    def __enter__(self) -> Any:
        if self._state != FREE:
            raise RuntimeError(f"this lease already holds {self._class_name!r}")
        self._state = ENTERING  # from here on it is nobody else's, however long a build takes
        try:
            instance, self._slot, self._epoch = self._core._obtain(self._class_name, True)
        except BaseException:
            self._state = FREE
            raise
        self._hold = self._core._enter(self._slot)
        self._instance = instance
        self._state = HELD
        return instance

    def _enter_warm(self, count: bool = True) -> bool:
        """Hold what is warm, and tell whether anything is; else, at most, count a miss."""
        core = self._core
        now = core._now()
        slot = core._slots.get(self._class_name)
        if slot is None:
            with core._lock:
                core._misses += count
            return False
        found = core._look_up(slot, now, True, count)
        if found is None:
            return False
        self._take(found[0], slot, found[1])
        return True

    def _enter_built(self) -> None:
        """Go on after a miss: hold what is built here, or by another thread."""
        self._take(*self._core._build(self._class_name))

    def _again(self) -> Lease:
        """Another lease on what this one holds; it is no look-up."""
        core, slot = self._core, self._slot
        if slot is not None:
            with core._lock:
                core._account(slot, self._epoch, 1, False)
        lease = Lease(core, self._class_name)
        lease._take(self._instance, slot, self._epoch)
        return lease

    def _share(self) -> None:
        """From now on somebody else has the instance, too, and holds no lease on it."""
        slot = self._slot
        if slot is not None:
            with self._core._lock:
                self._core._account(slot, self._epoch, 0, True)

    def _take(self, instance: Any, slot: Slot | None, epoch: int) -> None:
        self._instance, self._slot, self._epoch = instance, slot, epoch
        self._hold = self._core._enter(slot)
        self._state = HELD

    def _adopt(self, slot: Slot, epoch: int) -> Lease:
        """Take over a hold that somebody else has, to give it back."""
        self._slot, self._epoch, self._state = slot, epoch, HELD
        self._hold = self._core._enter(slot)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._state == HELD:
            self._state = FREE
            self._instance = None
            self._core._release(self._slot, self._epoch, self._hold)

    def __del__(self, _is_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the end of the interpreter a daemon thread may be frozen with the lock, and the names
        # of this module may be gone.
        if not _is_the_end():
            self.__exit__()

    def __reduce__(self) -> Any:
        raise TypeError("a lease holds something in this process: it cannot be pickled or copied")

    def __repr__(self) -> str:
        state = "held" if self._state == HELD else "not held"
        return f"<warmset lease of {self._class_name!r}, {state}>"


class Handle:
    """
    Calls one method of one class's instance, building it when it is not warm.

    Made by `RegistryCore.bind`. Each call looks the instance up and holds it until the method
    returns, or the generator or coroutine that it returned has ended; the arguments go to the
    method as they are. A handle is pickled by its names, with its registry.
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
        hold = core._enter(slot)
        try:
            method: Any = method_of(instance, self.class_name, self.method_name)
            result = method(*args, **kwargs)
            if type(result) in RUNNING and slot is not None:
                lease = Lease(core, self.class_name)._adopt(slot, epoch)
                core._holding.pop(hold, None)
                slot = None
                return core._prolong(lease, result)
            return result
        finally:
            method = None
            instance = None  # at the last release, who else refers to it is counted
            core._release(slot, epoch, hold)

    def __reduce__(self) -> Any:
        from operator import methodcaller

        return methodcaller("bind", self.class_name, self.method_name), (self._core,)

    def __repr__(self) -> str:
        return f"<warmset handle of {self.class_name}.{self.method_name}>"


def _same_builtin(one: Any, other: Any) -> bool:
    """Whether two routes are of the same method of a class written in C."""
    return type(one) is tuple and type(other) is tuple and one == other


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
            What the method returned. If that is a generator or a coroutine, the instance is held
            until it has ended.

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
                instance, slot, epoch = None, None, -1
                method: Any = injected.method
            else:
                instance, slot, epoch = core._obtain(class_name, True)
        except MethodRegistryError as error:
            return self._unavailable(class_name, method_name, error)
        hold = core._enter(slot)
        try:
            if injected is None:
                try:
                    method = method_of(instance, class_name, method_name)
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
            result = method(*args, **keywords)
            if type(result) in RUNNING and slot is not None:
                lease = Lease(core, class_name)._adopt(slot, epoch)
                core._holding.pop(hold, None)
                slot = None
                return core._prolong(lease, result)
            return result
        finally:
            instance = method = None  # at the last release, who else refers to it is counted
            core._release(slot, epoch, hold)

    def _prepare(
        self, source: Lease | Injected, class_name: str, method_name: str, payload: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """What `execute` does up to the call: the method of a held instance, and its arguments."""
        if isinstance(source, Injected):
            method = source.method
            plan = source.plan
            if plan is None:
                plan = source.plan = self._compile(method)
        else:
            instance = source._instance
            method = method_of(instance, class_name, method_name)
            plan = self._plan_of(source._slot, source._epoch, instance, method_name, method)
        with self._registry._lock:
            self._routes += 1
        return (method, *self._route(plan, class_name, method_name, payload))

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
            weak = slot is not None and slot.kind == WEAK
            if weak and getattr(type(instance), method_name, None) is not token:
                return self._compile(method)  # the instance brought it along: it may refer to it
        elif type(method) is BuiltinMethodType and method.__self__ is instance:
            token = (type(instance), method.__name__)
        elif slot is not None and slot.kind == STRONG:
            token = method  # of the instance, which the slot keeps alive anyhow
        else:
            return self._compile(method)
        routes = None if slot is None else slot.routes
        if routes is not None:
            known = routes.get(method_name)
            if known is not None and (known[0] is token or _same_builtin(known[0], token)):
                return known[1]
        plan = self._compile(method)
        if slot is not None:
            route = token, plan
            fresh: dict[str, tuple[Any, Any]] = {}
            with self._registry._lock:
                if slot.kind != EMPTY and slot.epoch == epoch:
                    if slot.routes is None:
                        slot.routes = fresh
                    slot.routes[method_name] = route
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
