"""
The settings of a registry as a value, and `warmset.toml`, the file that they may come from.

Everything here may be called from any number of threads: values do not change once they are made.
"""

from __future__ import annotations

from .errors import _restore
from .resolver import near_names, shown
from .setting_rules import RULES, SETTINGS, check_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, NoReturn


class SettingsError(ValueError):
    """
    A settings file, a table of it, or an entry point cannot be used.

    Args:
        message: The whole text: file, table, key, value, and what was expected.
        file: The file, where it came from one.
        table: The table in it, or the group of entry points; None for a fault of the whole file.
        key: The key in the table, where one is to blame.

    The cause, where there is one, is chained as ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        table: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.file = file
        self.table = table
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class _Frozen:
    # What the immutable values below share; a dataclass would cost an import of 5 ms.

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).__slots__}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), *self._fields().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._fields())


def _rebuild(cls: Callable[..., object], fields: dict[str, Any]) -> object:
    # By keyword and through the constructor: a pickle of an older version lacks what is new.
    return cls(**fields)


class RegistrySettings(_Frozen):
    """
    The settings of a `MethodRegistry`, checked and immutable.

    Args:
        cache_ttl_seconds: Seconds since the last use after which an instance expires; 0 switches
            expiry off.
        max_age_seconds: Seconds since its build after which an instance leaves; 0: never.
        enable_weakref: Whether instances are kept by weak reference, where their class allows it.
        max_cache_size: The most instances to keep; at least 1.
        retry_after_seconds: Seconds after which a class that failed is tried again; inf: never.
        build_timeout_seconds: Seconds that a thread waits for another thread's build; 0: as long
            as it takes.
        revive: Whether a held instance that was removed is kept again if its name is asked for
            before its last release.
        block_when_full: Whether a build waits for room while all that is cached is held.
        block_timeout_seconds: For how long it waits.
        sweep_interval_seconds: Seconds between sweeps for what has expired, by a thread; 0: none.
        policy: Who leaves when a bound is passed: "lru", "cost", or an object of one's own.
        sizer: How the size of an instance is told: None, "measured", "deep", "declared", or one's
            own.
        max_cache_bytes: The most bytes to keep, as the sizer tells them; 0: no bound.
        max_rss_bytes: The most memory that the process shall have, where removals can help it;
            bytes, or as a float a part of what it may have; 0: no bound.
        low_rss_bytes: Down to where instances leave then; 0: nine tenths of `max_rss_bytes`.
        adaptive_ttl: Whether the idle limit of a class follows from its own use.
        adaptive_ttl_min_seconds: The least that it gives.
        adaptive_ttl_max_seconds: The most that it gives.
        store: Where snapshots of shareable classes are kept, see `warmset.share`: None, the path of
            a directory, a URL, or a store.
        host_budget: The most memory that all processes of this user on this host shall have which
            say so, see `warmset.share.HostBudget`; bytes, or as a float a part; 0: no bound.
        observe_socket: Whether `warmset top` of the same user may look at the registry while it
            runs, over a private Unix socket.
        observe_changes: Whether it may also evict and clear there.

    Numbers may be of any type that has `__float__` (seconds; also `__index__`) or `__index__`
    (size), a bool and a str excepted. Equal settings are equal and hash alike; they can be
    pickled and copied.

    Raises:
        TypeError: A value is not of the right type.
        ValueError: A value is negative, NaN, infinite where it must not be, or a size below 1.
    """

    __slots__ = (
        "adaptive_ttl",
        "adaptive_ttl_max_seconds",
        "adaptive_ttl_min_seconds",
        "block_timeout_seconds",
        "block_when_full",
        "build_timeout_seconds",
        "cache_ttl_seconds",
        "enable_weakref",
        "host_budget",
        "low_rss_bytes",
        "max_age_seconds",
        "max_cache_bytes",
        "max_cache_size",
        "max_rss_bytes",
        "observe_changes",
        "observe_socket",
        "policy",
        "retry_after_seconds",
        "revive",
        "sizer",
        "store",
        "sweep_interval_seconds",
    )

    cache_ttl_seconds: float
    enable_weakref: bool
    max_cache_size: int
    retry_after_seconds: float
    build_timeout_seconds: float
    revive: bool
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

    def __init__(
        self,
        *,
        cache_ttl_seconds: float = 300.0,
        enable_weakref: bool = False,
        max_cache_size: int = 100,
        retry_after_seconds: float = 30.0,
        build_timeout_seconds: float = 0.0,
        revive: bool = True,
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
    ) -> None:
        given = {
            "cache_ttl_seconds": cache_ttl_seconds,
            "enable_weakref": enable_weakref,
            "max_cache_size": max_cache_size,
            "retry_after_seconds": retry_after_seconds,
            "build_timeout_seconds": build_timeout_seconds,
            "revive": revive,
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
        }
        for setting, value in given.items():
            object.__setattr__(self, setting, check_setting(setting, value))
        if self.adaptive_ttl_min_seconds > self.adaptive_ttl_max_seconds:
            raise ValueError(
                "adaptive_ttl_min_seconds must be at most adaptive_ttl_max_seconds, "
                f"{self.adaptive_ttl_max_seconds}, got {self.adaptive_ttl_min_seconds}"
            )

    @classmethod
    def long_lived_service(cls, **changes: Any) -> RegistrySettings:
        """
        Give settings for a process that serves for days: 10 minutes, 100 instances.

        Args:
            changes: Settings to have instead of the preset's.

        Returns:
            New settings.

        Raises:
            TypeError: As the constructor, also for the name of a setting that does not exist.
            ValueError: As the constructor.
        """
        preset: dict[str, Any] = {"cache_ttl_seconds": 600.0, "max_cache_size": 100}
        return cls(**{**preset, **changes})

    @classmethod
    def batch(cls, **changes: Any) -> RegistrySettings:
        """
        Give settings for a process that works through its input and ends: no expiry, 200 instances.

        Arguments and errors as for `long_lived_service`.
        """
        preset: dict[str, Any] = {"cache_ttl_seconds": 0.0, "max_cache_size": 200}
        return cls(**{**preset, **changes})

    @classmethod
    def memory_constrained(cls, **changes: Any) -> RegistrySettings:
        """
        Give settings for little memory: 2 minutes, 20 instances, weak references.

        Arguments and errors as for `long_lived_service`.
        """
        preset: dict[str, Any] = {"cache_ttl_seconds": 120.0, "max_cache_size": 20}
        return cls(**{**preset, "enable_weakref": True, **changes})

    @classmethod
    def from_table(
        cls, table: object, *, file: str, table_name: str = "registry"
    ) -> RegistrySettings:
        """
        Make settings from a table of a TOML file; what it does not name has its default.

        Args:
            table: The table, setting -> value.
            file: The file that it stands in; for the text of the error.
            table_name: The name of the table; for the text of the error.

        Returns:
            New settings.

        Raises:
            SettingsError: It is no table, or has a key or a value that the constructor refuses.
        """
        rows = _check_table(table, file=file, table_name=table_name)
        unknown_keys(rows, SETTINGS, file=file, table_name=table_name)
        try:
            for key, value in rows.items():
                check_setting(key, value)
        except (TypeError, ValueError) as error:
            raise _fault(file, table_name, key, value, RULES[key][1]) from error
        try:
            return cls(**rows)
        except ValueError as error:  # each is right, but not with the others
            key = str(error).partition(" ")[0]
            raise SettingsError(
                f"{file}: {_place(table_name)}: {error}", file=file, table=table_name, key=key
            ) from error

    def replace(self, **changes: Any) -> RegistrySettings:
        """
        Give a copy in which some settings are other ones.

        Arguments and errors as for `long_lived_service`.
        """
        return type(self)(**{**self._fields(), **changes})

    __replace__ = replace

    def as_options(self) -> dict[str, Any]:
        """Give the keyword arguments for `MethodRegistry`, a new dict."""
        return self._fields()


def _fault(file: str, table: str, key: object, value: object, expected: str) -> SettingsError:
    return SettingsError(
        f"{file}: {_place(table)}: {_spelled(key)} = {shown(value)}; expected {expected}",
        file=file,
        table=table,
        key=key if type(key) is str else shown(key),
    )


def _spelled(key: object) -> str:
    # As it stands in the file, unless it would be nothing or break the line there.
    return key if type(key) is str and key and key.isprintable() else shown(key)


def _place(table_name: str) -> str:
    return f"[{table_name}]" if table_name else "top level"


def _check_table(table: object, *, file: str, table_name: str) -> dict[str, Any]:
    if isinstance(table, dict):
        return table
    raise SettingsError(
        f"{file}: {_place(table_name)}: {shown(table)}; expected a table",
        file=file,
        table=table_name,
    )


def unknown_keys(
    table: Mapping[str, object], allowed: Iterable[str], *, file: str, table_name: str
) -> None:
    """
    Refuse a table that has keys which mean nothing.

    Args:
        table: The table, key -> value.
        allowed: The keys that it may have.
        file: The file that it stands in; for the text of the error.
        table_name: The name of the table; empty for the top level of the file.

    Raises:
        SettingsError: It has. The text names each, with what is nearest; `key` is the first.
    """
    known = list(allowed)
    faults = []
    first = None
    for key, value in table.items():
        if key in known:
            continue
        near = near_names(key, known) if type(key) is str else []
        hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
        if first is None:
            first = key if type(key) is str else shown(key)
        faults.append(f"{_spelled(key)} = {shown(value, 80)}{hint}")
    if first is not None:
        expected = ", ".join(known) or "an empty table"
        raise SettingsError(
            f"{file}: {_place(table_name)}: unknown {', '.join(faults)}; expected {expected}",
            file=file,
            table=table_name,
            key=first,
        )
