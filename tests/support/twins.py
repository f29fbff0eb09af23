"""The package, loaded once on each core."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

MODULES = (
    "api",
    "builder",
    "errors",
    "events",
    "executor",
    "legacy",
    "registry",
    "resolver",
    "routing",
    "settings",
    "settings_file",
    "sources",
    "stats",
)
# Statistics in which the cores differ without an interpreter lock: only the compiled one knows then
# whether an instance that was not only leased is still referred to.
CLOSES = frozenset(
    ()
    if getattr(sys, "_is_gil_enabled", lambda: True)()
    else ("closed", "left_open", "entries_by_state")
)
_loaded: dict[str, dict[str, ModuleType]] = {}


def take_out() -> dict[str, ModuleType]:
    """Take the package out of `sys.modules`, and return its modules."""
    names = [name for name in sys.modules if name == "warmset" or name.startswith("warmset.")]
    return {name: sys.modules.pop(name) for name in names}


def load(twin: str) -> dict[str, ModuleType]:
    """
    Return the modules of one copy of the package.

    The compiled copy is the one that a plain import gives: an extension is initialised only once
    in a process, and belongs to the modules that it found then.
    """
    if twin not in _loaded:
        pure = _loaded.get("pure", {}).get("warmset")
        in_the_way = twin == "pure" or (pure and sys.modules.get("warmset") is pure)
        before = take_out() if in_the_way else {}
        switch = os.environ.pop("WARMSET_PURE", None)
        try:
            if twin == "pure":
                os.environ["WARMSET_PURE"] = "1"
            package = importlib.import_module("warmset")
            for name in MODULES:
                importlib.import_module(f"warmset.{name}")
            assert package.implementation == twin, "the compiled core is not installed"
            _loaded[twin] = take_out()
            before = before or _loaded[twin]
        finally:
            sys.modules.update(before)
            os.environ.pop("WARMSET_PURE", None)
            if switch is not None:
                os.environ["WARMSET_PURE"] = switch
    return _loaded[twin]
