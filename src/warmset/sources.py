"""
The default class table: what a registry knows when it is told nothing.
"""

from __future__ import annotations

from .resolver import PATH_EXPECTED, check_name, check_path, shown, told
from .settings import SettingsError
from .settings_file import load_settings_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import Distribution, EntryPoint
    from typing import Any

CONFIG_VARIABLE = "WARMSET_CONFIG"
ENTRY_POINT_GROUP = "warmset.classes"


def default_class_paths() -> dict[str, str]:
    """
    Collect the class paths that the environment offers; nothing of them is imported.

    They are the table ``[classes]`` of the file that the environment variable WARMSET_CONFIG names,
    where it is set and not empty, and the entry points of the group ``warmset.classes``. A name
    that is in both has the path of the file, whatever the entry points say. A file that merely lies
    in the working directory is not read.

    Returns:
        A new dict, class name -> class path: those of the file first, in its order.

    Raises:
        SettingsError: The file cannot be read or is not as expected; an entry point does not have
            the shape of a class path; two entry points give one name different paths; or the
            entry points cannot be read.

    May be called from any number of threads. Reads the file and, for each installed distribution,
    its entry points: milliseconds to tens of them.
    """
    import os

    paths: dict[str, str] = {}
    file = os.environ.get(CONFIG_VARIABLE)
    if file:
        paths.update(load_settings_file(file).class_paths)
    for name, path in entry_point_paths(decided=paths).items():
        paths.setdefault(name, path)
    return paths


def entry_point_paths(*, decided: Iterable[str] = ()) -> dict[str, str]:
    """
    Collect the class paths that installed distributions offer as entry points.

    Args:
        decided: Names that have their path already: their entry points are passed over unchecked,
            so that a settings file can put right what distributions disagree on.

    Returns:
        A new dict, class name -> class path.

    Raises:
        SettingsError: An entry point does not have the shape of a class path; two give one name
            different paths; or the entry points cannot be read.

    May be called from any number of threads.
    """
    from importlib.metadata import entry_points

    try:
        points: list[Any] = list(entry_points(group=ENTRY_POINT_GROUP))
    except Exception as error:
        # One bad file of any distribution, in any group, is enough. So it is, too, where a package
        # has brought in `importlib_metadata`, which takes the place of the standard library's own
        # finder and refuses whole distributions for one entry point: then they are read as text.
        try:
            points = list(_points_as_text())
        except Exception:
            raise SettingsError(
                f"entry points{_culprit()} cannot be read: {told(error)}", table=ENTRY_POINT_GROUP
            ) from error
    settled = set(decided)
    paths: dict[str, str] = {}
    origins: dict[str, EntryPoint] = {}
    for point in points:
        if point.name in settled:
            continue
        name, path = _check_point(point)
        first = origins.setdefault(name, point)
        if paths.setdefault(name, path) != path:
            raise SettingsError(
                f"entry point {name!r} of group {ENTRY_POINT_GROUP!r} is registered twice: as"
                f" {first.value!r} by {_label(first.dist)} and as {point.value!r} by"
                f" {_label(point.dist)}; expected one path, or a decision in the table [classes] of"
                f" the file that {CONFIG_VARIABLE} names",
                table=ENTRY_POINT_GROUP,
                key=name,
            )
    return paths


def _points_as_text() -> Iterator[Any]:
    """The entry points of our group, as they stand in the files; each distribution once."""
    from configparser import ConfigParser
    from importlib.metadata import distributions
    from types import SimpleNamespace

    seen = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        text = distribution.read_text("entry_points.txt")
        if name in seen or not text:
            continue
        seen.add(name)
        parser = ConfigParser(delimiters="=", interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment]  # names in upper and lower case
        parser.read_string(text)
        if parser.has_section(ENTRY_POINT_GROUP):
            for key, value in parser.items(ENTRY_POINT_GROUP):
                yield SimpleNamespace(name=key, value=value, dist=distribution)


def _check_point(point: EntryPoint) -> tuple[str, str]:
    # The specification of entry points allows spaces around the colon and extras at the end.
    value = point.value.partition("[")[0]
    path = ":".join(part.strip() for part in value.split(":"))
    try:
        name = check_name(point.name)
        return name, check_path(name, path)
    except ValueError as error:
        raise SettingsError(
            f"entry point {point.name!r} of group {ENTRY_POINT_GROUP!r}, registered by"
            f" {_label(point.dist)}: {shown(point.value)}; expected a name and {PATH_EXPECTED}",
            table=ENTRY_POINT_GROUP,
            key=point.name,
        ) from error


def _label(distribution: Distribution | None) -> str:
    # Half-removed distributions have no metadata, and what that gives differs between versions.
    try:
        if distribution is not None and "Name" in distribution.metadata:
            return f"distribution {distribution.metadata['Name']!r}"
    except Exception:
        pass
    return "a distribution without a name"


def _culprit() -> str:
    from importlib.metadata import distributions

    distribution = None
    try:
        for distribution in distributions():
            list(distribution.entry_points)
    except Exception:
        return f" of {_label(distribution)}"
    return ""
