"""What every engine offers to those who do not care which one it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Protocol

    from typing_extensions import Self

    from .worker import ClusterStats

    class Pending(Protocol):
        """A call that is under way."""

        def result(self) -> Any:
            """Wait for it, and give what it returned or raise what it raised."""
            ...

    class Cluster(Protocol):
        """Workers with a registry each; see `warmset.engines.dask.start`."""

        def submit(
            self, class_name: str, method_name: str, arguments: Mapping[str, Any]
        ) -> Pending:
            """Call a method where its class is warm."""
            ...

        def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
            """Call a function once on each worker, with its `engines.worker.Worker` in front."""
            ...

        def stats(self) -> ClusterStats:
            """Tell how all workers do."""
            ...

        def workers(self) -> list[str]:
            """Give the names of the workers that there are."""
            ...

        def close(self) -> None:
            """End it: what was started with it ends, too."""
            ...

        def __enter__(self) -> Self: ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...
