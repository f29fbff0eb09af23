"""
What ships for operators: alert rules for Prometheus, and a dashboard for Grafana.

``python -m warmset.observe.files FOLDER`` writes both there.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

__all__ = ["ALERTS", "DASHBOARD", "read", "write"]

ALERTS, DASHBOARD = "alerts.yml", "dashboard.json"


def read(name: str) -> str:
    """
    Give the text of a shipped file.

    Args:
        name: `ALERTS` or `DASHBOARD`.

    Returns:
        Its text.

    Raises:
        ValueError: There is no such file.
    """
    if name not in (ALERTS, DASHBOARD):
        raise ValueError(f"expected {ALERTS!r} or {DASHBOARD!r}, got {name!r}")
    return files("warmset.observe").joinpath(name).read_text(encoding="utf-8")


def write(folder: str | Path) -> list[Path]:
    """
    Write the shipped files into a folder, over what has their names.

    Args:
        folder: A folder that is there.

    Returns:
        The paths of the files.

    Raises:
        OSError: They cannot be written.
    """
    paths = []
    for name in (ALERTS, DASHBOARD):
        path = Path(folder) / f"warmset-{name}"
        path.write_text(read(name), encoding="utf-8")
        paths.append(path)
    return paths


def main(arguments: list[str]) -> int:
    """Write the files into the folder that is named."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m warmset.observe.files FOLDER", file=sys.stderr)
        return 2
    try:
        paths = write(arguments[0])
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
