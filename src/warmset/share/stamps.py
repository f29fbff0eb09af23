"""
What a snapshot depends on, as text: the version of a module's distribution, or its source.

A module that was installed is as its distribution's version says. One that was not, or that was
installed to be edited, is as its file is. So what was built by other code has another stamp.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys

__all__ = ["stamp"]


def stamp(module_name: str) -> str | None:
    """
    Tell which version of a module is loaded.

    Args:
        module_name: A module that is imported.

    Returns:
        ``name==version`` of its distribution, or ``sha256:...`` of its file; "python" for a module
        of the standard library; None where it cannot be told, as for code that was typed in.

    Milliseconds for the first module of a distribution, then microseconds.
    """
    top = module_name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "builtins":
        return "python"
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    found = _distribution(os.path.abspath(file), module_name.count("."))
    return found or _source(os.path.abspath(file))


def _source(file: str) -> str | None:
    try:
        with open(file, "rb") as stream:
            return "sha256:" + hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)
def _distribution(file: str, dots: int) -> str | None:
    # The directory on `sys.path` that it was found in: as many levels up as its name has parts.
    base = os.path.dirname(file)
    levels = dots + (1 if os.path.basename(file).startswith("__init__.") else 0)
    for _ in range(levels):
        base = os.path.dirname(base)
    line = os.path.relpath(file, base).replace(os.sep, "/").encode("utf-8", "surrogateescape")
    top = line.partition(b"/")[0].partition(b".")[0].decode("utf-8", "replace")

    def unlike(directory: str) -> bool:
        return not directory.casefold().replace("-", "_").startswith(top.casefold())

    # The likely ones first: to read what all of them own takes a tenth of a second.
    for directory in sorted(_installed(base), key=unlike):
        try:
            with open(os.path.join(base, directory, "RECORD"), "rb") as stream:
                owned = b"\n" + stream.read()
        except OSError:
            continue
        if b"\n" + line + b"," in owned:
            name, _, version = directory.removesuffix(".dist-info").rpartition("-")
            return f"{name}=={version}"
    return None


@functools.lru_cache(maxsize=64)
def _installed(base: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(d for d in os.listdir(base) if d.endswith(".dist-info")))
    except OSError:
        return ()
