"""
The plan of a running registry: what its latest builds were, and what other bounds would change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..events import BoundChange

__all__ = ["CauseShare", "Plan", "PlanCurve", "PlanPoint", "Rebuilt", "Thrashing", "Unused"]

_MB = 1_000_000


@dataclass(frozen=True)
class CauseShare:
    """
    The builds of instances that were evicted for one cause.

    Args:
        cause: The name of the cause in lower case; "first" if the class was not evicted before, as
            far as is remembered.
        builds: Their number.
        seconds: Their duration, without the builds of other classes.
    """

    cause: str
    builds: int
    seconds: float


@dataclass(frozen=True)
class PlanPoint:
    """
    What another bound would have changed.

    Args:
        bound: The bound: instances, bytes, or seconds.
        builds: The change in builds within the window; below 0 if some would have been avoided.
        seconds: The change in build seconds.
        bytes: The change in bytes of the cached instances; None if it is not known.
        estimated: Whether it is an estimate and not a count.
    """

    bound: float
    builds: int
    seconds: float
    bytes: int | None
    estimated: bool


@dataclass(frozen=True)
class PlanCurve:
    """
    The points of one setting, in ascending order; all else is unchanged.

    Args:
        setting: "max_cache_size", "max_cache_bytes" or "cache_ttl_seconds".
        bound: Its present value.
        points: What other values would have changed.
    """

    setting: str
    bound: float
    points: tuple[PlanPoint, ...]


@dataclass(frozen=True)
class Unused:
    """
    Cached instances that were not used within the window.

    Args:
        instances: Their number.
        bytes: Their bytes, as far as they are known.
        seconds: The length of the window.
    """

    instances: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Thrashing:
    """
    The builds that at most twice a bound would have avoided.

    Args:
        setting: "max_cache_size" or "max_cache_bytes".
        bound: Its present value.
        builds: Their number.
        seconds: Their duration.
        better: A larger bound that would have avoided nine tenths of them or more.
        builds_avoided: The builds that it would have avoided.
        seconds_avoided: Their duration.
        bytes: The additional bytes that it takes; None if sizes are not known.
    """

    setting: str
    bound: int
    builds: int
    seconds: float
    better: int
    builds_avoided: int
    seconds_avoided: float
    bytes: int | None


@dataclass(frozen=True)
class Rebuilt:
    """
    A class that was built again after an eviction for a bound.

    Args:
        class_name: The class.
        builds: How often.
        seconds: The duration of these builds.
    """

    class_name: str
    builds: int
    seconds: float


@dataclass(frozen=True, repr=False)
class Plan:
    """
    The builds of a window, and what other bounds would have changed.

    Args:
        window_seconds: The length of the window that was observed.
        builds: The builds within it.
        build_seconds: Their duration.
        causes: The same, by the cause of the previous eviction.
        curves: One curve for each setting.
        unused: What was not used within the window.
        thrashing: What at most twice a bound would have avoided; None if there is nothing.
        rebuilt: The classes that were built again most often after an eviction for a bound.
        bound_changes: The latest changes of `max_cache_size="auto"` within the window.

    ``repr()`` is a small table.
    """

    window_seconds: float
    builds: int
    build_seconds: float
    causes: tuple[CauseShare, ...]
    curves: tuple[PlanCurve, ...]
    unused: Unused
    thrashing: Thrashing | None
    rebuilt: tuple[Rebuilt, ...]
    bound_changes: tuple[BoundChange, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """
        Return the plan as plain data.

        Returns:
            A new dict, for JSON.
        """
        changes = [change._asdict() for change in self.bound_changes]
        return {**asdict(self), "bound_changes": changes}

    def curve(self, setting: str) -> PlanCurve | None:
        """
        Return the curve of a setting.

        Args:
            setting: Its name.

        Returns:
            The curve; None if the setting has no bound.
        """
        return next((curve for curve in self.curves if curve.setting == setting), None)

    def __repr__(self) -> str:
        lines = [
            f"<Plan: {self.builds:,} builds in {self.window_seconds:,.0f} s, "
            f"{self.build_seconds:,.1f} s of building",
        ]
        lines += [
            f"  {share.builds:>7,} builds  {share.seconds:>10,.1f} s  {_CAUSES[share.cause]}"
            for share in self.causes
        ]
        for curve in self.curves:
            lines.append(f"  {curve.setting}, now {_bound(curve.setting, curve.bound)}")
            for point in curve.points:
                size = "" if point.bytes is None else f"  {point.bytes / _MB:+10,.1f} MB"
                note = ""
                if point.estimated:  # a smaller bound would build at least as often
                    note = "  about" if point.bound > curve.bound else "  at least"
                lines.append(
                    f"  {_bound(curve.setting, point.bound):>12}  {point.builds:+7,} builds  "
                    f"{point.seconds:+10,.1f} s{size}{note}"
                )
        for change in self.bound_changes[-1:]:
            lines.append(
                f"  max_cache_size last changed from {change.before:,} to {change.after:,}: "
                f"{change.reason}"
            )
        if self.unused.instances:
            lines.append(
                f"  not used: {self.unused.instances:,} instances, "
                f"{self.unused.bytes / _MB:,.1f} MB"
            )
        return "\n".join(lines) + ">"


_CAUSES = {
    "first": "of classes that had not been evicted",
    "idle": "of instances evicted as idle",
    "size": "of instances evicted for max_cache_size",
    "memory": "of instances evicted for memory",
    "aged": "of instances past their maximum age",
}


def _bound(setting: str, bound: float) -> str:
    if setting == "max_cache_bytes":
        return f"{bound / _MB:,.1f} MB"
    if setting == "cache_ttl_seconds":
        return f"{bound:,.4g} s"
    return f"{bound:,.0f}"
