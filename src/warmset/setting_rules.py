"""
What a setting of a registry may be: one table for the constructor and the files.

A check takes the setting's name and the value, and gives the value as an exact float, bool or int.
"""

from __future__ import annotations

from .resolver import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["RULES", "SETTINGS", "check_setting"]


def _refusal(setting: str, value: object) -> str:
    kind = type(value).__name__
    return f"{setting} must be {RULES[setting][1]}, got {kind} {shown(value)}"


def _seconds(setting: str, value: object) -> float:
    kind = type(value)
    if (
        # By name also numpy's, which would pass for the numbers 0 and 1.
        kind.__name__ in ("bool", "bool_")
        or issubclass(kind, (str, bytes, bytearray))
        or not (hasattr(kind, "__float__") or hasattr(kind, "__index__"))
    ):
        raise TypeError(_refusal(setting, value))
    try:
        # The sum makes -0.0 plain 0.0.
        seconds = float(value) + 0.0  # type: ignore[arg-type]
    except (ValueError, OverflowError) as error:
        raise ValueError(_refusal(setting, value)) from error
    except Exception as error:
        raise TypeError(_refusal(setting, value)) from error
    # Written so that NaN, which compares false to everything, is refused.
    if not seconds >= 0.0:
        raise ValueError(_refusal(setting, value))
    return seconds


def _finite_seconds(setting: str, value: object) -> float:
    seconds = _seconds(setting, value)
    if seconds == float("inf"):
        raise ValueError(_refusal(setting, value))
    return seconds


def _flag(setting: str, value: object) -> bool:
    if value is True or value is False:
        return value
    raise TypeError(_refusal(setting, value))


def _whole(setting: str, value: object, least: int) -> int:
    import sys
    from operator import index

    kind = type(value)
    if kind.__name__ in ("bool", "bool_") or issubclass(kind, (str, bytes, bytearray)):
        raise TypeError(_refusal(setting, value))
    try:
        # `int.__index__` makes an instance of a subclass of int an exact int.
        count = int.__index__(index(value))  # type: ignore[arg-type]
    except Exception as error:
        raise TypeError(_refusal(setting, value)) from error
    if not least <= count <= sys.maxsize:
        raise ValueError(_refusal(setting, value))
    return count


def _count(setting: str, value: object) -> int:
    return _whole(setting, value, 1)


def _none_or_more(setting: str, value: object) -> int:
    return _whole(setting, value, 0)


def _integer(setting: str, value: object) -> int:
    return _whole(setting, value, -(2**31))


def _bytes_or_part(setting: str, value: object) -> int | float:
    if isinstance(value, float):
        # Written so that NaN is refused.
        if not 0.0 <= value <= 1.0:
            raise ValueError(_refusal(setting, value))
        return float(value) or 0
    return _whole(setting, value, 0)


def _named_or(setting: str, value: object, names: tuple[str, ...], method: str) -> Any:
    if isinstance(value, str):
        if value not in names:
            raise ValueError(_refusal(setting, value))
        return str(value)
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise TypeError(_refusal(setting, value))
    return value


def _policy(setting: str, value: object) -> Any:
    return _named_or(setting, value, ("lru", "cost"), "worth")


def _store(setting: str, value: object) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        # A password would be shown with the settings.
        if not value or shown(value) != repr(value):
            raise ValueError(_refusal(setting, value))
        return str(value)
    if isinstance(value, type) or not (
        callable(getattr(value, "fetch", None)) and callable(getattr(value, "claim", None))
    ):
        raise TypeError(_refusal(setting, value))
    return value


def _host_budget(setting: str, value: object) -> Any:
    if not hasattr(value, "one_heavy_build"):
        return _bytes_or_part(setting, value)
    value.check()  # type: ignore[attr-defined]
    return value


def _shareable(setting: str, value: object) -> bool | str:
    if value is True or value is False:
        return value
    if isinstance(value, str):
        if value != "copy_on_write":
            raise ValueError(_refusal(setting, value))
        return str(value)
    raise TypeError(_refusal(setting, value))


def _hook(setting: str, value: object) -> Any:
    if value is not None and not callable(value):
        raise TypeError(_refusal(setting, value))
    return value


def _sizer(setting: str, value: object) -> Any:
    if value is None:
        return None
    method = "size" if hasattr(value, "size") else "__call__"
    return _named_or(setting, value, ("measured", "deep", "declared"), method)


# Setting, or option of a class -> its check and what the check expects.
RULES: dict[str, tuple[Callable[[str, object], Any], str]] = {
    "cache_ttl_seconds": (
        _finite_seconds,
        "a finite number of seconds, 0 or more (use 0 to switch expiry off)",
    ),
    "max_age_seconds": (
        _finite_seconds,
        "a finite number of seconds, 0 or more (use 0 to switch the maximum age off)",
    ),
    "enable_weakref": (_flag, "a bool, true or false"),
    "max_cache_size": (_count, "a whole number, 1 or more"),
    "retry_after_seconds": (
        _seconds,
        "a number of seconds, 0 or more (inf: a failed class is never tried again)",
    ),
    "build_timeout_seconds": (
        _seconds,
        "a number of seconds, 0 or more (0: those who wait for a build wait as long as it takes)",
    ),
    "revive": (_flag, "a bool, true or false"),
    "block_when_full": (_flag, "a bool, true or false"),
    "block_timeout_seconds": (_seconds, "a number of seconds, 0 or more"),
    "sweep_interval_seconds": (
        _finite_seconds,
        "a finite number of seconds, 0 or more (0: no sweeping)",
    ),
    "policy": (_policy, "'lru', 'cost', or an object with a method worth(slot, now)"),
    "sizer": (
        _sizer,
        "None, 'measured', 'deep', 'declared', a callable that takes an instance, or an object "
        "with a method size(instance)",
    ),
    "max_cache_bytes": (_none_or_more, "a whole number of bytes, 0 or more (0: no bound)"),
    "max_rss_bytes": (
        _bytes_or_part,
        "a whole number of bytes, 0 or more (0: no bound), or a float up to 1.0, a part of the "
        "memory that the process may have",
    ),
    "low_rss_bytes": (
        _bytes_or_part,
        "a whole number of bytes, 0 or more (0: nine tenths of max_rss_bytes), or a float up to "
        "1.0, a part of the memory that the process may have",
    ),
    "adaptive_ttl": (_flag, "a bool, true or false"),
    "adaptive_ttl_min_seconds": (_finite_seconds, "a finite number of seconds, 0 or more"),
    "adaptive_ttl_max_seconds": (_finite_seconds, "a finite number of seconds, 0 or more"),
    "store": (
        _store,
        "None, the path of a directory, a URL such as 'valkey://host:6379/0' that holds no "
        "password, or a store of warmset.share",
    ),
    "host_budget": (
        _host_budget,
        "a whole number of bytes, 0 or more (0: no budget), a float up to 1.0, a part of the "
        "memory of the machine, or a warmset.share.HostBudget",
    ),
    "observe_socket": (_flag, "a bool, true or false"),
    "observe_changes": (_flag, "a bool, true or false"),
}
SETTINGS = tuple(RULES)
RULES |= {
    "priority": (_integer, "a whole number (who has less leaves before who has more)"),
    "pin": (_flag, "a bool, true or false"),
    "shareable": (_shareable, "a bool, true or false, or 'copy_on_write'"),
    "snapshot": (
        _hook,
        "None, or a callable that takes an instance and gives what is to be stored",
    ),
    "restore": (
        _hook,
        "None, or a callable that takes the class and what was stored, and gives an instance",
    ),
    "recycle_after_uses": (_none_or_more, "a whole number of uses, 0 or more (0: never)"),
    "recycle_after_seconds": (
        _finite_seconds,
        "a finite number of seconds, 0 or more (0: never)",
    ),
    "recycle_after_growth_bytes": (_none_or_more, "a whole number of bytes, 0 or more (0: never)"),
}


def check_setting(setting: str, value: object) -> Any:
    """
    Check one setting of a registry.

    Args:
        setting: The name of a field of `RegistrySettings`, or of an option of a class.
        value: What it is to be.

    Returns:
        The value as an exact float, bool or int.

    Raises:
        TypeError: The value is not of the right type.
        ValueError: The value is out of range, or NaN.
    """
    return RULES[setting][0](setting, value)
