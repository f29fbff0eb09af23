"""
Check what built distributions hold, and print file, tags and size of each.

    python ci/check_artefacts.py FILE...

A wheel for the package index, whose tag names versions of its platform, is limited in size.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

# Without its symbols, an extension takes about 420 kB; with them, 3 MB.
LARGEST_EXTENSION = 600_000
# The Python files take 570 kB of it, the extension, compressed, 160 kB.
LARGEST_WHEEL = 800_000
PORTABLE = ("manylinux", "musllinux", "macosx", "win")


def fail(text: str) -> None:
    """Say what is wrong, and end."""
    sys.exit(f"artefacts: {text}")


def check_wheel(path: Path) -> str:
    """Check a wheel; return its tags."""
    *_, python, abi, platform = path.stem.split("-")
    pure = platform == "any"
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    names = list(sizes)
    sources = [name for name in names if name.endswith((".pyx", ".pxi", ".c", ".h", ".pxd"))]
    if sources:
        fail(f"{path.name} holds {sources}")
    binaries = [name for name in names if name.endswith((".so", ".pyd"))]
    if len(binaries) != (0 if pure else 1):
        fail(f"{path.name}: expected {'no' if pure else 'one'} extension, found {binaries}")
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
    if platform.startswith(PORTABLE):
        extension = sum(sizes[name] for name in binaries)
        if extension > LARGEST_EXTENSION:
            fail(f"{path.name} holds an extension of {extension:,} bytes: is it stripped?")
        if path.stat().st_size > LARGEST_WHEEL:
            fail(f"{path.name} takes more than {LARGEST_WHEEL:,} bytes")
    return f"{python} {abi} {platform.replace('.', ' ')}"


def check_sdist(path: Path) -> str:
    """The sdist holds the source of the extension, and no generated code."""
    with tarfile.open(path) as archive:
        names = archive.getnames()
    for needed in ("_core_c.pyx", "_readers.h"):
        if not any(name.endswith(f"src/warmset/{needed}") for name in names):
            fail(f"{path.name} lacks {needed}, a source of the extension")
    generated = [name for name in names if name.endswith((".c", ".so", ".pyc"))]
    if generated:
        fail(f"{path.name} holds {generated}")
    return "source"


rows = []
for path in map(Path, sys.argv[1:]):
    tags = check_sdist(path) if path.name.endswith(".tar.gz") else check_wheel(path)
    rows.append((path.name, tags, f"{path.stat().st_size / 1000:,.0f} kB"))
widths = [max(len(row[column]) for row in rows) for column in range(3)]
for name, tags, size in rows:
    print(f"{name:<{widths[0]}}  {tags:<{widths[1]}}  {size:>{widths[2]}}")
