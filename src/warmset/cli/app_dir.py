"""The option ``--app-dir``: the directory of classes that are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

app_dir_option = click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Directory to put first on the import path, for classes that are not installed; by default"
    " the working directory.",
)


def prepend_to_import_path(directory: Path) -> None:
    """Put a directory first on the import path, like the working directory of `python -m`."""
    sys.path.insert(0, str(directory.resolve()))
