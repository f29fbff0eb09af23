"""The health checks of a service, as status codes and plain data for any framework."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..api import Registry

__all__ = ["findings_of", "liveness", "readiness"]


def liveness(registry: Registry) -> tuple[int, dict[str, Any]]:
    """
    Tell whether the process can still do its work.

    Args:
        registry: The registry.

    Returns:
        200; or 503 if the registry is closed, which only a restart changes. And the body.
    """
    if registry.closed:
        return 503, {"status": "closed"}
    return 200, {"status": "alive"}


def readiness(registry: Registry, *, warming_up: bool = False) -> tuple[int, dict[str, Any]]:
    """
    Tell whether requests should be sent to the process.

    Args:
        registry: The registry.
        warming_up: Whether its warm-up has not ended.

    Returns:
        200; or 503 if the registry is closed or warming up. And the body.
    """
    if registry.closed:
        return 503, {"status": "closed"}
    status = "warming up" if warming_up else "ready"
    body = {"status": status, "cached": registry.cached, "max_cache_size": registry.max_size}
    return (503 if warming_up else 200), body


def findings_of(registry: Registry) -> dict[str, Any]:
    """
    Tell what `Registry.health` finds.

    Args:
        registry: The registry.

    Returns:
        The findings as plain data, the gravest first; JSON has no infinite numbers, so these are
        None.
    """
    return {
        "findings": [
            {
                "kind": finding.kind.value,
                "severity": finding.severity.name.lower(),
                "class_name": finding.class_name,
                "figure": _finite(finding.figure),
                "threshold": _finite(finding.threshold),
                "advice": finding.advice,
            }
            for finding in registry.health()
        ]
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
