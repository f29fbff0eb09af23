"""The caches that are compared: ours, and those of others that can do the work."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from warmset.memory.adaptive import AdaptiveTtl
from warmset.memory.policies import CostPolicy, LruPolicy

from .replay import Counted, Ours, Weighed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .replay import Cache
    from .traces import Trace

__all__ = ["CONTESTANTS", "Contestant"]


class Contestant(NamedTuple):
    """A cache, and how it is told what things weigh."""

    name: str
    package: str
    """Where it comes from; "warmset" for ours."""
    bound: str
    make: Callable[[Trace, int], Cache]

    @property
    def missing(self) -> str | None:
        """Why it cannot take part; None if it can."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return f"{self.package} is not installed"
        return None


def _lru(trace: Trace, budget: int) -> Cache:
    return Ours(trace, budget, LruPolicy())


def _cost(trace: Trace, budget: int) -> Cache:
    return Ours(trace, budget, CostPolicy())


def _adaptive(trace: Trace, budget: int) -> Cache:
    return Ours(trace, budget, LruPolicy(), AdaptiveTtl(10.0, 3600.0))


def _cachetools(trace: Trace, budget: int, kind: str) -> Cache:
    import cachetools

    return Weighed(trace, budget, getattr(cachetools, kind))


def _cachebox(trace: Trace, budget: int, kind: str) -> Cache:
    import cachebox

    def make(most: int, getsizeof: Callable[[int], int]) -> Any:
        return getattr(cachebox, kind)(most, getsizeof=lambda key, value: getsizeof(key))

    return Weighed(trace, budget, make)


def _theine(trace: Trace, budget: int) -> Cache:
    from theine import Cache as Theine

    def make(places: int) -> Any:
        cache: Any = Theine(places)

        def get(number: int) -> Any:
            found, hit = cache.get(number)
            return found if hit else None

        return get, lambda number: cache.set(number, number)

    return Counted(trace, budget, make)


CONTESTANTS = (
    Contestant("warmset lru", "warmset", "bytes", _lru),
    Contestant("warmset cost", "warmset", "bytes", _cost),
    Contestant("warmset lru, adaptive TTL", "warmset", "bytes", _adaptive),
    Contestant("cachetools LRUCache", "cachetools", "bytes", partial(_cachetools, kind="LRUCache")),
    Contestant("cachetools LFUCache", "cachetools", "bytes", partial(_cachetools, kind="LFUCache")),
    Contestant("cachebox LRUCache", "cachebox", "bytes", partial(_cachebox, kind="LRUCache")),
    Contestant("cachebox LFUCache", "cachebox", "bytes", partial(_cachebox, kind="LFUCache")),
    Contestant("theine", "theine", "count", _theine),
)
