"""
The part of `execute` that no hit runs through: written once, on top of both cores.
"""

from __future__ import annotations

from types import BuiltinMethodType, MethodType

from ._core import ExecutorCore, Lease
from .errors import MethodRegistryError
from .family_keys import FamilyKey
from .resolver import check_method_name, check_name, exact_str, method_of
from .streams import is_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Entry, Injected

__all__ = ["Calls"]


class Calls(ExecutorCore):
    """Finds the names of a call, injected methods, and the plans by which payloads are routed."""

    def _execute_named(self, /, *names: Any, **payload: Any) -> Any:
        """Execute a call whose names are not two exact str, or are in the payload."""
        class_name: Any
        try:
            class_name, method_name = call_names(names, payload, self._registry.name_of)
        except MethodRegistryError as error:  # of a class that is not registered itself
            return self.unavailable(str(error.class_name), str(names[1]), error)
        if type(class_name) is FamilyKey:
            return self._execute_of_family(class_name, method_name, payload)
        # Ours, and not one that overrides it and has been passed already.
        return ExecutorCore.execute(self, class_name, method_name, **payload)

    def _execute_of_family(self, key: Any, method_name: str, payload: dict[str, Any]) -> Any:
        """Execute a method of the instance of a family."""
        lease: Any = Lease(self._registry, key)
        method = args = keywords = None
        try:
            try:
                lease.__enter__()
                method, args, keywords = self.prepare(lease, key, method_name, payload)
            except MethodRegistryError as error:
                return self.unavailable(str(key), method_name, error)
            result = method(*args, **keywords)
            if is_running(result):
                kept, lease = lease, None
                return self._registry.hold_while_running(kept, result)
            return result
        finally:
            method = None  # at the last release, other references to the instance are counted
            if lease is not None:
                lease.__exit__()

    def _execute_injected(self, class_name: str, method_name: str, /, **payload: Any) -> Any:
        """Execute an injected method."""
        injected = self._registry.injected.get(class_name, {}).get(method_name)
        if injected is None:  # it was dropped meanwhile
            return ExecutorCore.execute(self, class_name, method_name, **payload)
        method, args, keywords = self.prepare(injected, class_name, method_name, payload)
        return method(*args, **keywords)

    def prepare(
        self,
        source: Lease[Any] | Injected,
        class_name: str,
        method_name: str,
        payload: dict[str, Any],
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """
        Do what `execute` does up to the call: find the method, and route its arguments.

        Args:
            source: A lease on the instance, or an injected method.
            class_name: Used in messages.
            method_name: The method.
            payload: The arguments, by parameter name.

        Returns:
            The method, its positional and its keyword arguments.
        """
        if isinstance(source, Lease):
            instance = source.instance
            method = method_of(instance, class_name, method_name)
            plan = self._plan_of(source.entry, instance, method_name, method)
        else:
            method, plan = source.method, source.plan
            if plan is None or not plan.is_current:
                plan = source.plan = self._compile(method, None)
        self._count_route()
        return (method, *self._route(plan, method, class_name, method_name, payload))

    def _plan_of(self, entry: Entry | None, instance: Any, method_name: str, method: Any) -> Any:
        """
        Return the compiled signature of a method, from its entry where that is still valid.

        It is valid while the name finds the same function with the same code and defaults, so a
        method that is replaced on the class or on the instance, or reloaded, is compiled again. The
        routes go with the entry.
        """
        if entry is None or type(method_name) is not str:
            return self._compile(method, type(instance))
        token = method  # of the instance, which the entry keeps alive anyhow, unless it is weak
        of_type = False
        if type(method) is MethodType:
            token = method.__func__
            of_type = entry.weak and getattr(type(instance), method_name, None) is token
        elif type(method) is BuiltinMethodType and method.__self__ is instance:
            token = getattr(type(instance), method_name, method)
            of_type = token is not method
        if entry.weak and not of_type:
            return self._compile(method, type(instance))
        route = self._known_route(entry, method_name)
        if route is not None and route.token is token and route.plan.is_current:
            return route.plan
        plan = self._compile(method, type(instance))
        self._keep_route(entry, method_name, token, plan)
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


def call_names(
    names: tuple[object, ...],
    payload: dict[str, Any],
    name_of: Callable[[object], str] | None = None,
) -> tuple[str, str]:
    """
    Find the class name and the method name of a call.

    Args:
        names: The positional arguments, up to two; an empty one counts as not given.
        payload: A name that is not given is taken out of it.
        name_of: Returns the name of a class, or checks a name; None: classes have none.

    Returns:
        Exact str, neither of them empty. Methods of a subclass of str are not called.

    Raises:
        TypeError: There are more than two, one is not a str, or one is given nowhere.
    """
    if len(names) > 2:
        raise TypeError(
            f"execute() takes a class name and a method name, and all else by keyword; "
            f"got {len(names)} positional arguments"
        )
    found = []
    for name, key in zip((*names, "", "")[:2], ("class_name", "method_name"), strict=True):
        if exact_str(name) == "":
            name = payload.pop(key, "")
        if exact_str(name) == "":
            raise TypeError("execute() needs a class name and a method name")
        found.append(name)
    return (name_of or check_name)(found[0]), check_method_name(found[1])
