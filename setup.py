"""The one compiled extension, and the two switches; all else is in pyproject.toml."""

import os
import shutil
import sys

from setuptools import Extension, setup
from setuptools.errors import PlatformError


def switch(name: str) -> bool:
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"environment variable {name}: expected 0 or 1, got {value!r}")
    return value == "1"


def compiler_found() -> bool:
    """Return whether there is a C compiler, or what was named as one; not whether it works."""
    if os.environ.get("CC"):
        return True
    # After setuptools, which puts its own copy in the place of the standard library's.
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    compiler = new_compiler()
    try:
        if compiler.compiler_type == "msvc":
            compiler.initialize()  # searches the installations
            return True
        customize_compiler(compiler)
    except PlatformError:
        return False
    return shutil.which(compiler.compiler[0]) is not None


pure, required = switch("WARMSET_PURE"), switch("WARMSET_REQUIRE_COMPILED")
if pure and required:
    raise SystemExit(
        "environment variables WARMSET_PURE and WARMSET_REQUIRE_COMPILED contradict each other: "
        "set one of them"
    )
# Only a missing compiler falls back. One that fails is an error, not a silently slower package.
if not pure and not compiler_found():
    if required:
        raise SystemExit("WARMSET_REQUIRE_COMPILED is set, but no C compiler was found")
    pure = True
    print(
        "warning: warmset: no C compiler was found, so the pure-Python core is installed, which "
        "is slower. WARMSET_PURE=1 selects it without this warning; WARMSET_REQUIRE_COMPILED=1 "
        "makes a missing compiler an error.",
        file=sys.stderr,
    )

SOURCES = [
    "_entry_c.pxi",
    "_ring_c.pxi",
    "_changes_c.pxi",
    "_plain_c.pxi",
    "_calls_c.pxi",
    "_readers.h",
]
core = Extension(
    "warmset._core_c",
    ["src/warmset/_core_c.pyx"],
    depends=[f"src/warmset/{name}" for name in SOURCES],
)
setup(ext_modules=[] if pure else [core])
