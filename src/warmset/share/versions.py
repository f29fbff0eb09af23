"""
Versions of modules: the version of the distribution, or a hash of the source file.

An installed module has the version of its distribution. A module that is not installed, or is
installed in editable mode, has a hash of its file. So different code has a different version.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys

__all__ = ["module_version"]


def module_version(module_name: str) -> str | None:
    """
    Get the version of an imported module.

    Args:
        module_name: The name of an imported module.

    Returns:
        ``name==version`` of its distribution, or ``sha256:...`` of its file; "python" for a module
        of the standard library; None if it has no version, such as code typed interactively.

    It takes milliseconds for the first module of a distribution, then microseconds.
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
    # The entry of `sys.path` with the module: as many levels up as the module name has parts.
    base = os.path.dirname(file)
    levels = dots + (1 if os.path.basename(file).startswith("__init__.") else 0)
    for _ in range(levels):
        base = os.path.dirname(base)
    line = os.path.relpath(file, base).replace(os.sep, "/").encode("utf-8", "surrogateescape")
    top = line.partition(b"/")[0].partition(b".")[0].decode("utf-8", "replace")

    def has_other_name(directory: str) -> bool:
        return not directory.casefold().replace("-", "_").startswith(top.casefold())

    # Likely distributions first: reading the file lists of all of them takes 0.1 s.
    for directory in sorted(_installed(base), key=has_other_name):
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
