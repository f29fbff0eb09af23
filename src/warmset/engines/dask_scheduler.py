"""A plugin for Dask's scheduler that reassigns calls whose worker was lost."""

from __future__ import annotations

import time
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from .affinity import Router

__all__ = ["KEY_PREFIX", "ReassignLostCalls"]

KEY_PREFIX = "warmset-"  # of the task keys of calls, followed by the class name and a UUID


class ReassignLostCalls(SchedulerPlugin):  # type: ignore[misc, unused-ignore]
    """Reassigns the calls of a lost worker, which are restricted to it, to the remaining ones."""

    name = "warmset-reassign-lost-calls"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._unassigned: set[str] = set()

    async def start(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def transition(
        self, key: Any, start: str, finish: str, *arguments: Any, **options: Any
    ) -> None:
        if finish == "no-worker" and isinstance(key, str) and key.startswith(KEY_PREFIX):
            if not self._unassigned:
                # A transition must not be made within another transition.
                self._scheduler.loop.add_callback(self._reassign)
            self._unassigned.add(key)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        if self._unassigned:
            scheduler.loop.add_callback(self._reassign)

    def _reassign(self) -> None:
        scheduler = self._scheduler
        running = {each.address: each.nthreads for each in scheduler.running}
        if not running:
            return  # `add_worker` schedules another attempt
        unassigned, self._unassigned = self._unassigned, set()
        # A new router makes the same assignments as the routers of the clients, so most of their
        # further calls go to the same workers.
        router = Router(running)
        transitions = {}
        for key in unassigned:
            task = scheduler.tasks.get(key)
            if task is None or task.state != "no-worker":
                continue
            if not running.keys() & (task.worker_restrictions or set()):
                class_name = key[len(KEY_PREFIX) :].rpartition("-")[0]
                task.worker_restrictions = {router.choose(class_name).worker}
            transitions[key] = "processing"
        scheduler.transitions(transitions, stimulus_id=f"{self.name}-{time.time()}")
