"""
Registrations: which names there are, what builds their instances, and with which options.
"""

from __future__ import annotations

from _thread import get_ident

from .codes import DISCARDED, NO_LIMIT, REPLACED
from .errors import AsyncRuleError, UnknownClassError
from .foreign import can_have_method
from .resolver import check_name, check_path, find_imported, near_names, resolve
from .streams import is_awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ._core import Slot
    from .cache import Cache

    class Options(Protocol):
        """What a registration reads of the options of a class."""

        @property
        def args(self) -> tuple[Any, ...]: ...
        @property
        def kwargs(self) -> dict[str, Any]: ...
        @property
        def cache_ttl_seconds(self) -> float | None: ...
        @property
        def max_age_seconds(self) -> float | None: ...
        @property
        def pin(self) -> bool: ...


__all__ = ["Classes", "check_target"]


def check_target(class_name: str, target: object) -> Any:
    """
    Check what is to be registered under a name.

    Args:
        class_name: The name.
        target: A class path, a class, or a factory: a callable that returns the instance.

    Returns:
        The target; a path as an exact str.

    Raises:
        TypeError: It is none of these.
        ClassPathError: A path does not have the shape of one.
    """
    if callable(target) and not isinstance(target, str):
        return target
    return check_path(class_name, target)


class Classes:
    """
    The registrations of one registry, which keeps them in the slots of its cache.

    Thread-safe. The cache is an argument of each call: kept here, it would be a cycle.
    """

    def __init__(self) -> None:
        self.rules: dict[str, Callable[[type], Any]] = {}
        # With the rule that it belongs to: `rules` may be written from outside.
        self.rule_versions: dict[str, tuple[Callable[[type], Any], str | None]] = {}
        # Thread -> a function that has an awaitable awaited by an event loop, and returns the
        # result.
        self.awaiting: dict[int, Callable[[Any], Any]] = {}

    # -- names -----------------------------------------------------------------------------------

    def register(
        self, cache: Cache, class_name: str, target: Any, options: Options | None
    ) -> tuple[Slot, bool]:
        """
        Register a target under a name, or give a registered name another one.

        Args:
            cache: The cache.
            class_name: A checked name.
            target: A checked target.
            options: Of the class; None: none.

        Returns:
            The slot, and whether its target is a new one. An instance of another target has been
            removed by then.
        """
        known = cache.slots.get(class_name)
        limited = options is not None or (known is not None and known.options is not None)
        # At once: a build in another thread has the target and the options of one registration.
        slot, before = cache.add_slot(class_name, target, options)
        changed = before is not target and before != target
        if changed and before is not None:
            cache.remove_from(slot, REPLACED)
        if limited:
            idle = age = None
            if options is not None:
                idle, age = options.cache_ttl_seconds, options.max_age_seconds
            # 0 is none.
            cache.set_limits(
                slot, NO_LIMIT if idle == 0.0 else idle, NO_LIMIT if age == 0.0 else age
            )
            cache.set_pinned(slot, options is not None and options.pin)
        return slot, changed

    def unregister(self, cache: Cache, class_name: str) -> Slot | None:
        """Forget a name and remove its instance; return its slot, if it had one."""
        slot = cache.slots.get(class_name)
        if slot is None or not cache.forget_slot(slot, DISCARDED):
            return None
        return slot

    def names(self, cache: Cache) -> list[str]:
        """Return the registered names, in the order of their registration."""
        return [slot.name for slot in list(cache.slots.values()) if slot.target is not None]

    # -- rules and construction ------------------------------------------------------------------

    def add_rule(self, class_name: object, rule: Callable[[type], Any], version: str | None) -> str:
        """Let a rule build the instances of a class; return the checked name."""
        name = check_name(class_name)
        if not callable(rule):
            raise TypeError(f"the rule of {name!r} must be callable, got {rule!r}")
        if not (version is None or type(version) is str):
            raise TypeError(f"the version of the rule of {name!r} must be a str, got {version!r}")
        self.rules[name] = rule
        self.rule_versions[name] = rule, version
        return name

    def resolve(self, cache: Cache, class_name: str) -> Any:
        """Return the class or the factory of a name, importing it if need be."""
        slot = cache.slots.get(class_name)
        if slot is None or slot.target is None:
            raise UnknownClassError(class_name, near_names(class_name, self.names(cache)))
        target = slot.target
        return resolve(class_name, target) if isinstance(target, str) else target

    def instantiate(self, cache: Cache, class_name: str, target: Any) -> Any:
        """Call the rule of a class, or the class or factory itself."""
        slot = cache.slots.get(class_name)
        rule = self.rules.get(class_name)
        if rule is None:
            options = None if slot is None else slot.options
            made = target() if options is None else target(*options.args, **options.kwargs)
            if isinstance(target, type):
                return made
        else:
            made = rule(target)
        if not is_awaitable(made):
            return made
        if isinstance(target, type) and isinstance(made, target):
            return made  # an instance that can be awaited, too
        awaited = self.awaiting.get(get_ident())
        if awaited is not None:
            return awaited(made)
        if hasattr(made, "send"):
            made.close()  # a coroutine that nobody will await
        raise AsyncRuleError(class_name, None if slot is None else slot.path)

    def has_method(self, cache: Cache, slot: Slot, method_name: str) -> bool:
        """Tell whether a method of a class can be expected, without building or importing."""
        instance: Any = cache.instance_in(slot)
        if instance is not None:
            return can_have_method(type(instance), method_name, instance)
        if slot.target is None:
            return False
        target = find_imported(slot.target) if isinstance(slot.target, str) else slot.target
        # A rule or a factory may build anything.
        if slot.name in self.rules or not issubclass(type(target), type):
            return True
        return can_have_method(target, method_name)  # type: ignore[arg-type]
