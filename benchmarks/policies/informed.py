"""
What a policy can reach without foresight: ``python -m benchmarks.policies.informed``.

It takes the traces of equal costs and sizes in which requests are drawn independently. A policy
that does not know the draws is compared with the greedy rule that does, on average over them:

- No policy, even one that knows every probability at every time and the schedule, needs fewer
  build seconds than "least": each class is taken alone, as a Markov decision process, and pays for
  the room it takes, at any price; what the whole budget brings at this price is subtracted (the
  Lagrangian relaxation of a restless bandit: Whittle, "Restless Bandits", 1988).
- "Informed" knows the same, and is replayed with the draws of the trace. It evicts what is worth
  least by the values that the relaxation gives.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

from warmset.memory.policies import CostPolicy

from .replay import Ours, offline, replay
from .traces import CLASSES, REQUESTS, TRACES, traces

if TYPE_CHECKING:
    from .traces import Trace

_STEPS = (1.5, 1.22, 1.1)  # factors by which prices are varied


def _weights(count: int, exponent: float) -> Any:
    import numpy

    weights = 1.0 / numpy.arange(1, count + 1) ** exponent
    return weights / weights.sum()


def chances(trace: Trace) -> tuple[Any, list[int], list[int]]:
    """
    Tell what requests were drawn from.

    Args:
        trace: "drift, alike", "day and night, alike", or "shift, alike".

    Returns:
        The probabilities of all classes, for each state; the state at each request; and for each
        state the number of its price.
    """
    import numpy

    random_ = random.Random(TRACES[trace.name][2])  # the generators shuffle before they draw
    if trace.name == "drift, alike":
        order = list(range(CLASSES))
        random_.shuffle(order)
        states = numpy.zeros((REQUESTS // 1_000, CLASSES))
        for state in states:
            state[order] = _weights(CLASSES, 0.9)
            order = order[5:] + order[:5]
        return states, [turn // 1_000 for turn in range(REQUESTS)], [0] * len(states)
    if trace.name == "day and night, alike":
        half = CLASSES // 2
        states = numpy.zeros((2, CLASSES))
        states[0, :half] = states[1, half:] = _weights(half, 0.7)
        return states, [int(number >= half) for _, number in trace.requests], [0, 1]
    states = numpy.zeros((REQUESTS // 2_500, CLASSES))
    order, weights = list(range(CLASSES)), _weights(CLASSES, 1.0)
    drawn = [1.0 / rank for rank in range(1, CLASSES + 1)]
    for turn in range(REQUESTS):  # as the generator: shuffles and draws alternate
        if turn % 2_500 == 0:
            random_.shuffle(order)
            states[turn // 2_500, order] = weights
        random_.expovariate(1.0)
        random_.choices(range(CLASSES), drawn)
    return states, [turn // 2_500 for turn in range(REQUESTS)], [0] * len(states)


def _relaxed(states: Any, at: list[int], cost: float, prices: Any, advantages: Any = None) -> Any:
    """Solve each class alone at a price for each state; return the sum of their costs."""
    import numpy

    cached, absent = numpy.zeros(CLASSES), numpy.zeros(CLASSES)
    for turn in range(len(at) - 1, -1, -1):
        chance = states[at[turn]]
        if advantages is not None:
            advantages[turn] = absent - cached
        available = numpy.minimum(absent, prices[at[turn]] + cached)
        absent = chance * (cost + available) + (1.0 - chance) * absent
        cached = available
    return absent.sum()


def least_and_informed(trace: Trace, places: int) -> tuple[float, float]:
    """Return the least build seconds without foresight, and those of the informed policy."""
    import numpy

    states, at, groups = chances(trace)
    cost = trace.build_seconds[0]
    counts = numpy.bincount(at, minlength=len(states))
    prices = numpy.array([numpy.sort(states[groups.index(g)])[-places] * cost for g in groups])

    def bound(tried: Any) -> float:
        return float(_relaxed(states, at, cost, tried) - places * (counts * tried).sum())

    least = bound(prices)
    for step in _STEPS:
        for group in set(groups):
            for factor in (step, 1.0 / step):
                while True:
                    tried = numpy.where(numpy.array(groups) == group, prices * factor, prices)
                    value = bound(tried)
                    if value <= least:
                        break
                    least, prices = value, tried
    advantages = numpy.zeros((len(at), CLASSES))
    _relaxed(states, at, cost, prices, advantages)
    warm, seconds = numpy.zeros(CLASSES, dtype=bool), 0.0
    for turn, (_, number) in enumerate(trace.requests):
        if not warm[number]:
            seconds += cost
            warm[number] = True
            if warm.sum() > places:
                warm[numpy.where(warm, advantages[turn], numpy.inf).argmin()] = False
    return least, seconds


def main() -> int:
    """Print, for each trace, build seconds by those of the greedy rule that knows the future."""
    print("by greedy, which knows the future: least, informed, warmset cost")
    for trace in traces(["drift, alike", "day and night, alike", "shift, alike"]):
        budget = int(trace.bytes * 0.3)
        greedy = offline(trace, budget).build_seconds
        least, informed = least_and_informed(trace, budget // trace.sizes[0])
        ours = replay(trace, Ours(trace, budget, CostPolicy())).build_seconds
        figures = (f"{seconds / greedy:.2f}" for seconds in (least, informed, ours))
        print(f"{trace.name} at 30%: {', '.join(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
