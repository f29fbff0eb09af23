"""The one compiled extension, and the two switches; all else is in pyproject.toml."""

import os

from setuptools import Extension, setup


def switch(name: str) -> bool:
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"environment variable {name}: expected 0 or 1, got {value!r}")
    return value == "1"


pure, required = switch("WARMSET_PURE"), switch("WARMSET_REQUIRE_COMPILED")
if pure and required:
    raise SystemExit(
        "environment variables WARMSET_PURE and WARMSET_REQUIRE_COMPILED contradict each other: "
        "set one of them"
    )

# A failing compiler is an error, not a silently slower package: WARMSET_PURE=1 is the way around.
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
