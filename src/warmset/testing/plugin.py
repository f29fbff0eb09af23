"""
The test tools as pytest fixtures: ``pytest_plugins = ["warmset.testing.plugin"]`` in `conftest.py`.

The plugin is not registered as an entry point, because that would import warmset into every test
run of every environment in which it is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from . import EvictionStepper, FakeTimer, RssGrowth, assert_bounded_rss, check_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .. import MethodRegistry

__all__ = ["bounded_rss", "warmset_registry", "warmset_stepper", "warmset_timer"]


class _MakeRegistry(Protocol):
    def __call__(
        self, class_paths: Mapping[str, str] | None = None, **options: Any
    ) -> MethodRegistry: ...


class _BoundedRss(Protocol):
    def __call__(
        self,
        run: Callable[[], Any],
        runs: int = 10,
        growth_mb: float = 20.0,
        *,
        warm_up_runs: int = 0,
    ) -> RssGrowth: ...


@pytest.fixture
def warmset_timer() -> FakeTimer:
    """A clock that the test advances; new for each test."""
    return FakeTimer()


@pytest.fixture
def warmset_registry(warmset_timer: FakeTimer) -> Iterator[_MakeRegistry]:
    """
    Create registries on the clock of the test, and close and check them after the test.

    ``warmset_registry(class_paths, **options)`` takes the arguments of `MethodRegistry`. Without
    class paths the registry is empty, regardless of the environment. ``timer=`` selects another
    clock.
    """
    from .. import MethodRegistry

    created: list[MethodRegistry] = []

    def make(class_paths: Mapping[str, str] | None = None, **options: Any) -> MethodRegistry:
        registry = MethodRegistry(
            {} if class_paths is None else class_paths, **{"timer": warmset_timer, **options}
        )
        created.append(registry)
        return registry

    yield make
    # In reverse order, because a registry may use one that was created before it.
    for registry in reversed(created):
        registry.close()
    for registry in created:
        check_structure(registry)


@pytest.fixture
def warmset_stepper(warmset_timer: FakeTimer) -> Callable[[MethodRegistry], EvictionStepper]:
    """Create an `EvictionStepper` for a registry on the clock of the test."""
    return lambda registry: EvictionStepper(registry, warmset_timer)


@pytest.fixture
def bounded_rss() -> _BoundedRss:
    """The function `assert_bounded_rss`: ``bounded_rss(run, runs=10, growth_mb=20)``."""
    return assert_bounded_rss
