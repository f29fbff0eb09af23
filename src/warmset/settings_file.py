"""
`warmset.toml`, the file that settings and classes may come from.

Everything here may be called from any number of threads.
"""

from __future__ import annotations

from .resolver import PATH_EXPECTED, check_name, check_path, told
from .setting_rules import RULES
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
        class_options: Its tables ``[options.NAME]``, class name -> options of `register_class`.
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
        return _rebuild, (type(self), fields)


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


# What a class may be given in a file; a closer is code.
CLASS_OPTIONS = (
    "after_fork",
    "cache_ttl_seconds",
    "close_when_removed",
    "max_age_seconds",
    "pin",
    "priority",
    "recycle_after_growth_bytes",
    "recycle_after_seconds",
    "recycle_after_uses",
    "shareable",
    "sizer",
)


def check_class_options(
    table: object, class_paths: Mapping[str, str], *, file: str, table_name: str = "options"
) -> dict[str, dict[str, Any]]:
    """
    Check a table of options of classes.

    Args:
        table: The table, class name -> option -> value.
        class_paths: The classes that there are.
        file: The file that it stands in; for the text of the error.
        table_name: The name of the table; for the text of the error.

    Returns:
        A new dict, class name -> options of `register_class`.

    Raises:
        SettingsError: It is no table, names a class that is not in the file, or has an option that
            does not exist or may not have this value.
    """
    checked = {}
    rows = _check_table(table, file=file, table_name=table_name)
    if rows:
        unknown_keys(rows, class_paths, file=file, table_name=table_name)
    for name, given in rows.items():
        own = f"{table_name}.{name}"
        options = _check_table(given, file=file, table_name=own)
        unknown_keys(options, CLASS_OPTIONS, file=file, table_name=own)
        for key, value in options.items():
            from .lifecycle.options import ClassOptions

            try:
                ClassOptions(name, **{key: value})
            except (TypeError, ValueError) as error:
                raise _fault(file, own, key, value, class_option_expected(key)) from error
        checked[name] = dict(options)
    return checked


def class_option_expected(option: str) -> str:
    """Tell what an option of a class may be; for the text of an error."""
    if option in RULES:
        return RULES[option][1]
    return {"after_fork": "'keep', 'drop' or 'rebuild'"}.get(option, "a bool, true or false")


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
    Read a `warmset.toml`: the tables ``[registry]``, ``[classes]`` and ``[options.NAME]``, no more.

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
    unknown_keys(content, ("registry", "classes", "options"), file=file, table_name="")
    class_paths = check_classes(content.get("classes", {}), file=file)
    return SettingsFile(
        path=file,
        settings=RegistrySettings.from_table(content.get("registry", {}), file=file),
        class_paths=class_paths,
        class_options=check_class_options(content.get("options", {}), class_paths, file=file),
    )
