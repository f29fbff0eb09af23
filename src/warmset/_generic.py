"""
Generic classes for type checkers, without an import of `typing` at start-up.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic, TypeVar

    from typing_extensions import ParamSpec

    K = TypeVar("K")
    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")
else:

    class Generic:
        """A base class whose subclasses can be subscripted."""

        __slots__ = ()

        def __class_getitem__(cls, parameters):
            return cls

    K = P = R = T = None

__all__ = ["Generic", "K", "P", "R", "T"]
