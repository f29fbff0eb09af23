"""
FastAPI: a dependency that holds an instance for a request, a lifespan, and health checks.

A look-up of a warm instance takes no thread. Builds, removals and closers run in threads of their
own, so that they neither stop the event loop nor use up the pool of the framework.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response

from ..aio import AsyncMethodExecutor
from ..errors import ClosedError, MethodRegistryError
from .health import findings_of, liveness, readiness
from .keys import checked, is_temporary, retry_after, warm_up_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from ..api import Registry
    from ..family_keys import FamilyKey
    from ..memory.profiles import Profile

    _Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]

_Instance = TypeVar("_Instance")

__all__ = ["health_router", "leased", "lifespan"]

_WARMING_UP = "warmset_warming_up"


@overload
def leased(registry: Registry, key: type[_Instance]) -> Callable[[], AsyncIterator[_Instance]]: ...
@overload
def leased(registry: Registry, key: str | FamilyKey) -> Callable[[], AsyncIterator[Any]]: ...
def leased(registry: Registry, key: str | type | FamilyKey) -> Callable[[], AsyncIterator[Any]]:
    """
    Make a dependency that holds an instance until the request has been answered.

    Args:
        registry: The registry.
        key: A class name, a class that is registered itself, or a key of a family.

    Returns:
        The dependency, for ``Annotated[Tagger, Depends(leased(registry, Tagger))]``. The instance
        is built if it is not warm; it may be evicted during the request, and is closed afterwards.
        If it cannot be provided now, the response has status 503, and the header ``Retry-After``
        while the failure is remembered.

    Raises:
        TypeError: The key is none of these.

    Any number of requests may hold one instance at once, so its methods have to be thread-safe.
    """
    executor = AsyncMethodExecutor(method_registry=registry)
    key = checked(key)

    async def lease() -> AsyncIterator[Any]:
        held = executor.use(key)
        try:
            instance = await held.__aenter__()
        except MethodRegistryError as error:
            if not is_temporary(error):
                raise
            # The text of the error may contain paths and arguments; the log has it.
            detail = f"{error.class_name!r} is not available"
            raise HTTPException(503, detail, retry_after(registry, key) or None) from error
        try:
            yield instance
        finally:
            del instance  # at the last release, other references to it are counted
            await held.__aexit__()

    lease.__name__ = f"leased_{key.__name__ if isinstance(key, type) else key}"
    return lease


def lifespan(
    registry: Registry,
    *,
    warm_up: Profile | Iterable[str | type | FamilyKey] | None = None,
    deadline_seconds: float | None = None,
    in_background: bool = False,
    close: bool = True,
    then: _Lifespan | None = None,
) -> _Lifespan:
    """
    Make the lifespan of an application: it warms a registry up, and closes it at the end.

    Args:
        registry: The registry.
        warm_up: What to build before the first request: a profile, or class names, classes and keys
            of families. What fails is logged and reported by `health_router`, and does not stop the
            application. What an asynchronous rule or factory builds is built last, in the loop of
            the application, except from a profile.
        deadline_seconds: Start no build of the warm-up after this time; None: no deadline.
        in_background: Accept requests during the warm-up; ``/health/ready`` returns 503 until its
            end.
        close: Whether to close the registry at the end; its instances are closed in the reverse
            order of their building, with ``aclose()`` if they have it. False for an application
            that starts more than once, as in tests.
        then: Another lifespan to run within this one.

    Returns:
        The lifespan, for ``FastAPI(lifespan=...)``. The application does not start if `warm_up`
        names a class that is not registered.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Any]:
        executor = AsyncMethodExecutor(method_registry=registry)
        setattr(app.state, _WARMING_UP, warm_up is not None)
        task = None
        try:
            names = None if warm_up is None else warm_up_keys(registry, warm_up)
            if registry.closed:
                raise ClosedError(
                    "the registry is closed, as by an earlier lifespan of the application: an "
                    "application that starts more than once, as in tests, needs "
                    "lifespan(close=False)"
                )
            if warm_up is not None:
                task = asyncio.create_task(_warm_up(app, executor, names, deadline_seconds))
                if not in_background:
                    await task
            if then is None:
                yield None
            else:
                async with then(app) as state:
                    yield state
        finally:
            if task is not None:
                await task  # builds cannot be interrupted, and must not meet a closed registry
            if close:
                await executor.close_registry()

    return run


async def _warm_up(
    app: FastAPI, executor: AsyncMethodExecutor, names: Any, deadline_seconds: float | None
) -> None:
    registry: Any = executor.registry
    now = asyncio.get_running_loop().time()
    end = math.inf if deadline_seconds is None else now + deadline_seconds
    awaited = []
    if isinstance(names, list):  # else a profile, which has what other processes can build, too
        awaited = [name for name in names if registry.classes.is_asynchronous(registry, name)]
        names = [name for name in names if name not in awaited]
    try:
        await asyncio.to_thread(registry.warm_up, names, deadline_seconds=deadline_seconds)
        await _build_here(executor, awaited, end)
    finally:
        setattr(app.state, _WARMING_UP, False)


async def _build_here(executor: AsyncMethodExecutor, names: list[Any], end: float) -> None:
    """Build what belongs to this loop, in which the requests are served."""
    for name in names:
        if asyncio.get_running_loop().time() < end:
            with suppress(MethodRegistryError):  # it is logged, and reported as a failure
                async with executor.use(name):
                    pass


def health_router(registry: Registry, *, prefix: str = "/health", **options: Any) -> APIRouter:
    """
    Make a router with ``/health/live``, ``/health/ready`` and ``/health/findings``.

    Args:
        registry: The registry.
        prefix: The prefix of the paths.
        options: Of `fastapi.APIRouter`, for example `dependencies` that restrict access: the
            findings contain class names.

    Returns:
        The router. ``live`` returns 503 when the registry is closed, which only a restart changes;
        ``ready`` also during the warm-up; ``findings`` is what `Registry.health` finds, with 200.
    """
    router = APIRouter(prefix=prefix, **{"tags": ["health"], **options})

    async def live(response: Response) -> dict[str, Any]:
        response.status_code, body = liveness(registry)
        return body

    async def ready(request: Request, response: Response) -> dict[str, Any]:
        warming_up = getattr(request.app.state, _WARMING_UP, False)
        response.status_code, body = readiness(registry, warming_up=warming_up)
        return body

    def findings() -> dict[str, Any]:
        return findings_of(registry)

    for path, endpoint in (("/live", live), ("/ready", ready), ("/findings", findings)):
        router.add_api_route(path, endpoint, methods=["GET"], response_model=None)
    return router
