"""The worker side of `warmset.engines.dask`: a plugin with a registry, and the tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from .errors import EngineError
from .worker import Worker, WorkResult, call_on_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..family_keys import SlotKey
    from ..legacy import MethodRegistry
    from .settings import WorkerSettings

__all__ = [
    "PLUGIN_NAME",
    "RegistryPlugin",
    "call",
    "run_control",
    "run_work",
    "warm_up",
    "worker_registry",
]

PLUGIN_NAME = "warmset"


class RegistryPlugin(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """
    A worker plugin that creates a registry and closes it with the worker; see `install`.

    Args:
        settings: The settings of the registry.
    """

    name = PLUGIN_NAME
    idempotent = False

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.worker: Worker | None = None

    def setup(self, worker: Any) -> None:
        """Create the registry."""
        self.worker = Worker(worker.address, self.settings)

    def teardown(self, worker: Any) -> None:
        """Close the registry."""
        if self.worker is not None:
            self.worker.close()


def worker_registry() -> MethodRegistry:
    """
    Return the registry of the worker that executes the caller.

    Returns:
        The registry, which the worker closes.

    Raises:
        EngineError: The caller does not run on a worker, or the worker has no registry.
    """
    return current_worker().registry


def current_worker() -> Worker:
    try:
        worker = get_worker()
    except ValueError as error:
        raise EngineError("the caller does not run on a Dask worker") from error
    return worker_of(worker)


def worker_of(worker: Any) -> Worker:
    plugin = worker.plugins.get(PLUGIN_NAME)
    if plugin is None or plugin.worker is None:
        raise EngineError(
            f"worker {worker.address} has no registry: call"
            " warmset.engines.dask.install(client, settings)"
        )
    return plugin.worker  # type: ignore[no-any-return]


def call(class_name: SlotKey, method_name: str, arguments: Mapping[str, Any]) -> Any:
    return current_worker().call(class_name, method_name, arguments)


async def run_control(
    function: Callable[..., Any], arguments: tuple[Any, ...], *, dask_worker: Any
) -> Any:
    # In a thread, because the event loop of the worker must keep answering the scheduler.
    return await asyncio.to_thread(call_on_worker, worker_of(dask_worker), function, arguments)


def warm_up(class_names: list[SlotKey], options: Mapping[str, Any]) -> dict[str, Any]:
    return current_worker().warm_up(class_names, **options)


def run_work(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call ``function(worker, *arguments)``; a `WorkResult` is replaced by what it has kept."""
    plain = (each.kept if isinstance(each, WorkResult) else each for each in arguments)
    return function(current_worker(), *plain)
