"""Checks of the arguments of stores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .secret import AnyPath

__all__ = ["absolute", "check_numbers", "check_version"]


def absolute(path: AnyPath | None) -> str | None:
    """Make a path independent of the working directory; None stays None."""
    return None if path is None else os.path.abspath(os.fspath(path))


def check_numbers(**numbers: tuple[object, float]) -> None:
    """
    Check numbers.

    Args:
        numbers: Name -> value and its least value.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is below the least one, infinite or NaN.
    """
    for name, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not least <= value < float("inf"):
            raise ValueError(f"{name} must be {least:g} or more, got {value!r}")


def check_version(version: object) -> str:
    """Check the version of a store; raise TypeError if it is not a str."""
    if not isinstance(version, str):
        raise TypeError(f"version must be a str, got {version!r}")
    return version
