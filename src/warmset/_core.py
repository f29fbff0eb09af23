"""
Selects the core, once: the compiled one where it is built, else its pure twin.

``WARMSET_PURE=1`` selects the pure one. ``WARMSET_REQUIRE_COMPILED=1`` makes a missing compiled
core an error. Only an extension that is *missing* falls back; one that is broken raises.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False


def _switch(name: str) -> bool:
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ImportError(f"environment variable {name}: expected 0 or 1, got {value!r}")
    return value == "1"


_pure, _required = _switch("WARMSET_PURE"), _switch("WARMSET_REQUIRE_COMPILED")
if _pure and _required:
    raise ImportError(
        "environment variables WARMSET_PURE and WARMSET_REQUIRE_COMPILED contradict each other: "
        "set one of them"
    )

# The pure twin is the type source: a checker sees real, annotated code.
if TYPE_CHECKING or _pure:
    from ._core_py import (
        BuildRecord,
        Entry,
        ExecutorCore,
        FamilyCore,
        Handle,
        Injected,
        Lease,
        PlainBuilds,
        RegistryCore,
        Slot,
    )

    implementation = "pure"
else:
    try:
        from ._core_c import (
            BuildRecord,
            Entry,
            ExecutorCore,
            FamilyCore,
            Handle,
            Injected,
            Lease,
            PlainBuilds,
            RegistryCore,
            Slot,
        )

        implementation = "compiled"
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}._core_c":
            raise
        if _required:
            raise ImportError(
                "WARMSET_REQUIRE_COMPILED is set, but this installation has no compiled core; "
                "install a binary wheel, or build it from the sdist with a C compiler"
            ) from error
        from ._core_py import (
            BuildRecord,
            Entry,
            ExecutorCore,
            FamilyCore,
            Handle,
            Injected,
            Lease,
            PlainBuilds,
            RegistryCore,
            Slot,
        )

        implementation = "pure"

if implementation == "compiled" and not getattr(sys, "_is_gil_enabled", lambda: True)():
    # Threads read the record of a build that another one changes: without an interpreter lock, that
    # is safe with the attributes of a Python object, and not with those of a compiled one.
    from ._plain_py import BuildRecord

__all__ = [
    "BuildRecord",
    "Entry",
    "ExecutorCore",
    "FamilyCore",
    "Handle",
    "Injected",
    "Lease",
    "PlainBuilds",
    "RegistryCore",
    "Slot",
    "implementation",
]
