"""The one form of an error in a pipeline file: file, table, key, value, expectation, near names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmset.resolver import near_names, shown
from warmset.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


class Faults:
    """
    Collects errors: ``with faults:`` goes on behind the block that one was raised in.

    Attributes:
        found: The errors, in the order in which they were raised.
    """

    def __init__(self) -> None:
        self.found: list[SettingsError] = []

    def __enter__(self) -> Faults:
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


def fault(
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
    Make the error for one value of a pipeline file.

    Args:
        file: The file.
        table: The table in it; empty for the top level.
        key: The key in the table.
        value: What it is.
        expected: What it should be.
        near: The names that there are, where something is named.
        misspelt: What is near to them; None for the value.

    Returns:
        The error, to be raised.
    """
    place = f"[{table}]" if table else "top level"
    wanted = value if misspelt is None else misspelt
    found = near_names(wanted, near) if isinstance(wanted, str) else []
    hint = f" (nearest: {', '.join(map(repr, found))})" if found else ""
    return SettingsError(
        f"{file}: {place}: {key} = {shown(value)}{hint}; expected {expected}",
        file=file,
        table=table,
        key=key,
    )
