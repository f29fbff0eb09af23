"""The option ``--app-dir``: the directory of classes that are not installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

app_dir_option = click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Directory to put first on the import path, for classes that are not installed; by default"
    " the working directory.",
)
_LEVELS = 3  # directories above the file in which a missing module is searched for


def prepend_to_import_path(directory: Path) -> None:
    """Put a directory first on the import path, like the working directory of `python -m`."""
    sys.path.insert(0, str(directory.resolve()))


def missing_module_hints(paths: Iterable[str], file: Path, app_dir: Path) -> Iterator[str]:
    """
    Explain which modules cannot be found, and where they may be.

    Args:
        paths: The dotted paths in a file.
        file: The file.
        app_dir: The directory that was put on the import path.

    Returns:
        A line for each directory that has missing modules, and one for those that are nowhere.
        Nothing is imported.
    """
    missing = [
        name
        for name in dict.fromkeys(path.partition(".")[0] for path in paths)
        if not _can_be_found(name)
    ]
    places: dict[Path | None, list[str]] = {}
    for name in missing:
        places.setdefault(_place(name, file), []).append(name)
    for place, names in places.items():
        text = f"module{'' if len(names) == 1 else 's'} {', '.join(map(repr, names))}"
        if place is not None:
            yield f"{text} can be imported with --app-dir {_shown(place)}"
        else:
            yield (
                f"{text} cannot be found: neither installed nor in {_shown(app_dir)}, the directory"
                " given by --app-dir"
            )


def _can_be_found(name: str) -> bool:
    try:
        return name in sys.modules or find_spec(name) is not None
    except Exception:
        return True  # a broken finder, or a module without a spec: the import tells more


def _place(name: str, file: Path) -> Path | None:
    directory = file.resolve().parent
    for above in (directory, *directory.parents[:_LEVELS]):
        for place in (above, above / "src"):
            if (place / f"{name}.py").is_file() or (place / name / "__init__.py").is_file():
                return place
    return None


def _shown(directory: Path) -> str:
    try:
        return str(directory.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(directory.resolve())
