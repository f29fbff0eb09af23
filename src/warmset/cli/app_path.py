"""The option ``--app-dir``: where classes are that are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

app_dir_option = click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Put first on the import path, for classes that are not installed; by default the working"
    " directory.",
)


def put_first(directory: Path) -> None:
    """Put a directory first on the import path, as `python -m` does; a script does not."""
    sys.path.insert(0, str(directory.resolve()))
