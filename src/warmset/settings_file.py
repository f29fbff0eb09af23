"""
Reads `warmset.toml`, the file with settings, classes and options of classes.

Everything here may be called from any number of threads.
"""

from __future__ import annotations

from .frozen import Frozen, rebuild
from .resolver import PATH_EXPECTED, check_name, check_path, error_text
from .settings import BY_NAME, CLASS_DEFAULTS, RegistrySettings
from .toml_tables import SettingsError, check_table, unknown_keys, value_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class SettingsFile(Frozen):
    """
    The contents of a `warmset.toml`, checked and immutable.

    Args:
        path: The file.
        settings: Its table ``[registry]``.
        class_paths: Its table ``[classes]``, class name -> class path; it is copied.
        class_options: Its tables ``[options.NAME]``, class name -> options of `register`.
    """

    __slots__ = ("class_options", "class_paths", "path", "settings")

    path: str
    settings: RegistrySettings
    class_paths: Mapping[str, str]
    class_options: Mapping[str, Mapping[str, Any]]

    def __init__(
        self,
        *,
        path: str,
        settings: RegistrySettings,
        class_paths: Mapping[str, str],
        class_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        from types import MappingProxyType

        put = object.__setattr__
        put(self, "path", path)
        put(self, "settings", settings)
        put(self, "class_paths", MappingProxyType(dict(class_paths)))
        options = {
            name: MappingProxyType(dict(table)) for name, table in (class_options or {}).items()
        }
        put(self, "class_options", MappingProxyType(options))

    def __hash__(self) -> int:
        return hash((self.path, self.settings, frozenset(self.class_paths.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view cannot be pickled.
        options = {name: dict(table) for name, table in self.class_options.items()}
        fields = {**self._fields(), "class_paths": dict(self.class_paths), "class_options": options}
        return rebuild, (type(self), fields)


def check_classes(table: object, *, file: str, table_name: str = "classes") -> dict[str, str]:
    """
    Check a table of class paths, without importing anything.

    Args:
        table: The table, class name -> class path.
        file: The file; for the text of the error.
        table_name: The name of the table; for the text of the error.

    Returns:
        A new dict of exact str, the paths with dots only.

    Raises:
        SettingsError: It is not a table, a name is empty, or a path does not have the shape
            ``package.module.Class``.
    """
    paths = {}
    for key, value in check_table(table, file=file, table_name=table_name).items():
        try:
            name = check_name(key)
        except (TypeError, ValueError) as error:
            raise value_error(file, table_name, key, value, "a non-empty class name") from error
        try:
            paths[name] = check_path(name, value)
        except (TypeError, ValueError) as error:
            expected = PATH_EXPECTED
            if isinstance(value, dict):
                expected += " (a class name that contains dots must be quoted)"
            raise value_error(file, table_name, name, value, expected) from error
    return paths


# Values such as closers are code, and have no form in a file.
CLASS_OPTIONS = tuple(name for name in sorted(CLASS_DEFAULTS) if BY_NAME[name].in_files)


def check_class_options(
    table: object, class_paths: Mapping[str, str], *, file: str, table_name: str = "options"
) -> dict[str, dict[str, Any]]:
    """
    Check the options of classes.

    Args:
        table: The table, class name -> option -> value.
        class_paths: The classes of the file.
        file: The file; for the text of the error.
        table_name: The name of the table; for the text of the error.

    Returns:
        A new dict, class name -> options of `register`.

    Raises:
        SettingsError: It is not a table, or has an unknown class, an unknown option, or an invalid
            value.
    """
    checked = {}
    rows = check_table(table, file=file, table_name=table_name)
    if rows:
        unknown_keys(rows, class_paths, file=file, table_name=table_name)
    for name, given in rows.items():
        own = f"{table_name}.{name}"
        options = check_table(given, file=file, table_name=own)
        unknown_keys(options, CLASS_OPTIONS, file=file, table_name=own)
        for key, value in options.items():
            try:
                BY_NAME[key].checked(value)
            except (TypeError, ValueError) as error:
                raise value_error(file, own, key, value, BY_NAME[key].expected) from error
        checked[name] = dict(options)
    return checked


def load_toml(path: AnyPath) -> dict[str, Any]:
    """
    Read a TOML file.

    Args:
        path: The file.

    Returns:
        Its contents, a new dict.

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

    # Also refuses an int, which `open` would accept as a file descriptor.
    file = os.fsdecode(path)
    try:
        with open(file, "rb") as stream:
            # Some editors write a byte order mark, which the parser does not accept.
            raw = stream.read().removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:
        # `open` raises ValueError for a path that contains a null character.
        fault = getattr(error, "strerror", None) or error_text(error)
        raise SettingsError(
            f"{file}: cannot be read: {fault}; expected a TOML file", file=file
        ) from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{file}: line {line}: {error_text(error)}; expected a TOML file in UTF-8", file=file
        ) from error
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only the parser's own error: also an int with too many digits, or deep nesting.
        raise SettingsError(f"{file}: not valid TOML: {error_text(error)}", file=file) from error
    return content


def load_settings_file(path: AnyPath) -> SettingsFile:
    """
    Read a `warmset.toml`: the tables ``[registry]``, ``[classes]`` and ``[options.NAME]``.

    Args:
        path: The file.

    Returns:
        Its contents, checked. A missing table counts as empty.

    Raises:
        TypeError: `path` is not the path of a file.
        SettingsError: The file cannot be read, or a table, key or value in it is invalid.
    """
    import os

    file = os.fsdecode(path)
    content = load_toml(file)
    unknown_keys(content, ("registry", "classes", "options"), file=file, table_name="")
    class_paths = check_classes(content.get("classes", {}), file=file)
    return SettingsFile(
        path=file,
        settings=RegistrySettings.from_table(content.get("registry", {}), file=file),
        class_paths=class_paths,
        class_options=check_class_options(content.get("options", {}), class_paths, file=file),
    )
