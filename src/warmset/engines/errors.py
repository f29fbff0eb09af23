"""What can go wrong with an engine."""

from __future__ import annotations

__all__ = ["EngineError"]


class EngineError(RuntimeError):
    """An engine cannot be used; the text says why and what to do."""
