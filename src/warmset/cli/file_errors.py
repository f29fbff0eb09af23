"""
The error for an invalid value in a pipeline file.

This module does not need `click`, because worker processes that run a pipeline may lack it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmset.resolver import near_names, safe_repr
from warmset.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable


def file_error(
    file: str,
    table: str,
    key: str,
    value: object,
    expected: str,
    *,
    near: Iterable[str] = (),
    misspelt: str | None = None,
) -> SettingsError:
    """
    Make the error for an invalid value in a pipeline file.

    Args:
        file: The file.
        table: The table; empty for the top level.
        key: The key in the table.
        value: The value.
        expected: A description of valid values.
        near: Valid names, of which the message suggests the nearest ones.
        misspelt: The name to compare with `near`; None for the value.

    Returns:
        The error, for the caller to raise.
    """
    location = f"[{table}]" if table else "top level"
    name = value if misspelt is None else misspelt
    found = near_names(name, near) if isinstance(name, str) else []
    hint = f" (nearest: {', '.join(map(repr, found))})" if found else ""
    return SettingsError(
        f"{file}: {location}: {key} = {safe_repr(value)}{hint}; expected {expected}",
        file=file,
        table=table,
        key=key,
    )
