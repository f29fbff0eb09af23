"""The interface that all engines have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Protocol

    from typing_extensions import Self

    from ..family_keys import SlotKey
    from .affinity import Router
    from .worker import ClusterStats

    class PendingCall(Protocol):
        """A call in progress."""

        def result(self) -> Any:
            """Wait for the call and return its result or raise its error."""
            ...

    class Work(Protocol):
        """A call of a function in progress; see `Cluster.run`."""

        @property
        def kept(self) -> Any:
            """Stands for what the function keeps, as an argument of later calls; may be None."""
            ...

        def result(self) -> Any:
            """Wait for the call and return its report or raise its error."""
            ...

    class Cluster(Protocol):
        """A set of workers with one registry each; see `warmset.engines.dask.start`."""

        def submit(
            self, class_name: SlotKey, method_name: str, arguments: Mapping[str, Any]
        ) -> PendingCall:
            """Call a method on a worker where its class is warm."""
            ...

        @property
        def router(self) -> Router:
            """The router that knows the workers and where classes are warm."""
            ...

        def refresh(self) -> None:
            """Update the workers of the router; may wait for one if there are none."""
            ...

        def run(
            self,
            worker: str,
            function: Callable[..., Any],
            arguments: tuple[Any, ...],
            *,
            class_name: SlotKey,
            keep: bool,
        ) -> Any:
            """
            Call ``function(worker, *arguments)`` on one worker, without waiting: a `Work`.

            The function returns an `engines.worker.WorkResult`. Only its report is sent to the
            client. What it keeps, if `keep`, stays on the workers: `Work.kept` stands for it among
            the arguments of later calls, and is replaced by it there. If the worker is lost, the
            call is repeated on another one, for Dask on that of `class_name`.
            """
            ...

        def wait(self, works: Iterable[Any]) -> list[Any]:
            """Wait until one of some calls of `run` has ended, and return all that have."""
            ...

        def fetch(self, kept: Any) -> Any:
            """Return what a call has kept."""
            ...

        def cancel(self, works: Iterable[Any]) -> None:
            """Cancel the calls of `run` that have not started, as far as the engine can."""
            ...

        def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
            """Call ``function(worker, *arguments)`` once on each `engines.worker.Worker`."""
            ...

        def stats(self) -> ClusterStats:
            """Return the statistics of all workers."""
            ...

        def workers(self) -> list[str]:
            """Return the names of the workers."""
            ...

        def close(self) -> None:
            """Close the registries and everything that was started with them."""
            ...

        def __enter__(self) -> Self: ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...
