"""Keys of snapshots: a key covers everything on which the result of a build depends."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

from .versions import module_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..options import ClassOptions
    from .secret import Secret

__all__ = ["NotShareableError", "found_by_name", "requirements", "snapshot_key", "unmet"]


class NotShareableError(Exception):
    """Instances of a class cannot be shared; the text says why."""


def snapshot_key(
    class_path: str,
    cls: type,
    options: ClassOptions,
    rule: Callable[..., Any] | None,
    rule_version: str | None,
    secret: Secret | None,
    store_version: str = "",
    family_key: str | None = None,
) -> str:
    """
    Compute the key of a class's snapshot.

    Args:
        class_path: The path of the class.
        cls: The class or factory.
        options: The options of the class, for its hooks and arguments.
        rule: The rule that builds instances; None for the constructor.
        rule_version: The version of the rule.
        secret: The signing key; stores with different signing keys have different snapshots.
        store_version: The version of the store; those of different versions differ, too.
        family_key: The text of the key of a family, with which the class or factory is called; None
            for a class.

    Returns:
        The class path and 32 hexadecimal digits.

    Raises:
        NotShareableError: A dependency of the build has no version.
    """
    if rule is not None and rule_version is None:
        raise NotShareableError(
            "it is built by a rule without a version: use register_instantiation_rule(..., "
            "version='1'), and change the version when the rule builds something else"
        )
    parts: dict[str, Any] = {
        "class": class_path,
        "rule": rule_version,
        "python": f"{sys.implementation.cache_tag} {sys.byteorder} {struct.calcsize('P')}",
        "machine": platform.machine(),
        "signed": None if secret is None else secret.fingerprint,
    }
    if store_version:
        parts["version"] = store_version
    if family_key is not None:
        parts["key"] = family_key
    if rule is None and (options.args or options.kwargs):
        arguments = [options.args, sorted(options.kwargs.items())]
        if not _is_plain(arguments):
            raise NotShareableError(
                "its arguments are more than numbers, strings and containers of them: use "
                "register_instantiation_rule(..., version='1')"
            )
        parts["arguments"] = repr(arguments)
    for what, code in (
        ("code", cls),
        ("snapshot", options.snapshot),
        ("restore", options.restore),
    ):
        if code is not None:
            parts[what] = _versioned(what, code)
    text = json.dumps(parts, sort_keys=True)
    # Short, and without characters with a meaning elsewhere: the key is used as a file name.
    readable = re.sub(r"[^A-Za-z0-9_.]", "_", class_path[-120:]).lstrip(".")
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in (list, tuple):
        return all(map(_is_plain, value))
    if kind is dict:
        return all(_is_plain(part) for item in value.items() for part in item)
    return value is None or kind in (bool, int, float, str, bytes)


def found_by_name(code: Any) -> bool:
    """
    Check whether a class or factory is what its module has under its qualified name.

    Args:
        code: The class or factory.

    Returns:
        False for lambdas, local functions and partial objects: many may have one name.
    """
    name = getattr(code, "__qualname__", None)
    found: Any = sys.modules.get(str(getattr(code, "__module__", None)))
    if not isinstance(name, str):
        return False
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is code


def _versioned(what: str, code: Any) -> str:
    module = getattr(code, "__module__", None)
    found = module_version(module) if isinstance(module, str) else None
    if found is None:
        raise NotShareableError(
            f"its {what} is from module {module!r}, which has neither a version nor a file"
        )
    return f"{module}.{getattr(code, '__qualname__', '')} {found}"


def requirements(modules: Iterable[str]) -> dict[str, str]:
    """
    Get the versions of the modules whose classes and functions a snapshot contains.

    Args:
        modules: The names of the modules.

    Returns:
        Module name -> version, without modules of the standard library.

    Raises:
        NotShareableError: A module has no version, such as code typed interactively.
    """
    required = {}
    for module in sorted(modules):
        found = module_version(module)
        if found is None:
            raise NotShareableError(
                f"it contains objects from module {module!r}, which has neither a version nor a "
                "file"
            )
        if found != "python":
            required[module] = found
    return required


def unmet(required: dict[str, str]) -> str | None:
    """
    Check whether the required versions are those of this process.

    Args:
        required: The result of `requirements` when the snapshot was made.

    Returns:
        A description of the first difference; None if there is none.

    It imports the modules, which opening the snapshot would import anyway.
    """
    for module, version in required.items():
        try:
            __import__(module)
        except Exception as error:
            return f"{module} cannot be imported: {error}"
        found = module_version(module)
        if found != version:
            return f"{module} was {version} and is now {found}"
    return None
