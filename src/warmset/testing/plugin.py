"""
The test kit as pytest fixtures: ``pytest_plugins = ["warmset.testing.plugin"]`` in a `conftest.py`.

It is asked for by name and is no entry point: warmset is a dependency of programs, and an entry
point would import it into every test run of every environment that it is installed in.
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
    """A clock that is moved by hand; each test has its own."""
    return FakeTimer()


@pytest.fixture
def warmset_registry(warmset_timer: FakeTimer) -> Iterator[_MakeRegistry]:
    """
    Make registries on the test's clock; after the test they are closed, and checked for damage.

    ``warmset_registry(class_paths, **options)`` takes what `MethodRegistry` takes; without class
    paths it starts empty, whatever the environment says. ``timer=`` may name another clock.
    """
    from .. import MethodRegistry

    made: list[MethodRegistry] = []

    def make(class_paths: Mapping[str, str] | None = None, **options: Any) -> MethodRegistry:
        registry = MethodRegistry(
            {} if class_paths is None else class_paths, **{"timer": warmset_timer, **options}
        )
        made.append(registry)
        return registry

    yield make
    # In reverse, for one may use another; and each, whatever an earlier one does.
    for registry in reversed(made):
        registry.close()
    for registry in made:
        check_structure(registry)


@pytest.fixture
def warmset_stepper(warmset_timer: FakeTimer) -> Callable[[MethodRegistry], EvictionStepper]:
    """Make an `EvictionStepper` for a registry on the test's clock."""
    return lambda registry: EvictionStepper(registry, warmset_timer)


@pytest.fixture
def bounded_rss() -> _BoundedRss:
    """`assert_bounded_rss`: ``bounded_rss(run, runs=10, growth_mb=20)``."""
    return assert_bounded_rss
