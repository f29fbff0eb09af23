"""The package on both cores, in one process."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

CORES = ("compiled", "pure")
# What the package imports at first use: each copy gets its own, before anything is timed.
LATER = ("events", "stats", "event_logs", "lifecycle.listening", "observe.rows")
OPTIONAL = ("observe.prometheus",)


@functools.cache
def load(core: str) -> ModuleType:
    """
    Import the package on one core, once.

    Args:
        core: "compiled" or "pure".

    Returns:
        The package; it keeps the core that it was loaded with.

    Raises:
        ImportError: This installation has no compiled core.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "warmset"]:
        del sys.modules[name]
    switch = {"compiled": "WARMSET_REQUIRE_COMPILED", "pure": "WARMSET_PURE"}[core]
    before = {
        name: os.environ.pop(name, None) for name in ("WARMSET_REQUIRE_COMPILED", "WARMSET_PURE")
    }
    os.environ[switch] = "1"
    try:
        package = importlib.import_module("warmset")
        for name in LATER:
            importlib.import_module(f"warmset.{name}")
        for name in OPTIONAL:
            with contextlib.suppress(ImportError):
                importlib.import_module(f"warmset.{name}")
        return package
    finally:
        del os.environ[switch]
        os.environ.update({name: value for name, value in before.items() if value is not None})
