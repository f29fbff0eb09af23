"""What is measured: each entry gives one row or several that belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import calls, changes, hits, imports, memory, parts, scale, threads, views

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..results import Row
    from ..timing import Scale

MEASUREMENTS: dict[str, Callable[[Scale], list[Row]]] = {
    "hit-one": hits.one_name,
    "hit-64": hits.rotating,
    "hit-zipf": hits.zipf_drawn,
    "hit-equal": hits.equal,
    "weak": hits.weak,
    "get-method": calls.get_method,
    "has-method": calls.has_method,
    "handle": calls.handle,
    "execute": calls.execute,
    "miss": changes.miss,
    "parts": parts.parts,
    "evict": changes.evict,
    "expired": changes.expired,
    "stats": views.statistics,
    "views": views.views,
    "latency": threads.latency,
    "threads": threads.throughput,
    "bytes": memory.bytes_kept,
    "scale": scale.sizes,
    "import": imports.imports,
    "start": imports.starts,
}
