"""A plugin of Dask's scheduler: calls whose worker was lost get another one."""

from __future__ import annotations

import time
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from .affinity import Router

__all__ = ["PREFIX", "Homes"]

PREFIX = "warmset-"  # of the keys of calls; the class follows, and then a number


class Homes(SchedulerPlugin):  # type: ignore[misc, unused-ignore]
    """Gives calls whose worker was lost to another one."""

    name = "warmset-homes"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._homeless: set[str] = set()

    async def start(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def transition(
        self, key: Any, start: str, finish: str, *arguments: Any, **options: Any
    ) -> None:
        if finish == "no-worker" and isinstance(key, str) and key.startswith(PREFIX):
            if not self._homeless:
                # Not here: a transition must not be made within another one.
                self._scheduler.loop.add_callback(self._find_homes)
            self._homeless.add(key)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        if self._homeless:
            scheduler.loop.add_callback(self._find_homes)

    def _find_homes(self) -> None:
        scheduler = self._scheduler
        running = {each.address: each.nthreads for each in scheduler.running}
        if not running:
            return  # until a worker comes
        homeless, self._homeless = self._homeless, set()
        # As clients place classes: what they send next goes to the same workers, most likely.
        router = Router(running)
        moves = {}
        for key in homeless:
            task = scheduler.tasks.get(key)
            if task is None or task.state != "no-worker":
                continue
            if not running.keys() & (task.worker_restrictions or set()):
                class_name = key[len(PREFIX) :].rpartition("-")[0]
                task.worker_restrictions = {router.choose(class_name).worker}
            moves[key] = "processing"
        scheduler.transitions(moves, stimulus_id=f"warmset-homes-{time.time()}")
