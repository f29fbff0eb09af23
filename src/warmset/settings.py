"""
The settings of a registry and the options of a class: one table, from which the rest is derived.

`RegistrySettings`, `ClassOptions`, the checks of a settings file and their messages read the table.
``ci/generate_signatures.py`` writes signatures and documentation into the source: run it after a
change. Everything here may be called from any number of threads.
"""

from __future__ import annotations

from . import setting_checks as rules
from .frozen import Frozen
from .setting_checks import Setting
from .toml_tables import SettingsError, check_table, table_error, unknown_keys, value_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .setting_checks import Rule

__all__ = [
    "BY_NAME",
    "CLASS_DEFAULTS",
    "REGISTRY_DEFAULTS",
    "SETTINGS",
    "RegistrySettings",
    "SettingsError",
    "check_setting",
]


def _registry(name: str, rule: Rule, default: Any, text: str, **more: Any) -> Setting:
    return Setting(name, rule, registry=(default, text), **more)


def _class(name: str, rule: Rule, default: Any, text: str, **more: Any) -> Setting:
    return Setting(name, rule, option=(default, text), **more)


def _both(name: str, rule: Rule, default: Any, text: str, of_class: str, **more: Any) -> Setting:
    return Setting(name, rule, registry=(default, text), option=(None, of_class), **more)


SETTINGS = (
    _both(
        "cache_ttl_seconds",
        rules.FINITE_SECONDS,
        300.0,
        "Seconds without use after which an instance is evicted; 0: no expiry.",
        "Idle TTL of this class; 0: none; None: the registry's, or the one that `adaptive_ttl` "
        "derives.",
        note="use 0 to disable expiry",
        positional=True,
    ),
    _registry(
        "enable_weakref",
        rules.FLAG,
        False,
        "Keep instances by weak reference only: an instance lives as long as its users refer to "
        "it, and neither TTL nor size bound applies to it. An instance whose class does not "
        "support weak references is kept strongly.",
        positional=True,
    ),
    _registry(
        "max_cache_size",
        rules.COUNT,
        100,
        "Maximum number of cached instances; held instances may exceed it.",
        positional=True,
    ),
    _registry(
        "retry_after_seconds",
        rules.SECONDS,
        30.0,
        "Seconds during which the error of a failed build is raised again without another "
        "attempt; 0 retries every time, `math.inf` never.",
        note="inf: a failed class is never retried",
    ),
    _registry(
        "build_timeout_seconds",
        rules.SECONDS,
        0.0,
        "Seconds that a thread waits for another thread's build before `BuildTimeoutError`; 0: no "
        "limit.",
        note="0: no limit",
    ),
    _registry(
        "block_when_full",
        rules.FLAG,
        False,
        "While every cached instance is held, let a build wait for capacity, at most "
        "`block_timeout_seconds`, and then raise `CapacityError`; False exceeds the bound.",
    ),
    _registry(
        "block_timeout_seconds",
        rules.SECONDS,
        30.0,
        "Maximum seconds that a build waits for capacity; see `block_when_full`.",
    ),
    _registry(
        "sweep_interval_seconds",
        rules.FINITE_SECONDS,
        0.0,
        "Seconds between sweeps, by one thread for all registries of the process, which evict "
        "expired instances; 0: only look-ups and `evict_expired` do.",
        note="0: no sweeps",
    ),
    _both(
        "max_age_seconds",
        rules.FINITE_SECONDS,
        0.0,
        "Seconds since its build after which an instance is no longer returned, even while it "
        "is held; 0: no maximum age.",
        "Maximum age of this class; 0: none; None: the registry's.",
        note="use 0 to disable the maximum age",
    ),
    _registry(
        "policy",
        rules.POLICY,
        "lru",
        'Eviction order when a bound is exceeded. "lru": least recently used first; "cost": least '
        "valuable first, by rebuild seconds, frequency of use, and bytes; or an object with a "
        "method ``worth(slot, now)``, see `warmset.memory.policies`.",
    ),
    _both(
        "sizer",
        rules.SIZER,
        None,
        'How instances are measured, see `warmset.memory.sizing`: "measured", "deep", "declared", '
        "a callable that takes an instance, or an object with a method ``size(instance)``; None: "
        "they are not.",
        "Sizer of this class, as for the registry; None: the registry's.",
    ),
    _registry(
        "max_cache_bytes",
        rules.BYTES,
        0,
        "Maximum bytes of all cached instances, as the sizer measures them (without a sizer: "
        '"measured"); 0: no bound.',
        note="0: no bound",
    ),
    _registry(
        "max_rss_bytes",
        rules.MEMORY,
        0,
        "Memory of the process above which a build or a sweep evicts instances: bytes, or a float "
        "as a fraction of the memory available to the process; 0: no bound.",
        note="0: no bound",
    ),
    _registry(
        "low_rss_bytes",
        rules.MEMORY,
        0,
        "Memory of the process below which these evictions stop; 0: nine tenths of "
        "`max_rss_bytes`.",
        note="0: nine tenths of max_rss_bytes",
    ),
    _registry(
        "adaptive_ttl",
        rules.FLAG,
        False,
        "Derive the idle TTL of each class that has none of its own from its use and its build "
        "time; `explain` reports it.",
    ),
    _registry(
        "adaptive_ttl_min_seconds", rules.FINITE_SECONDS, 10.0, "Lower bound of a derived idle TTL."
    ),
    _registry(
        "adaptive_ttl_max_seconds",
        rules.FINITE_SECONDS,
        3600.0,
        "Upper bound of a derived idle TTL; also the TTL of a class about which nothing is known.",
    ),
    _registry(
        "store",
        rules.STORE,
        None,
        "Where snapshots of shareable classes are kept, so that other processes and later runs "
        "open them instead of building: the path of a directory, a URL, or a store, see "
        "`warmset.share`; None: nowhere.",
    ),
    _registry(
        "host_budget",
        rules.HOST_BUDGET,
        0,
        "Maximum memory of all processes of this user on this host that have a budget: bytes, a "
        "float as a fraction of the machine's memory, or a `warmset.share.HostBudget`; 0: no "
        "bound. The registry is swept every second unless `sweep_interval_seconds` is set.",
        note="0: no budget",
    ),
    _registry(
        "observe_socket",
        rules.FLAG,
        False,
        "Let `warmset top` and `warmset stats` of the same user inspect the registry through a "
        "private Unix socket; see `warmset.observe.serve`.",
    ),
    _registry(
        "observe_changes", rules.FLAG, False, "Let them also evict instances and clear the cache."
    ),
    _class(
        "closer",
        rules.CLOSER,
        "auto",
        "How a removed instance is closed: a callable that takes it; None: not at all; "
        '"auto": by its `close()`, else its `__exit__`.',
        in_files=False,
    ),
    _class(
        "close_when_removed",
        rules.FLAG,
        False,
        "Close a removed instance even if a caller that received it without a lease still refers "
        "to it.",
    ),
    _class(
        "after_fork",
        rules.AFTER_FORK,
        "keep",
        'What a forked child does with a cached instance: "keep" it; "drop" it without closing '
        'it, since it is the parent\'s, and build another at its next use; "rebuild" it at once.',
    ),
    _class(
        "priority",
        rules.INTEGER,
        0,
        "Instances of a lower priority are evicted before those of a higher one, whatever the "
        "policy.",
        note="a lower priority is evicted first",
    ),
    _class(
        "pin",
        rules.FLAG,
        False,
        "Do not evict the instance for idleness, capacity or memory; see `pin`.",
    ),
    _class(
        "shareable",
        rules.SHAREABLE,
        False,
        "Keep a snapshot of the instance in the registry's `store`, and open it instead of "
        'building. Its arrays are read-only; "copy_on_write" makes them writable, and changes '
        "stay in this process.",
    ),
    _class(
        "snapshot",
        rules.SNAPSHOT,
        None,
        "Takes the instance and returns what is stored in its place; makes the class shareable.",
        in_files=False,
    ),
    _class(
        "restore",
        rules.RESTORE,
        None,
        "Takes the class and what was stored, and returns an instance; required with `snapshot`.",
        in_files=False,
    ),
    _class(
        "recycle_after_uses",
        rules.USES,
        0,
        "Rebuild the instance after this number of uses; 0: never. `sweep` checks this and the "
        "next two options, by itself if `sweep_interval_seconds` is set: the replacement is built "
        "in the background, and the old instance is closed when its last lease has ended.",
        note="0: never",
    ),
    _class(
        "recycle_after_seconds",
        rules.FINITE_SECONDS,
        0.0,
        "Rebuild the instance at this age; 0: never.",
        note="0: never",
    ),
    _class(
        "recycle_after_growth_bytes",
        rules.BYTES,
        0,
        "Rebuild the instance when it has grown by this much since its build, as its sizer "
        "measures it; 0: never.",
        note="0: never",
    ),
)
BY_NAME = {row.name: row for row in SETTINGS}
REGISTRY_DEFAULTS = {row.name: row.registry[0] for row in SETTINGS if row.registry}
CLASS_DEFAULTS = {row.name: row.option[0] for row in SETTINGS if row.option}


def check_setting(name: str, value: object) -> Any:
    """
    Check one setting of a registry.

    Args:
        name: Its name.
        value: Its value.

    Returns:
        The value, as an exact float, bool or int.

    Raises:
        TypeError: The value is of the wrong type.
        ValueError: The value is out of range, or NaN.
    """
    return BY_NAME[name].checked(value)


class RegistrySettings(Frozen):
    """
    The settings of a registry, checked and immutable.

    The arguments are those of `MethodRegistry`, where they are documented. Numbers may be of any
    type with `__float__` (seconds; also `__index__`) or `__index__` (sizes), except bool and str.
    Equal settings are equal and hash alike; they can be pickled and copied.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range.
    """

    __slots__ = tuple(sorted(REGISTRY_DEFAULTS))

    # begin registry-fields: generated by ci/generate_signatures.py
    cache_ttl_seconds: float
    enable_weakref: bool
    max_cache_size: int
    retry_after_seconds: float
    build_timeout_seconds: float
    block_when_full: bool
    block_timeout_seconds: float
    sweep_interval_seconds: float
    max_age_seconds: float
    policy: Any
    sizer: Any
    max_cache_bytes: int
    max_rss_bytes: int | float
    low_rss_bytes: int | float
    adaptive_ttl: bool
    adaptive_ttl_min_seconds: float
    adaptive_ttl_max_seconds: float
    store: Any
    host_budget: Any
    observe_socket: bool
    observe_changes: bool
    # end registry-fields

    def __init__(
        self,
        # begin registry-keywords: generated by ci/generate_signatures.py
        *,
        cache_ttl_seconds: float = 300.0,
        enable_weakref: bool = False,
        max_cache_size: int = 100,
        retry_after_seconds: float = 30.0,
        build_timeout_seconds: float = 0.0,
        block_when_full: bool = False,
        block_timeout_seconds: float = 30.0,
        sweep_interval_seconds: float = 0.0,
        max_age_seconds: float = 0.0,
        policy: Any = "lru",
        sizer: Any = None,
        max_cache_bytes: int = 0,
        max_rss_bytes: int | float = 0,
        low_rss_bytes: int | float = 0,
        adaptive_ttl: bool = False,
        adaptive_ttl_min_seconds: float = 10.0,
        adaptive_ttl_max_seconds: float = 3600.0,
        store: Any = None,
        host_budget: Any = 0,
        observe_socket: bool = False,
        observe_changes: bool = False,
        # end registry-keywords
    ) -> None:
        given = {
            # begin registry-items: generated by ci/generate_signatures.py
            "cache_ttl_seconds": cache_ttl_seconds,
            "enable_weakref": enable_weakref,
            "max_cache_size": max_cache_size,
            "retry_after_seconds": retry_after_seconds,
            "build_timeout_seconds": build_timeout_seconds,
            "block_when_full": block_when_full,
            "block_timeout_seconds": block_timeout_seconds,
            "sweep_interval_seconds": sweep_interval_seconds,
            "max_age_seconds": max_age_seconds,
            "policy": policy,
            "sizer": sizer,
            "max_cache_bytes": max_cache_bytes,
            "max_rss_bytes": max_rss_bytes,
            "low_rss_bytes": low_rss_bytes,
            "adaptive_ttl": adaptive_ttl,
            "adaptive_ttl_min_seconds": adaptive_ttl_min_seconds,
            "adaptive_ttl_max_seconds": adaptive_ttl_max_seconds,
            "store": store,
            "host_budget": host_budget,
            "observe_socket": observe_socket,
            "observe_changes": observe_changes,
            # end registry-items
        }
        for name, value in given.items():
            object.__setattr__(self, name, check_setting(name, value))
        if self.adaptive_ttl_min_seconds > self.adaptive_ttl_max_seconds:
            raise ValueError(
                "adaptive_ttl_min_seconds must be at most adaptive_ttl_max_seconds, "
                f"{self.adaptive_ttl_max_seconds}, got {self.adaptive_ttl_min_seconds}"
            )

    @classmethod
    def long_lived_service(cls, **changes: Any) -> RegistrySettings:
        """
        Make settings for a long-lived service: TTL 10 minutes, 100 instances.

        Args:
            changes: Settings that replace those of the preset.

        Returns:
            New settings.

        Raises:
            TypeError: As for the constructor; also for an unknown setting.
            ValueError: As for the constructor.
        """
        preset: dict[str, Any] = {"cache_ttl_seconds": 600.0, "max_cache_size": 100}
        return cls(**{**preset, **changes})

    @classmethod
    def batch(cls, **changes: Any) -> RegistrySettings:
        """
        Make settings for a batch run: no expiry, 200 instances.

        Arguments and errors as for `long_lived_service`.
        """
        preset: dict[str, Any] = {"cache_ttl_seconds": 0.0, "max_cache_size": 200}
        return cls(**{**preset, **changes})

    @classmethod
    def memory_constrained(cls, **changes: Any) -> RegistrySettings:
        """
        Make settings for little memory: TTL 2 minutes, 20 instances, weak references.

        Arguments and errors as for `long_lived_service`.
        """
        preset: dict[str, Any] = {"cache_ttl_seconds": 120.0, "max_cache_size": 20}
        return cls(**{**preset, "enable_weakref": True, **changes})

    @classmethod
    def from_table(
        cls, table: object, *, file: str, table_name: str = "registry"
    ) -> RegistrySettings:
        """
        Make settings from a table of a TOML file; settings that it lacks have their defaults.

        Args:
            table: The table, setting -> value.
            file, table_name: The file, and the name of the table; for the text of an error.

        Returns:
            New settings.

        Raises:
            SettingsError: It is not a table, or has a key or a value that the constructor refuses.
        """
        given = check_table(table, file=file, table_name=table_name)
        unknown_keys(given, REGISTRY_DEFAULTS, file=file, table_name=table_name)
        for key, value in given.items():
            try:
                check_setting(key, value)
            except (TypeError, ValueError) as error:
                raise value_error(file, table_name, key, value, BY_NAME[key].expected) from error
        try:
            return cls(**given)
        except ValueError as error:  # each value is valid, but their combination is not
            key = str(error).partition(" ")[0]
            raise table_error(file, table_name, str(error), key=key) from error

    def replace(self, **changes: Any) -> RegistrySettings:
        """
        Make a copy with some settings replaced.

        Arguments and errors as for `long_lived_service`.
        """
        return type(self)(**{**self._fields(), **changes})

    __replace__ = replace

    @property
    def manages_memory(self) -> bool:
        """Whether a setting takes a memory manager."""
        sized = self.sizer is not None or self.max_cache_bytes or self.max_rss_bytes
        return bool(self.policy != "lru" or sized or self.adaptive_ttl or self.host_budget)

    @property
    def needs_assembly(self) -> bool:
        """Whether a setting takes any capability."""
        started = self.sweep_interval_seconds or self.observe_socket or self.store is not None
        return bool(self.manages_memory or self.block_when_full or started)

    def as_options(self) -> dict[str, Any]:
        """Return the keyword arguments for `MethodRegistry`, a new dict."""
        return self._fields()
