"""
The executor: call a method by class and method name, with a payload.
"""

from __future__ import annotations

# Where `collections.abc` takes it from; this module is loaded at start-up, `collections` is not.
from _collections_abc import Mapping

from . import _logs
from .api import Registry
from .calls import Calls
from .errors import ArgumentValidationError, MethodRegistryError, error_in_execute
from .registry import BaseRegistry
from .routing import compile_plan
from .setting_table import check_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .family_keys import FamilyKey
    from .routing import Plan

__all__ = ["LazyInstances", "MethodExecutor"]


class LazyInstances(Mapping[str, "Any"]):
    """
    The registered names as a read-only mapping; an instance is built when it is looked up.

    Iteration, `len` and ``in`` build nothing. What is returned is not held: see `Registry.use`.

    Args:
        registry: The registry that provides the instances.
    """

    __slots__ = ("_registry",)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getitem__(self, class_name: str) -> Any:
        return self._registry.get_instance(class_name)

    def get(self, class_name: str, default: Any = None) -> Any:
        """
        Return an instance, or the default where there is none.

        Args:
            class_name: A name, registered or not.
            default: What to return if the name is unknown or its build failed.

        Returns:
            The instance or the default.
        """
        try:
            return self._registry.get_instance(class_name)
        except MethodRegistryError:
            return default

    def __contains__(self, class_name: object) -> bool:
        return class_name in self._registry

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.class_names())

    def __len__(self) -> int:
        return len(self._registry)

    def __repr__(self) -> str:
        return f"<instances of {self._registry!r}>"


class MethodExecutor(Calls):
    """
    Executes methods by name, on instances that a registry keeps warm.

    Args:
        method_registry: The registry, or any object with its methods `get_method` and
            `has_method`. None makes one over the default table; a part of it that is not available
            puts the executor in degraded mode, with the reason, and raises nothing.
        arguments: How payloads are checked before a method runs. "strict": names and types;
            "names": names only; "off": not at all, so that the call itself raises. None: as the
            registry's setting says.

    Raises:
        TypeError: The registry lacks one of the two methods, or `arguments` is not a str.
        ValueError: `arguments` is none of the three.

    In degraded mode `execute` of a method that is not available returns None and logs a warning.
    Every method may be called from any thread.
    """

    _registry_type: type[Registry] = Registry

    def __init__(
        self, method_registry: Registry | None = None, *, arguments: str | None = None
    ) -> None:
        if "degraded_reasons" in self.__dict__:
            raise RuntimeError(f"{self!r} was initialised already")
        self.degraded_reasons: list[str] = []
        self._degraded: bool | None = None  # what was assigned
        if arguments is not None:
            arguments = check_setting("arguments", arguments)
        if method_registry is None:
            try:
                method_registry = self._registry_type()
            except Exception as error:
                self._degrade(f"the default class table is not available: {error}")
                method_registry = self._registry_type({})
            else:
                if not len(method_registry):
                    self._degrade(
                        "no classes are registered: neither WARMSET_CONFIG nor an entry point of "
                        "the group 'warmset.classes' names any"
                    )
        core: Registry = method_registry
        if not isinstance(method_registry, BaseRegistry):
            from .foreign_registry import ForeignRegistry

            core = ForeignRegistry(method_registry)
        self._given = method_registry
        super().__init__(core)
        self.arguments: str = arguments or core.settings.arguments
        # What compiling a signature needs. Here and not there: a finaliser or a signal handler
        # that calls `execute` while a module is being imported would find half of it.
        import inspect  # noqa: F401
        import numbers  # noqa: F401
        import typing  # noqa: F401

        self.instances = LazyInstances(method_registry)

    def _degrade(self, reason: str) -> None:
        self.degraded_reasons.append(reason)
        _logs.warning("executor", "degraded mode: %s", reason, fields={"reason": reason})

    @property
    def degraded_mode(self) -> bool:
        """
        Whether `execute` of a method that is not available returns None.

        It is true if something was missing when the executor was made, see `degraded_reasons`, and
        may be assigned.
        """
        return bool(self.degraded_reasons) if self._degraded is None else self._degraded

    @degraded_mode.setter
    def degraded_mode(self, value: bool) -> None:
        self._degraded = bool(value)

    @property
    def registry(self) -> Registry:
        """The registry that provides the instances."""
        return self._given

    def has_method(self, class_name: str | type | FamilyKey, method_name: str) -> bool:
        """
        Tell whether a method can be expected, without building anything.

        Args:
            class_name: A name.
            method_name: A method name.

        Returns:
            As `Registry.has_method`.
        """
        return self.registry.has_method(class_name, method_name)

    def inject_method(self, class_name: str, method_name: str, method: Callable[..., Any]) -> None:
        """
        Inject a method; it takes precedence over the class's own.

        Args:
            class_name: Any name, registered or not.
            method_name: The name to find it by.
            method: The callable.
        """
        self.registry.inject_method(class_name, method_name, method)

    def clear_instance_cache(self, *, release: bool = False) -> dict[str, Any]:
        """
        Remove every instance, as between two runs of a pipeline.

        Args:
            release: Also return memory to the system, and report that; see `Registry.clear_cache`.

        Returns:
            As `Registry.clear_cache`.
        """
        return self.registry.clear_cache(release=release)

    def evict_expired_instances(self) -> int:
        """
        Evict the instances that have been idle for longer than the TTL.

        Returns:
            How many were evicted.
        """
        return self.registry.evict_expired()

    def get_registry_stats(self) -> dict[str, Any]:
        """
        Return the statistics of the registry.

        Returns:
            As `Registry.get_stats`.
        """
        return self.registry.get_stats()

    def get_routing_metrics(self) -> dict[str, Any]:
        """
        Return the counts of routed and refused payloads.

        Returns:
            total_routes, validation_errors (payloads refused), silent_drops_prevented (arguments
            in them that the method does not take), and error_rate.
        """
        routes, refusals = self._routes, self._refusals
        return {
            "total_routes": routes,
            "validation_errors": refusals,
            "silent_drops_prevented": self._drops_prevented,
            "error_rate": refusals / routes if routes else 0.0,
        }

    def __reduce__(self) -> Any:
        from functools import partial

        state = {"degraded_reasons": list(self.degraded_reasons), "_degraded": self._degraded}
        options: dict[str, Any] = {
            "method_registry": self.registry,
            "arguments": self.arguments,
        }
        return partial(type(self), **options), (), state

    def __repr__(self) -> str:
        state = ", degraded" if self.degraded_mode else ""
        return f"<{type(self).__name__} of {self.registry!r}{state}>"

    # -- what the core calls ---------------------------------------------------------------------

    def _compile(self, method: Callable[..., Any], owner: type | None) -> Plan:
        return compile_plan(method, owner)

    def _route(
        self,
        plan: Plan,
        method: Callable[..., Any],
        class_name: str,
        method_name: str,
        arguments: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            try:
                return plan.route(class_name, method_name, arguments, self.arguments)
            except ArgumentValidationError:
                if plan.is_current:
                    raise
            # Something was changed in place that the code of the function does not tell.
            plan.become(self._compile(method, plan.owner))
            return plan.route(class_name, method_name, arguments, self.arguments)
        except ArgumentValidationError as error:
            self._count_refusal(len(error.unexpected))
            raise

    def unavailable(self, class_name: str, method_name: str, error: MethodRegistryError) -> Any:
        """Answer a call whose method is not available."""
        if self.degraded_mode:
            _logs.warning(
                "executor",
                "degraded mode: %s.%s is not available, None is returned: %s",
                class_name,
                method_name,
                error,
                fields={
                    "class_name": class_name,
                    "method_name": method_name,
                    "stage": error.stage,
                },
            )
            return None
        try:
            raise error_in_execute(error, method_name)
        finally:
            del error  # it refers to this frame, which would keep all that it holds
