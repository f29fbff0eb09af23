"""
Affinity at a thousand workers and a hundred thousand classes: a simulation, with the real router.

Assumed: each worker does one call at a time, in the order in which they come, and keeps at most so
many instances, least recently used ones leave; classes are called by Zipf's law; what a call of a
class takes, and what its build takes, is drawn once from log-normal distributions; calls arrive by
chance (Poisson) at a rate that keeps the workers at a given part of their time busy with calls
alone; one router sees all of them, and learns what a call took when it has ended. Networks take no
time, and workers do not differ. In the middle of the run some workers are lost with all they had,
and as many new ones come.

It prints a table and writes docs/scaling.md, between its markers, and docs/affinity.png. The second
table, of `benchmarks.batching`, is of a pipeline on as many workers.
"""

from __future__ import annotations

import argparse
import random
import time
from bisect import bisect
from collections import OrderedDict
from heapq import heappop, heappush
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from warmset.engines.affinity import Router, ring_position

from . import batching

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parents[1] / "docs"


class World(NamedTuple):
    """What is simulated."""

    workers: int = 1_000
    classes: int = 100_000
    calls: int = 500_000
    exponent: float = 1.0
    """Of Zipf's law."""
    call_seconds: float = 1.0
    """Median; a third of them take less than two thirds of it, or more than one and a half."""
    build_seconds: float = 2.0
    """Median; one in seven takes more than 5.4 s."""
    warm: int = 150
    """Instances that a worker keeps."""
    busy: float = 0.6
    """The part of their time that calls alone take."""
    lost: int = 10
    seed: int = 7


class Result(NamedTuple):
    """The figures of one way of choosing a worker."""

    name: str
    called: int
    """Classes that were called at all."""
    builds: int
    build_seconds: float
    median: float
    """Seconds from a call to its end, of the second half; in the first the caches fill."""
    p99: float
    late: int
    """Classes on the worker that has most."""
    moved: int
    """Builds of classes that had been built before, in the tenth of the calls after workers were
    lost, less those in the tenth before."""
    choice_microseconds: float

    @property
    def per_class(self) -> float:
        """Builds for each class that was called."""
        return self.builds / self.called


class ByRouter:
    """The router of `warmset.engines`, with and without affinity."""

    def __init__(self, workers: Sequence[str], affinity: bool) -> None:
        self.now = 0.0
        self.router = Router(dict.fromkeys(workers, 1), affinity=affinity, timer=lambda: self.now)

    def choose(self, name: str) -> Any:
        return self.router.choose(name)

    def done(self, ticket: Any, call: float, build: float | None) -> None:
        self.router.done(ticket)
        self.router.learn(ticket.class_name, call_seconds=call, build_seconds=build)

    def lose(self, worker: str) -> None:
        self.router.remove_worker(worker)

    def add(self, worker: str) -> None:
        self.router.add_worker(worker)


class _Chosen(NamedTuple):
    class_name: str
    worker: str


class ByHash:
    """A ring alone: each class has one worker, whatever its queue."""

    def __init__(self, workers: Sequence[str]) -> None:
        self.now = 0.0
        self.ring = sorted(
            (ring_position(f"{name}#{at}"), name) for name in workers for at in range(64)
        )

    def choose(self, name: str) -> Any:
        at = bisect(self.ring, (ring_position(name), "")) % len(self.ring)
        return _Chosen(name, self.ring[at][1])

    def done(self, ticket: Any, call: float, build: float | None) -> None:
        pass

    def lose(self, worker: str) -> None:
        self.ring = [point for point in self.ring if point[1] != worker]

    def add(self, worker: str) -> None:
        self.ring = sorted(
            [*self.ring, *((ring_position(f"{worker}#{at}"), worker) for at in range(64))]
        )


class ByChance:
    """Any worker."""

    def __init__(self, workers: Sequence[str], seed: int) -> None:
        self.now = 0.0
        self.workers = list(workers)
        self.chance = random.Random(seed)

    def choose(self, name: str) -> Any:
        return _Chosen(name, self.chance.choice(self.workers))

    def done(self, ticket: Any, call: float, build: float | None) -> None:
        pass

    def lose(self, worker: str) -> None:
        self.workers.remove(worker)

    def add(self, worker: str) -> None:
        self.workers.append(worker)


def simulate(name: str, way: Any, world: World) -> Result:
    """
    Run a world with one way of choosing; the same calls for each.

    Args:
        name: What it is called.
        way: Chooses.
        world: The world.

    Returns:
        What came of it.
    """
    chance = random.Random(world.seed)
    calls_take = [
        world.call_seconds * chance.lognormvariate(0.0, 1.0) ** 0.5 for _ in range(world.classes)
    ]
    builds_take = [
        world.build_seconds * chance.lognormvariate(0.0, 1.0) for _ in range(world.classes)
    ]
    weights = list(accumulate(1.0 / (at + 1) ** world.exponent for at in range(world.classes)))
    # What a call takes on the mean, by how often each class is called.
    shares = [1.0 / (at + 1) ** world.exponent / weights[-1] for at in range(world.classes)]
    mean = sum(share * seconds for share, seconds in zip(shares, calls_take, strict=True))
    rate = world.busy * world.workers / mean
    warm: dict[str, OrderedDict[int, None]] = {
        f"w{at}": OrderedDict() for at in range(world.workers)
    }
    free = dict.fromkeys(warm, 0.0)
    ends: list[tuple[float, int, Any, float, float | None]] = []
    latencies: list[float] = []
    builds = called = 0
    seen = bytearray(world.classes)
    build_seconds = now = choosing = 0.0
    by_tenth = [0] * 10
    for number in range(world.calls):
        now += chance.expovariate(rate)
        way.now = now
        while ends and ends[0][0] <= now:
            _, _, ticket, call, build = heappop(ends)
            way.done(ticket, call, build)
        if number == world.calls // 2:
            for worker in list(warm)[: world.lost]:
                way.lose(worker)
                del warm[worker], free[worker]
            for at in range(world.lost):
                warm[f"new{at}"], free[f"new{at}"] = OrderedDict(), now
                way.add(f"new{at}")
        which = bisect(weights, chance.random() * weights[-1])
        began = time.perf_counter()
        ticket = way.choose(f"class{which}")
        choosing += time.perf_counter() - began
        again = bool(seen[which])
        if not again:
            seen[which] = 1
            called += 1
        there = warm[ticket.worker]
        seconds, build = calls_take[which], None
        if which in there:
            there.move_to_end(which)
        else:
            there[which] = None
            if len(there) > world.warm:
                there.popitem(last=False)
            build = builds_take[which]
            builds += 1
            build_seconds += build
            by_tenth[number * 10 // world.calls] += again
        start = max(now, free[ticket.worker])
        end = free[ticket.worker] = start + seconds + (build or 0.0)
        if number >= world.calls // 2:
            latencies.append(end - now)
        heappush(ends, (end, number, ticket, seconds, build))
    latencies.sort()
    return Result(
        name=name,
        called=called,
        builds=builds,
        build_seconds=build_seconds,
        median=latencies[len(latencies) // 2],
        p99=latencies[int(0.99 * len(latencies))],
        late=max(len(there) for there in warm.values()),
        moved=by_tenth[5] - by_tenth[4],
        choice_microseconds=1e6 * choosing / world.calls,
    )


def ways(world: World) -> list[tuple[str, Any]]:
    """All ways of choosing."""
    workers = [f"w{at}" for at in range(world.workers)]
    return [
        ("affinity (warmset)", ByRouter(workers, affinity=True)),
        ("consistent hashing alone", ByHash(workers)),
        ("shortest queue", ByRouter(workers, affinity=False)),
        ("random", ByChance(workers, world.seed)),
    ]


def table(results: Sequence[Result], world: World) -> str:
    """The results in Markdown."""
    lines = [
        f"{world.workers:,} workers, {world.classes:,} classes, {world.calls:,} calls, workers busy"
        f" with calls {world.busy:.0%} of their time, {world.warm} instances kept by each,"
        f" {world.lost} workers lost and replaced half-way; seed {world.seed}.",
        "",
        "| calls go by | builds | for each class called | seconds of builds | median | p99 |"
        " most classes on a worker | builds for the lost workers | a choice |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.builds:,} | {r.per_class:.2f} | {r.build_seconds:,.0f} |"
        f" {_span(r.median)} | {_span(r.p99)} | {r.late} | {r.moved:+,} |"
        f" {r.choice_microseconds:.0f} us |"
        for r in results
    ]
    return "\n".join(lines)


def _span(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def draw(results: Sequence[Result], path: Path) -> None:
    """Bars: builds for each class, and latency."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 2.6), layout="constrained")
    names = [result.name for result in results][::-1]
    colours = ["#c2410c" if "warmset" in name else "#b6c2d1" for name in names]
    for axis, values, title in (
        (axes[0], [r.per_class for r in results][::-1], "builds for each class that was called"),
        (axes[1], [r.p99 for r in results][::-1], "99 % of calls are done within, seconds"),
    ):
        axis.barh(names, values, color=colours)
        if axis is axes[1]:
            axis.set_xscale("log")
        axis.set_title(title, loc="left", fontsize=10)
        for at, value in enumerate(values):
            text = f" {value:,.0f}" if value >= 100 else f" {value:.3g}"
            axis.text(value, at, text, va="center", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Simulate, print, and write the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field in ("workers", "classes", "calls"):
        parser.add_argument(f"--{field}", type=int, default=World._field_defaults[field])
    parser.add_argument("--no-docs", action="store_true", help="print only")
    chosen = parser.parse_args()
    world = World(workers=chosen.workers, classes=chosen.classes, calls=chosen.calls)
    results = []
    for name, way in ways(world):
        results.append(simulate(name, way, world))
        print(results[-1], flush=True)
    text = table(results, world)
    print(text)
    pipeline = batching.table(batching.Load(workers=chosen.workers))
    print(pipeline)
    if not chosen.no_docs:
        write("simulation", text)
        write("pipeline", pipeline)
        draw(results, DOCS / "affinity.png")


def write(name: str, text: str) -> None:
    """Write a table between its markers."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    page = DOCS / "scaling.md"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
