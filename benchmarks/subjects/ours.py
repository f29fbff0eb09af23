"""warmset, on each of its cores."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ..cores import load
from ..results import COMPILED, PURE
from .base import TTL_SECONDS, Kept, Subject

if TYPE_CHECKING:
    from ..workload import Work


def registry(core: str, work: Work, size: int) -> Kept:
    """A registry with TTL, bound and statistics, and an executor over it."""
    warmset = load(core)
    made = warmset.MethodRegistry(work.paths, cache_ttl_seconds=TTL_SECONDS, max_cache_size=size)
    executor = warmset.MethodExecutor(method_registry=made)
    return Kept(
        "get_instance({name})",
        made.get_instance,
        {
            "get_instance": made.get_instance,
            "get_method": made.get_method,
            "has_method": made.has_method,
            "handle": made.bind(next(iter(work.paths)), "tag"),
            "execute": executor.execute,
        },
        bound="get_method({name}, 'tag')",
        called="handle('x')",
        executed="execute({name}, {method}, {arguments})",
    )


SUBJECTS = tuple(
    Subject(name, "`get_instance`, `get_method`, a handle from `bind`, `execute`",
            functools.partial(registry, core))
    for name, core in ((COMPILED, "compiled"), (PURE, "pure"))
)  # fmt: skip
