"""
The report on what is still open when a registry was closed: held instances, and those left open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _logs
from ..foreign import MISSING, find_in_type
from ..stats import holders
from .referrers import ReferrerSearch

if TYPE_CHECKING:
    from typing import Any

    from ..registry import BaseRegistry

__all__ = ["report_open"]

_MOST = 20  # instances that are reported one by one
_SEARCH_SECONDS = 2.0


def report_open(registry: BaseRegistry, left: list[tuple[str, Any]]) -> None:
    """
    Log what a closed registry has not closed, as a WARNING for each instance.

    Args:
        registry: The registry.
        left: The names and instances that were left open; it is emptied.
    """
    for holder in holders(registry):
        _logs.warning(
            "removals",
            "the registry is closed, but %r is held by thread %r; it is closed at its release",
            holder.class_name,
            holder.thread,
            fields={"class_name": holder.class_name, "holder": holder.thread},
        )
    search = ReferrerSearch(time_limit_seconds=_SEARCH_SECONDS)
    left.reverse()
    for _ in range(min(_MOST, len(left))):
        name, instance = left.pop()
        if _only_asynchronous(instance):
            why = "it has an aclose(), which only AsyncMethodExecutor.aclose awaits"
            paths: tuple[str, ...] = ()
        else:
            paths = search.paths_to(instance)
            why = f"it is referenced by {', '.join(paths) or 'an object that was not found'}"
        del instance
        _logs.warning(
            "removals",
            "the registry is closed, but %r is left open: %s",
            name,
            why,
            fields={"class_name": name, "referrers": list(paths)},
        )
    if left:
        _logs.warning("removals", "%d more instances are left open", len(left))
        left.clear()


def _only_asynchronous(instance: Any) -> bool:
    kind = type(instance)
    return find_in_type(kind, "aclose") is not MISSING and find_in_type(kind, "close") is MISSING
