"""Tests of the policy "cost": sizes, and bursts of calls, which are built once."""

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


# -- bursts --------------------------------------------------------------------------------------


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
