"""
Files for operators: alert rules for Prometheus and a dashboard for Grafana.

``python -m warmset.observe.files FOLDER`` writes both into a folder.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from .._text import printable

__all__ = ["ALERTS", "DASHBOARD", "read", "write"]

ALERTS, DASHBOARD = "alerts.yml", "dashboard.json"


def read(name: str) -> str:
    """
    Read one of the files.

    Args:
        name: `ALERTS` or `DASHBOARD`.

    Returns:
        Its text.

    Raises:
        ValueError: The name is another one.
    """
    if name not in (ALERTS, DASHBOARD):
        raise ValueError(f"expected {ALERTS!r} or {DASHBOARD!r}, got {name!r}")
    return files("warmset.observe").joinpath(name).read_text(encoding="utf-8")


def write(folder: str | Path) -> list[Path]:
    """
    Write the files into a folder, overwriting files of the same names.

    Args:
        folder: An existing folder.

    Returns:
        The paths of the written files.

    Raises:
        OSError: A file cannot be written.
    """
    paths = []
    for name in (ALERTS, DASHBOARD):
        path = Path(folder) / f"warmset-{name}"
        path.write_text(read(name), encoding="utf-8")
        paths.append(path)
    return paths


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m warmset.observe.files FOLDER", file=sys.stderr)
        return 2
    try:
        paths = write(arguments[0])
    except OSError as error:
        print(printable(error), file=sys.stderr)
        return 1
    for path in paths:
        print(printable(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
