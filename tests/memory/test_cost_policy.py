"""What "cost" lets pass, what it takes for a size, and bursts of calls, which are built once."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from warmset.memory.policies import CostPolicy


def warm(name: str, **facts: Any) -> Any:
    """What a policy sees of an instance that was built just now."""
    known = {"uses": 1, "built_at": 0.0, "last_used": 0.0, "build_seconds": 1.0, "bytes": 100}
    return SimpleNamespace(**{"name": name, **known, **facts})


def bursts(policy: CostPolicy, count: int, calls: int, kept: bool) -> float:
    """Calls one second apart, every five minutes; each is a stay of its own if it is not kept."""
    at = 0.0
    for number in range(count):
        at = 300.0 * number
        if kept:
            policy.left("A", calls, at, at + calls - 1.0)
        else:
            for call in range(calls):
                policy.left("A", 1, at + call, at + call)
    return at + 300.0


# -- what passes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_a_class_that_is_called_in_bursts_does_not_pass(kept: bool) -> None:
    """It would be built for each call of a burst."""
    policy = CostPolicy()
    at = bursts(policy, 6, 3, kept)
    assert not policy.passes(warm("A", built_at=at, last_used=at), at)


def test_a_class_that_is_called_one_by_one_may_pass() -> None:
    """Though it was called in bursts before."""
    policy = CostPolicy()
    at = bursts(policy, 6, 3, kept=True)
    for _ in range(10):
        at += 300.0
        policy.left("A", 1, at, at)
    assert policy.passes(warm("A", built_at=at + 300.0), at + 300.0)


def test_the_gap_since_the_last_stay_counts_at_once() -> None:
    """Not only when this stay is over, too."""
    policy = CostPolicy()
    at = 0.0
    for _ in range(10):
        at += 300.0
        policy.left("A", 1, at, at)
    assert policy.passes(warm("A", built_at=at + 300.0), at + 300.0)
    assert not policy.passes(warm("A", built_at=at + 0.5), at + 0.5)


def builds_of_bursts(make: Any, samples: Any, timer: Any, **options: Any) -> list[str]:
    """Four classes by turns, three calls of each; two fit, and all cost the same."""
    registry = make(max_cache_size=2, cache_ttl_seconds=0.0, **options)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        samples.script[name] = lambda _: timer.advance(0.5)
    for _ in range(20):
        for name in ("Alpha", "Beta", "Gamma", "Delta"):
            for _ in range(3):
                with registry.use(name):
                    timer.advance(1.0)
            timer.advance(60.0)
    return list(samples.built)


def test_bursts_are_built_once(make: Any, samples: Any, timer: Any) -> None:
    """As by lru, within a twentieth."""
    cost = builds_of_bursts(make, samples, timer, policy="cost")
    samples.built.clear()
    lru = builds_of_bursts(make, samples, timer, policy="lru")
    assert len(lru) == 80
    assert len(cost) <= 84


# -- sizes ---------------------------------------------------------------------------------------


def test_unknown_bytes_are_the_usual_ones() -> None:
    """Not none at all, which would keep it before all others."""
    policy = CostPolicy()
    for _ in range(500):
        policy.worth(warm("Big", bytes=2**20), 0.0)
    unknown = policy.worth(warm("A", bytes=-1), 0.0)
    assert unknown == pytest.approx(policy.worth(warm("A", bytes=2**20), 0.0), abs=0.1)


def test_where_no_bytes_are_known_all_are_alike() -> None:
    """Build seconds and uses alone count."""
    policy = CostPolicy()
    dear, cheap = (warm(n, bytes=-1, build_seconds=s) for n, s in (("A", 8.0), ("B", 2.0)))
    assert policy.worth(dear, 0.0) - policy.worth(cheap, 0.0) == pytest.approx(2.0)


def test_no_bytes_are_a_size_too() -> None:
    """What says that it has none is finite worth."""
    policy = CostPolicy()
    assert policy.worth(warm("A", bytes=0), 0.0) >= policy.worth(warm("B", bytes=1), 0.0)


def test_an_instance_that_was_recycled_has_a_worth() -> None:
    """It was used last before it was built, and not since."""
    policy = CostPolicy()
    recycled = warm("A", uses=0, built_at=50.0, last_used=40.0)
    assert policy.worth(recycled, 60.0) == policy.worth(warm("B", last_used=40.0), 60.0)
    policy.left("A", 0, 50.0, 40.0)
    assert math.isfinite(policy.worth(warm("A", built_at=70.0, last_used=70.0), 70.0))
