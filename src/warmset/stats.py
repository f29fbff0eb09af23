"""
Statistics: one immutable snapshot, and the dict that is made from it.

What counts
    A *look-up* is a call that asks for an instance: `get_instance`, `get_method`, entering a lease,
    a handle's call, `execute`. It is a *hit* if a live instance was there, else a *miss*: also when
    it waited for a build, or failed. An injected method needs no instance, so it is not a look-up.
    A *build* is counted once, for the thread that built. A removal has one cause; those that the
    registry decides on are evictions.
    A removed instance that has a closer is closed, or its closer failed, or it was left open,
    because a caller who received it without a lease still referred to it.
"""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from .codes import (
    CLOSE_FAILED,
    CLOSED,
    FAILED_BUILDS,
    LEFT_OPEN,
    LISTENER_FAILURES,
    STATE_NAMES,
    WAITS,
)
from .events import RemovalCause
from .family_keys import FamilyKey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .family_keys import SlotKey
    from .registry import BaseRegistry

__all__ = [
    "EntryStats",
    "FamilyStats",
    "HolderStats",
    "RegistryStats",
    "as_data",
    "family_stats",
    "holder_threads",
    "holders",
    "snapshot",
]


class EntryStats(NamedTuple):
    """
    One cached instance.

    Seconds are counted back from the moment of the snapshot.
    """

    class_name: str
    age_seconds: float
    idle_seconds: float
    uses: int
    build_seconds: float
    holders: int
    bytes: int | None = None
    """Its size, where something measures it."""
    slot_key: SlotKey = ""
    """The class name, or the key of a family: unlike the texts of these, no two are the same."""

    @property
    def family(self) -> str | None:
        """The family that it belongs to, if any."""
        return self.slot_key.family if type(self.slot_key) is FamilyKey else None

    @property
    def key(self) -> Any:
        """Its key in the family."""
        return self.slot_key.key if type(self.slot_key) is FamilyKey else None


class HolderStats(NamedTuple):
    """
    One hold on an instance: a lease, a running call, an unfinished generator or coroutine.

    `thread` is the name of the thread that took it.
    """

    class_name: str
    thread: str
    held_seconds: float


class FamilyStats(NamedTuple):
    """
    One family: its warm keys, and counters of all its instances.
    """

    name: str
    max_cache_size: int | None
    """Its own bound; None: it has none."""
    keys: tuple[Any, ...]
    """The keys whose instances are warm."""
    hits: int
    misses: int
    builds: int
    failed_builds: int
    evictions: int

    @property
    def hit_rate(self) -> float:
        """Hits per look-up; 0.0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class RegistryStats(NamedTuple):
    """
    A registry at one moment.

    The counters are all of the same moment; the entries are read just after it.
    """

    classes_registered: int
    methods_injected: int
    cached: int
    weakly_kept: int
    held: int
    hits: int
    misses: int
    builds: int
    build_seconds: float
    failed_builds: int
    waits: int
    closed: int
    close_failures: int
    left_open: int
    listener_failures: int
    evictions: int
    removals: Mapping[RemovalCause, int]
    failed_class_names: tuple[str, ...]
    entries: tuple[EntryStats, ...]
    cache_ttl_seconds: float
    max_cache_size: int
    enable_weakref: bool
    bytes: int | None = None
    """Bytes known to be kept; None while nothing measures them."""
    adopted: int = 0
    """Instances that were cached without a build."""
    states: Mapping[str, int] = MappingProxyType({})
    """
    How many entries are in each state. At any moment `builds` + `adopted` is their sum.
    """
    families: tuple[FamilyStats, ...] = ()
    """The families, in the order of their registration."""
    unmatched_rules: tuple[str, ...] = ()
    """Names that have a rule and are not registered."""

    @property
    def lookups(self) -> int:
        """Look-ups: hits and misses."""
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Hits per look-up; 0.0 before the first."""
        return self.hits / self.lookups if self.lookups else 0.0

    @property
    def utilisation(self) -> float:
        """Cached instances per place."""
        return self.cached / self.max_cache_size

    def as_dict(self) -> dict[str, Any]:
        """Give the snapshot as `get_stats` does: under the pipeline's names, and plain data."""
        return {
            "total_classes_registered": self.classes_registered,
            "cached_instances": self.cached,
            "weakref_instances": self.weakly_kept,
            "failed_classes": len(self.failed_class_names),
            "direct_methods_injected": self.methods_injected,
            "cache_hits": self.hits,
            "cache_misses": self.misses,
            "cache_hit_rate": self.hit_rate,
            "evictions": self.evictions,
            "total_instantiations": self.builds,
            "cache_ttl_seconds": self.cache_ttl_seconds,
            "max_cache_size": self.max_cache_size,
            "enable_weakref": self.enable_weakref,
            "failed_class_names": list(self.failed_class_names),
            "cache_entries": [
                {
                    "class_name": entry.class_name,
                    "age_seconds": entry.age_seconds,
                    "last_accessed_seconds_ago": entry.idle_seconds,
                    "access_count": entry.uses,
                }
                for entry in self.entries
            ],
            "removals": {cause.name.lower(): count for cause, count in self.removals.items()},
            "total_build_seconds": self.build_seconds,
            "failed_builds": self.failed_builds,
            "waits": self.waits,
            "closed": self.closed,
            "close_failures": self.close_failures,
            "left_open": self.left_open,
            "listener_failures": self.listener_failures,
            "held_instances": self.held,
            "adopted_instances": self.adopted,
            "entries_by_state": dict(self.states),
            "unmatched_rules": list(self.unmatched_rules),
            "families": {
                family.name: {**family._asdict(), "keys": list(family.keys)}
                for family in self.families
            },
        }


_new = partial(tuple.__new__, EntryStats)  # in C: the class's own is Python code


def snapshot(registry: BaseRegistry) -> RegistryStats:
    """
    Take the snapshot of a registry.

    Args:
        registry: The registry; reading it changes nothing.

    Returns:
        The snapshot.
    """
    rows, held, known = registry.facts(registry.now())
    return _snapshot(registry, tuple(map(_new, rows)), len(rows), held, known)


def as_data(registry: BaseRegistry) -> dict[str, Any]:
    """Return what `snapshot(registry).as_dict()` does, in half of the time."""
    rows, held, known = registry.facts(registry.now(), as_dicts=True)
    data = _snapshot(registry, (), len(rows), held, known).as_dict()
    data["cache_entries"] = rows
    return data


def _snapshot(
    registry: BaseRegistry,
    entries: tuple[EntryStats, ...],
    cached: int,
    held: int,
    known_bytes: int | None,
) -> RegistryStats:
    counters = registry.counters()
    hits, misses, evictions, builds, adopted, build_seconds, removals, states, counts = counters
    settings = registry.settings
    return RegistryStats(
        classes_registered=len(registry),
        methods_injected=sum(len(methods) for methods in list(registry.injected.values())),
        cached=cached,
        weakly_kept=registry.weakly_alive(),
        held=held,
        hits=hits,
        misses=misses,
        builds=builds,
        build_seconds=build_seconds,
        failed_builds=counts[FAILED_BUILDS],
        waits=counts[WAITS],
        closed=states[CLOSED],
        close_failures=states[CLOSE_FAILED],
        left_open=states[LEFT_OPEN],
        listener_failures=counts[LISTENER_FAILURES],
        evictions=evictions,
        removals=MappingProxyType({cause: removals[cause] for cause in RemovalCause}),
        failed_class_names=tuple(registry.builder.failures.names()),
        entries=entries,
        cache_ttl_seconds=settings.cache_ttl_seconds,
        max_cache_size=registry.max_size,
        enable_weakref=settings.enable_weakref,
        adopted=adopted,
        unmatched_rules=tuple(
            name for name in list(registry.classes.rules) if name not in registry
        ),
        families=tuple(map(family_stats, list(registry.families.values()))),
        states=MappingProxyType(dict(zip(STATE_NAMES, states, strict=True))),
        bytes=known_bytes,
    )


def family_stats(record: Any) -> FamilyStats:
    """
    Take the statistics of one family.

    Args:
        record: Its `warmset.families.FamilyRecord`.

    Returns:
        The statistics.
    """
    return FamilyStats(
        record.name,
        record.max_cache_size,
        tuple(record.warm_keys()),
        record.hits,
        record.misses,
        record.builds,
        record.failed_builds,
        record.evictions,
    )


def holders(registry: BaseRegistry) -> list[HolderStats]:
    """
    Tell who holds what.

    Args:
        registry: The registry.

    Returns:
        One for each hold, the oldest first.
    """
    names = _thread_names()
    now = registry.now()
    return [
        HolderStats(entry.name, names.get(ident, f"thread {ident}"), max(0.0, now - since))
        for entry, ident, since in registry.holds()
    ]


def holder_threads(registry: BaseRegistry) -> dict[int, list[str]]:
    """
    Return the threads that hold each entry.

    Args:
        registry: The registry.

    Returns:
        Serial number of the entry -> the name of the thread of each hold, the oldest first.

    O(holds).
    """
    names = _thread_names()
    threads: dict[int, list[str]] = {}
    for entry, ident, _ in registry.holds():
        threads.setdefault(entry.serial, []).append(names.get(ident, f"thread {ident}"))
    return threads


def _thread_names() -> dict[int | None, str]:
    from threading import enumerate as threads

    return {thread.ident: thread.name for thread in threads()}
