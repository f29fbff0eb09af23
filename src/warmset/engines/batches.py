"""
Schedules the documents of one run of a pipeline: batches of documents, one task for each chain.

It decides which task goes to which worker and when, and knows neither a cluster nor what a step
does: whoever runs the tasks asks for them with `Batches.take` and reports them with `Batches.done`.
So the engines, the simulation and the tests use the same schedule.

A worker has one task that it executes and one that waits there, for each of its threads; all other
work is kept here, so that it can still be planned differently once durations are known.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from .affinity import duration_name
from .chains import batch_size, plan_chains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..family_keys import SlotKey
    from .affinity import Router, Ticket
    from .chains import Chain, ChainStep, Costs, Plan

__all__ = ["RUN_ITEM", "Batches", "Task"]

RUN_ITEM = -1  # stands for the run in the place of a document
_TASKS_PER_THREAD = 2
_OPEN_PER_WORKER = 16  # bounds the results that are kept for chains that have not started
_LEARNING_RATE = 0.5
_PROBE_BATCHES = 4  # that are opened before durations are known; all other documents wait
_PROBES_PER_WORKER = 32  # the first batch without known durations: this part of a worker's share


class Task(NamedTuple):
    """A chain for a batch of documents, to be executed by one worker."""

    number: int
    steps: tuple[int, ...]
    """The indexes of the steps."""
    items: tuple[int, ...]
    """The indexes of the documents, or `RUN_ITEM`."""
    worker: str
    keep: frozenset[str]
    """The steps whose results a later task needs."""
    inputs: tuple[Any, ...]
    """What `done` received as `kept` for the earlier tasks whose results it needs."""


class _Batch:
    __slots__ = ("chains", "done", "items", "left", "number", "waiting")

    def __init__(self, number: int, items: tuple[int, ...], chains: tuple[Chain, ...]) -> None:
        self.number, self.items, self.chains = number, items, chains
        self.waiting = {chain.number: set(chain.after) for chain in chains}
        self.left = {chain.number: len(items) for chain in chains}
        self.done: list[tuple[Task, Any]] = []  # with what they kept


class _Ready(NamedTuple):
    batch: _Batch
    chain: Chain
    items: tuple[int, ...]
    queue: _Queue
    tickets: tuple[Ticket, ...]  # of keys; those of classes are made when it is sent


class _Queue:
    """The tasks that may go to any of some workers."""

    __slots__ = ("entries", "free", "workers")

    def __init__(self, workers: Iterable[str]) -> None:
        self.workers = frozenset(workers)
        self.entries: list[tuple[int, int, int, _Ready]] = []
        # By the number of tasks that they have for each thread: the workers that take another one.
        self.free: tuple[dict[str, None], ...] = tuple({} for _ in range(_TASKS_PER_THREAD))


class _Sent(NamedTuple):
    task: Task
    ready: _Ready
    tickets: tuple[Ticket, ...]


class Batches:
    """
    The schedule of one run.

    Args:
        steps: The steps in the order of the pipeline.
        documents: The number of documents.
        router: Has the workers, and assigns classes and keys to them.
        costs: The durations known so far; updated.
        key_of: Returns the `FamilyKey` of a step that has a key of each document, by the index of
            the step and the document, or None if it cannot be determined. It is called when the
            steps before it have ended.
        warm: The targets that are warm where the router has placed them.
        max_classes: The most classes that one worker keeps warm; None for no limit.
        max_tasks: The most tasks that are sent at a time; None for two for each thread of a worker.
        previous: The plan of the previous run.

    Not thread-safe. `take` is O(workers without work), and O(classes x groups + workers) when the
    workers change or half of the documents are done.
    """

    def __init__(
        self,
        steps: Sequence[ChainStep],
        documents: int,
        router: Router,
        *,
        costs: Costs,
        key_of: Callable[[int, int], SlotKey | None] = lambda step, item: None,
        warm: Iterable[SlotKey] = (),
        max_classes: int | None = None,
        max_tasks: int | None = None,
        previous: Plan | None = None,
    ) -> None:
        self._steps = tuple(steps)
        self._documents = documents if any(step.per_document for step in steps) else 0
        self._router = router
        self._costs = costs
        self._key_of = key_of
        self._warm = set(warm)
        self._max_classes = max_classes
        self._max_tasks = max_tasks
        self.plan: Plan | None = previous
        self._planned_for = 0  # documents that were left when it was planned
        self._next = 0  # the first document that is in no batch
        self._opened = 0
        self._open: dict[int, _Batch] = {}
        self._run: _Batch | None = None
        self._numbers = 0
        self._changes = -1  # of the workers, up to which they are known here
        self._threads: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._queues: list[_Queue] = []  # one for each group of the plan
        self._older: list[_Queue] = []  # of earlier plans, with entries left
        self._serving: dict[str, list[_Queue]] = {}  # worker -> its queues, without `_of_worker`
        self._of_worker: dict[str, _Queue] = {}  # what a key has brought to one worker
        self._sent: dict[int, _Sent] = {}
        self._stopped = False

    @property
    def finished(self) -> bool:
        """Whether each step has been done for each document, or the run was stopped."""
        if self._sent:
            return False
        return self._stopped or not (self._open or self._has_more() or self._run_is_ahead())

    def stop(self) -> None:
        """Send nothing more; the tasks that were sent are still to be reported."""
        self._stopped = True

    def _run_is_ahead(self) -> bool:
        return not self._opened and any(not step.per_document for step in self._steps)

    def _has_more(self) -> bool:
        return self._next < self._documents

    # -- planning --------------------------------------------------------------------------------

    def _update_plan(self) -> None:
        changed = self._router.changes != self._changes
        if changed:
            self._changes = self._router.changes
            threads = self._threads = self._router.threads()
            self._in_flight = {name: self._in_flight.get(name, 0) for name in threads}
        left = self._documents - self._next
        plan = self.plan
        seconds = self._costs.call_seconds
        learnt = plan and not plan.known and all(step.name in seconds for step in self._steps)
        if self._threads and (changed or learnt or 0 < 2 * left <= self._planned_for):
            self._make_plan(left)

    def _make_plan(self, left: int) -> None:
        for step in self._steps:
            if step.key is None:
                self._router.place(step.target)
        self._planned_for = left
        self.plan = plan_chains(
            self._steps,
            list(self._threads),
            documents=left,
            costs=self._costs,
            placements=self._router.placements(),
            warm=self._warm,
            max_classes=self._max_classes,
            previous=self.plan,
        )
        self._renew_queues(self.plan)

    def _renew_queues(self, plan: Plan) -> None:
        everyone = frozenset(self._threads)
        older = [q for q in (*self._older, *self._queues, *self._of_worker.values()) if q.entries]
        self._queues = [_Queue(group.workers) for group in plan.groups]
        self._older, self._of_worker = [], {}
        for queue in older:
            if not queue.workers & everyone:  # all of them were lost
                queue.workers = everyone
            for free in queue.free:
                free.clear()
            entries, queue.entries = queue.entries, []
            for entry in entries:
                # What was ready before goes to the workers of its classes, if they are still
                # together, and else to those that it was meant for.
                chain = entry[3].chain
                targets = {self._steps[index].target for index in chain.steps}
                found = queue
                if chain.group is not None:
                    for group, new in zip(plan.groups, self._queues, strict=False):
                        if targets.issubset(group.targets):
                            found = new
                heappush(found.entries, entry)
            if queue.entries:
                self._older.append(queue)
        if any(step.key is not None for step in self._steps):
            self._queues.append(_Queue(everyone))  # stays empty: any worker may get a key
        self._serving = {worker: [] for worker in self._threads}
        for queue in (*self._older, *self._queues):
            for worker in queue.workers & everyone:
                self._serving[worker].append(queue)
        for worker in self._threads:
            self._update_worker(worker)

    def _update_worker(self, worker: str) -> None:
        """Update in the queues of a worker whether it takes another task."""
        if worker not in self._threads:
            return
        level = self._in_flight[worker] // self._threads[worker]
        for queue in self._serving[worker]:
            for number, free in enumerate(queue.free):
                if number == level:
                    free[worker] = None
                else:
                    free.pop(worker, None)

    def _batch_size(self) -> int:
        assert self.plan is not None
        left = self._documents - self._next
        size = batch_size(self.plan, self._steps, documents=left, costs=self._costs)
        if not self.plan.known:
            probe = math.ceil(self._documents / (_PROBES_PER_WORKER * len(self._threads)))
            size = min(size, probe << min(self._opened, 20))
        return size

    # -- sending ---------------------------------------------------------------------------------

    def take(self) -> list[Task]:
        """
        Return the tasks that are to be sent now.

        Returns:
            The tasks, each with its worker. Empty while the workers have enough to do, and if there
            are no workers.
        """
        tasks: list[Task] = []
        if self._stopped:
            return tasks
        self._update_plan()
        if not self._threads:
            return tasks
        if not self._opened:
            self._open_run()
        for level in range(_TASKS_PER_THREAD):
            while self._send_ready(level, tasks):
                pass
        return tasks

    def _send_ready(self, level: int, tasks: list[Task]) -> bool:
        """Send what is ready to workers of a level; returns whether there may be more."""
        hungry = False
        for queue in (*self._older, *self._queues, *self._of_worker.values()):
            free = queue.free[level]
            while free and queue.entries:
                if self._max_tasks is not None and len(self._sent) >= self._max_tasks:
                    return False
                tasks.append(self._send(heappop(queue.entries)[3], next(iter(free))))
            hungry = hungry or bool(free)
        if not hungry or not self._may_open():
            return False
        size = self._batch_size()
        start, self._next = self._next, min(self._next + size, self._documents)
        assert self.plan is not None
        self._add_batch(tuple(range(start, self._next)), self.plan.chains)
        return True

    def _open_run(self) -> None:
        """Open the batch of the steps that come before all documents."""
        assert self.plan is not None
        self._opened = 1
        if self.plan.run_chains:
            self._run = self._add_batch((RUN_ITEM,), self.plan.run_chains)

    def _may_open(self) -> bool:
        if (self._run is not None and self._run.number in self._open) or not self._has_more():
            return False
        if len(self._open) >= _OPEN_PER_WORKER * len(self._threads):
            return False
        return self.plan is None or self.plan.known or self._opened <= _PROBE_BATCHES

    def _add_batch(self, items: tuple[int, ...], chains: tuple[Chain, ...]) -> _Batch:
        batch = self._open[self._opened] = _Batch(self._opened, items, chains)
        self._opened += 1
        for chain in chains:
            if not chain.after:
                self._make_ready(batch, chain)
        return batch

    def _make_ready(self, batch: _Batch, chain: Chain) -> None:
        if chain.group is not None:
            assert self.plan is not None
            queue = self._queue_for(chain)
            self._push(_Ready(batch, chain, batch.items, queue, ()))
            return
        routed: dict[str, tuple[list[int], list[Ticket]]] = {}
        for item in batch.items:
            key = self._key_of(chain.steps[0], item)
            worker = next(iter(self._threads))
            tickets = []
            if key is not None:
                ticket = self._router.choose(key)
                worker = ticket.worker
                tickets.append(ticket)
            items, chosen = routed.setdefault(worker, ([], []))
            items.append(item)
            chosen += tickets
        for worker, (items, chosen) in routed.items():
            own = self._queue_of_worker(worker)
            self._push(_Ready(batch, chain, tuple(items), own, tuple(chosen)))

    def _queue_of_worker(self, worker: str) -> _Queue:
        queue = self._of_worker.get(worker)
        if queue is None:
            known = worker in self._threads
            queue = self._of_worker[worker] = _Queue((worker,) if known else self._threads)
            for each in queue.workers:
                self._serving[each].append(queue)
                self._update_worker(each)
        return queue

    def _queue_for(self, chain: Chain) -> _Queue:
        """Return the queue of the group that the class of a chain is in now."""
        assert self.plan is not None
        target = self._steps[chain.steps[0]].target
        for group, queue in zip(self.plan.groups, self._queues, strict=False):
            if target in group.targets:
                return queue
        raise AssertionError(f"{target!r} is in no group")

    def _push(self, ready: _Ready) -> None:
        self._numbers += 1
        entry = (-ready.chain.number, ready.batch.number, self._numbers, ready)
        heappush(ready.queue.entries, entry)

    def _send(self, ready: _Ready, worker: str) -> Task:
        batch, chain = ready.batch, ready.chain
        own = {self._steps[index].name for index in chain.steps}
        needs = frozenset().union(*(self._steps[index].needs for index in chain.steps)) - own
        before = [*(self._run.done if self._run not in (None, batch) else ()), *batch.done]
        items = set(ready.items)
        self._numbers += 1
        task = Task(
            self._numbers,
            chain.steps,
            ready.items,
            worker,
            keep=self._kept_by(chain, own),
            inputs=tuple(
                kept
                for done, kept in before
                if done.keep & needs and (done.items[0] == RUN_ITEM or items & {*done.items})
            ),
        )
        tickets = ready.tickets
        if chain.group is not None:
            tickets = self._tickets(chain, len(ready.items), worker)
        self._in_flight[worker] += 1
        self._update_worker(worker)
        self._sent[task.number] = _Sent(task, ready, tickets)
        return task

    def _kept_by(self, chain: Chain, own: set[str]) -> frozenset[str]:
        inside = set(chain.steps)
        return frozenset(
            need
            for index, step in enumerate(self._steps)
            if index not in inside
            for need in step.needs
            if need in own
        )

    def _tickets(self, chain: Chain, count: int, worker: str) -> tuple[Ticket, ...]:
        seconds: dict[SlotKey, float] = {}
        for index in chain.steps:
            step = self._steps[index]
            expected = count * self._costs.call_seconds.get(step.name, 0.0)
            seconds[step.target] = seconds.get(step.target, 0.0) + expected
        return tuple(
            self._router.assign(target, worker, expected) for target, expected in seconds.items()
        )

    # -- reports ---------------------------------------------------------------------------------

    def _take_back(self, task: Task) -> _Ready:
        sent = self._sent.pop(task.number)
        for ticket in sent.tickets:
            self._router.done(ticket)
        if self._in_flight.get(task.worker, 0) > 0:
            self._in_flight[task.worker] -= 1
            self._update_worker(task.worker)
        return sent.ready

    def done(
        self,
        task: Task,
        *,
        call_seconds: Mapping[int, float] | None = None,
        build_seconds: Mapping[str, float] | None = None,
        kept: Any = None,
    ) -> None:
        """
        Report that a task has ended.

        Args:
            task: The task.
            call_seconds: Index of a step -> seconds for one document, without builds. The steps
                that are missing were not called.
            build_seconds: Class or family -> seconds of its last build.
            kept: Stands for the results that later tasks need; it is among their `inputs`.

        Raises:
            KeyError: The task was reported before.
        """
        ready = self._take_back(task)
        self._learn(task, call_seconds or {}, build_seconds or {})
        batch, chain = ready.batch, ready.chain
        if task.keep:
            batch.done.append((task, kept))
        batch.left[chain.number] -= len(task.items)
        if batch.left[chain.number]:
            return
        for other in batch.chains:
            waiting = batch.waiting[other.number]
            if chain.number in waiting:
                waiting.discard(chain.number)
                if not waiting:
                    self._make_ready(batch, other)
        if not any(batch.left.values()):
            del self._open[batch.number]  # and, but for the run, what it kept

    def _learn(
        self, task: Task, call_seconds: Mapping[int, float], build_seconds: Mapping[str, float]
    ) -> None:
        costs = self._costs
        for index in task.steps:
            step = self._steps[index]
            seconds = call_seconds.get(index, 0.0)
            before = costs.call_seconds.get(step.name, seconds)
            # What disturbs a measurement makes it longer.
            rate = _LEARNING_RATE if seconds > before else 1.0
            costs.call_seconds[step.name] = before + rate * (seconds - before)
            if step.key is None:
                self._warm.add(step.target)
        costs.build_seconds.update(build_seconds)
        by_class: dict[str, list[float]] = {}
        for index in task.steps:
            name = duration_name(self._steps[index].target)
            by_class.setdefault(name, []).append(call_seconds.get(index, 0.0))
        self._router.learn_times(
            {name: sum(each) / len(each) for name, each in by_class.items()}, build_seconds
        )

    def split(self, task: Task) -> bool:
        """
        Report that a task could not be executed, for example because its worker died repeatedly.

        Args:
            task: The task.

        Returns:
            Whether its documents are tried again in smaller batches. A task of one document is not:
            the caller finds out what it fails at, and reports it with `done`.
        """
        if len(task.items) == 1:
            return False
        ready = self._take_back(task)
        # The plan, and with it the queues, may have changed since the task was sent.
        if ready.chain.group is None:
            queue = self._queue_of_worker(task.worker)
        else:
            queue = self._queue_for(ready.chain)
        middle = len(task.items) // 2
        for items in (task.items[:middle], task.items[middle:]):
            self._push(ready._replace(items=items, queue=queue, tickets=()))
        return True
