"""
Registers families: the checks before, and what their options need.
"""

from __future__ import annotations

from .assembly import attach_for_options
from .errors import UnknownClassError
from .families import Family, make_family
from .options import ClassOptions
from .resolver import check_name, near_names
from .setting_table import BY_NAME
from .targets import check_arguments, check_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .registry import BaseRegistry

__all__ = ["register_family"]


def register_family(
    registry: BaseRegistry,
    name: Any,
    factory: Any,
    max_cache_size: Any,
    options: dict[str, Any],
) -> Family[Any, Any]:
    """
    Register a family, or find it; the arguments are those of `Registry.family`.

    Args:
        registry: The registry.
        name: Its name.
        factory: Its factory; None finds the registered one.
        max_cache_size: Its bound, or None.
        options: `args`, `kwargs`, and options.

    Returns:
        The family.

    Raises:
        TypeError, ValueError, UnknownClassError, ClosedError: As `Registry.family`.
    """
    name = check_name(name)
    given = max_cache_size is not None or len(options) > 2 or options["args"] or options["kwargs"]
    if factory is None and not given:
        return _registered(registry, name)
    target = check_target(name, factory)
    if "pin" in options:
        raise TypeError(f"{name!r} has no option 'pin': a family keeps those used last")
    if max_cache_size is not None:
        # By the rule of a setting that is a number in any case: "auto" is of the registry.
        rule = BY_NAME["autosize_max"]
        max_cache_size = rule.checked(max_cache_size, f"max_cache_size of {name!r}")
    slot = registry.slots.get(name)
    if slot is not None and slot.target is not None:
        raise ValueError(f"{name!r} is registered as a class")
    checked = ClassOptions(name, more_options=("max_cache_size",), **options)
    check_arguments(name, target, ("key", *checked.args), checked.kwargs, of_family=True)
    registry.refuse_if_closed("register", name)
    if checked.needs_extensions:
        attach_for_options(registry, checked)
    return make_family(registry, name, target, checked, max_cache_size)


def _registered(registry: BaseRegistry, name: str) -> Family[Any, Any]:
    record = registry.families.get(name)
    if record is None:
        near = near_names(name, registry.families)
        hint = f"; nearest: {', '.join(map(repr, near))}" if near else ""
        raise UnknownClassError(name, near, advice=f"and no family, without a factory{hint}")
    return Family(registry, record)
