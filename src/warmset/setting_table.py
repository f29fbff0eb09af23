"""
The table of settings: each setting of a registry and each option of a class, declared once.

`RegistrySettings`, `ClassOptions`, the checks of a settings file and their messages read it.
``ci/generate_signatures.py`` writes signatures and documentation into the source: run it after a
change.
"""

from __future__ import annotations

from . import setting_checks as rules
from .setting_checks import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .setting_checks import Rule

__all__ = ["BY_NAME", "CLASS_DEFAULTS", "REGISTRY_DEFAULTS", "SETTINGS", "check_setting"]


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
        rules.COUNT_OR_AUTO,
        100,
        'Maximum number of cached instances; held instances may exceed it. "auto": the registry '
        "raises and lowers it by what its builds cost, within `max_cache_bytes`, which is required "
        "then; see `warmset.memory.autosize`.",
        positional=True,
    ),
    _registry(
        "autosize_min",
        rules.COUNT,
        4,
        'Lower limit of `max_cache_size="auto"`.',
        needs=("max_cache_size", 'max_cache_size="auto"'),
    ),
    _registry(
        "autosize_max",
        rules.COUNT,
        1000,
        'Upper limit of `max_cache_size="auto"`, with which it begins.',
        needs=("max_cache_size", 'max_cache_size="auto"'),
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
        needs=("block_when_full", "block_when_full=True"),
    ),
    _registry(
        "closing",
        rules.CLOSING,
        "inline",
        'Who closes removed instances: "inline", the thread that removes or releases them; or '
        '"background", a thread of the registry, for closers that take long, as those of a '
        "`subprocess.Popen` or a thread pool. `close()` waits for it, at most 30 s.",
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
        "method ``worth(entry, now)``, see `warmset.memory.policies`.",
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
        needs=("max_rss_bytes", "max_rss_bytes"),
    ),
    _registry(
        "adaptive_ttl",
        rules.FLAG,
        False,
        "Derive the idle TTL of each class that has none of its own from its use and its build "
        "time; `explain` reports it.",
    ),
    _registry(
        "adaptive_ttl_min_seconds",
        rules.FINITE_SECONDS,
        10.0,
        "Lower bound of a derived idle TTL.",
        needs=("adaptive_ttl", "adaptive_ttl=True"),
    ),
    _registry(
        "adaptive_ttl_max_seconds",
        rules.FINITE_SECONDS,
        3600.0,
        "Upper bound of a derived idle TTL; also the TTL of a class about which nothing is known.",
        needs=("adaptive_ttl", "adaptive_ttl=True"),
    ),
    _registry(
        "plan",
        rules.FLAG,
        False,
        "Remember evicted instances from the beginning, so that `plan` and `health` can tell which "
        "builds a larger bound would have avoided; else from their first call.",
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
        "observe_changes",
        rules.FLAG,
        False,
        "Let them also evict, pin and unpin instances, and clear the cache.",
        needs=("observe_socket", "observe_socket=True"),
    ),
    _registry(
        "arguments",
        rules.ARGUMENTS,
        "strict",
        'How executors check a payload before the method runs: "strict": names and types; '
        '"names": names only; "off": not at all. An executor may say otherwise.',
    ),
    _class(
        "closer",
        rules.CLOSER,
        "auto",
        "How a removed instance is closed: a callable that takes it; None: not at all; "
        '"auto": by its `close()`, else its `__exit__`.',
        in_files=False,
        as_path=True,
    ),
    _class(
        "validate",
        rules.VALIDATE,
        None,
        "Takes the instance and returns whether it is still valid; an invalid one is removed and "
        "built anew. Raising counts as invalid. None: it is not checked.",
        in_files=False,
        as_path=True,
    ),
    _class(
        "validate_interval_seconds",
        rules.FINITE_SECONDS,
        30.0,
        "Minimum seconds between two checks by `validate`; the first look-up after them checks. "
        "0: every look-up checks.",
        needs=("validate", "validate, a callable that takes the instance"),
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
        as_path=True,
    ),
    _class(
        "restore",
        rules.RESTORE,
        None,
        "Takes the class and what was stored, and returns an instance; required with `snapshot`.",
        in_files=False,
        as_path=True,
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
