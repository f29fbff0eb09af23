"""
Check what the built distributions hold.

    python ci/check_artefacts.py SDIST_DIRECTORY PURE_DIRECTORY WHEEL_DIRECTORY...
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path


def fail(text: str) -> None:
    """Say what is wrong, and end."""
    sys.exit(f"artefacts: {text}")


def one(folder: str, pattern: str) -> Path:
    """The one file of a kind in a folder."""
    found = sorted(Path(folder).glob(pattern))
    if len(found) != 1:
        fail(f"expected one {pattern} in {folder}, found {[path.name for path in found]}")
    return found[0]


def check_wheel(path: Path, *, compiled: bool) -> None:
    """A wheel holds what runs, and neither sources nor generated code of the extension."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    sources = [name for name in names if name.endswith((".pyx", ".c", ".h", ".pxd"))]
    if sources:
        fail(f"{path.name} holds {sources}")
    binaries = [name for name in names if name.endswith((".so", ".pyd"))]
    if bool(binaries) is not compiled:
        fail(f"{path.name}: expected {'one' if compiled else 'no'} extension, found {binaries}")
    if not compiled and not path.name.endswith("-py3-none-any.whl"):
        fail(f"{path.name} is not tagged as pure")
    page = [f"warmset/cli/html_report/page.{end}" for end in ("py", "css", "html.j2")]
    for needed in (
        "warmset/__init__.py",
        "warmset/py.typed",
        "warmset/cli/demo.toml",
        "warmset/observe/alerts.yml",
        "warmset/observe/dashboard.json",
        *page,
    ):
        if needed not in names:
            fail(f"{path.name} lacks {needed}")
    foreign = [name for name in names if not name.startswith("warmset")]
    if foreign:
        fail(f"{path.name} installs {foreign} beside the package")


def check_sdist(path: Path) -> None:
    """The sdist holds the source of the extension, and no generated code."""
    with tarfile.open(path) as archive:
        names = archive.getnames()
    for needed in ("_core_c.pyx", "_readers.h"):
        if not any(name.endswith(f"src/warmset/{needed}") for name in names):
            fail(f"{path.name} lacks {needed}, a source of the extension")
    generated = [name for name in names if name.endswith((".c", ".so", ".pyc"))]
    if generated:
        fail(f"{path.name} holds {generated}")


sdist, pure, *compiled = sys.argv[1:]
check_sdist(one(sdist, "*.tar.gz"))
check_wheel(one(pure, "*.whl"), compiled=False)
for directory in compiled:
    check_wheel(one(directory, "*.whl"), compiled=True)
print(f"artefacts: sdist, pure wheel and {len(compiled)} compiled wheels are as expected")
