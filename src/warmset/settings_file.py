"""
Reads `warmset.toml`, the file with settings, classes and their options, and families.

Everything here may be called from any number of threads.
"""

from __future__ import annotations

from .frozen import Frozen, rebuild
from .resolver import PATH_EXPECTED, check_name, check_path, error_text
from .setting_table import BY_NAME, CLASS_DEFAULTS
from .settings import RegistrySettings, check_item
from .toml_tables import (
    ErrorCollector,
    SettingsError,
    check_table,
    table_error,
    unknown_keys,
    value_error,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# The tables of a settings file; a pipeline file has more.
FILE_TABLES = ("registry", "classes", "options", "families")
MOST_FILE_BYTES = 16_000_000


class SettingsFile(Frozen):
    """
    The contents of a `warmset.toml`, checked and immutable.

    Args:
        path: The file.
        settings: Its table ``[registry]``.
        class_paths: Its table ``[classes]``, class name -> class path; it is copied.
        class_options: Its tables ``[options.NAME]``, class name -> options of `register`, with
            `args`, `kwargs`, `rule`, and dotted paths in place of callables.
        families: Its tables ``[families.NAME]``, family -> arguments of `Registry.family`, with
            `factory`, a dotted path.
    """

    __slots__ = ("class_options", "class_paths", "families", "path", "settings")

    path: str
    settings: RegistrySettings
    class_paths: Mapping[str, str]
    class_options: Mapping[str, Mapping[str, Any]]
    families: Mapping[str, Mapping[str, Any]]

    def __init__(
        self,
        *,
        path: str,
        settings: RegistrySettings,
        class_paths: Mapping[str, str],
        class_options: Mapping[str, Mapping[str, Any]] | None = None,
        families: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        from types import MappingProxyType

        put = object.__setattr__
        put(self, "path", path)
        put(self, "settings", settings)
        put(self, "class_paths", MappingProxyType(dict(class_paths)))
        for field, tables in ("class_options", class_options), ("families", families):
            copies = {name: MappingProxyType(dict(each)) for name, each in (tables or {}).items()}
            put(self, field, MappingProxyType(copies))

    def __hash__(self) -> int:
        return hash((self.path, self.settings, frozenset(self.class_paths.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view cannot be pickled.
        fields = {**self._fields(), "class_paths": dict(self.class_paths)}
        for field in ("class_options", "families"):
            fields[field] = {name: dict(table) for name, table in fields[field].items()}
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


# Of values such as closers, which are code, a file has the dotted path.
CLASS_OPTIONS = tuple(
    name for name in sorted(CLASS_DEFAULTS) if BY_NAME[name].in_files or BY_NAME[name].as_path
)


def check_class_options(
    table: object,
    class_names: Iterable[str],
    *,
    file: str,
    errors: ErrorCollector,
    families: Iterable[str] = (),
    table_name: str = "options",
) -> dict[str, dict[str, Any]]:
    """
    Check the options of classes, without importing anything.

    Args:
        table: The table, class name -> option -> value.
        class_names: The classes of the file.
        file: The file; for the text of the errors.
        errors: Takes the errors: not a table, an unknown class or option, an invalid value.
        families: The families of the file, whose options do not belong here.
        table_name: The name of the table; for the text of the errors.

    Returns:
        A new dict, class name -> valid options of `register`, `args`, `kwargs` and `rule` included.
    """
    checked: dict[str, dict[str, Any]] = {}
    names = list(class_names)
    rows: dict[str, Any] = {}
    with errors:
        rows = check_table(table, file=file, table_name=table_name)
    for name, given in rows.items():
        own = f"{table_name}.{name}"
        with errors:
            if name in families and name not in names:
                text = f"{name!r} is a family; expected its options in [families.{name}]"
                raise table_error(file, table_name, text, key=name)
            unknown_keys({name: given}, names, file=file, table_name=table_name)
            checked[name] = options = _check_row(given, own, file=file, errors=errors)
            _refuse_beside_a_rule(options, own, file)
            _check_together(options, file, own)
    return checked


def _check_row(table: object, own: str, *, file: str, errors: ErrorCollector) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in check_table(table, file=file, table_name=own).items():
        with errors:
            known = ("args", "kwargs", "rule", *CLASS_OPTIONS)
            unknown_keys({key: value}, known, file=file, table_name=own)
            options[key] = _checked_option(key, value, file, own)
    return options


def _refuse_beside_a_rule(options: dict[str, Any], own: str, file: str) -> None:
    for key in ("args", "kwargs"):
        if "rule" in options and key in options:
            value = options.pop(key)
            raise value_error(file, own, key, value, f"{key} or a rule, not both")


# A family keeps those of its instances that were used last: none of them is pinned.
FAMILY_OPTIONS = tuple(name for name in CLASS_OPTIONS if name != "pin")


def check_families(
    table: object, class_names: Iterable[str], *, file: str, errors: ErrorCollector
) -> dict[str, dict[str, Any]]:
    """
    Check the families of a file, without importing anything.

    Args:
        table: The table, family -> argument of `Registry.family` -> value.
        class_names: The classes of the file.
        file: The file; for the text of the errors.
        errors: Takes the errors: not a table, no factory, an unknown option, an invalid value.

    Returns:
        A new dict, family -> valid arguments. Families without a valid factory are left out.
    """
    checked: dict[str, dict[str, Any]] = {}
    names = list(class_names)
    rows: dict[str, Any] = {}
    known = ("factory", "max_cache_size", "args", "kwargs", *FAMILY_OPTIONS)
    with errors:
        rows = check_table(table, file=file, table_name="families")
    for name, given in rows.items():
        own = f"families.{name}"
        with errors:
            if not name or name in names:
                raise value_error(file, "families", name, given, "a name that no class has")
            if "factory" not in check_table(given, file=file, table_name=own):
                text = "no 'factory'; expected factory = 'package.module.callable'"
                raise table_error(file, own, text, key="factory")
            options = {}
            for key, value in given.items():
                with errors:
                    unknown_keys({key: value}, known, file=file, table_name=own)
                    options[key] = _checked_option(key, value, file, own)
            _check_together(options, file, own)
            if "factory" in options:
                checked[name] = options
    return checked


def _check_together(options: dict[str, Any], file: str, table_name: str) -> None:
    """Refuse options that have no effect without others, and leave them out."""
    for key in list(options):
        needs = BY_NAME[key].needs if key in BY_NAME else None
        if key in CLASS_DEFAULTS and needs and not options.get(needs[0]):
            value = options.pop(key)
            raise value_error(file, table_name, key, value, f"also {needs[1]}, or neither")
    for key, other in ("snapshot", "restore"), ("restore", "snapshot"):
        if key in options and other not in options:
            raise value_error(file, table_name, key, options.pop(key), f"also {other}, or neither")


def _checked_option(key: str, value: Any, file: str, table_name: str) -> Any:
    if key == "factory":
        return check_dotted(value, file=file, table_name=table_name, key=key)
    if key == "args":
        if not isinstance(value, list):
            raise value_error(file, table_name, key, value, "a list of positional arguments")
        return list(value)
    if key == "kwargs":
        if not isinstance(value, dict):
            raise value_error(file, table_name, key, value, "a table of keyword arguments")
        return dict(value)
    if key == "rule":
        return check_dotted(value, file=file, table_name=table_name, key=key)
    if key in BY_NAME and BY_NAME[key].as_path and not (key == "closer" and value == "auto"):
        return check_dotted(value, file=file, table_name=table_name, key=key)
    # "auto" is for the bound of a registry.
    row = BY_NAME["autosize_max" if key == "max_cache_size" else key]
    try:
        row.checked(value)
    except (TypeError, ValueError) as error:
        raise value_error(file, table_name, key, value, row.expected) from error
    return value


def check_dotted(value: object, *, file: str, table_name: str, key: str) -> str:
    """
    Check the path of a callable, without importing anything.

    Args:
        value: The path: ``package.module.callable`` or ``package.module:callable``.
        file: The file; for the text of the error.
        table_name: The name of the table; for the text of the error.
        key: The key; for the text of the error.

    Returns:
        The path, with dots only.

    Raises:
        SettingsError: It does not have the shape of one.
    """
    from keyword import iskeyword

    if isinstance(value, str):
        parts = value.replace(":", ".", 1).split(".")
        if len(parts) > 1 and all(part.isidentifier() and not iskeyword(part) for part in parts):
            return ".".join(parts)
    raise value_error(file, table_name, key, value, "a dotted path 'package.module.callable'")


def read_tables(content: Mapping[str, Any], *, file: str, errors: ErrorCollector) -> SettingsFile:
    """
    Check the tables that a settings file and a pipeline file have in common.

    Args:
        content: The contents of the file.
        file: The file.
        errors: Takes the errors.

    Returns:
        The valid parts of ``[registry]``, ``[classes]``, ``[options.NAME]`` and
        ``[families.NAME]``.
    """
    given: dict[str, Any] = {}
    settings = RegistrySettings()
    with errors:
        for key, value in check_table(
            content.get("registry", {}), file=file, table_name="registry"
        ).items():
            with errors:
                check_item(key, value, file=file)
                given[key] = value
        settings = RegistrySettings.from_table(given, file=file)
    class_paths: dict[str, str] = {}
    names: dict[str, Any] = {}
    with errors:
        names = check_table(content.get("classes", {}), file=file, table_name="classes")
    for name, class_path in names.items():
        with errors:
            class_paths.update(check_classes({name: class_path}, file=file))
    given_families = content.get("families", {})
    families = check_families(given_families, names, file=file, errors=errors)
    options = check_class_options(
        content.get("options", {}),
        names,
        file=file,
        errors=errors,
        families=given_families if isinstance(given_families, dict) else (),
    )
    return SettingsFile(
        path=file,
        settings=settings,
        class_paths=class_paths,
        # Also without those of a class whose path is invalid.
        class_options={name: each for name, each in options.items() if name in class_paths},
        families=families,
    )


def load_toml(path: AnyPath) -> dict[str, Any]:
    """
    Read a TOML file.

    Args:
        path: The file.

    Returns:
        Its contents, a new dict.

    Raises:
        TypeError: `path` is not the path of a file.
        SettingsError: The file cannot be read, is not a regular file, is too big, is not UTF-8, or
            is not TOML; with the line.
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
        # Some editors write a byte order mark, which the parser does not accept.
        raw = _read(file).removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:
        # `os.open` raises ValueError for a path that contains a null character.
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


def _read(file: str) -> bytes:
    import errno
    import os
    import stat

    # Without O_NONBLOCK, opening a FIFO would wait for its other end.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = _read_most(descriptor, MOST_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_FILE_BYTES:,} bytes")
    return content


def _read_most(descriptor: int, most: int) -> bytes:
    from os import read

    parts = []
    while most > 0 and (part := read(descriptor, most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def read_settings_file(path: AnyPath) -> tuple[SettingsFile, list[SettingsError]]:
    """
    Read a `warmset.toml` and find all errors in it.

    Args:
        path: The file.

    Returns:
        Its valid parts, and the errors.

    Raises:
        TypeError: `path` is not the path of a file.
        SettingsError: The file cannot be read, or is not TOML.
    """
    import os

    file = os.fsdecode(path)
    content = load_toml(file)
    errors = ErrorCollector()
    with errors:
        unknown_keys(content, FILE_TABLES, file=file, table_name="")
    return read_tables(content, file=file, errors=errors), errors.found


def load_settings_file(path: AnyPath) -> SettingsFile:
    """
    Read a `warmset.toml`: its settings, classes, options of classes, and families.

    Args:
        path: The file.

    Returns:
        Its contents, checked. A missing table counts as empty.

    Raises:
        TypeError: `path` is not the path of a file.
        SettingsError: The file cannot be read, or a table, key or value in it is invalid.
    """
    loaded, errors = read_settings_file(path)
    if errors:
        raise errors[0]
    return loaded
