"""What an application gives as the key of an instance: a class name, or the class itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ClassPathError, MethodRegistryError, UnknownClassError
from ..resolver import check_name, near_names

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..memory.profiles import Profile
    from ..registry import BaseRegistry

__all__ = ["Key", "class_name_of", "is_temporary", "warm_up_names"]


class Key:
    """
    The key of an instance. It is resolved when it is first used: classes may be registered later.

    Args:
        registry: The registry.
        key: A class name, or a class.

    Raises:
        TypeError: The key is neither a string nor a class.
    """

    __slots__ = ("_found", "_key", "_registry")

    def __init__(self, registry: BaseRegistry, key: str | type) -> None:
        self._registry = registry
        self._key = key if isinstance(key, type) else check_name(key)
        self._found: str | None = None if isinstance(key, type) else self._key  # type: ignore[assignment]

    @property
    def class_name(self) -> str:
        """
        The registered name.

        Raises:
            UnknownClassError: The class is not registered.
            ValueError: It is registered under several names.
        """
        found = self._found
        if found is None:
            found = self._found = class_name_of(self._registry, self._key)
        return found


def class_name_of(registry: BaseRegistry, key: str | type) -> str:
    """
    Find the name that a class is registered under.

    Args:
        registry: The registry.
        key: A class name, which is returned as it is; or a class: its object or its path is the
            target of a registration, or its ``__name__`` is a registered name.

    Returns:
        The name.

    Raises:
        TypeError: The key is neither a string nor a class.
        UnknownClassError: The class is not registered.
        ValueError: It is registered under several names.

    O(names) for a class.
    """
    if not isinstance(key, type):
        return check_name(key)
    path = f"{key.__module__}.{key.__qualname__}"
    slots = list(registry.slots.values())
    names = [slot.name for slot in slots if slot.target is key or slot.path == path]
    if not names and key.__name__ in registry:
        names = [key.__name__]
    if not names:
        raise UnknownClassError(
            key.__name__, near_names(key.__name__, [slot.name for slot in slots if slot.target])
        )
    if len(names) > 1:
        raise ValueError(
            f"class {path} is registered under several names: {', '.join(map(repr, names))};"
            " expected one of them as the key"
        )
    return names[0]


def warm_up_names(registry: BaseRegistry, warm_up: Profile | Iterable[str | type]) -> Any:
    """
    Return what `Registry.warm_up` takes: a profile as it is, or names in place of classes.

    Raises:
        UnknownClassError: A name or class is not registered, which `Registry.warm_up` would skip.
    """
    if hasattr(warm_up, "classes"):
        return warm_up
    names = [class_name_of(registry, key) for key in warm_up]
    for name in names:
        if name not in registry:
            raise UnknownClassError(name, near_names(name, registry.class_names()))
    return names


def is_temporary(error: MethodRegistryError) -> bool:
    """Whether a later request may succeed: everything but an unknown name and a malformed path."""
    return not isinstance(error, (ClassPathError, UnknownClassError))
