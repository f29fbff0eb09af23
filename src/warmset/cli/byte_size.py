"""Sizes on the command line: a number of bytes, with a unit if wanted."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["ByteSize"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LARGEST = 2**62


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A size in bytes: ``2GiB`` (2^30), ``500MB`` (10^6), ``500M``, or a plain number."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is not None and (match[2] or not match[3]):
            base = 1024 if match[3] else 1000
            size = float(match[1]) * base ** _POWERS[match[2].lower()]
            if 1 <= size <= _LARGEST:
                return int(size)
        expected = "expected one such as 2GiB, 500MB or 100000"
        return self.fail(f"{value!r} is not a size; {expected}", param, ctx)
