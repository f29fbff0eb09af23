"""What a snapshot is kept under: everything that another build could differ in."""

from __future__ import annotations

import hashlib
import json
import platform
import struct
import sys
from typing import TYPE_CHECKING, Any

from .stamps import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..lifecycle.options import ClassOptions
    from .secret import Secret

__all__ = ["NotShareableError", "requirements", "snapshot_key", "unmet"]


class NotShareableError(Exception):
    """A class cannot be shared; the text says why."""


def snapshot_key(
    class_path: str,
    cls: type,
    options: ClassOptions,
    rule: Callable[..., Any] | None,
    rule_version: str | None,
    secret: Secret | None,
) -> str:
    """
    Give the key of a class's snapshot.

    Args:
        class_path: Where the class was found.
        cls: The class.
        options: Its hooks.
        rule: What builds it; None for its constructor.
        rule_version: Of the rule.
        secret: What snapshots are signed with: who has another one does not see them.

    Returns:
        The class path and 32 hexadecimal digits.

    Raises:
        NotShareableError: It cannot be told what a build depends on.
    """
    if rule is not None and rule_version is None:
        raise NotShareableError(
            "it is built by a rule that has no version: register_instantiation_rule(..., "
            "version='1'), and another one when it builds something else"
        )
    parts: dict[str, Any] = {
        "class": class_path,
        "rule": rule_version,
        "python": f"{sys.implementation.cache_tag} {sys.byteorder} {struct.calcsize('P')}",
        "machine": platform.machine(),
        "signed": None if secret is None else secret.fingerprint,
    }
    for what, code in (
        ("code", cls),
        ("snapshot", options.snapshot),
        ("restore", options.restore),
    ):
        if code is not None:
            parts[what] = _stamped(what, code)
    text = json.dumps(parts, sort_keys=True)
    # Of ASCII, and short: it becomes the name of a file.
    shown = "".join(letter if letter.isascii() else "_" for letter in class_path[-120:])
    return f"{shown}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _stamped(what: str, code: Any) -> str:
    module = getattr(code, "__module__", None)
    found = stamp(module) if isinstance(module, str) else None
    if found is None:
        raise NotShareableError(
            f"its {what} is of module {module!r}, of which no version and no file can be told"
        )
    return f"{module}.{getattr(code, '__qualname__', '')} {found}"


def requirements(modules: Iterable[str]) -> dict[str, str]:
    """
    Tell the versions of the modules that a snapshot is made of.

    Args:
        modules: Their names.

    Returns:
        Module, or the first part of its name for an installed one -> stamp.

    Raises:
        NotShareableError: A version cannot be told, as of a class that was typed in.
    """
    required = {}
    for module in sorted(modules):
        found = stamp(module)
        if found is None:
            raise NotShareableError(
                f"it is made of what is in module {module!r}, of which no version and no file can "
                "be told"
            )
        if found != "python":
            required[module] = found
    return required


def unmet(required: dict[str, str]) -> str | None:
    """
    Tell whether a snapshot was made of other versions than there are.

    Args:
        required: Of `requirements`.

    Returns:
        What is other than it was; None if nothing is. Modules are imported for it: those that the
        snapshot would import.
    """
    for module, was in required.items():
        try:
            __import__(module)
        except Exception as error:
            return f"{module} cannot be imported: {error}"
        found = stamp(module)
        if found != was:
            return f"{module} was {was}, and is {found}"
    return None
