"""
Sequences of uses: which class was used when, what its build costs, and how large it is.

A trace is what a forecast replays. It comes from a recorded profile, or from a file of
comma-separated values, such as one made from the log of a service.
"""

from __future__ import annotations

import csv
import os
import stat
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from ..resolver import error_text, safe_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Trace", "TraceError", "load_trace"]

_MOST_REQUESTS = 5_000_000
_MOST_BYTES = 500_000_000
_LARGEST = 2**62


class TraceError(ValueError):
    """A file is not a trace; the message names the file, the line, and what was expected."""


class Trace(NamedTuple):
    """
    Uses in the order of time; classes are numbers.
    """

    names: Sequence[str]
    """The class of each number."""
    requests: Sequence[tuple[float, int]]
    """Seconds, and the number of a class."""
    build_seconds: Sequence[float]
    """What a build of each class takes."""
    sizes: Sequence[int]
    """The bytes of an instance of each class; -1 if unknown."""
    represented: float = 1.0
    """How many uses each request stands for, where the recording was thinned out."""

    @property
    def known_sizes(self) -> list[int]:
        """The bytes of each class, 0 where unknown."""
        return [max(0, size) for size in self.sizes]


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """
    Read a trace from a file of comma-separated values.

    Args:
        path: A file with a header and the columns ``seconds`` and ``class_name``, and optionally
            ``build_seconds`` and ``bytes``. Each line is a use. The costs of a class are those of
            the last line that states them.

    Returns:
        The trace, sorted by time.

    Raises:
        TraceError: The file cannot be read or is not a trace.
    """
    file = os.fsdecode(path)
    try:
        status = os.stat(file)  # before it is opened: a pipe would wait for its other end
        if not stat.S_ISREG(status.st_mode):
            raise TraceError(f"{file}: it is not a regular file; {_EXPECTED}")
        if status.st_size > _MOST_BYTES:
            raise TraceError(f"{file}: it has more than {_MOST_BYTES:,} bytes")
        with open(file, newline="", encoding="utf-8") as stream:
            return _read(csv.DictReader(stream), file)
    except TraceError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        # A ValueError is raised for a path with a null character, and for what is not UTF-8.
        problem = getattr(error, "strerror", None) or error_text(error)
        raise TraceError(f"{file}: cannot be read: {problem}; {_EXPECTED}") from error


_EXPECTED = (
    "expected comma-separated values with the columns seconds and class_name, and optionally "
    "build_seconds and bytes"
)


def _read(reader: csv.DictReader[str], file: str) -> Trace:
    columns = reader.fieldnames or ()
    if "seconds" not in columns or "class_name" not in columns:
        raise TraceError(f"{file}: the header is {safe_repr(list(columns), 80)}; {_EXPECTED}")
    numbers: dict[str, int] = {}
    requests: list[tuple[float, int]] = []
    costs: list[float] = []
    sizes: list[int] = []
    for row in reader:
        where = f"{file}, line {reader.line_num}"
        name = row["class_name"]
        if not name:
            raise TraceError(f"{where}: no class_name")
        if len(requests) == _MOST_REQUESTS:
            raise TraceError(f"{where}: expected at most {_MOST_REQUESTS:,} uses")
        number = numbers.setdefault(name, len(numbers))
        if number == len(costs):
            costs.append(0.0)
            sizes.append(-1)
        requests.append((_number(row["seconds"], "seconds", where), number))
        if row.get("build_seconds"):
            costs[number] = _number(row["build_seconds"], "build_seconds", where)
        if row.get("bytes"):
            sizes[number] = int(_number(row["bytes"], "bytes", where))
    requests.sort()
    return Trace(tuple(numbers), requests, costs, sizes)


def _number(text: str | None, column: str, where: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = -1.0
    if not isfinite(number) or not 0.0 <= number <= _LARGEST:
        raise TraceError(f"{where}: {column} = {safe_repr(text, 80)}; expected a number, 0 or more")
    return number
