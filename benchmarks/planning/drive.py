"""Driving a registry with a trace of benchmarks.policies, on a clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from warmset import MethodRegistry
from warmset.testing import FakeTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..policies.traces import Trace

__all__ = ["Driven", "drive", "make_registry"]

_PLAN_EVERY = 2_000  # requests; fewer than the builds that a registry remembers


class Built:
    """An instance of the size that the trace gives."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Driven(NamedTuple):
    """The result of running a trace."""

    builds: int
    build_seconds: float
    mean_bytes: float
    """Over time, of the cached instances."""
    predicted: dict[tuple[str, float], tuple[int, float]]
    """Setting and multiple of its bound -> builds and build seconds, by `Registry.plan`."""


def make_registry(trace: Trace, timer: FakeTimer, **settings: Any) -> MethodRegistry:
    """
    Make a registry of the classes of a trace, whose builds take no time on its clock.

    Args:
        trace: The trace.
        timer: The clock.
        settings: Settings of the registry.

    Returns:
        The registry.
    """
    registry = MethodRegistry(
        {}, cache_ttl_seconds=0, sizer=lambda instance: instance.size, timer=timer, **settings
    )
    registry.builder.stopwatch = stopwatch = FakeTimer(0.0)
    for number, (seconds, size) in enumerate(zip(trace.build_seconds, trace.sizes, strict=True)):

        def build(seconds: float = seconds, size: int = size) -> Built:
            stopwatch.advance(seconds)
            return Built(size)

        registry.register(str(number), build)
    return registry


def drive(
    trace: Trace,
    *,
    multiples: tuple[float, ...] = (),
    watch: Callable[[MethodRegistry], None] = lambda registry: None,
    **settings: Any,
) -> Driven:
    """
    Request all that a trace requests.

    Args:
        trace: The trace.
        multiples: Those of the bounds for which the registry is asked what they would have changed.
        watch: Called with the registry after each request.
        settings: Settings of the registry.

    Returns:
        Builds, memory, and predictions.
    """
    timer = FakeTimer(0.0)
    registry = make_registry(trace, timer, **settings)
    if multiples:
        registry.plan()
    avoided: dict[tuple[str, float], tuple[int, float]] = {}
    began = before = trace.requests[0][0]
    timer.advance(began)
    area, planned = 0.0, began - 1.0
    for turn, (now, number) in enumerate(trace.requests, 1):
        area += registry.known_bytes * (now - before)
        timer.advance(max(0.0, now - before))
        before = max(now, before)
        registry.get_instance(str(number))
        watch(registry)
        if multiples and (turn % _PLAN_EVERY == 0 or turn == len(trace.requests)):
            # Not what happened at the very moment of the last call, which counted already.
            plan = registry.plan(window_seconds=max(1e-9, before - planned - 1e-9))
            planned = before
            for curve in plan.curves:
                for point in curve.points:
                    for multiple in multiples:
                        if point.bound == max(curve.bound + 1, int(curve.bound * multiple)):
                            builds, seconds = avoided.get((curve.setting, multiple), (0, 0.0))
                            key = curve.setting, multiple
                            avoided[key] = builds - point.builds, seconds - point.seconds
    stats = registry.stats()
    length = before - began
    seconds = registry.builder.stopwatch()
    return Driven(
        stats.builds,
        seconds,
        area / length if length else float(registry.known_bytes),
        {key: (stats.builds - builds, seconds - saved) for key, (builds, saved) in avoided.items()},
    )
