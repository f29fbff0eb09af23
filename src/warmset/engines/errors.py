"""The error raised by engines."""

from __future__ import annotations

__all__ = ["EngineError"]


class EngineError(RuntimeError):
    """An engine cannot be used; the message states the reason and the remedy."""
