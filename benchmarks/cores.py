"""The package on both cores, in one process."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def load(core: str) -> ModuleType:
    """
    Import the package anew on one core.

    Args:
        core: "compiled" or "pure".

    Returns:
        The package; it keeps the core that it was loaded with.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "warmset"]:
        del sys.modules[name]
    switch = {"compiled": "WARMSET_REQUIRE_COMPILED", "pure": "WARMSET_PURE"}[core]
    for name in ("WARMSET_REQUIRE_COMPILED", "WARMSET_PURE"):
        os.environ.pop(name, None)
    os.environ[switch] = "1"
    try:
        return importlib.import_module("warmset")
    finally:
        del os.environ[switch]
