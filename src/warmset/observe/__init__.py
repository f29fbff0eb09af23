"""
Observability: the live view, metrics, health checks, alert rules and a dashboard.

Each name here is imported from its module at first use. `warmset.observe.prometheus` and
`warmset.observe.otel` need the extras of those names. `warmset.observe.health` defines the findings
of `Registry.health`, and `warmset.observe.files` provides the alert rules and the dashboard.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .protocol import LiveViewError
    from .serving import serve

__all__ = ["LiveViewError", "serve"]

_MODULES = {"LiveViewError": "protocol", "serve": "serving"}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
