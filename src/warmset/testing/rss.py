"""
An assertion that the RSS of the process does not grow beyond a bound over repeated runs.

RSS is measured as in ``warmset run``: after each run, after a garbage collection, and after the
C library has returned its free memory to the system. MB means 10^6 bytes.
"""

from __future__ import annotations

import gc
import inspect
import math
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from .._process_memory import give_back_free_memory, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RssGrowth", "assert_bounded_rss"]

_MB = 1_000_000


class RssGrowth(NamedTuple):
    """
    The RSS after each measured run, and the largest growth since run 1.

    `rss_bytes` is the RSS after each measured run. `largest_growth_bytes` is the largest growth
    since run 1, reached in run number `largest_run`.
    """

    rss_bytes: tuple[int, ...]
    largest_growth_bytes: int
    largest_run: int

    def table(self) -> str:
        """
        Format the measurements as a table.

        Returns:
            One line per run with RSS and growth in MB; the largest growth is marked.
        """
        lines = ["run    RSS MB  growth MB"]
        first = self.rss_bytes[0]
        for run, rss in enumerate(self.rss_bytes, 1):
            growth = "-" if run == 1 else f"{(rss - first) / _MB:+.1f}"
            mark = "  <- largest" if run == self.largest_run else ""
            lines.append(f"{run:>3}  {rss / _MB:>8.1f}  {growth:>9}{mark}")
        return "\n".join(lines)


def assert_bounded_rss(
    run: Callable[[], Any],
    runs: int = 10,
    growth_mb: float = 20.0,
    *,
    warm_up_runs: int = 0,
) -> RssGrowth:
    """
    Call a function several times and fail if the RSS of the process grows beyond a bound.

    Args:
        run: A function without arguments; its result is dropped. It should do everything that one
            run of the program does, including `clear_cache` if the program calls it between runs.
        runs: The number of measured calls, at least 2.
        growth_mb: The largest permitted growth since run 1, inclusive, in MB of 10^6 bytes. The
            growth of every run is checked, not only that of the last.
        warm_up_runs: The number of unmeasured calls before run 1. Not needed for modules and models
            that are loaded once, because growth is relative to the end of run 1; useful for caches
            that fill up gradually.

    Returns:
        The measurements.

    Raises:
        AssertionError: The growth exceeds the bound; the message contains a table of all runs.
        TypeError: `run` is not callable, or returns a coroutine or generator, which would not have
            executed any code.
        ValueError: A number is out of range.

    Errors raised by `run` propagate. The whole process is measured: allow for allocations by other
    threads, and avoid starting or stopping other work meanwhile.
    """
    __tracebackhide__ = True
    _check(run, runs, growth_mb, warm_up_runs)
    for _ in range(warm_up_runs):
        _call(run)
    # Preallocated and unboxed: an int object allocated among the objects of a run could prevent an
    # entire arena from being returned to the system.
    sizes = array("q", bytes(8 * runs))
    for index in range(runs):
        _call(run)
        gc.collect()
        give_back_free_memory()
        sizes[index] = resident_bytes()
    # The first maximum; run 1 is excluded, because its growth is 0 by definition.
    largest = max(range(1, runs), key=sizes.__getitem__)
    growth = RssGrowth(tuple(sizes), sizes[largest] - sizes[0], largest + 1)
    if growth.largest_growth_bytes > growth_mb * _MB:
        raise AssertionError(
            f"RSS grew by {growth.largest_growth_bytes / _MB:.1f} MB from run 1 to run"
            f" {growth.largest_run}, more than the bound of {growth_mb:g} MB\n{growth.table()}"
        )
    return growth


def _call(run: Callable[[], Any]) -> None:
    result = run()
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        kind = type(result).__name__
        if hasattr(result, "close"):
            result.close()  # avoids the warning that a coroutine was never awaited
        raise TypeError(
            f"run returned a {kind}, which has not executed any code: pass a function that runs it"
            " to completion, for example with asyncio.run"
        )


def _check(run: object, runs: int, growth_mb: float, warm_up_runs: int) -> None:
    if not callable(run):
        raise TypeError(f"run must be a callable without arguments, got {run!r}")
    for name, value, minimum in (("runs", runs, 2), ("warm_up_runs", warm_up_runs, 0)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {value!r}")
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    if not (math.isfinite(growth_mb) and growth_mb >= 0.0):
        raise ValueError(f"growth_mb must be a finite number, 0 or more, got {growth_mb!r}")
