"""
Bounded memory as one line of a test: run something again and again, and judge the growth of RSS.

It measures as ``warmset run`` does: the resident set size after each run, once the garbage is
collected and the memory that the C library holds, but that is free, is given back. MB is 10^6
bytes.
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
    What was measured.

    `rss_bytes` is the resident set size after each run that counts, `largest_run` the number of the
    run, from 2, with the largest growth since run 1, which is `largest_growth_bytes`.
    """

    rss_bytes: tuple[int, ...]
    largest_growth_bytes: int
    largest_run: int

    def table(self) -> str:
        """
        Give one line for each run.

        Returns:
            Lines with run, RSS and growth in MB; the largest growth is marked.
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
    Call something several times, and fail if the memory of the process grows past a bound.

    Args:
        run: What to call, without arguments; what it gives is dropped at once. It does what a run
            of yours does, `clear_cache` included, if that is what yours does between two runs.
        runs: How often, at least twice.
        growth_mb: The largest growth since run 1 that passes, in MB of 10^6 bytes. Growth up to and
            including it passes; the largest of any run counts, not that of the last.
        warm_up_runs: Calls before run 1 that are not measured. Modules and models that are loaded
            once and stay come with the first call, and run 1 has had that already: more are needed
            only for what fills up by and by.

    Returns:
        What was measured.

    Raises:
        AssertionError: The growth is past the bound; the text has a table of all runs.
        TypeError: `run` is not callable, or gives a coroutine or a generator, which has done
            nothing yet.
        ValueError: A number is out of range.

    What `run` raises passes through. It measures the whole process: leave room for what other
    threads allocate, and nothing else should be starting up or ending meanwhile.
    """
    __tracebackhide__ = True
    _check(run, runs, growth_mb, warm_up_runs)
    for _ in range(warm_up_runs):
        _call(run)
    # Bare numbers, in memory of their own: an int made among a run's objects could keep a whole
    # arena of them from going back to the system.
    sizes = array("q", bytes(8 * runs))
    for at in range(runs):
        _call(run)
        gc.collect()
        give_back_free_memory()
        sizes[at] = resident_bytes()
    # The first of equals, and never run 1, whose growth is 0 by definition.
    worst = max(range(1, runs), key=sizes.__getitem__)
    growth = RssGrowth(tuple(sizes), sizes[worst] - sizes[0], worst + 1)
    if growth.largest_growth_bytes > growth_mb * _MB:
        raise AssertionError(
            f"RSS grew by {growth.largest_growth_bytes / _MB:.1f} MB from run 1 to run"
            f" {growth.largest_run}, past the bound of {growth_mb:g} MB\n{growth.table()}"
        )
    return growth


def _call(run: Callable[[], Any]) -> None:
    result = run()
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        kind = type(result).__name__
        if hasattr(result, "close"):
            result.close()  # or it complains that nobody awaited it
        raise TypeError(
            f"run gave a {kind}, which has done nothing yet: give a function that runs it to its"
            " end, for example with asyncio.run"
        )


def _check(run: object, runs: int, growth_mb: float, warm_up_runs: int) -> None:
    if not callable(run):
        raise TypeError(f"run must be a callable without arguments, got {run!r}")
    for name, value, least in (("runs", runs, 2), ("warm_up_runs", warm_up_runs, 0)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if not (math.isfinite(growth_mb) and growth_mb >= 0.0):
        raise ValueError(f"growth_mb must be a finite number, 0 or more, got {growth_mb!r}")
