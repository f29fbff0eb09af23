"""
Registries that are not ours: whatever has `get_method` and `has_method`.

An executor needs a registry of ours to run on. This one has, under each name, an object whose
attributes are the methods that the other registry returns; so routing, checks and counters are
those of any executor, on both cores.
"""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]

from .api import Registry
from .resolver import safe_repr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Slot

__all__ = ["ForeignRegistry"]


class ForeignMethods:
    """
    The methods of one class of another registry, as attributes.

    Args:
        get_method: Takes the name of a method.
    """

    __slots__ = ("_get_method",)

    def __init__(self, get_method: Callable[[str], Any]) -> None:
        self._get_method = get_method

    def __getattr__(self, name: str) -> Any:
        try:
            return self._get_method(name)
        except Exception as error:
            raise AttributeError(name) from error


class ForeignRegistry(Registry):
    """
    Stands for a registry that is not ours.

    Args:
        foreign: Any object with `get_method(class_name, method_name)` and `has_method`.

    Raises:
        TypeError: It has no such methods.
    """

    def __init__(self, foreign: Any) -> None:
        for name in ("get_method", "has_method"):
            if not callable(getattr(foreign, name, None)):
                raise TypeError(
                    "method_registry must be a registry, or have the methods get_method and "
                    f"has_method; got {safe_repr(foreign)}"
                )
        super().__init__({}, cache_ttl_seconds=0.0)
        self.foreign = foreign

    def slot_to_build(self, class_name: str) -> Slot:
        if class_name not in self.slots:
            get_method = partial(self.foreign.get_method, class_name)
            self.register(class_name, partial(ForeignMethods, get_method), closer=None)
        return super().slot_to_build(class_name)
