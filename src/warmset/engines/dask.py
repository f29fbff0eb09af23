"""
Registries on the workers of a Dask cluster.

A worker plugin gives each worker a registry. Each call goes to a worker where its class is warm and
is restricted to it, so that work stealing does not move it. If that worker is lost, a scheduler
plugin assigns its calls to another worker.
"""

from __future__ import annotations

import time
import uuid
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .._locks import call_if_free
from ..resolver import safe_repr
from .affinity import Router
from .calls import checked_call, checked_calls
from .errors import EngineError
from .settings import WorkerSettings
from .worker import WorkResult, class_names_of, measured_times, sum_stats

try:
    from distributed import Client, LocalCluster
    from distributed import wait as wait_for_futures

    from .dask_scheduler import KEY_PREFIX, ReassignLostCalls
    from .dask_worker import (
        PLUGIN_NAME,
        RegistryPlugin,
        call,
        run_control,
        run_work,
        worker_registry,
    )
    from .dask_worker import warm_up as warm_up_worker
except ImportError as error:
    raise EngineError(
        "the engine 'dask' needs the 'dask' extra: pip install \"warmset[dask]\""
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from distributed import Future
    from typing_extensions import Self

    from ..family_keys import SlotKey
    from .affinity import Ticket
    from .worker import ClusterStats, Worker, WorkerStats

__all__ = [
    "DaskCluster",
    "RegistryPlugin",
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

_REFRESH_SECONDS = 1.0  # between two refreshes of the workers and of the measured durations
_QUEUED_SECONDS = 0.05  # shorter queues do not require measured durations
_BATCH = 500  # number of calls that `map_methods` sends at once
_CONNECT_SECONDS = 10.0


# -- in the client -------------------------------------------------------------------------------


class _ClientRouter:
    """The router of one client, refreshed from the scheduler and the workers."""

    def __init__(self, client: Client, affinity: bool) -> None:
        self.router = Router(affinity=affinity)
        self._lock = RLock()
        self._refreshed = self._learned = 0.0
        self.refresh(client)

    def refresh(self, client: Client) -> None:
        """Update the set of workers."""
        found = client.scheduler_info(n_workers=-1)["workers"]
        self.router.set_workers({name: each["nthreads"] for name, each in found.items()})
        self._refreshed = time.monotonic()

    def choose(self, client: Client, class_name: SlotKey) -> Ticket:
        now = time.monotonic()
        if now - self._refreshed > _REFRESH_SECONDS:
            call_if_free(self._lock, self._refresh_and_learn, client, now)
        if not self.router.workers():
            self.refresh_or_wait(client)
        return self.router.choose(class_name)

    def refresh_or_wait(self, client: Client) -> None:
        """Update the set of workers; without any, wait for one."""
        self.refresh(client)
        if not self.router.workers():
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
            self.refresh(client)

    def _refresh_and_learn(self, client: Client, now: float) -> None:
        self.refresh(client)
        self._learn(client, now)

    def _learn(self, client: Client, now: float) -> None:
        if self.router.longest_wait() < _QUEUED_SECONDS or now - self._learned < _REFRESH_SECONDS:
            return
        self._learned = now
        for times in on_each_worker(client, measured_times).values():
            self.router.learn_times(*times)


_routers: WeakKeyDictionary[Client, _ClientRouter] = WeakKeyDictionary()


def install(client: Client, settings: WorkerSettings, *, affinity: bool = True) -> None:
    """
    Give each worker of a cluster a registry, including workers that join later.

    Args:
        client: A synchronous client of the cluster.
        settings: The settings of the registries. Registries installed earlier are closed.
        affinity: False sends each call to the worker with the shortest queue, for comparison.

    Raises:
        TypeError: An argument has the wrong type.
        Exception: An error raised on a worker while it created its registry.
    """
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(f"expected a distributed.Client that is not asynchronous, got {client!r}")
    if not isinstance(settings, WorkerSettings):
        raise TypeError(f"expected WorkerSettings, got {safe_repr(settings)}")
    client.register_plugin(ReassignLostCalls())
    client.register_plugin(RegistryPlugin(settings))
    _routers[client] = _ClientRouter(client, affinity)


def uninstall(client: Client) -> None:
    """Close the registries of the workers and remove the plugin that creates them."""
    _routers.pop(client, None)
    client.unregister_worker_plugin(PLUGIN_NAME)


def _router_of(client: Client) -> _ClientRouter:
    found = _routers.get(client)
    if found is None:
        # Another client has installed the registries.
        found = _routers[client] = _ClientRouter(client, True)
    return found


def submit_method(
    client: Client, class_name: SlotKey, method_name: str, /, **arguments: Any
) -> Future[Any]:
    """
    Call a method on a worker where its class is warm.

    Args:
        client: A client of a cluster with registries.
        class_name: The class, or the key of a family: ``FamilyKey("Model", "fr")``.
        method_name: The method.
        arguments: The keyword arguments; a future among them is replaced by its result.

    Returns:
        A future with the result of the method, or with the error of the method or of the build and
        routing before it.

    Raises:
        TypeError: A name is neither a string nor, for the class, the key of a family.

    Thread-safe. Refreshes the set of workers once a second, which takes some milliseconds.
    """
    checked = checked_call(class_name, method_name, arguments)
    client_router = _router_of(client)
    ticket = client_router.choose(client, checked.class_name)
    future = client.submit(
        call, *checked, key=_key(checked.class_name), workers=[ticket.worker], pure=False
    )
    _when_done(future, client_router.router, ticket)
    return future


def map_methods(client: Client, calls: Iterable[Any]) -> list[Future[Any]]:
    """
    Call methods on workers where their classes are warm.

    Args:
        client: A client of a cluster with registries.
        calls: Items of the form `MethodCall`, (class, method) or (class, method, arguments).

    Returns:
        One future per call, in the order of the calls.

    Raises:
        TypeError: An item has another form; no call was sent.

    Thread-safe. Sends calls in batches, which costs less per call than `submit_method`.
    """
    checked = checked_calls(calls)
    client_router = _router_of(client)
    futures: list[Any] = [None] * len(checked)
    for start in range(0, len(checked), _BATCH):
        by_worker: dict[str, list[tuple[int, Ticket]]] = {}
        for index in range(start, min(start + _BATCH, len(checked))):
            ticket = client_router.choose(client, checked[index].class_name)
            by_worker.setdefault(ticket.worker, []).append((index, ticket))
        for worker, chosen in by_worker.items():
            sent = [checked[index] for index, _ in chosen]
            created = client.map(
                call,
                *([each[part] for each in sent] for part in range(3)),
                key=[_key(each.class_name) for each in sent],
                workers=[worker],
                pure=False,
            )
            for (index, ticket), future in zip(chosen, created, strict=True):
                futures[index] = future
                _when_done(future, client_router.router, ticket)
    return futures


def _key(class_name: object) -> str:
    return f"{KEY_PREFIX}{class_name}-{uuid.uuid4().hex}"


def _when_done(future: Future[Any], router: Router, ticket: Ticket) -> None:
    future.add_done_callback(lambda done: router.done(ticket))


def on_each_worker(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """
    Call a function once on each worker.

    Args:
        client: A client of a cluster with registries.
        function: Called with the `engines.worker.Worker` and the arguments, in a thread.
        arguments: Further positional arguments.

    Returns:
        Worker -> result of the function, without workers that were lost meanwhile.

    Raises:
        Exception: An error raised by the function on a worker.
    """
    results = client.run(run_control, function, arguments, on_error="return")
    values = {}
    for worker, result in results.items():
        if isinstance(result, OSError):  # the worker could not be reached
            continue
        if isinstance(result, BaseException):
            raise result
        values[worker] = result.value
    return values


def clear(client: Client, *, release: bool = False) -> dict[str, dict[str, Any]]:
    """
    Remove every instance on every worker.

    Args:
        client: A client of a cluster with registries.
        release: See `Registry.clear_cache`.

    Returns:
        Worker -> result of `clear_cache`.
    """
    cleared = on_each_worker(client, _clear, release)
    for worker in cleared:
        _router_of(client).router.mark_cold(worker)
    return cleared


def _clear(worker: Worker, release: bool) -> dict[str, Any]:
    return worker.clear(release=release)


def stats(client: Client) -> ClusterStats:
    """
    Return the statistics of all workers.

    Args:
        client: A client of a cluster with registries.

    Returns:
        The statistics of each worker, and their totals.
    """
    return sum_stats(on_each_worker(client, _stats).values())


def _stats(worker: Worker) -> WorkerStats:
    return worker.stats()


def warm_up(
    client: Client, profile_or_names: Any = None, **options: Any
) -> dict[str, dict[str, Any]]:
    """
    Build classes in advance, each on the worker that its calls will go to.

    Args:
        client: A client of a cluster with registries.
        profile_or_names: A `Profile` or an iterable of class names.
        options: The options of `Registry.warm_up`, except `progress`.

    Returns:
        Worker -> report of its warm-up, as plain data.
    """
    client_router = _router_of(client)
    by_worker: dict[str, list[SlotKey]] = {}
    for class_name in class_names_of(profile_or_names):
        ticket = client_router.choose(client, class_name)
        client_router.router.done(ticket)
        by_worker.setdefault(ticket.worker, []).append(class_name)
    futures = {
        worker: client.submit(
            warm_up_worker,
            names,
            options,
            key=_key(names[0]),
            workers=[worker],
            pure=False,
        )
        for worker, names in by_worker.items()
    }
    return {worker: future.result() for worker, future in futures.items()}


# -- a cluster -----------------------------------------------------------------------------------


def _report_of(outcome: WorkResult) -> Any:
    return outcome.report


class DaskWork:
    """A call in progress; see `Cluster.run`."""

    __slots__ = ("kept", "report")

    def __init__(self, report: Future[Any], kept: Future[Any] | None) -> None:
        self.report = report
        self.kept = kept

    def result(self) -> Any:
        """Wait for the call and return its report, or raise its error."""
        found = self.report.result()
        return found.report if isinstance(found, WorkResult) else found


class DaskCluster:
    """
    A cluster whose workers have registries; created by `start`.

    Args:
        client: A client of the cluster.
        local: The local cluster to close with this object, or None if the cluster is not ours.
    """

    def __init__(self, client: Client, local: LocalCluster | None) -> None:
        self.client = client
        self._local = local

    def submit(
        self, class_name: SlotKey, method_name: str, arguments: Mapping[str, Any]
    ) -> Future[Any]:
        """Call `submit_method` with the arguments as a mapping."""
        return submit_method(self.client, class_name, method_name, **arguments)

    @property
    def router(self) -> Router:
        """The router of the client, with the workers of the last refresh."""
        return _router_of(self.client).router

    def refresh(self) -> None:
        """Update the workers of the router; without any, wait for one."""
        try:
            _router_of(self.client).refresh_or_wait(self.client)
        except TimeoutError as error:
            raise EngineError("the cluster has no workers") from error

    def run(
        self,
        worker: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        class_name: SlotKey,
        keep: bool,
    ) -> DaskWork:
        """Call a function on a worker; see `Cluster`."""
        client = self.client
        future = client.submit(
            run_work, function, arguments, key=_key(class_name), workers=[worker], pure=False
        )
        if not keep:
            return DaskWork(future, None)
        # The report comes to the client without what was kept.
        report = client.submit(
            _report_of, future, key=_key(class_name), workers=[worker], pure=False
        )
        return DaskWork(report, future)

    def wait(self, works: Iterable[DaskWork]) -> list[DaskWork]:
        """Wait until a call has ended, and return all that have."""
        works = list(works)
        wait_for_futures([work.report for work in works], return_when="FIRST_COMPLETED")
        return [work for work in works if work.report.done()]

    def fetch(self, kept: Future[Any]) -> Any:
        """Return what a call has kept."""
        return kept.result().kept

    def cancel(self, works: Iterable[DaskWork]) -> None:
        """Cancel the calls that have not started."""
        futures = [each for work in works for each in (work.report, work.kept) if each is not None]
        self.client.cancel(futures)

    def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call the function of the same name."""
        return on_each_worker(self.client, function, *arguments)

    def stats(self) -> ClusterStats:
        """Call the function of the same name."""
        return stats(self.client)

    def workers(self) -> list[str]:
        """Return the addresses of the workers."""
        return list(self.client.scheduler_info(n_workers=-1)["workers"])

    def close(self) -> None:
        """Close the registries, the client and, if started here, the cluster."""
        try:
            if self._local is None:
                uninstall(self.client)
        finally:
            self.client.close()
            if self._local is not None:
                self._local.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def start(
    settings: WorkerSettings, *, address: str | None = None, workers: int = 2, threads: int = 1
) -> DaskCluster:
    """
    Start a cluster on this machine or join a running one, and give its workers registries.

    Args:
        settings: The settings of the registries.
        address: The scheduler of a running cluster; None starts worker processes on this machine.
        workers: The number of workers to start.
        threads: The number of calls that each worker executes concurrently.

    Returns:
        The cluster. Closing it also stops the processes started here.

    Raises:
        EngineError: There is no cluster at the address.
        Exception: An error raised on a worker while it created its registry.
    """
    local = None
    if address is None:
        local = LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
    try:
        client = Client(address if local is None else local, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        if local is not None:
            local.close()
        raise EngineError(f"cannot reach a Dask scheduler at {address}: {error}") from error
    cluster = DaskCluster(client, local)
    try:
        install(client, settings)
    except BaseException:
        cluster.close()
        raise
    return cluster
