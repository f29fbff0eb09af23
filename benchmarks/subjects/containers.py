"""The singletons of a dependency-injection container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Kept, Subject

if TYPE_CHECKING:
    from ..workload import Work


def _singletons(provider: Any, work: Work) -> Kept:
    table = {name: provider(cls) for name, cls in work.classes.items()}
    first = table[next(iter(work.classes))]

    def fetch(name: str) -> Any:
        return table[name]()

    return Kept(
        "table[{name}]()",
        fetch,
        {"table": table, "provider": first},
        called="provider().tag('x')",
    )


def singleton(work: Work, size: int) -> Kept:
    """Without a lock: two threads may build twice."""
    from dependency_injector.providers import Singleton

    return _singletons(Singleton, work)


def thread_safe_singleton(work: Work, size: int) -> Kept:
    """One lock for all providers."""
    from dependency_injector.providers import ThreadSafeSingleton

    return _singletons(ThreadSafeSingleton, work)


ABOUT = "a dict of providers, `table[name]()`; they keep for ever"
CONTAINERS = (
    Subject("dependency-injector Singleton", ABOUT, singleton,
            distribution="dependency-injector", bounded=False),
    Subject("dependency-injector ThreadSafeSingleton", ABOUT, thread_safe_singleton,
            distribution="dependency-injector", bounded=False),
)  # fmt: skip
