"""The actor of `warmset.engines.ray`: one worker per process."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Any

from ray import cloudpickle

from .errors import EngineError
from .worker import Worker, call_on_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..family_keys import SlotKey
    from ..legacy import MethodRegistry

__all__ = ["Actor", "worker_registry"]

_worker: Worker | None = None  # set in the process of an actor, which has exactly one worker


class Actor:
    """A worker whose registry lives as long as the process."""

    def __init__(self, name: str, settings: bytes, search: list[str]) -> None:
        global _worker
        # The search path must be complete before unpickling the settings imports modules.
        sys.path += [place for place in search if place not in sys.path]
        self._worker = _worker = Worker(name, cloudpickle.loads(zlib.decompress(settings)))

    def call(self, class_name: SlotKey, method_name: str, /, **arguments: Any) -> tuple[Any, Any]:
        """Call a method; return its result, and as a second object the durations of its class."""
        result = self._worker.call(class_name, method_name, arguments)
        return result, self._worker.times_of_class(class_name)

    def report(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Call ``function(worker, *arguments)`` and return what it reports."""
        return function(self._worker, *arguments).report

    def work(self, function: Callable[..., Any], /, *arguments: Any) -> tuple[Any, Any]:
        """Call ``function(worker, *arguments)``; return report and kept value as two objects."""
        outcome = function(self._worker, *arguments)
        return outcome.report, outcome.kept

    def control(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return call_on_worker(self._worker, function, arguments)


def worker_registry() -> MethodRegistry:
    """
    Return the registry of the worker that executes the caller.

    Returns:
        The registry, which the worker closes.

    Raises:
        EngineError: The caller does not run on a worker.
    """
    if _worker is None:
        raise EngineError("the caller does not run on a worker: see warmset.engines.ray.install")
    return _worker.registry
