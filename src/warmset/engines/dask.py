"""
Registries on the workers of a Dask cluster.

Each worker has a registry, by a plugin, and each call goes to a worker where its class is warm: it
is restricted to that worker, so that work stealing leaves it there. Should that worker be lost, a
small plugin of the scheduler gives its calls to another one.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..resolver import shown
from .affinity import Router
from .calls import checked_call, checked_calls
from .errors import EngineError
from .settings import WorkerSettings
from .worker import Worker, call_on, names_of, summed, times_of

try:
    from distributed import Client, LocalCluster, get_worker
    from distributed.diagnostics.plugin import WorkerPlugin

    from .dask_homes import PREFIX, Homes
except ImportError as error:
    raise EngineError(
        "the engine 'dask' needs the 'dask' extra: pip install \"warmset[dask]\""
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from distributed import Future
    from typing_extensions import Self

    from ..legacy import MethodRegistry
    from .affinity import Ticket
    from .calls import MethodCall
    from .worker import ClusterStats, WorkerStats

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

_NAME = "warmset"  # of the workers' plugin
_LOOK_SECONDS = 1.0  # between two looks at the workers, and at what calls take
_QUEUED_SECONDS = 0.05  # from which on it matters what calls take
_BATCH = 500  # calls of `map_methods` that are sent at once
_CONNECT_SECONDS = 10.0


# -- on the workers ---------------------------------------------------------


class RegistryPlugin(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """
    Gives each worker a registry, which is closed with the worker; `install` registers it.

    Args:
        settings: What to make the registry from.
    """

    name = _NAME
    idempotent = False

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.worker: Worker | None = None

    def setup(self, worker: Any) -> None:
        """Make the registry."""
        self.worker = Worker(worker.address, self.settings)

    def teardown(self, worker: Any) -> None:
        """Close the registry."""
        if self.worker is not None:
            self.worker.close()


def worker_registry() -> MethodRegistry:
    """
    Give the registry of the worker that the caller runs on.

    Returns:
        The registry; it is the worker's to close.

    Raises:
        EngineError: This is no worker, or none that a registry was installed on.
    """
    return _here().registry


def _here() -> Worker:
    try:
        worker = get_worker()
    except ValueError as error:
        raise EngineError("this does not run on a worker of Dask") from error
    return _of(worker)


def _of(worker: Any) -> Worker:
    plugin = worker.plugins.get(_NAME)
    if plugin is None or plugin.worker is None:
        raise EngineError(
            f"worker {worker.address} has no registry: warmset.engines.dask.install(client, ...)"
        )
    return plugin.worker  # type: ignore[no-any-return]


def _call(class_name: str, method_name: str, arguments: Mapping[str, Any]) -> Any:
    return _here().call(class_name, method_name, arguments)


async def _run(
    function: Callable[..., Any], arguments: tuple[Any, ...], *, dask_worker: Any
) -> Any:
    # In a thread: on the loop it would keep the worker from answering the scheduler.
    return await asyncio.to_thread(call_on, _of(dask_worker), function, arguments)


def _warm_up(class_names: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return _here().warm_up(class_names, **options)


# -- on the client's side ------------------------------------------------------------------------


class _Affinity:
    """Where a client's calls go."""

    def __init__(self, client: Client, affinity: bool) -> None:
        self.router = Router(affinity=affinity)
        self._lock = Lock()
        self._looked = self._learned = 0.0
        self.look(client)

    def look(self, client: Client) -> None:
        """See which workers there are."""
        found = client.scheduler_info(n_workers=-1)["workers"]
        self.router.set_workers({name: each["nthreads"] for name, each in found.items()})
        self._looked = time.monotonic()

    def choose(self, client: Client, class_name: str) -> Ticket:
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self.look(client)
                self._learn(client, now)
            finally:
                self._lock.release()
        if not self.router.workers():
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
            self.look(client)
        return self.router.choose(class_name)

    def _learn(self, client: Client, now: float) -> None:
        if self.router.longest_wait() < _QUEUED_SECONDS or now - self._learned < _LOOK_SECONDS:
            return
        self._learned = now
        for times in on_each_worker(client, times_of).values():
            self.router.learn_times(*times)


_affinities: WeakKeyDictionary[Client, _Affinity] = WeakKeyDictionary()


def install(client: Client, settings: WorkerSettings, *, affinity: bool = True) -> None:
    """
    Give each worker of a cluster a registry, also those that come later.

    Args:
        client: Of the cluster; not an asynchronous one.
        settings: What to make the registries from. What was installed before is closed.
        affinity: False sends each call to the worker with the shortest queue, for comparison.

    Raises:
        TypeError: One of them is of a wrong type.
        Exception: What making the registry raised on a worker.
    """
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(f"expected a distributed.Client that is not asynchronous, got {client!r}")
    if not isinstance(settings, WorkerSettings):
        raise TypeError(f"expected WorkerSettings, got {shown(settings)}")
    client.register_plugin(Homes())
    client.register_plugin(RegistryPlugin(settings))
    _affinities[client] = _Affinity(client, affinity)


def uninstall(client: Client) -> None:
    """Close the registries of the workers, and have none on those that come later."""
    _affinities.pop(client, None)
    client.unregister_worker_plugin(_NAME)


def _affinity(client: Client) -> _Affinity:
    found = _affinities.get(client)
    if found is None:
        # Another client has installed it: this one only has to know the workers.
        found = _affinities[client] = _Affinity(client, True)
    return found


def submit_method(
    client: Client, class_name: str, method_name: str, /, **arguments: Any
) -> Future[Any]:
    """
    Call a method on a worker where its class is warm.

    Args:
        client: Of a cluster with registries.
        class_name: The class.
        method_name: The method.
        arguments: By keyword; a future among them is passed on as its result.

    Returns:
        A future; its result is what the method returned, its exception what it, or the way to it,
        raised.

    Raises:
        TypeError: A name is no string.

    Safe under threads. Once a second the workers are looked at, which takes some milliseconds.
    """
    call = checked_call(class_name, method_name, arguments)
    affinity = _affinity(client)
    ticket = affinity.choose(client, call.class_name)
    future = client.submit(_call, *call, key=_key(call), workers=[ticket.worker], pure=False)
    _when_done(future, affinity.router, ticket)
    return future


def map_methods(client: Client, calls: Iterable[Any]) -> list[Future[Any]]:
    """
    Call methods on workers where their classes are warm.

    Args:
        client: Of a cluster with registries.
        calls: Of `MethodCall`, (class, method) or (class, method, arguments).

    Returns:
        Futures, in the order of the calls.

    Raises:
        TypeError: A call is none; nothing of it was sent.

    Calls are sent by some hundreds, which costs less for each than `submit_method`.
    """
    checked = checked_calls(calls)
    affinity = _affinity(client)
    futures: list[Any] = [None] * len(checked)
    for start in range(0, len(checked), _BATCH):
        by_worker: dict[str, list[tuple[int, Ticket]]] = {}
        for at in range(start, min(start + _BATCH, len(checked))):
            ticket = affinity.choose(client, checked[at].class_name)
            by_worker.setdefault(ticket.worker, []).append((at, ticket))
        for worker, chosen in by_worker.items():
            sent = [checked[at] for at, _ in chosen]
            made = client.map(
                _call,
                *([call[part] for call in sent] for part in range(3)),
                key=[_key(call) for call in sent],
                workers=[worker],
                pure=False,
            )
            for (at, ticket), future in zip(chosen, made, strict=True):
                futures[at] = future
                _when_done(future, affinity.router, ticket)
    return futures


def _key(call: MethodCall) -> str:
    return f"{PREFIX}{call.class_name}-{uuid.uuid4().hex}"


def _when_done(future: Future[Any], router: Router, ticket: Ticket) -> None:
    future.add_done_callback(lambda done: router.done(ticket))


def on_each_worker(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """
    Call a function once on each worker.

    Args:
        client: Of a cluster with registries.
        function: Takes the `engines.worker.Worker`, and the arguments; it is run in a thread.
        arguments: What else it is given.

    Returns:
        Worker -> what it returned; a worker that was lost meanwhile is not in it.

    Raises:
        Exception: What it raised on a worker.
    """
    told = client.run(_run, function, arguments, on_error="return")
    given = {}
    for worker, result in told.items():
        if isinstance(result, OSError):  # it could not be reached
            continue
        if isinstance(result, BaseException):
            raise result
        given[worker] = result.value
    return given


def clear(client: Client, *, release: bool = False) -> dict[str, dict[str, Any]]:
    """
    Remove every instance on every worker.

    Args:
        client: Of a cluster with registries.
        release: See `Registry.clear_cache`.

    Returns:
        Worker -> what `clear_cache` gave there.
    """
    cleared = on_each_worker(client, _cleared, release)
    for worker in cleared:
        _affinity(client).router.cooled(worker)
    return cleared


def _cleared(worker: Worker, release: bool) -> dict[str, Any]:
    return worker.clear(release=release)


def stats(client: Client) -> ClusterStats:
    """
    Tell how all workers do.

    Args:
        client: Of a cluster with registries.

    Returns:
        Each worker's figures, and their sum.
    """
    return summed(on_each_worker(client, _told).values())


def _told(worker: Worker) -> WorkerStats:
    return worker.stats()


def warm_up(
    client: Client, profile_or_names: Any = None, **options: Any
) -> dict[str, dict[str, Any]]:
    """
    Build classes ahead, each on the worker that its calls will go to.

    Args:
        client: Of a cluster with registries.
        profile_or_names: A `Profile`, or class names.
        options: Of `Registry.warm_up`, but for `progress`.

    Returns:
        Worker -> the report of its warm-up, as plain data.
    """
    affinity = _affinity(client)
    by_worker: dict[str, list[str]] = {}
    for class_name in names_of(profile_or_names):
        ticket = affinity.choose(client, class_name)
        affinity.router.done(ticket)
        by_worker.setdefault(ticket.worker, []).append(class_name)
    futures = {
        worker: client.submit(
            _warm_up,
            names,
            options,
            key=f"{PREFIX}{names[0]}-{uuid.uuid4().hex}",
            workers=[worker],
            pure=False,
        )
        for worker, names in by_worker.items()
    }
    return {worker: future.result() for worker, future in futures.items()}


# -- a cluster -----------------------------------------------------------------------------------


class DaskCluster:
    """
    A cluster whose workers have registries; `start` gives it.

    Args:
        client: Of the cluster.
        local: The cluster, where it was started here and ends with this.
    """

    def __init__(self, client: Client, local: LocalCluster | None) -> None:
        self.client = client
        self._local = local

    def submit(
        self, class_name: str, method_name: str, arguments: Mapping[str, Any]
    ) -> Future[Any]:
        """As `submit_method`, with the arguments as a mapping."""
        return submit_method(self.client, class_name, method_name, **arguments)

    def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """As the function of this name."""
        return on_each_worker(self.client, function, *arguments)

    def stats(self) -> ClusterStats:
        """As the function of this name."""
        return stats(self.client)

    def workers(self) -> list[str]:
        """Give the addresses of the workers."""
        return list(self.client.scheduler_info(n_workers=-1)["workers"])

    def close(self) -> None:
        """Close the registries, and what was started with them."""
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
    Start a cluster on this machine, or join one, and give its workers registries.

    Args:
        settings: What to make the registries from.
        address: The scheduler of a running cluster; None starts one of worker processes here.
        workers: How many to start.
        threads: How many calls each does at once.

    Returns:
        The cluster; closing it ends what was started here.

    Raises:
        EngineError: There is no cluster at the address.
        Exception: What making the registry raised on a worker.
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
        raise EngineError(f"no Dask scheduler can be reached at {address}: {error}") from error
    cluster = DaskCluster(client, local)
    try:
        install(client, settings)
    except BaseException:
        cluster.close()
        raise
    return cluster
