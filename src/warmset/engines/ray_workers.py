"""The workers of a Ray cluster: actors, and the calls in progress."""

from __future__ import annotations

import os
import sys
import time
import zlib
from threading import RLock
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, RayTaskError

from .._locks import locked
from .affinity import Router, duration_name
from .errors import EngineError
from .ray_actor import Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..family_keys import SlotKey
    from .affinity import Ticket
    from .calls import MethodCall
    from .settings import WorkerSettings
    from .worker import Worker

__all__ = ["RayWork", "RayWorkers", "control"]

_COLLECT_SECONDS = 0.005  # minimum time between two checks for finished calls


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
        self.actors: dict[str, Any] = {}
        self.router = Router()
        self._in_progress: dict[Any, Ticket] = {}  # by the reference to the durations of the call
        self._collected = 0.0
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<RayWorkers: {len(self.actors)} of {self.count}>"

    def names(self) -> list[str]:
        """Return the names of the workers with an actor."""
        return list(self.actors)

    # -- installation ----------------------------------------------------------------------------

    def install(self, settings: WorkerSettings) -> None:
        """Start the actors; see the function of the same name."""
        self.uninstall()
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
        self.actors = actors
        try:
            self.on_each(_ping, ())
        except BaseException:
            self.uninstall()
            raise
        self.router = Router(dict.fromkeys(actors, self.threads), affinity=self._affinity)

    def uninstall(self) -> None:
        """Stop the actors; see the function of the same name."""
        actors, self.actors = self.actors, {}
        if not actors or not ray.is_initialized():
            return
        closing = [control(actor, _close, ()) for actor in actors.values()]
        ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for actor in actors.values():
            ray.kill(actor)
        self._in_progress.clear()

    def on_each(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Call a function once on each worker; see `on_each_worker`."""
        refs = {n: control(a, function, arguments) for n, a in self.actors.items()}
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
                self.remove(name)
        return values

    def remove(self, name: str) -> None:
        """Forget a worker that Ray does not start again."""
        self.actors.pop(name, None)
        self.router.remove_worker(name)

    # -- calls -----------------------------------------------------------------------------------

    def run(
        self, worker: str, function: Callable[..., Any], arguments: tuple[Any, ...], keep: bool
    ) -> RayWork:
        """Call ``function(worker, *arguments)`` on a worker; see `Cluster.run`."""
        actor = self.actors.get(worker)
        if actor is None:
            raise EngineError(f"worker {worker!r} was lost")
        if not keep:
            report = actor.report.remote(function, *arguments)
            return RayWork(self, worker, report, None)
        report, kept = actor.work.options(num_returns=2).remote(function, *arguments)
        return RayWork(self, worker, report, kept)

    def submit(self, call: MethodCall) -> Any:
        """Send a call to a worker where its class is warm, and return the reference."""
        self._collect_finished()
        if not self.actors:
            raise EngineError(
                "there are no workers: call warmset.engines.ray.install(workers, settings)"
            )
        ticket = self.router.choose(call.class_name)
        method = self.actors[ticket.worker].call.options(num_returns=2)
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
            self.router.done(ticket)
            latest[ticket.class_name] = durations, ticket
        for class_name, (durations, ticket) in latest.items():
            try:
                call_seconds, build_seconds = ray.get(durations)
            except ActorDiedError:  # permanently, otherwise Ray would have repeated the call
                self.remove(ticket.worker)
                continue
            except Exception:  # raised by the method; the caller receives it with the result
                continue
            self.router.learn(
                duration_name(class_name), call_seconds=call_seconds, build_seconds=build_seconds
            )


class RayWork:
    """A call in progress; see `Cluster.run`."""

    __slots__ = ("_worker", "_workers", "kept", "report")

    def __init__(self, workers: RayWorkers, worker: str, report: Any, kept: Any) -> None:
        self._workers, self._worker = workers, worker
        self.report = report
        self.kept = kept

    def result(self) -> Any:
        """Wait for the call and return its report, or raise its error."""
        try:
            return ray.get(self.report)
        except RayTaskError as error:
            raise error.cause from None
        except ActorDiedError:  # permanently, otherwise Ray would have repeated the call
            self._workers.remove(self._worker)
            raise


def _ping(worker: Worker) -> None:
    """Do nothing; returns once the worker has created its registry."""


def _close(worker: Worker) -> None:
    worker.close()


def control(actor: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call ``function(worker, *arguments)`` in an actor, without waiting for its calls."""
    return actor.control.options(concurrency_group="control").remote(function, arguments)
