"""What an application gives as the key of an instance: a name, a class, or a key of a family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import ClassPathError, MethodRegistryError, UnknownClassError
from ..family_keys import check_key
from ..resolver import near_names

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..family_keys import FamilyKey
    from ..memory.profiles import Profile
    from ..registry import BaseRegistry

__all__ = ["checked", "is_temporary", "retry_after", "warm_up_keys"]


def checked(key: str | type | FamilyKey) -> Any:
    """
    Check the type of a key. It is looked up when it is first used: registrations may come later.

    Raises:
        TypeError: It is neither a class name nor a class nor a key of a family.
    """
    return key if isinstance(key, type) else check_key(key)


def warm_up_keys(
    registry: BaseRegistry, warm_up: Profile | Iterable[str | type | FamilyKey]
) -> Any:
    """
    Return what `Registry.warm_up` takes: a profile as it is, or checked keys.

    Raises:
        UnknownClassError: A name or class is not registered, which `Registry.warm_up` would skip.
    """
    if hasattr(warm_up, "classes"):
        return warm_up
    keys: list[Any] = [registry.name_of(checked(key)) for key in warm_up]
    for key in keys:
        if key not in registry and not registry.is_of_family(key):
            raise UnknownClassError(key, near_names(str(key), registry.class_names()))
    return keys


def is_temporary(error: MethodRegistryError) -> bool:
    """Whether a later request may succeed: everything but an unknown name and a malformed path."""
    return not isinstance(error, (ClassPathError, UnknownClassError))


def retry_after(registry: BaseRegistry, key: str | type | FamilyKey) -> dict[str, str]:
    """Return the header that tells when to retry, while the failure of a key is remembered."""
    seconds = registry.settings.retry_after_seconds
    name: Any = registry.name_of(key)
    if registry.builder.failures.get(name) is None or seconds == math.inf:
        return {}
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
