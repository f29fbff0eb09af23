"""
Checks of what a client reads: answers of another process are bounded and typed before their use.

A malformed row is skipped and counted; an answer that is malformed as a whole is an error.
"""

from __future__ import annotations

from math import isfinite

from .protocol import CHANGES, MAX_CLASSES, LiveViewError
from .rows import STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["MAX_REGISTRIES", "check_answer"]

MAX_REGISTRIES = 1000
_MOST = 1 << 62
_MOST_CHARACTERS = 10_000


def check_answer(command: str, answer: object) -> dict[str, Any]:
    """
    Check an answer to a command.

    Args:
        command: The command.
        answer: The decoded answer.

    Returns:
        The answer. Malformed registries and classes are removed from it; ``registries_malformed``
        and ``classes_malformed`` are their numbers.

    Raises:
        LiveViewError: The process rejected the command, or the answer is malformed.
    """
    if type(answer) is not dict or answer.get("ok") is not True:
        text = answer.get("error") if type(answer) is dict else None
        valid = type(text) is str and text and len(text) <= _MOST_CHARACTERS
        raise LiveViewError(text if valid else "the process sent an unexpected answer")
    if command in CHANGES:
        if not _is_count(answer.get("removed", 0)):
            raise LiveViewError("the process sent an unexpected answer")
        return answer
    if not _has(answer, _PROCESS):
        raise LiveViewError("the process sent an unexpected answer")
    check = _is_registry if command == "stats" else _is_name
    registries = answer["registries"][:MAX_REGISTRIES]
    answer["registries"] = [each for each in registries if check(each)]
    answer["registries_malformed"] = len(registries) - len(answer["registries"])
    return answer


def _is_name(registry: object) -> bool:
    return type(registry) is dict and _has(registry, {"name": _is_text})


def _is_registry(registry: object) -> bool:
    if type(registry) is not dict or not _has(registry, _REGISTRY):
        return False
    rows = registry["classes"][:MAX_CLASSES]
    registry["classes"] = [row for row in rows if type(row) is dict and _has(row, _ROW)]
    registry["classes_malformed"] = len(rows) - len(registry["classes"])
    return True


def _has(table: dict[str, Any], fields: Mapping[str, Callable[[object], bool]]) -> bool:
    return all(name in table and is_valid(table[name]) for name, is_valid in fields.items())


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= _MOST_CHARACTERS


def _is_count(value: object) -> bool:
    return type(value) is int and -_MOST <= value <= _MOST


def _is_number(value: object) -> bool:
    return _is_count(value) or (type(value) is float and isfinite(value) and abs(value) <= _MOST)


def _is_list(value: object) -> bool:
    return type(value) is list


def _is_plain_table(value: object) -> bool:
    """A table of settings, without further depth."""
    return type(value) is dict and not any(type(each) in (dict, list) for each in value.values())


def _is_offer(value: object) -> bool:
    return type(value) is list and all(type(each) is str and each in CHANGES for each in value)


def _optional(is_valid: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_valid(value)


_PROCESS = {
    "pid": _is_count,
    "program": _is_text,
    "warmset": _is_text,
    "implementation": _is_text,
    "rss_bytes": _optional(_is_count),
    "registries": _is_list,
}
_REGISTRY = {
    "name": _is_text,
    "settings": _is_plain_table,
    "classes": _is_list,
    "offers": _is_offer,
    "hit_rate": _is_number,
    **dict.fromkeys(
        (
            "cached",
            "max_cache_size",
            "weakly_kept",
            "held",
            "lookups",
            "builds",
            "evictions",
            "classes_left_out",
        ),
        _is_count,
    ),
}
_ROW = {
    "class_name": _is_text,
    "class_path": _optional(_is_text),
    "state": lambda value: type(value) is str and value in STATES,
    "holders": _is_count,
    **dict.fromkeys(
        (
            "age_seconds",
            "idle_seconds",
            "build_seconds",
            "held_seconds",
            "expires_in_seconds",
        ),
        _optional(_is_number),
    ),
    **dict.fromkeys(("uses", "bytes"), _optional(_is_count)),
    **dict.fromkeys(("expires", "detail"), _optional(_is_text)),
}
