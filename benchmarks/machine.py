"""What the figures depend on: processor, interpreter, versions; nothing else of the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import sysconfig
from pathlib import Path

from .subjects import SUBJECTS


def processor() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def interpreter() -> str:
    """Implementation, version, and how it was built, as far as that changes its speed."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimised = "with" if "--enable-optimizations" in arguments else "without"
    facts = [
        f"{platform.python_implementation()} {platform.python_version()}",
        platform.python_compiler(),
        f"{optimised} profile-guided optimisation",
    ]
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        facts.append("free-threaded, the interpreter lock is off")
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        facts.append("free-threaded build with the interpreter lock turned on")
    return ", ".join(facts)


def describe() -> dict[str, str]:
    """
    Tell what the figures were measured on.

    Returns:
        Label -> text.
    """
    return {
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "interpreter": interpreter(),
        "packages": ", ".join(versions()),
    }


def versions() -> list[str]:
    """Our version and those of the peers that are installed."""
    names = ["warmset", *(subject.distribution for subject in SUBJECTS if subject.distribution)]
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
