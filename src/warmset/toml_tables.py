"""
Checks of the tables of a settings file, and the error about them.

Everything here may be called from any number of threads.
"""

from __future__ import annotations

from .errors import restore_error
from .resolver import near_names, safe_repr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any

__all__ = [
    "ErrorCollector",
    "SettingsError",
    "check_table",
    "table_error",
    "unknown_keys",
    "value_error",
]


class SettingsError(ValueError):
    """
    A settings file, a table in it, or an entry point is invalid.

    Args:
        message: The whole text: file, table, key, value, and what was expected.
        file: The file, if the error is in one.
        table: The table in it, or the group of entry points; None if the whole file is invalid.
        key: The key in the table, if the error concerns one.

    The cause, if there is one, is chained as ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        table: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.file = file
        self.table = table
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_error, (type(self), self.args, self.__dict__)


class ErrorCollector:
    """
    Collects errors: ``with errors:`` suppresses a `SettingsError` of its block and stores it.

    Attributes:
        found: The errors in the order in which they were raised.
    """

    def __init__(self) -> None:
        self.found: list[SettingsError] = []

    def __enter__(self) -> ErrorCollector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, SettingsError):
            self.found.append(error)
            return True
        return False


def table_error(file: str, table_name: str, text: str, *, key: str | None = None) -> SettingsError:
    """
    Make the error about a table of a file.

    Args:
        file: The file.
        table_name: The name of the table; empty for the top level of the file.
        text: What is wrong.
        key: The key that the error concerns.

    Returns:
        The error; its text names file and table.
    """
    place = f"[{table_name}]" if table_name else "top level"
    return SettingsError(f"{file}: {place}: {text}", file=file, table=table_name, key=key)


def value_error(
    file: str,
    table_name: str,
    key: object,
    value: object,
    expected: str,
    *,
    near: Iterable[str] = (),
    misspelt: str | None = None,
) -> SettingsError:
    """
    Make the error about one value in a table of a file.

    Args:
        file: The file.
        table_name: The name of the table.
        key: The key.
        value: Its value.
        expected: Which values are valid.
        near: Valid names, of which the message suggests the nearest ones.
        misspelt: The name to compare with `near`; None for the value.

    Returns:
        The error; its text names file, table, key, value, and what was expected.
    """
    name = value if misspelt is None else misspelt
    found = near_names(name, near) if isinstance(name, str) else []
    hint = f" (nearest: {', '.join(map(repr, found))})" if found else ""
    return table_error(
        file,
        table_name,
        f"{_spelled(key)} = {safe_repr(value)}{hint}; expected {expected}",
        key=key if type(key) is str else safe_repr(key),
    )


def _spelled(key: object) -> str:
    # As it stands in the file, unless it is empty or would break the line of the message.
    return key if type(key) is str and key and key.isprintable() else safe_repr(key)


def check_table(table: object, *, file: str, table_name: str) -> dict[str, Any]:
    """
    Check that a value of a file is a table.

    Args:
        table: The value.
        file: The file; for the text of the error.
        table_name: The name of the table; for the text of the error.

    Returns:
        The table.

    Raises:
        SettingsError: It is not a table.
    """
    if isinstance(table, dict):
        return table
    raise table_error(file, table_name, f"{safe_repr(table)}; expected a table")


def unknown_keys(
    table: Mapping[str, object], allowed: Iterable[str], *, file: str, table_name: str
) -> None:
    """
    Refuse a table with unknown keys.

    Args:
        table: The table, key -> value.
        allowed: The known keys.
        file: The file; for the text of the error.
        table_name: The name of the table; empty for the top level of the file.

    Raises:
        SettingsError: A key is unknown. The text names each one and the known keys nearest to it;
            the field `key` is the first.
    """
    known = list(allowed)
    faults = []
    first = None
    for key, value in table.items():
        if key in known:
            continue
        near = near_names(key, known) if type(key) is str else []
        hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
        if first is None:
            first = key if type(key) is str else safe_repr(key)
        faults.append(f"{_spelled(key)} = {safe_repr(value, 80)}{hint}")
    if first is not None:
        expected = ", ".join(known) or "an empty table"
        text = f"unknown {', '.join(faults)}; expected {expected}"
        raise table_error(file, table_name, text, key=first)
