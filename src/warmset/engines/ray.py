"""
Registries in the actors of a Ray cluster.

Each worker is an actor with a registry, and each call goes to a worker where its class is warm. If
the process of an actor dies, Ray restarts it with a new registry and repeats its calls.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from ..resolver import safe_repr
from .calls import checked_call, checked_calls
from .errors import EngineError
from .settings import WorkerSettings
from .worker import Worker, class_names_of, sum_stats

try:
    import ray
    from ray.exceptions import RayTaskError

    from .ray_actor import worker_registry
    from .ray_workers import RayWork, RayWorkers, control
except ImportError as error:
    raise EngineError(
        "the engine 'ray' needs the 'ray' extra: pip install \"warmset[ray]\""
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from ..family_keys import SlotKey
    from .affinity import Router
    from .worker import ClusterStats, WorkerStats

__all__ = [
    "RayCluster",
    "RayWorkers",
    "clear",
    "install",
    "map_methods",
    "on_each_worker",
    "start",
    "stats",
    "submit_method",
    "uninstall",
    "warm_up",
    "worker_registry",
]

_CONNECT_SECONDS = 10.0


def install(workers: RayWorkers, settings: WorkerSettings) -> None:
    """
    Give each worker a registry.

    Args:
        workers: The workers; Ray must be initialised.
        settings: The settings of the registries. Registries installed earlier are closed.

    Raises:
        TypeError: An argument has the wrong type.
        EngineError: A registry could not be created.
    """
    if not isinstance(workers, RayWorkers):
        raise TypeError(f"expected RayWorkers, got {safe_repr(workers)}")
    if not isinstance(settings, WorkerSettings):
        raise TypeError(f"expected WorkerSettings, got {safe_repr(settings)}")
    workers.install(settings)


def uninstall(workers: RayWorkers) -> None:
    """Close the registries of the workers and stop their actors."""
    workers.uninstall()


def submit_method(
    workers: RayWorkers, class_name: SlotKey, method_name: str, /, **arguments: Any
) -> Any:
    """
    Call a method on a worker where its class is warm.

    Args:
        workers: The workers.
        class_name: The class, or the key of a family: ``FamilyKey("Model", "fr")``.
        method_name: The method.
        arguments: The keyword arguments; an `ObjectRef` among them is replaced by its value.

    Returns:
        An `ObjectRef`. If the method raises, `ray.get` raises a Ray error that also derives from
        the class of the original error, which is its attribute `cause`.

    Raises:
        TypeError: A name is neither a string nor, for the class, the key of a family.
        EngineError: There are no workers.

    Thread-safe.
    """
    return workers.submit(checked_call(class_name, method_name, arguments))


def map_methods(workers: RayWorkers, calls: Iterable[Any]) -> list[Any]:
    """
    Call methods on workers where their classes are warm.

    Args:
        workers: The workers.
        calls: Items of the form `MethodCall`, (class, method) or (class, method, arguments).

    Returns:
        One `ObjectRef` per call, in the order of the calls.

    Raises:
        TypeError: An item has another form; no call was sent.
        EngineError: There are no workers.
    """
    return [workers.submit(call) for call in checked_calls(calls)]


def on_each_worker(
    workers: RayWorkers, function: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """
    Call a function once on each worker.

    Args:
        workers: The workers.
        function: Called with the `engines.worker.Worker` and the arguments.
        arguments: Further positional arguments.

    Returns:
        Worker -> result of the function, without workers that were lost permanently.

    Raises:
        Exception: An error raised by the function on a worker.
    """
    return workers.on_each(function, arguments)


def clear(workers: RayWorkers, *, release: bool = False) -> dict[str, dict[str, Any]]:
    """
    Remove every instance on every worker.

    Args:
        workers: The workers.
        release: See `Registry.clear_cache`.

    Returns:
        Worker -> result of `clear_cache`.
    """
    cleared = on_each_worker(workers, _clear, release)
    for worker in cleared:
        workers.router.mark_cold(worker)
    return cleared


def _clear(worker: Worker, release: bool) -> dict[str, Any]:
    return worker.clear(release=release)


def stats(workers: RayWorkers) -> ClusterStats:
    """
    Return the statistics of all workers.

    Args:
        workers: The workers.

    Returns:
        The statistics of each worker, and their totals.
    """
    return sum_stats(on_each_worker(workers, _stats).values())


def _stats(worker: Worker) -> WorkerStats:
    return worker.stats()


def warm_up(
    workers: RayWorkers, profile_or_names: Any = None, **options: Any
) -> dict[str, dict[str, Any]]:
    """
    Build classes in advance, each on the worker that its calls will go to.

    Args:
        workers: The workers.
        profile_or_names: A `Profile` or an iterable of class names.
        options: The options of `Registry.warm_up`, except `progress`.

    Returns:
        Worker -> report of its warm-up, as plain data.
    """
    by_worker: dict[str, list[SlotKey]] = {}
    for class_name in class_names_of(profile_or_names):
        ticket = workers.router.choose(class_name)
        workers.router.done(ticket)
        by_worker.setdefault(ticket.worker, []).append(class_name)
    refs = {
        worker: control(workers.actors[worker], _warm_up, (names, options))
        for worker, names in by_worker.items()
    }
    return {worker: ray.get(ref).value for worker, ref in refs.items()}


def _warm_up(worker: Worker, names: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return worker.warm_up(names, **options)


# -- a cluster -----------------------------------------------------------------------------------


class _PendingCall:
    """A call whose `result` raises the original error instead of Ray's."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    def result(self) -> Any:
        try:
            return ray.get(self.ref)
        except RayTaskError as error:
            raise error.cause from None


class RayCluster:
    """
    Workers that have registries; created by `start`.

    Args:
        workers: The workers.
        owns_ray: Whether `close` also shuts Ray down.
    """

    def __init__(self, workers: RayWorkers, owns_ray: bool) -> None:
        self.ray_workers = workers
        self._owns_ray = owns_ray

    def submit(
        self, class_name: SlotKey, method_name: str, arguments: Mapping[str, Any]
    ) -> _PendingCall:
        """Call `submit_method` with the arguments as a mapping."""
        return _PendingCall(submit_method(self.ray_workers, class_name, method_name, **arguments))

    @property
    def router(self) -> Router:
        """The router of the workers."""
        return self.ray_workers.router

    def refresh(self) -> None:
        """Do nothing: the set of workers changes only when a call finds that one was lost."""

    def run(
        self,
        worker: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        class_name: SlotKey,
        keep: bool,
    ) -> RayWork:
        """Call a function on a worker; see `Cluster`."""
        return self.ray_workers.run(worker, function, arguments, keep)

    def wait(self, works: Iterable[RayWork]) -> list[RayWork]:
        """Wait until a call has ended, and return all that have."""
        by_ref = {work.report: work for work in works}
        pending = list(by_ref)
        done, _ = ray.wait(pending, num_returns=1, fetch_local=False)
        more, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
        return [by_ref[ref] for ref in dict.fromkeys((*done, *more))]

    def fetch(self, kept: Any) -> Any:
        """Return what a call has kept."""
        return _PendingCall(kept).result()

    def cancel(self, works: Iterable[RayWork]) -> None:
        """Cancel the calls that have not started."""
        for work in works:
            ray.cancel(work.report)

    def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call the function of the same name."""
        return on_each_worker(self.ray_workers, function, *arguments)

    def stats(self) -> ClusterStats:
        """Call the function of the same name."""
        return stats(self.ray_workers)

    def workers(self) -> list[str]:
        """Return the names of the workers."""
        return self.ray_workers.names()

    def close(self) -> None:
        """Close the registries, stop the actors and, if initialised here, shut Ray down."""
        try:
            uninstall(self.ray_workers)
        finally:
            if self._owns_ray:
                ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_address(address: str | None) -> None:
    """Fail early if nothing listens at the address, where Ray would retry for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "//" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EngineError(f"cannot reach a Ray cluster at {address}: {error}") from error


def start(
    settings: WorkerSettings, *, address: str | None = None, workers: int = 2, threads: int = 1
) -> RayCluster:
    """
    Start workers with registries, on this machine or on a running cluster.

    Args:
        settings: The settings of the registries.
        address: The address of a running cluster, or "auto"; None uses the cluster that this
            process has joined, or starts one on this machine.
        workers: The number of workers to start.
        threads: The number of calls that each worker executes concurrently.

    Returns:
        The cluster. Closing it also stops everything started here.

    Raises:
        EngineError: There is no cluster at the address, or a registry could not be created.
    """
    owns_ray = not ray.is_initialized()
    if owns_ray:
        _check_address(address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        options |= {"include_dashboard": False} if address is None else {"address": address}
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(f"cannot reach a Ray cluster at {address}: {error}") from error
    cluster = RayCluster(RayWorkers(workers, threads=threads), owns_ray)
    try:
        install(cluster.ray_workers, settings)
    except BaseException:
        cluster.close()
        raise
    return cluster
