"""
Registries in the actors of a Ray cluster.

Each worker is an actor with a registry, and each call goes to a worker where its class is warm. If
the process of an actor dies, Ray restarts it with a new registry and repeats its calls.
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

from .._locks import locked
from ..resolver import safe_repr
from .affinity import Router, duration_name
from .calls import checked_call, checked_calls
from .errors import EngineError
from .settings import WorkerSettings
from .worker import Worker, class_names_of, sum_stats

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

    from ..family_keys import SlotKey
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
_COLLECT_SECONDS = 0.005  # minimum time between two checks for finished calls


# -- in the driver -------------------------------------------------------------------------------


class RayWorkers:
    """
    The workers of a Ray cluster; `install` gives them registries.

    Args:
        count: The number of workers.
        threads: The number of calls that each worker executes concurrently.
        affinity: False sends each call to the worker with the shortest queue, for comparison.
        options: Further options of Ray's actors, such as resources or `runtime_env`.

    Raises:
        ValueError: `count` or `threads` is not an int of 1 or more.
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
        self._in_progress: dict[Any, Ticket] = {}  # by the reference to the durations of the call
        self._collected = 0.0
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<RayWorkers: {len(self._actors)} of {self.count}>"

    def names(self) -> list[str]:
        """Return the names of the workers with an actor."""
        return list(self._actors)

    # -- installation ----------------------------------------------------------------------------

    def _install(self, settings: WorkerSettings) -> None:
        self._uninstall()
        actor = ray.remote(
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=self.threads,
            # Control functions must not queue behind calls.
            concurrency_groups={"control": 2},
        )(Actor)
        search = [os.path.abspath(place) for place in sys.path]
        # Compressed, so that Ray sends the settings with the actor. A copy in the object store can
        # be lost, and then the actor could not be restarted.
        content = zlib.compress(cloudpickle.dumps(settings))
        options = {"scheduling_strategy": "SPREAD", **self._options}
        actors = {
            name: actor.options(**options).remote(name, content, search)
            for name in (f"worker-{number}" for number in range(self.count))
        }
        self._actors = actors
        try:
            self._on_each(_ping, ())
        except BaseException:
            self._uninstall()
            raise
        self._router = Router(dict.fromkeys(actors, self.threads), affinity=self._affinity)

    def _uninstall(self) -> None:
        actors, self._actors = self._actors, {}
        if not actors or not ray.is_initialized():
            return
        closing = [_control(actor, _close, ()) for actor in actors.values()]
        ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for actor in actors.values():
            ray.kill(actor)
        self._in_progress.clear()

    def _on_each(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
        refs = {n: _control(a, function, arguments) for n, a in self._actors.items()}
        values = {}
        for name, ref in refs.items():
            try:
                values[name] = ray.get(ref).value
            except RayTaskError as error:
                raise error.cause from None
            except ActorDiedError as error:
                reason = getattr(error, "cause", None) or error
                if "__init__" in str(error) or "creation" in str(error):
                    raise EngineError(f"could not create a registry on {name}: {reason}") from error
                self._remove(name)
        return values

    def _remove(self, name: str) -> None:
        self._actors.pop(name, None)
        self._router.remove_worker(name)

    # -- calls -----------------------------------------------------------------------------------

    def _submit(self, call: MethodCall) -> Any:
        self._collect_finished()
        if not self._actors:
            raise EngineError(
                "there are no workers: call warmset.engines.ray.install(workers, settings)"
            )
        ticket = self._router.choose(call.class_name)
        method = self._actors[ticket.worker].call.options(num_returns=2)
        result, durations = method.remote(call.class_name, call.method_name, **call.arguments)
        # A reference to the result would keep the result, which may be large, in the store.
        self._in_progress[durations] = ticket
        return result

    @locked
    def _take_finished(self) -> list[tuple[Any, Ticket]]:
        now = time.monotonic()
        if now - self._collected < _COLLECT_SECONDS or not self._in_progress:
            return []
        self._collected = now
        pending = list(self._in_progress)
        ended, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
        return [(durations, self._in_progress.pop(durations)) for durations in ended]

    def _collect_finished(self) -> None:
        """Record which calls have ended and how long they took."""
        latest: dict[SlotKey, Any] = {}
        for durations, ticket in self._take_finished():
            self._router.done(ticket)
            latest[ticket.class_name] = durations, ticket
        for class_name, (durations, ticket) in latest.items():
            try:
                call_seconds, build_seconds = ray.get(durations)
            except ActorDiedError:  # permanently, otherwise Ray would have repeated the call
                self._remove(ticket.worker)
                continue
            except Exception:  # raised by the method; the caller receives it with the result
                continue
            self._router.learn(
                duration_name(class_name), call_seconds=call_seconds, build_seconds=build_seconds
            )


def _ping(worker: Worker) -> None:
    """Do nothing; returns once the worker has created its registry."""


def _close(worker: Worker) -> None:
    worker.close()


def _control(actor: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return actor.control.options(concurrency_group="control").remote(function, arguments)


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
    workers._install(settings)


def uninstall(workers: RayWorkers) -> None:
    """Close the registries of the workers and stop their actors."""
    workers._uninstall()


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
    return workers._submit(checked_call(class_name, method_name, arguments))


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
    return [workers._submit(call) for call in checked_calls(calls)]


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
    return workers._on_each(function, arguments)


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
        workers._router.mark_cold(worker)
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
        ticket = workers._router.choose(class_name)
        workers._router.done(ticket)
        by_worker.setdefault(ticket.worker, []).append(class_name)
    refs = {
        worker: _control(workers._actors[worker], _warm_up, (names, options))
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
