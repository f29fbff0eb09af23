"""
Registries in actors of a Ray cluster.

Each worker is an actor with a registry, and each call goes to one where its class is warm. An actor
whose process dies is started anew by Ray, with a new registry, and its calls are done again.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import zlib
from threading import RLock
from typing import TYPE_CHECKING, Any

from ..resolver import shown
from .affinity import Router
from .calls import checked_call, checked_calls
from .errors import EngineError
from .settings import WorkerSettings
from .worker import Worker, names_of, summed

try:
    import ray
    from ray import cloudpickle
    from ray.exceptions import ActorDiedError, RayTaskError

    from .ray_actor import Actor, worker_registry
except ImportError as error:
    raise EngineError(
        "the engine 'ray' needs the 'ray' extra: pip install \"warmset[ray]\""
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from .affinity import Ticket
    from .calls import MethodCall
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
_SETTLE_SECONDS = 0.005  # between two looks at which calls have ended


# -- on the driver's side ------------------------------------------------------------------------


class RayWorkers:
    """
    Workers of a Ray cluster that have, or will have, registries.

    Args:
        count: How many there are.
        threads: How many calls each does at once.
        affinity: False sends each call to the worker with the shortest queue, for comparison.
        options: More for the actors, as Ray's `options` takes it: resources, `runtime_env`, ...

    Raises:
        ValueError: A number is less than 1.
    """

    def __init__(
        self, count: int = 2, *, threads: int = 1, affinity: bool = True, **options: Any
    ) -> None:
        for name, value in (("count", count), ("threads", threads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}")
        self.count, self.threads = count, threads
        self._affinity, self._options = affinity, options
        self._actors: dict[str, Any] = {}
        self._router = Router()
        self._under_way: dict[Any, Ticket] = {}
        self._settled = 0.0
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<RayWorkers: {len(self._actors)} of {self.count}>"

    def names(self) -> list[str]:
        """Give the names of the workers that there are."""
        return list(self._actors)

    # -- what `install` and `uninstall` do -------------------------------------------------------

    def _install(self, settings: WorkerSettings) -> None:
        self._uninstall()
        actor = ray.remote(
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=self.threads,
            # What controls a worker is not queued behind its calls.
            concurrency_groups={"control": 2},
        )(Actor)
        search = [os.path.abspath(place) for place in sys.path]
        # Small, so that it is sent with the actor: what lies in the object store may be lost, and
        # then the actor cannot be started anew.
        content = zlib.compress(cloudpickle.dumps(settings))
        options = {"scheduling_strategy": "SPREAD", **self._options}
        actors = {
            f"worker-{at}": actor.options(**options).remote(f"worker-{at}", content, search)
            for at in range(self.count)
        }
        self._actors = actors
        try:
            self._on_each(_nothing, ())
        except BaseException:
            self._uninstall()
            raise
        self._router = Router(dict.fromkeys(actors, self.threads), affinity=self._affinity)

    def _uninstall(self) -> None:
        actors, self._actors = self._actors, {}
        if not actors or not ray.is_initialized():
            return
        closing = [_control(actor, _closed, ()) for actor in actors.values()]
        ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for actor in actors.values():
            ray.kill(actor)
        with self._lock:
            self._under_way.clear()

    def _on_each(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
        asked = {n: _control(a, function, arguments) for n, a in self._actors.items()}
        given = {}
        for name, ref in asked.items():
            try:
                given[name] = ray.get(ref).value
            except RayTaskError as error:
                raise error.cause from None
            except ActorDiedError as error:
                reason = getattr(error, "cause", None) or error
                if "__init__" in str(error) or "creation" in str(error):
                    raise EngineError(f"no registry could be made on {name}: {reason}") from error
                self._lost(name)
        return given

    def _lost(self, name: str) -> None:
        self._actors.pop(name, None)
        self._router.remove_worker(name)

    # -- calls -----------------------------------------------------------------------------------

    def _submit(self, call: MethodCall) -> Any:
        self._settle()
        if not self._actors:
            raise EngineError("there are no workers: warmset.engines.ray.install(workers, ...)")
        ticket = self._router.choose(call.class_name)
        method = self._actors[ticket.worker].call.options(num_returns=2)
        result, marker = method.remote(call.class_name, call.method_name, **call.arguments)
        with self._lock:
            # The marker and not the result, which may be large and is the caller's to keep.
            self._under_way[marker] = ticket
        return result

    def _settle(self) -> None:
        """See which calls have ended, and what they took."""
        now = time.monotonic()
        with self._lock:
            if now - self._settled < _SETTLE_SECONDS or not self._under_way:
                return
            self._settled = now
            pending = list(self._under_way)
            ended, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
            tickets = [self._under_way.pop(marker) for marker in ended]
        learned: dict[str, Any] = {}
        for marker, ticket in zip(ended, tickets, strict=True):
            self._router.done(ticket)
            learned[ticket.class_name] = marker, ticket
        for class_name, (marker, ticket) in learned.items():
            try:
                call_seconds, build_seconds = ray.get(marker)
            except ActorDiedError:  # for good, or Ray would have done the call again
                self._lost(ticket.worker)
                continue
            except Exception:  # what the method raised: the caller gets it
                continue
            self._router.learn(class_name, call_seconds=call_seconds, build_seconds=build_seconds)


def _nothing(worker: Worker) -> None:
    """Asked for to see that a worker is there."""


def _closed(worker: Worker) -> None:
    worker.close()


def _control(actor: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return actor.control.options(concurrency_group="control").remote(function, arguments)


def install(workers: RayWorkers, settings: WorkerSettings) -> None:
    """
    Give each worker a registry.

    Args:
        workers: The workers; Ray has been initialised.
        settings: What to make the registries from. What was installed before is closed.

    Raises:
        TypeError: One of them is of a wrong type.
        EngineError: A registry could not be made.
    """
    if not isinstance(workers, RayWorkers):
        raise TypeError(f"expected RayWorkers, got {shown(workers)}")
    if not isinstance(settings, WorkerSettings):
        raise TypeError(f"expected WorkerSettings, got {shown(settings)}")
    workers._install(settings)


def uninstall(workers: RayWorkers) -> None:
    """Close the registries of the workers, and end their actors."""
    workers._uninstall()


def submit_method(
    workers: RayWorkers, class_name: str, method_name: str, /, **arguments: Any
) -> Any:
    """
    Call a method on a worker where its class is warm.

    Args:
        workers: The workers.
        class_name: The class.
        method_name: The method.
        arguments: By keyword; an `ObjectRef` among them is passed on as its value.

    Returns:
        An `ObjectRef`. What the method raised comes out of `ray.get` in Ray's own way: of the class
        that it was, with what it was in `cause`.

    Raises:
        TypeError: A name is no string.
        EngineError: There are no workers.

    Safe under threads.
    """
    return workers._submit(checked_call(class_name, method_name, arguments))


def map_methods(workers: RayWorkers, calls: Iterable[Any]) -> list[Any]:
    """
    Call methods on workers where their classes are warm.

    Args:
        workers: The workers.
        calls: Of `MethodCall`, (class, method) or (class, method, arguments).

    Returns:
        An `ObjectRef` for each, in the order of the calls.

    Raises:
        TypeError: A call is none; nothing of it was sent.
    """
    return [workers._submit(call) for call in checked_calls(calls)]


def on_each_worker(
    workers: RayWorkers, function: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """
    Call a function once on each worker.

    Args:
        workers: The workers.
        function: Takes the `engines.worker.Worker`, and the arguments.
        arguments: What else it is given.

    Returns:
        Worker -> what it returned; a worker that is gone for good is not in it.

    Raises:
        Exception: What it raised on a worker.
    """
    return workers._on_each(function, arguments)


def clear(workers: RayWorkers, *, release: bool = False) -> dict[str, dict[str, Any]]:
    """
    Remove every instance on every worker.

    Args:
        workers: The workers.
        release: See `Registry.clear_cache`.

    Returns:
        Worker -> what `clear_cache` gave there.
    """
    cleared = on_each_worker(workers, _cleared, release)
    for worker in cleared:
        workers._router.cooled(worker)
    return cleared


def _cleared(worker: Worker, release: bool) -> dict[str, Any]:
    return worker.clear(release=release)


def stats(workers: RayWorkers) -> ClusterStats:
    """
    Tell how all workers do.

    Args:
        workers: The workers.

    Returns:
        Each worker's figures, and their sum.
    """
    return summed(on_each_worker(workers, _told).values())


def _told(worker: Worker) -> WorkerStats:
    return worker.stats()


def warm_up(
    workers: RayWorkers, profile_or_names: Any = None, **options: Any
) -> dict[str, dict[str, Any]]:
    """
    Build classes ahead, each on the worker that its calls will go to.

    Args:
        workers: The workers.
        profile_or_names: A `Profile`, or class names.
        options: Of `Registry.warm_up`, but for `progress`.

    Returns:
        Worker -> the report of its warm-up, as plain data.
    """
    by_worker: dict[str, list[str]] = {}
    for class_name in names_of(profile_or_names):
        ticket = workers._router.choose(class_name)
        workers._router.done(ticket)
        by_worker.setdefault(ticket.worker, []).append(class_name)
    asked = {
        worker: _control(workers._actors[worker], _warmed_up, (names, options))
        for worker, names in by_worker.items()
    }
    return {worker: ray.get(ref).value for worker, ref in asked.items()}


def _warmed_up(worker: Worker, names: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return worker.warm_up(names, **options)


# -- a cluster -----------------------------------------------------------------------------------


class _Pending:
    """A call, whose error comes back as it was raised."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    def result(self) -> Any:
        try:
            return ray.get(self.ref)
        except RayTaskError as error:
            raise error.cause from None


class RayCluster:
    """
    Workers that have registries; `start` gives it.

    Args:
        workers: The workers.
        own: Whether Ray was initialised for it, and ends with it.
    """

    def __init__(self, workers: RayWorkers, own: bool) -> None:
        self.ray_workers = workers
        self._own = own

    def submit(self, class_name: str, method_name: str, arguments: Mapping[str, Any]) -> _Pending:
        """As `submit_method`, with the arguments as a mapping."""
        return _Pending(submit_method(self.ray_workers, class_name, method_name, **arguments))

    def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """As the function of this name."""
        return on_each_worker(self.ray_workers, function, *arguments)

    def stats(self) -> ClusterStats:
        """As the function of this name."""
        return stats(self.ray_workers)

    def workers(self) -> list[str]:
        """Give the names of the workers."""
        return self.ray_workers.names()

    def close(self) -> None:
        """Close the registries, and what was started with them."""
        try:
            uninstall(self.ray_workers)
        finally:
            if self._own:
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
    """Ray tries for minutes where there is nobody; one look tells."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "//" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EngineError(f"no Ray cluster can be reached at {address}: {error}") from error


def start(
    settings: WorkerSettings, *, address: str | None = None, workers: int = 2, threads: int = 1
) -> RayCluster:
    """
    Start workers with registries, on this machine or on a running cluster.

    Args:
        settings: What to make the registries from.
        address: Of a running cluster, or "auto"; None takes the one that this process has joined,
            or starts one here.
        workers: How many to start.
        threads: How many calls each does at once.

    Returns:
        The cluster; closing it ends what was started here.

    Raises:
        EngineError: There is no cluster at the address, or a registry could not be made.
    """
    own = not ray.is_initialized()
    if own:
        _check_address(address)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        options |= {"include_dashboard": False} if address is None else {"address": address}
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(f"no Ray cluster can be reached at {address}: {error}") from error
    cluster = RayCluster(RayWorkers(workers, threads=threads), own)
    try:
        install(cluster.ray_workers, settings)
    except BaseException:
        cluster.close()
        raise
    return cluster
