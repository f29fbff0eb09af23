"""The floors: a bare dict, and `functools.lru_cache`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .base import Kept, Subject, building

if TYPE_CHECKING:
    from ..workload import Work


def bare_dict(work: Work, size: int) -> Kept:
    """A dict, without bound, TTL and statistics."""
    table: dict[str, Any] = {}
    return Kept("get({name})", building(table.get, table.__setitem__, work), {"get": table.get})


def lru_cache(work: Work, size: int) -> Kept:
    """The cached function is what builds."""
    classes = work.classes

    def build(name: str) -> Any:
        return classes[name]()

    cached = functools.lru_cache(maxsize=size)(build)
    return Kept("cached({name})", cached, {"cached": cached})


DICT = Subject(
    "dict.get", "a bound `dict.get`; a miss stores by `__setitem__`", bare_dict, bounded=False
)
LRU_CACHE = Subject("functools.lru_cache", "the function that builds is decorated", lru_cache)
