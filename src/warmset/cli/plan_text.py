"""
The words and numbers of a forecast, for the terminal and for the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warmset.planning.forecast import Forecast

__all__ = ["bound_text", "forecast_lines", "forecast_rows"]

_MB = 1_000_000
_SIZE = "max_cache_size"
_NAMES_SHOWN = 5


def bound_text(setting: str, bound: int) -> str:
    """
    Format a bound.

    Args:
        setting: "max_cache_size" or "max_cache_bytes".
        bound: Instances or bytes.

    Returns:
        A number of instances, or MB.
    """
    return f"{bound:,}" if setting == _SIZE else f"{bound / _MB:,.1f} MB"


def forecast_rows(forecast: Forecast) -> tuple[list[str], list[list[str]]]:
    """
    Format the table.

    Args:
        forecast: The forecast.

    Returns:
        The headings, and the cells of each row.
    """
    rows = []
    for row in forecast.rows:
        notes = []
        if row.bound == forecast.given:
            notes.append("given")
        if row.bound == forecast.recommended.bound:
            notes.append("smallest within 5 % of the best")
        rows.append(
            [
                bound_text(forecast.setting, row.bound),
                f"{row.builds:,}",
                _seconds(row.build_seconds),
                f"{row.peak_bytes / _MB:,.1f}",
                ", ".join(notes),
            ]
        )
    return [forecast.setting, "builds", "build seconds", "peak MB", ""], rows


def forecast_lines(forecast: Forecast) -> list[str]:
    """
    Describe a forecast in sentences.

    Args:
        forecast: The forecast.

    Returns:
        One line for each statement.
    """
    setting, best = forecast.setting, forecast.recommended
    exactness = "exact" if forecast.policy == "lru" else "by a replay for each bound"
    if forecast.relative_error:
        exactness = (
            f"from a sample of the classes, with a standard error of {forecast.relative_error:.1%}"
        )
    lines = [
        f"{forecast.uses:,} uses of {_classes(forecast.classes)} replayed; "
        f"policy {forecast.policy}, {exactness}",
    ]
    if forecast.represented > 1.0:
        lines.append(
            f"the recording was thinned out: each use stands for {forecast.represented:.3g}, and "
            "builds are scaled accordingly"
        )
    lines.append(
        f"every bound needs the first build of each class: {forecast.first_builds:,} builds, "
        f"{_seconds(forecast.first_build_seconds)} s"
    )
    lines.append(
        f"smallest bound within 5 % of the best: {setting}={_value(forecast, best.bound)}, with "
        f"{best.builds:,} builds, {_seconds(best.build_seconds)} s"
    )
    lines.append(_fit(forecast))
    judged = best.bound if forecast.given is None else forecast.given
    if forecast.displacements:
        pairs = "; ".join(
            f"{pair.one} and {pair.other} ({pair.times:,} times)" for pair in forecast.displacements
        )
        lines.append(f"classes that evict each other at {bound_text(setting, judged)}: {pairs}")
    if forecast.unknown_sizes:
        names = ", ".join(forecast.unknown_sizes[:_NAMES_SHOWN])
        more = ", ..." if len(forecast.unknown_sizes) > _NAMES_SHOWN else ""
        lines.append(
            f"of unknown size, counted as 0 bytes: {names}{more}; a registry with a sizer "
            "records sizes"
        )
    return lines


def _value(forecast: Forecast, bound: int) -> str:
    """Return a bound as it is written in a settings file, and in MB if it is bytes."""
    if forecast.setting == _SIZE:
        return str(bound)
    return f"{bound} ({bound_text(forecast.setting, bound)})"


def _classes(count: int) -> str:
    return f"{count:,} class{'' if count == 1 else 'es'}"


def _fit(forecast: Forecast) -> str:
    roster = f"the roster of {_classes(forecast.classes)} ({forecast.roster_bytes / _MB:,.1f} MB)"
    if forecast.given is None:
        return f"{roster} fits from {forecast.setting}={forecast.classes} on"
    given = f"{forecast.setting}={_value(forecast, forecast.given)}"
    if not forecast.missing:
        return f"{roster} fits into {given}"
    return f"{roster} exceeds {given} by {bound_text(forecast.setting, forecast.missing)}"


def _seconds(seconds: float) -> str:
    # 60 ms must not be shown as 0.0.
    return f"{seconds:,.1f}" if seconds >= 1.0 or not seconds else f"{seconds:.2g}"
