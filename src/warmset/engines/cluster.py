"""The interface that all engines have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Protocol

    from typing_extensions import Self

    from ..family_keys import SlotKey
    from .worker import ClusterStats

    class PendingCall(Protocol):
        """A call in progress."""

        def result(self) -> Any:
            """Wait for the call and return its result or raise its error."""
            ...

    class Cluster(Protocol):
        """A set of workers with one registry each; see `warmset.engines.dask.start`."""

        def submit(
            self, class_name: SlotKey, method_name: str, arguments: Mapping[str, Any]
        ) -> PendingCall:
            """Call a method on a worker where its class is warm."""
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
