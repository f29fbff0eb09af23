"""Timed loops, and the turns that they are run in."""

from __future__ import annotations

import contextlib
import functools
import gc
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

Case = TypeVar("Case", bound="Hashable")
UNROLLED = 10


class Scale(NamedTuple):
    """
    How much is done: rounds, seconds for one sample of a loop, and the sizes of the big rows.

    `few_rounds` are for what takes longer, and `slow_rounds` for what takes seconds.
    """

    rounds: int
    few_rounds: int
    slow_rounds: int
    sample_seconds: float
    capacities: tuple[int, ...]
    expiring: tuple[int, int]
    names: int
    sizes: tuple[int, ...]
    threads: tuple[int, ...]
    build_seconds: float


FULL = Scale(
    21,
    7,
    3,
    0.01,
    (10**3, 10**5, 10**6),
    (10**5, 10**6),
    10**5,
    (10**4, 10**6),
    (1, 2, 3, 4, 16, 64),
    1.0,
)
QUICK = Scale(
    9, 3, 1, 0.003, (10**3, 10**4), (10**3, 10**4), 10**4, (10**3, 10**4), (1, 2, 3, 4), 0.2
)


def loop(expression: str, names: Mapping[str, Any]) -> Callable[[int], float]:
    """
    Compile a loop over an expression.

    The names are local variables of the loop, and the expression stands in it ten times, so that
    next to nothing but the expression is timed.

    Args:
        expression: What to time; "None" gives the empty loop.
        names: What it refers to.

    Returns:
        A function from a number of repetitions to seconds for one.
    """
    return _compiled(
        f"    for _ in range(times // {UNROLLED}):\n" + f"        {expression}\n" * UNROLLED,
        names,
    )


def walk(
    expression: str, names: Mapping[str, Any], sequence: Sequence[str]
) -> Callable[[int], float]:
    """
    Compile a loop that evaluates an expression for one name after another.

    Args:
        expression: What to time, for a `name`; "None" gives the empty loop.
        names: What else it refers to.
        sequence: The names, walked again and again.

    Returns:
        A function from a number of repetitions to seconds for one.
    """
    run = _compiled(
        f"    for _ in range(times // {len(sequence)}):\n"
        f"        for name in sequence:\n            {expression}\n",
        {**names, "sequence": sequence},
    )
    return lambda times: run(-(-times // len(sequence)) * len(sequence))


def _compiled(body: str, names: Mapping[str, Any]) -> Callable[[int], float]:
    source = f"def run({', '.join(['times', 'clock', *names])}):\n    began = clock()\n{body}"
    source += "    return (clock() - began) / times\n"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return functools.partial(_run, namespace["run"], names)


def _run(run: Callable[..., float], names: Mapping[str, Any], times: int) -> float:
    return run(times, time.perf_counter, **names)


def calibrated(run: Callable[[int], float], seconds: float) -> Callable[[], float]:
    """
    Fix the number of repetitions so that one sample takes about so many seconds.

    Args:
        run: From `loop` or `walk`.
        seconds: For one sample.

    Returns:
        A function that gives one sample: seconds for one repetition.
    """
    once = max(min(run(200) for _ in range(3)), 1e-9)
    times = max(UNROLLED, round(seconds / once / UNROLLED) * UNROLLED)
    return functools.partial(run, times)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep the garbage collector out, as `timeit` does."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def turns(
    cases: Mapping[Case, Callable[[], float]],
    rounds: int,
    empty: Callable[[], float] | None = None,
) -> dict[Case, list[float]]:
    """
    Sample each case once a round, so that what disturbs the machine disturbs all alike.

    Args:
        cases: Name, or what stands for one -> a function that gives one sample.
        rounds: How many rounds.
        empty: A sample of the empty loop; it is subtracted from the samples of its round.

    Returns:
        Name -> the samples.
    """
    samples: dict[Case, list[float]] = {name: [] for name in cases}
    order = list(cases)
    with without_collector():
        for number in range(rounds):
            overhead = empty() if empty is not None else 0.0
            # Each round starts with another one, so that nobody always follows the same neighbour.
            start = number % len(order) if order else 0
            for name in order[start:] + order[:start]:
                samples[name].append(max(0.0, cases[name]() - overhead))
    return samples
