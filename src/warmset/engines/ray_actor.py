"""What an actor of `warmset.engines.ray` is: a worker in a process of its own."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Any

from ray import cloudpickle

from .errors import EngineError
from .worker import Worker, call_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..legacy import MethodRegistry

__all__ = ["Actor", "worker_registry"]

_here: Worker | None = None  # the process of an actor has no other one


class Actor:
    """A worker: a registry, for as long as the process lives."""

    def __init__(self, name: str, settings: bytes, search: list[str]) -> None:
        global _here
        # Before the settings are read: what they refer to is imported then.
        sys.path += [place for place in search if place not in sys.path]
        self._worker = _here = Worker(name, cloudpickle.loads(zlib.decompress(settings)))

    def call(self, class_name: str, method_name: str, /, **arguments: Any) -> tuple[Any, Any]:
        """What the method returned; and apart from it, what calls and builds of its class take."""
        result = self._worker.call(class_name, method_name, arguments)
        return result, self._worker.times_of_class(class_name)

    def control(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return call_on(self._worker, function, arguments)


def worker_registry() -> MethodRegistry:
    """
    Give the registry of the worker that the caller runs on.

    Returns:
        The registry; it is the worker's to close.

    Raises:
        EngineError: This is no worker.
    """
    if _here is None:
        raise EngineError("this does not run on a worker: see warmset.engines.ray.install")
    return _here.registry
