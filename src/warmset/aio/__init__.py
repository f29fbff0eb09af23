"""
The executor for event loops: the same registry, awaited.

`AsyncMethodExecutor` is in `executor`; `builds` has the builds that loops wait for, and `workers`
the threads that build and close for them.
"""

from __future__ import annotations

from .executor import AsyncLease, AsyncMethodExecutor

__all__ = ["AsyncLease", "AsyncMethodExecutor"]
