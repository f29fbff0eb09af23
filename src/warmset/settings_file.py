"""
`warmset.toml`, the file that settings and classes may come from.

Everything here may be called from any number of threads.
"""

from __future__ import annotations

from .resolver import PATH_EXPECTED, check_name, check_path, told
from .settings import (
    RegistrySettings,
    SettingsError,
    _check_table,
    _fault,
    _Frozen,
    _rebuild,
    unknown_keys,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class SettingsFile(_Frozen):
    """
    What a `warmset.toml` says, checked and immutable.

    Args:
        path: The file.
        settings: Its table ``[registry]``.
        class_paths: Its table ``[classes]``, class name -> class path; it is copied.
    """

    __slots__ = ("class_paths", "path", "settings")

    path: str
    settings: RegistrySettings
    class_paths: Mapping[str, str]

    def __init__(
        self, *, path: str, settings: RegistrySettings, class_paths: Mapping[str, str]
    ) -> None:
        from types import MappingProxyType

        put = object.__setattr__
        put(self, "path", path)
        put(self, "settings", settings)
        put(self, "class_paths", MappingProxyType(dict(class_paths)))

    def __hash__(self) -> int:
        return hash((self.path, self.settings, frozenset(self.class_paths.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view cannot be pickled.
        return _rebuild, (type(self), {**self._fields(), "class_paths": dict(self.class_paths)})


def check_classes(table: object, *, file: str, table_name: str = "classes") -> dict[str, str]:
    """
    Check a table of class paths; nothing is imported.

    Args:
        table: The table, class name -> class path.
        file: The file that it stands in; for the text of the error.
        table_name: The name of the table; for the text of the error.

    Returns:
        A new dict of exact str, the paths with dots only.

    Raises:
        SettingsError: It is no table, a name is empty, or a path does not have the shape
            ``package.module.Class``.
    """
    paths = {}
    for key, value in _check_table(table, file=file, table_name=table_name).items():
        try:
            name = check_name(key)
        except (TypeError, ValueError) as error:
            raise _fault(file, table_name, key, value, "a non-empty class name") from error
        try:
            paths[name] = check_path(name, value)
        except (TypeError, ValueError) as error:
            expected = PATH_EXPECTED
            if isinstance(value, dict):
                expected += " (a class name that contains dots must be quoted)"
            raise _fault(file, table_name, name, value, expected) from error
    return paths


def load_toml(path: AnyPath) -> dict[str, Any]:
    """
    Read a TOML file.

    Args:
        path: The file.

    Returns:
        Its content, a new dict.

    Raises:
        TypeError: `path` is not the path of a file.
        SettingsError: The file cannot be read, is not UTF-8, or is not TOML; with the line.
    """
    import os
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    # Also refuses an int, which `open` would take for a file descriptor.
    file = os.fsdecode(path)
    try:
        with open(file, "rb") as stream:
            # Some editors put a byte order mark in front, which the parser does not know.
            raw = stream.read().removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:
        # A ValueError is a path with a null character in it.
        fault = getattr(error, "strerror", None) or told(error)
        raise SettingsError(
            f"{file}: cannot be read: {fault}; expected a TOML file", file=file
        ) from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{file}: line {line}: {told(error)}; expected a TOML file in UTF-8", file=file
        ) from error
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only the parser's own error: an int of too many digits, tables nested too deeply.
        raise SettingsError(f"{file}: not valid TOML: {told(error)}", file=file) from error
    return content


def load_settings_file(path: AnyPath) -> SettingsFile:
    """
    Read a `warmset.toml`, which has the tables ``[registry]`` and ``[classes]`` and no more.

    Args:
        path: The file.

    Returns:
        What it says, checked. A table that is not there counts as empty.

    Raises:
        TypeError: `path` is not the path of a file.
        SettingsError: The file cannot be read, or something in it is not as expected.
    """
    import os

    file = os.fsdecode(path)
    content = load_toml(file)
    unknown_keys(content, ("registry", "classes"), file=file, table_name="")
    return SettingsFile(
        path=file,
        settings=RegistrySettings.from_table(content.get("registry", {}), file=file),
        class_paths=check_classes(content.get("classes", {}), file=file),
    )
