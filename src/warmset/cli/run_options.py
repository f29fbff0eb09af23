"""The options of the runs of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """
    The options of the runs.

    Args:
        runs: The number of runs.
        workers: Threads that process documents; the steps of one document stay in one thread. On
            an engine, the tasks that are sent at a time.
        clear: Whether the cache is cleared after each run.
        per_run: Whether each run registers the classes under new names, as ``Name@3`` in run 3.
        strict: Whether the first failure stops the runs.
        trim: Whether free memory is returned to the system before each measurement.
    """

    runs: int = 10
    workers: int = 1
    clear: bool = True
    per_run: bool = False
    strict: bool = False
    trim: bool = True
