"""
The default class table, used by a registry without ``class_paths``.
"""

from __future__ import annotations

from . import _logs
from .file_classes import register_classes, register_families
from .resolver import PATH_EXPECTED, check_name, check_path, error_text, safe_repr
from .settings import RegistrySettings, SettingsError
from .settings_file import load_settings_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import Distribution, EntryPoint
    from typing import Any, Protocol

    from .file_classes import Registry as _Registry
    from .settings_file import SettingsFile

    class Registry(_Registry, Protocol):
        """What this module needs of a registry."""

        settings: RegistrySettings


CONFIG_VARIABLE = "WARMSET_CONFIG"
ENTRY_POINT_GROUP = "warmset.classes"


def register_default_classes(registry: Registry) -> None:
    """
    Register the classes from the environment without importing them.

    The sources are the tables ``[classes]``, ``[options.NAME]`` and ``[families.NAME]`` of the file
    named by the environment variable WARMSET_CONFIG, if it is set and not empty, and the entry
    points of the group ``warmset.classes``. The file takes precedence over the entry points. A file
    in the working directory is never read. The settings in ``[registry]`` belong to `from_file`;
    where they differ from those of the registry, this is logged.

    Args:
        registry: The registry.

    Raises:
        SettingsError: The file cannot be read or is invalid, an entry point is not a class path,
            two entry points give one name different paths, or the entry points cannot be read.

    Reads the file and the entry points of every installed distribution, which takes milliseconds to
    tens of milliseconds.
    """
    loaded = _default_file()
    paths = _with_entry_points(loaded)
    options = {} if loaded is None else loaded.class_options
    if loaded is not None and loaded.settings not in (RegistrySettings(), registry.settings):
        _logs.warning(
            "registry",
            "%s: the settings in [registry] are not those of the registry; "
            "MethodRegistry.from_file takes them",
            loaded.path,
            fields={"file": loaded.path},
        )
    register_classes(registry, paths, options)
    if loaded is not None:
        register_families(registry, loaded.families)


def default_class_paths() -> dict[str, str]:
    """
    Collect the class paths of the default table: see `register_default_classes`.

    Returns:
        A new dict, class name -> class path; the names from the file come first, in its order.

    Raises:
        SettingsError: As for `register_default_classes`.

    Thread-safe.
    """
    return _with_entry_points(_default_file())


def _default_file() -> SettingsFile | None:
    import os

    file = os.environ.get(CONFIG_VARIABLE)
    return load_settings_file(file) if file else None


def _with_entry_points(loaded: SettingsFile | None) -> dict[str, str]:
    paths = {} if loaded is None else dict(loaded.class_paths)
    for name, path in entry_point_paths(decided=paths).items():
        paths.setdefault(name, path)
    return paths


def entry_point_paths(*, decided: Iterable[str] = ()) -> dict[str, str]:
    """
    Collect the class paths that installed distributions declare as entry points.

    Args:
        decided: Names that already have a path. Their entry points are skipped unchecked, so that
            a settings file can resolve conflicts between distributions.

    Returns:
        A new dict, class name -> class path.

    Raises:
        SettingsError: An entry point is not a class path, two entry points give one name different
            paths, or the entry points cannot be read.

    Thread-safe. Takes milliseconds to tens of milliseconds.
    """
    from importlib.metadata import entry_points

    try:
        points: list[Any] = list(entry_points(group=ENTRY_POINT_GROUP))
    except Exception as error:
        # One invalid file of any distribution, in any group, causes this error. The backport
        # `importlib_metadata`, if installed, replaces the finder of the standard library and
        # rejects entire distributions for a single entry point. Read the files as text instead.
        try:
            points = list(_points_as_text())
        except Exception:
            raise SettingsError(
                f"entry points{_faulty_distribution()} cannot be read: {error_text(error)}",
                table=ENTRY_POINT_GROUP,
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
                f" {_label(point.dist)}; expected a single path, or an entry in the table [classes]"
                f" of the file named by {CONFIG_VARIABLE}",
                table=ENTRY_POINT_GROUP,
                key=name,
            )
    return paths


def _points_as_text() -> Iterator[Any]:
    """Read the entry points of our group from the metadata files, once per distribution."""
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
        parser.optionxform = str  # type: ignore[assignment]  # names are case-sensitive
        parser.read_string(text)
        if parser.has_section(ENTRY_POINT_GROUP):
            for key, value in parser.items(ENTRY_POINT_GROUP):
                yield SimpleNamespace(name=key, value=value, dist=distribution)


def _check_point(point: EntryPoint) -> tuple[str, str]:
    # The entry point specification allows spaces around the colon and extras at the end.
    value = point.value.partition("[")[0]
    path = ":".join(part.strip() for part in value.split(":"))
    try:
        name = check_name(point.name)
        return name, check_path(name, path)
    except ValueError as error:
        raise SettingsError(
            f"entry point {point.name!r} of group {ENTRY_POINT_GROUP!r}, registered by"
            f" {_label(point.dist)}: {safe_repr(point.value)}; expected a name and {PATH_EXPECTED}",
            table=ENTRY_POINT_GROUP,
            key=point.name,
        ) from error


def _label(distribution: Distribution | None) -> str:
    # A partly uninstalled distribution has no metadata; the result differs between Python versions.
    try:
        if distribution is not None and "Name" in distribution.metadata:
            return f"distribution {distribution.metadata['Name']!r}"
    except Exception:
        pass
    return "a distribution without a name"


def _faulty_distribution() -> str:
    from importlib.metadata import distributions

    distribution = None
    try:
        for distribution in distributions():
            list(distribution.entry_points)
    except Exception:
        return f" of {_label(distribution)}"
    return ""
