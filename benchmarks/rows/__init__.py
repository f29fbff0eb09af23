"""What is measured: each entry gives one row or several that belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import calls, changes, hits, imports, memory, snapshots, threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..results import Row
    from ..timing import Scale

MEASUREMENTS: dict[str, Callable[[Scale], list[Row]]] = {
    "hit-one": hits.one_name,
    "hit-64": hits.rotating,
    "hit-zipf": hits.zipf_drawn,
    "weak": hits.weak,
    "get-method": calls.get_method,
    "has-method": calls.has_method,
    "handle": calls.handle,
    "execute": calls.execute,
    "miss": changes.miss,
    "evict": changes.evict,
    "expired": changes.expired,
    "stats": snapshots.snapshots,
    "latency": threads.latency,
    "threads": threads.throughput,
    "bytes": memory.bytes_kept,
    "import": imports.imports,
}
