"""
The traces: which class is asked for when, what its build costs, and how big it is.

They are fixed by their seeds. A policy is tuned to them as they are, and not they to a policy; and
to even draws only, so that odd ones show what the tuning is worth.
"""

from __future__ import annotations

import json
import math
import random
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from warmset.planning.traces import Trace as Replayable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["TRACES", "Trace", "replayable", "traces"]

CLASSES = 200
REQUESTS = 20_000
LEAST_SECONDS, MOST_SECONDS = 0.001, 10.0
LEAST_BYTES, MOST_BYTES = 1_000, 500_000_000


class Trace(NamedTuple):
    """Requests, in the order of time, for classes that are numbers."""

    name: str
    about: str
    mixed: bool
    """Whether costs and sizes differ between classes."""
    requests: Sequence[tuple[float, int]]
    """Seconds, and the class."""
    build_seconds: Sequence[float]
    sizes: Sequence[int]

    @property
    def bytes(self) -> int:
        """Of all classes that are asked for."""
        return sum(self.sizes[number] for number in {number for _, number in self.requests})


# -- costs and sizes -----------------------------------------------------------------------------


def _between(chance: float, least: float, most: float) -> float:
    """A number whose logarithm is spread evenly."""
    return math.exp(math.log(least) + chance * (math.log(most) - math.log(least)))


def _independent(random_: random.Random) -> tuple[list[float], list[int]]:
    """Costs and sizes that have nothing to do with each other."""
    costs = [_between(random_.random(), LEAST_SECONDS, MOST_SECONDS) for _ in range(CLASSES)]
    sizes = [int(_between(random_.random(), LEAST_BYTES, MOST_BYTES)) for _ in range(CLASSES)]
    return costs, sizes


def _related(random_: random.Random) -> tuple[list[float], list[int]]:
    """What is bigger mostly takes longer, as a model that is read from a disk."""
    chances = [random_.random() for _ in range(CLASSES)]
    near = [min(1.0, max(0.0, chance + random_.gauss(0.0, 0.15))) for chance in chances]
    costs = [_between(chance, LEAST_SECONDS, MOST_SECONDS) for chance in near]
    return costs, [int(_between(chance, LEAST_BYTES, MOST_BYTES)) for chance in chances]


def _alike(random_: random.Random) -> tuple[list[float], list[int]]:
    """One cost and one size: nothing to choose by but use."""
    return [0.5] * CLASSES, [20_000_000] * CLASSES


# -- requests ------------------------------------------------------------------------------------


def _zipf(count: int, exponent: float) -> list[float]:
    return [1.0 / rank**exponent for rank in range(1, count + 1)]


def _drift(random_: random.Random) -> Iterator[tuple[float, int]]:
    """A few classes are asked for often, and which ones they are shifts."""
    now, weights = 0.0, _zipf(CLASSES, 0.9)
    order = list(range(CLASSES))
    random_.shuffle(order)
    for turn in range(REQUESTS):
        if turn and turn % 1_000 == 0:
            order = order[5:] + order[:5]  # the five most wanted are the least wanted now
        now += random_.expovariate(1.0)
        yield now, order[random_.choices(range(CLASSES), weights)[0]]


def _loop(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Run after run of the same classes in the same order, more than fit."""
    now = 0.0
    for turn in range(REQUESTS):
        now += random_.expovariate(1.0)
        number = turn % CLASSES
        yield now, random_.randrange(CLASSES) if random_.random() < 0.1 else number


def _bursts(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Run after run of the same classes in the same order, one to four requests of each at once."""
    now, turn = 0.0, 0
    while turn < REQUESTS:
        for number in range(CLASSES):
            for _ in range(random_.randint(1, 4)):
                now += random_.expovariate(1.0)
                yield now, number
                turn += 1


def _scans(random_: random.Random) -> Iterator[tuple[float, int]]:
    """A hot set, and now and then all the others once, as by a nightly audit."""
    now, hot = 0.0, 60
    weights = _zipf(hot, 0.8)
    turn = 0
    while turn < REQUESTS:
        for _ in range(1_200):
            now += random_.expovariate(1.0)
            yield now, random_.choices(range(hot), weights)[0]
        for number in range(hot, CLASSES):
            now += random_.expovariate(20.0)
            yield now, number
        turn += 1_200 + CLASSES - hot


def _day_and_night(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Other classes by day than by night, and far fewer requests."""
    now, half = 0.0, CLASSES // 2
    weights = _zipf(half, 0.7)
    for _ in range(REQUESTS):
        day = now % 86_400.0 < 50_000.0
        now += random_.expovariate(1.0 / 20.0 if day else 1.0 / 120.0)
        yield now, random_.choices(range(half), weights)[0] + (0 if day else half)


def _all(random_: random.Random) -> Iterator[tuple[float, int]]:
    """A piece of each of the others, one after another, and again."""
    now = 0.0
    pieces = [list(make(random_)) for make in (_drift, _loop, _scans, _day_and_night)]
    length = REQUESTS // 16
    for part in range(4):
        for piece in pieces:
            chosen = piece[part * length : (part + 1) * length]
            start = chosen[0][0]
            for at, number in chosen:
                yield now + at - start, number
            now += chosen[-1][0] - start


def _shift(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Some classes are asked for often, and all of a sudden they are others."""
    now, weights = 0.0, _zipf(CLASSES, 1.0)
    order = list(range(CLASSES))
    for turn in range(REQUESTS):
        if turn % 2_500 == 0:
            random_.shuffle(order)
        now += random_.expovariate(1.0)
        yield now, order[random_.choices(range(CLASSES), weights)[0]]


def _hot_and_loop(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Half of the requests go to a hot set, the others to all other classes in turn."""
    now, hot, following = 0.0, 40, 0
    weights = _zipf(hot, 0.8)
    for _ in range(REQUESTS):
        now += random_.expovariate(1.0)
        if random_.random() < 0.5:
            yield now, random_.choices(range(hot), weights)[0]
        else:
            yield now, hot + following
            following = (following + 1) % (CLASSES - hot)


def _come_and_go(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Each class is asked for in bursts for a while, and then never again."""
    now, turn, live = 0.0, 0, 50
    weights = _zipf(live, 0.6)
    while turn < REQUESTS:
        first = turn * (CLASSES - live) // REQUESTS
        number = first + random_.choices(range(live), weights)[0]
        for _ in range(min(random_.randint(1, 3), REQUESTS - turn)):
            now += random_.expovariate(1.0)
            yield now, number
            turn += 1
        now += random_.expovariate(0.1)


TRACES: dict[
    str,
    tuple[
        Callable[[random.Random], Iterator[tuple[float, int]]],
        Callable[[random.Random], tuple[list[float], list[int]]],
        int,
    ],
] = {
    "drift": (_drift, _independent, 1),
    "drift, related": (_drift, _related, 2),
    "drift, alike": (_drift, _alike, 3),
    "loop": (_loop, _independent, 4),
    "loop, alike": (_loop, _alike, 5),
    "scans": (_scans, _independent, 6),
    "scans, related": (_scans, _related, 7),
    "scans, alike": (_scans, _alike, 8),
    "day and night": (_day_and_night, _independent, 9),
    "day and night, related": (_day_and_night, _related, 10),
    "all": (_all, _independent, 11),
    "all, related": (_all, _related, 12),
    # These came after the others, with the seeds that came next: what was just built must not be
    # let go between two requests of a burst, and no mean gap tells of a night.
    "day and night, alike": (_day_and_night, _alike, 13),
    "bursts": (_bursts, _independent, 14),
    "bursts, related": (_bursts, _related, 15),
    "bursts, alike": (_bursts, _alike, 16),
    # No policy was tuned on these.
    "shift": (_shift, _independent, 17),
    "shift, alike": (_shift, _alike, 18),
    "hot and loop": (_hot_and_loop, _independent, 19),
    "hot and loop, alike": (_hot_and_loop, _alike, 20),
    "come and go": (_come_and_go, _independent, 21),
    "come and go, alike": (_come_and_go, _alike, 22),
}
"""Name -> requests, costs and sizes, and the seed."""


def traces(names: Sequence[str] = (), draw: int = 0) -> Iterator[Trace]:
    """
    Make the traces.

    Args:
        names: Which ones; none: all of them.
        draw: 0 makes the published ones, any other number the same kinds from other seeds.

    Yields:
        One after another, the demo's recorded calls, which are published only, last.
    """
    for name, (requests, costs, seed) in TRACES.items():
        if names and name not in names:
            continue
        random_ = random.Random(100 * draw + seed)
        seconds, sizes = costs(random_)
        yield Trace(
            name,
            (requests.__doc__ or "").strip(),
            costs is not _alike,
            list(requests(random_)),
            seconds,
            sizes,
        )
    if not draw and (not names or "demo" in names):
        yield _recorded()


def _recorded() -> Trace:
    """The calls of ten runs of the demo, as `python -m benchmarks.policies.record` wrote them."""
    text = files(__package__).joinpath("demo.json").read_text(encoding="utf-8")
    known = json.loads(text)
    classes = list(known["classes"])
    run = [(at, classes.index(name)) for at, name in known["calls"]]
    length = run[-1][0] + 1.0
    return Trace(
        "demo",
        "The calls of the demo pipeline, recorded once, in ten runs one after another.",
        True,
        [(turn * length + at, number) for turn in range(10) for at, number in run],
        [known["classes"][name]["build_seconds"] for name in classes],
        [known["classes"][name]["bytes"] for name in classes],
    )


def replayable(trace: Trace) -> Replayable:
    """Convert a trace of the benchmarks into one of the package."""
    names = [str(number) for number in range(len(trace.sizes))]
    return Replayable(names, trace.requests, trace.build_seconds, trace.sizes)
