"""
A pipeline at a thousand workers: one call for each step, and chains of steps for batches.

Both use the code of the engines, the router and the schedule, in simulated time. Assumed: a client
takes a fixed time for each message; a message has a fixed size beside texts and results; workers
do one task at a time, do not differ, and keep all classes; networks take no time. The first run,
in which durations are learnt, is not counted.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from warmset.engines.affinity import Router
from warmset.engines.batches import Batches
from warmset.engines.chains import ChainStep, Costs

if TYPE_CHECKING:
    from collections.abc import Sequence


class Load(NamedTuple):
    """What is simulated."""

    workers: int = 1_000
    documents: int = 20_000
    client_seconds: float = 0.001
    """What a message takes in the client: a call of Ray in docs/scaling.md, of Dask twice that."""
    message_bytes: int = 500
    text_bytes: int = 2_000
    result_bytes: int = 1_000


class Sum(NamedTuple):
    """The figures of one way of sending the calls."""

    name: str
    seconds: float
    tasks: int
    messages: int
    """Of the client, in both directions."""
    megabytes: float
    """Through the client."""
    builds: int


# As in the demo: some steps need the one before, and one class is slow to build.
STEPS = (
    ChainStep("sentences", "Segmenter"),
    ChainStep("language", "Language"),
    ChainStep("sentiment", "Sentiment"),
    ChainStep("vector", "Tfidf"),
    ChainStep("topic", "Topics", frozenset({"vector"})),
    ChainStep("reduced", "Lsa", frozenset({"vector"})),
    ChainStep("nearest", "Neighbours", frozenset({"reduced"})),
    ChainStep("embedding", "Embedder"),
)
CALL_SECONDS = (0.9, 0.2, 0.1, 0.15, 0.25, 0.1, 0.1, 0.2)
BUILD_SECONDS = (0.1, 18.0, 0.2, 0.4, 0.4, 1.0, 0.3, 1.2)


class _Workers:
    """Executes calls in the order in which they come, and builds a class at its first call."""

    def __init__(self, names: Sequence[str]) -> None:
        self.free = dict.fromkeys(names, 0.0)
        self.warm: dict[str, set[int]] = {name: set() for name in names}
        self.builds = 0

    def execute(self, worker: str, steps: Sequence[int], documents: int, now: float) -> float:
        """Return when it has ended."""
        seconds = sum(CALL_SECONDS[step] for step in steps) * documents
        for step in steps:
            if step not in self.warm[worker]:
                self.warm[worker].add(step)
                self.builds += 1
                seconds += BUILD_SECONDS[step]
        end = self.free[worker] = max(now, self.free[worker]) + seconds
        return end


def _names(load: Load) -> list[str]:
    return [f"w{number}" for number in range(load.workers)]


def one_call_for_each_step(load: Load) -> Sum:
    """Each step is a call, and its result an argument of the next one, through the client."""
    names = _names(load)
    router = Router(dict.fromkeys(names, 1), timer=lambda: now)
    now = client = 0.0
    for step, call, build in zip(STEPS, CALL_SECONDS, BUILD_SECONDS, strict=True):
        router.learn(str(step.target), call_seconds=call, build_seconds=build)
    workers = _Workers(names)
    waiting = list(range(load.documents))[::-1]
    ends: list[tuple[float, int, int, object]] = []
    size = 0
    tasks = 0

    def send(document: int, step: int) -> None:
        nonlocal client, size, tasks
        ticket = router.choose(STEPS[step].target)
        client = max(client, now) + load.client_seconds
        end = workers.execute(ticket.worker, (step,), 1, client)
        argument = load.result_bytes if STEPS[step].needs else load.text_bytes
        size += 2 * load.message_bytes + argument + load.result_bytes
        tasks += 1
        heappush(ends, (end, tasks, document * len(STEPS) + step, ticket))

    for _ in range(min(2 * load.workers, load.documents)):
        send(waiting.pop(), 0)
    while ends:
        now, _, at, ticket = heappop(ends)
        client = max(client, now) + load.client_seconds
        router.done(ticket)  # type: ignore[arg-type]
        document, step = divmod(at, len(STEPS))
        if step + 1 < len(STEPS):
            send(document, step + 1)
        elif waiting:
            send(waiting.pop(), 0)
    seconds = max(client, *workers.free.values())
    return Sum("a call for each step", seconds, tasks, 2 * tasks, size / 1e6, workers.builds)


def chains_and_batches(load: Load) -> Sum:
    """A task is a chain of steps for a batch; texts and results stay on the workers."""
    names = _names(load)
    router = Router(dict.fromkeys(names, 1))
    costs = Costs()
    for step, call, build in zip(STEPS, CALL_SECONDS, BUILD_SECONDS, strict=True):
        costs.call_seconds[step.name] = call
        costs.build_seconds[str(step.target)] = build
    workers = _Workers(names)
    batches = Batches(STEPS, load.documents, router, costs=costs)
    now = client = 0.0
    size = number = 0
    ends: list[tuple[float, int, object]] = []
    while not batches.finished:
        for task in batches.take():
            client = max(client, now) + load.client_seconds
            end = workers.execute(task.worker, task.steps, len(task.items), client)
            size += 2 * load.message_bytes + 8 * len(task.items)
            number += 1
            heappush(ends, (end, number, task))
        now, _, done = heappop(ends)
        client = max(client, now) + load.client_seconds
        indexes = done.steps  # type: ignore[attr-defined]
        batches.done(
            done,  # type: ignore[arg-type]
            call_seconds={index: CALL_SECONDS[index] for index in indexes},
            build_seconds={str(STEPS[i].target): BUILD_SECONDS[i] for i in indexes},
        )
    seconds = max(client, *workers.free.values())
    name = "chains for batches (warmset)"
    return Sum(name, seconds, number, 2 * number, size / 1e6, workers.builds)


def table(load: Load) -> str:
    """Simulate both, and return the results in Markdown."""
    work = sum(CALL_SECONDS) * load.documents / load.workers
    lines = [
        f"{load.workers:,} workers, {load.documents:,} documents, {len(STEPS)} steps of as many"
        f" classes; the calls alone take each worker {work:,.0f} s.",
        "",
        "| | tasks | messages of the client | MB through the client | builds | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.tasks:,} | {each.messages:,} | {each.megabytes:,.1f} |"
        f" {each.builds:,} | {each.seconds:,.0f} |"
        for each in (one_call_for_each_step(load), chains_and_batches(load))
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Load()))
