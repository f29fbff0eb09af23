"""Several threads: the latency of hits while one of them builds, and the throughput of all."""

from __future__ import annotations

import functools
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

from ..results import Absent, Row, figure
from ..subjects import DICT, SUBJECTS
from ..timing import loop, turns
from ..workload import NAME, Slow, numbered, work
from .common import NANOSECONDS, present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..results import Figure
    from ..subjects import Kept, Subject
    from ..timing import Scale

FINEST = 200_000  # nanoseconds that are counted one by one; what takes longer is listed
UNSHARED = "not safe under threads without external locking"


def free_threaded() -> bool:
    """Whether this interpreter runs without its lock."""
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def _threaded() -> tuple[list[Subject], dict[str, Figure | Absent]]:
    if free_threaded():
        # An extension that is not made for it would turn the lock on for the whole process.
        own = [subject for subject in SUBJECTS if subject.distribution is None]
        there, cells = present(own)
        for subject in SUBJECTS:
            if subject not in own:
                cells[subject.name] = Absent("left out here: it might turn the lock on")
        return there, cells
    there, cells = present([subject for subject in SUBJECTS if subject.shared])
    for subject in SUBJECTS:
        if not subject.shared:
            cells[subject.name] = Absent(UNSHARED)
    return there, cells


# -- latency ---------------------------------------------------------------------------------------


def latency(scale: Scale) -> list[Row]:
    """
    The 99th percentile of hits, each timed alone: in quiet, and while another class is built.

    The constructor of the other class waits without holding the interpreter lock.
    """
    there, cells = present()
    Slow.seconds = scale.build_seconds
    quiet: dict[str, list[float]] = {subject.name: [] for subject in there}
    busy: dict[str, list[float]] = {subject.name: [] for subject in there}
    for _ in range(scale.slow_rounds):
        for subject in there:
            kept = subject.make(work((NAME,), Slow=Slow), 100)
            kept.fetch(NAME)
            hit = eval(f"lambda: {kept.look_up(repr(NAME))}", dict(kept.names))
            until = time.monotonic() + scale.build_seconds / 5
            quiet[subject.name].append(_percentile(hit, lambda end=until: time.monotonic() < end))  # type: ignore[misc]
            builder = threading.Thread(target=kept.fetch, args=("Slow",))
            builder.start()
            time.sleep(scale.build_seconds / 20)  # so that the build is under way
            busy[subject.name].append(_percentile(hit, builder.is_alive))
            builder.join()
    rows = []
    for name, title, values in (
        ("latency-quiet", "p99 of a hit, quiet", quiet),
        ("latency-build", f"p99 of a hit while another class builds for {scale.build_seconds:g} s",
         busy),
    ):  # fmt: skip
        figures = {subject: figure(samples) for subject, samples in values.items()}
        rows.append(Row(name, title, "ns", DICT.name, {**figures, **cells}))
    return rows


def _percentile(hit: Callable[[], Any], going: Callable[[], bool]) -> float:
    clock = time.perf_counter_ns
    counts = [0] * FINEST
    longer: list[int] = []
    while going():
        for _ in range(1000):
            began = clock()
            hit()
            took = clock() - began
            if took < FINEST:
                counts[took] += 1
            else:
                longer.append(took)
                if took > 10_000_000:
                    break  # blocked: ask whether the build goes on
    return percentile(counts, longer)


def percentile(counts: list[int], longer: Iterable[int], share: float = 0.99) -> float:
    """
    Find a percentile of counted durations.

    Args:
        counts: How often each number of nanoseconds was seen.
        longer: The durations that are not in `counts`.
        share: Which percentile, as a share.

    Returns:
        The least duration that at least this share of all does not exceed.
    """
    rest = sorted(longer)
    wanted = share * (sum(counts) + len(rest))
    seen = 0
    for nanoseconds, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return float(nanoseconds)
    for took in rest:
        seen += 1
        if seen >= wanted:
            return float(took)
    raise ValueError("nothing was timed")


# -- throughput ------------------------------------------------------------------------------------


def throughput(scale: Scale) -> list[Row]:
    """
    Hits by some threads at once, of a name for each and of one name for all.

    All numbers of threads take turns, because they are compared with one another.
    """
    there, cells = _threaded()
    rows = []
    names = numbered(max(scale.threads))
    for kind, title in (("different", "a name each"), ("one", "one name")):
        cases = {}
        for subject in there:
            kept = subject.make(work(names), 100)
            for name in names:
                kept.fetch(name)
            for count in scale.threads:
                asked = names[:count] if kind == "different" else names[:1] * count
                makers = [functools.partial(looking_up, kept, name) for name in asked]
                # Calibrated under contention: a lock can be a thousand times as dear with others.
                once = max(min(together(makers, 200) for _ in range(3)), 1e-9)
                times = max(100, int(10 * scale.sample_seconds / once / count))
                cases[subject.name, count] = functools.partial(together, makers, times)
        samples = turns(cases, scale.few_rounds)
        for count in scale.threads:
            measured: dict[str, Figure | Absent] = {
                subject.name: figure(samples[subject.name, count], NANOSECONDS) for subject in there
            }
            rows.append(
                Row(
                    f"threads-{kind}-{count}",
                    f"hit, {count} thread{'s' * (count > 1)}, {title}",
                    "ns",
                    DICT.name,
                    measured | cells,
                )
            )
    return rows


def looking_up(kept: Kept, name: str) -> Callable[[int], float]:
    """
    Make the loop of one thread, in that thread.

    A bound method is an object too: where threads shared one, they would contend for its reference
    count. Each binds its own, as `registry.get_instance(...)` does with each call.

    Args:
        kept: The subject, which the threads share.
        name: What this thread looks up.

    Returns:
        A function from a number of repetitions to seconds for one.
    """
    bound = (types.MethodType, types.BuiltinMethodType)
    own = {
        key: getattr(value.__self__, value.__name__) if isinstance(value, bound) else value
        for key, value in kept.names.items()
    }
    return loop(kept.look_up(repr(name)), own)


def together(makers: Sequence[Callable[[], Callable[[int], float]]], times: int) -> float:
    """
    Run loops at the same time.

    Args:
        makers: One for each thread, called in it, gives its loop.
        times: How many repetitions of each.

    Returns:
        Seconds for one repetition of the whole: the time from the first start to the last end, by
        the number of repetitions of all.
    """
    barrier = threading.Barrier(len(makers))
    moments: list[tuple[float, float]] = []

    def run(make: Callable[[], Callable[[int], float]]) -> None:
        try:
            one = make()
        except BaseException:
            barrier.abort()
            raise
        barrier.wait()
        began = time.perf_counter()
        one(times)
        moments.append((began, time.perf_counter()))

    threads = [threading.Thread(target=run, args=(make,)) for make in makers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moments) == len(makers), "a thread raised"
    began = min(began for began, _ in moments)
    return (max(ended for _, ended in moments) - began) / (times * len(makers))
