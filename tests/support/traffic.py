"""Traffic with known figures."""

from __future__ import annotations

from typing import Any


def serve_known_traffic(registry: Any, timer: Any, samples: Any) -> Any:
    """
    Serve four classes, at most two cached: 4 hits, 5 misses, 4 builds of 2 s, 1 failed, 1 eviction.

    Returns:
        The first Alpha, which is left open while it is referred to, and a held lease on Beta. The
        second Alpha is warm, and Gamma was discarded.
    """

    def slow(instance: Any) -> None:
        timer.advance(2.0)

    def fail(instance: Any) -> None:
        raise OSError("no model file")

    for name in ("Alpha", "Beta", "Gamma"):
        samples.script[name] = slow
    samples.script["Delta"] = fail
    alpha = registry.get_instance("Alpha")
    for _ in range(3):
        registry.get_instance("Alpha")
    lease = registry.use("Beta")
    lease.__enter__()
    registry.get_instance("Gamma")  # evicts Alpha, which its caller still has
    registry.get_instance("Gamma")
    try:
        registry.get_instance("Delta")
    except RuntimeError:
        pass
    registry.discard("Gamma")
    with registry.use("Alpha") as second:
        second.echo("x")
    return alpha, lease
