"""An injected timer is foreign code: whenever it raises, no instance is lost."""

from __future__ import annotations

from typing import Any

import pytest


class FailingTimer:
    """Raises at one of its calls, counted from `arm`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.left: int | None = None
        self.error: type[BaseException] = ValueError

    def arm(self, at: int, error: type[BaseException]) -> None:
        self.left, self.error = at, error

    def __call__(self) -> float:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.left = None
                raise self.error("no time")
        return self.now


def get(registry: Any) -> None:
    registry.get_instance("Alpha")


def use(registry: Any) -> None:
    with registry.use("Alpha"):
        pass


def execute(registry: Any) -> None:
    registry.bind("Alpha", "echo")("x")


def evict(registry: Any) -> None:
    registry.get_instance("Beta")


def recycle(registry: Any) -> None:
    registry.recycle("Alpha")


def clear(registry: Any) -> None:
    registry.clear_cache()


def sweep(registry: Any) -> None:
    registry.sweep()


@pytest.mark.counts
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("operation", [get, use, execute, evict, recycle, clear, sweep])
def test_a_timer_that_raises_at_each_of_its_calls(
    make: Any, samples: Any, operation: Any, warm: bool, error: type[BaseException]
) -> None:
    """Each instance that was built is cached or closed, and the name can be used again."""
    for at in range(1, 60):
        timer = FailingTimer()
        registry = make(timer=timer, max_cache_size=1, retry_after_seconds=0.0)
        registry.add_listener(lambda event: None)
        registry.add_build_listener(lambda event: None)
        samples.built.clear()
        samples.closed.clear()
        if warm:
            use(registry)
        timer.arm(at, error)
        try:
            operation(registry)
        except (error, Exception):
            pass
        done = timer.left is not None
        timer.left = None
        stats = registry.stats()
        assert not registry.holds()
        assert stats.builds == len(samples.built)
        assert stats.cached + stats.closed + stats.left_open == len(samples.built), at
        assert stats.closed == len(samples.closed)
        assert stats.states["held"] == stats.states["waiting"] == 0
        with registry.use("Alpha"):
            pass
        registry.close()
        if done:
            return
    raise AssertionError("the operation reads the clock without end")
