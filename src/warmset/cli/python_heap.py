"""
The free memory inside the interpreter's own heap, which the system counts as resident.

The heap for small objects consists of arenas of 1 MiB, and returns one to the system only if it is
empty. A single object that outlives a run keeps a whole arena, whose free part is used again by the
next run. So RSS can rise by some MB over dozens of runs without anything leaking.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["free_heap_bytes"]

_AVAILABLE = re.compile(r"^# bytes in available blocks *= *([\d,]+)", re.MULTILINE)
_UNUSED = re.compile(r"^\d+ unused pools \* \d+ bytes *= *([\d,]+)", re.MULTILINE)


def free_heap_bytes() -> int:
    """
    Measure the free memory inside the interpreter's heap for small objects.

    Returns:
        Bytes; 0 if the interpreter does not tell, as with another allocator.

    The interpreter prints the figures to the file descriptor of stderr, which is redirected to a
    file meanwhile: call it while no other thread prints.
    """
    text = ""
    statistics = getattr(sys, "_debugmallocstats", None)
    if statistics is not None:
        with suppress(OSError):  # there is no stderr, or no place for the file
            text = _printed_by(statistics)
    return sum(
        int(match[1].replace(",", ""))
        for match in (_AVAILABLE.search(text), _UNUSED.search(text))
        if match is not None
    )


def _printed_by(statistics: Callable[[], object]) -> str:
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            statistics()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        file.seek(0)
        return file.read().decode("ascii", "replace")
