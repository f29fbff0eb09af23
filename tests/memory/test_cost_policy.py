"""Tests of the policy "cost": admission, sizes, and bursts of calls, which are built once."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from warmset.memory.policies import CostPolicy


def warm(name: str, **facts: Any) -> Any:
    """The view that a policy gets of a new instance."""
    known = {"uses": 1, "built_at": 0.0, "last_used": 0.0, "build_seconds": 1.0, "bytes": 100}
    return SimpleNamespace(**{"name": name, **known, **facts})


def bursts(policy: CostPolicy, count: int, calls: int, kept: bool) -> float:
    """Report calls one second apart, every five minutes; without `kept`, each is a residence."""
    at = 0.0
    for number in range(count):
        at = 300.0 * number
        if kept:
            policy.left("A", calls, at, at + calls - 1.0)
        else:
            for call in range(calls):
                policy.left("A", 1, at + call, at + call)
    return at + 300.0


# -- admission ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_a_class_that_is_called_in_bursts_is_admitted(kept: bool) -> None:
    """It would be built for each call of a burst."""
    policy = CostPolicy()
    at = bursts(policy, 6, 3, kept)
    assert not policy.passes(warm("A", built_at=at, last_used=at), at)


def test_a_class_that_is_called_one_by_one_need_not_be_admitted() -> None:
    """Even if it was called in bursts before."""
    policy = CostPolicy()
    at = bursts(policy, 6, 3, kept=True)
    for _ in range(10):
        at += 300.0
        policy.left("A", 1, at, at)
    assert policy.passes(warm("A", built_at=at + 300.0), at + 300.0)


def test_the_gap_since_the_last_residence_counts_at_once() -> None:
    """Not only at the end of this residence."""
    policy = CostPolicy()
    at = 0.0
    for _ in range(10):
        at += 300.0
        policy.left("A", 1, at, at)
    assert policy.passes(warm("A", built_at=at + 300.0), at + 300.0)
    assert not policy.passes(warm("A", built_at=at + 0.5), at + 0.5)


def builds_of_bursts(make: Any, samples: Any, timer: Any, **options: Any) -> list[str]:
    """Call four classes in turn, three times each; two fit, and all have the same cost."""
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
    """As with lru, within a twentieth."""
    cost = builds_of_bursts(make, samples, timer, policy="cost")
    samples.built.clear()
    lru = builds_of_bursts(make, samples, timer, policy="lru")
    assert len(lru) == 80
    assert len(cost) <= 84


# -- sizes ---------------------------------------------------------------------------------------


def test_an_unknown_size_counts_as_the_typical_one() -> None:
    """Not as 0, which would make it worth more than all others."""
    policy = CostPolicy()
    for _ in range(500):
        policy.worth(warm("Big", bytes=2**20), 0.0)
    unknown = policy.worth(warm("A", bytes=-1), 0.0)
    assert unknown == pytest.approx(policy.worth(warm("A", bytes=2**20), 0.0), abs=0.1)


def test_sizes_do_not_matter_if_all_are_unknown() -> None:
    """Only build seconds and uses count."""
    policy = CostPolicy()
    dear, cheap = (warm(n, bytes=-1, build_seconds=s) for n, s in (("A", 8.0), ("B", 2.0)))
    assert policy.worth(dear, 0.0) - policy.worth(cheap, 0.0) == pytest.approx(2.0)


def test_the_worth_of_an_empty_instance_is_finite() -> None:
    policy = CostPolicy()
    assert policy.worth(warm("A", bytes=0), 0.0) >= policy.worth(warm("B", bytes=1), 0.0)


def test_the_worth_of_a_recycled_instance() -> None:
    """Its last use precedes its build."""
    policy = CostPolicy()
    recycled = warm("A", uses=0, built_at=50.0, last_used=40.0)
    assert policy.worth(recycled, 60.0) == policy.worth(warm("B", last_used=40.0), 60.0)
    policy.left("A", 0, 50.0, 40.0)
    assert math.isfinite(policy.worth(warm("A", built_at=70.0, last_used=70.0), 70.0))
