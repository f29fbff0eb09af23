"""
The executor for event loops.

Threads
    The thread of the loop runs look-ups of warm instances, and the methods that are coroutine
    functions or make generators. A short-lived thread of its own runs a build, a removal, and what
    closes instances, so that these neither stop a loop nor wait for a place in a pool. Other
    methods run in the loop's default pool, or in that of the executor.

State
    Results are kept, but no tasks and no futures. Each waiter has a future of its own loop, which
    lives no longer than the wait; so cancelling a waiter does not affect the others, and any number
    of loops may use the executor in turn and at once.

Asynchronous rules and closers
    The loop that caused a build or a removal awaits what they return; see `workers`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable
from functools import partial, partialmethod
from typing import TYPE_CHECKING, Any, overload

from .. import _fork
from .._generic import Generic, T
from ..calls import call_names
from ..errors import MethodNotFoundError, MethodRegistryError
from ..executor import MethodExecutor
from ..routing import returned_type
from ..streams import hold_while_running, is_awaitable, is_running
from .builds import Builds
from .workers import Job, Workers, close_or_put_aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from ..api import Registry
    from ..family_keys import FamilyKey
    from .workers import AsyncHold

__all__ = ["AsyncLease", "AsyncMethodExecutor"]


class AsyncMethodExecutor:
    """
    Executes methods by name from event loops, on instances that a registry keeps warm.

    Args:
        method_registry: The registry; synchronous callers may use it at the same time, and share
            instances, builds, failures and counters. None: as for `MethodExecutor`.
        max_threads: How many threads of its own the executor has for synchronous methods; None
            runs them in the default pool of the loop.
        arguments: How payloads are checked: "strict", "names" or "off"; None: as the registry's
            setting says.

    Raises:
        TypeError: `max_threads` is not an int, or `arguments` is not a str.
        ValueError: `max_threads` is below 1, or there is no such way to check arguments.

    It belongs to no loop: any number of loops may use it, in turn and at once. Methods that are not
    coroutines may be called from any thread.
    """

    def __init__(
        self,
        method_registry: Registry | None = None,
        *,
        max_threads: int | None = None,
        arguments: str | None = None,
    ) -> None:
        if max_threads is not None:
            if type(max_threads) is not int:
                raise TypeError(f"max_threads must be an int or None, got {max_threads!r}")
            if max_threads < 1:
                raise ValueError(f"max_threads must be at least 1, got {max_threads!r}")
        self._owns_registry = method_registry is None
        self._executor = MethodExecutor(method_registry=method_registry, arguments=arguments)
        self._registry = self._executor.registry
        self._registry.close_entry = close_or_put_aside
        self._max_threads = max_threads
        self.reset_after_fork()
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        """Forget the threads and builds of the parent process."""
        self._workers = Workers(self._registry, self._max_threads)
        self._builds = Builds(self._registry, self._workers)

    @property
    def registry(self) -> Registry:
        """The registry that provides the instances."""
        return self._registry

    @property
    def sync(self) -> MethodExecutor:
        """The executor for synchronous callers, with the same registry and metrics."""
        return self._executor

    @property
    def max_threads(self) -> int | None:
        """How many threads of its own the executor has for synchronous methods."""
        return self._max_threads

    @property
    def arguments(self) -> str:
        """How payloads are checked before a method runs: "strict", "names" or "off"."""
        return self._executor.arguments

    @property
    def degraded_mode(self) -> bool:
        """Whether `execute` of a method that is not available returns None; may be assigned."""
        return self._executor.degraded_mode

    @degraded_mode.setter
    def degraded_mode(self, value: bool) -> None:
        self._executor.degraded_mode = value

    @property
    def degraded_reasons(self) -> list[str]:
        """What was missing when the executor was made."""
        return self._executor.degraded_reasons

    # -- look-ups --------------------------------------------------------------------------------

    async def execute(
        self,
        class_name: str | type | FamilyKey = "",
        method_name: str = "",
        /,
        **arguments: Any,
    ) -> Any:
        """
        Call a method by name, its arguments routed by name and checked before it runs.

        Args:
            class_name: A registered name, or one that a method was injected for. The two names
                may also be given by keyword, where the method has no parameters of these names.
            method_name: The method. A coroutine function is awaited here; a synchronous method runs
                in a thread, in the context of the caller.
            arguments: The payload, by parameter name.

        Returns:
            What the method returned. If that is a generator, synchronous or not, the instance is
            held until the generator has ended, was closed, or was dropped.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; the method did
                not run.
            AttributeError: The method is not available; the cause is chained. In degraded mode
                None is returned and a warning is logged instead.

        The instance is held until the method has ended, which for a synchronous method may be after
        its caller was cancelled: a thread cannot be stopped.
        """
        try:
            class_name, method_name = call_names(
                (class_name, method_name), arguments, self._registry.name_of
            )
        except MethodRegistryError as error:  # of a class that is not registered itself
            return self._executor.unavailable(str(error.class_name), method_name, error)
        injected = self._registry.find_injected(class_name, method_name)
        hold: AsyncHold | None = None
        try:
            if injected is None:
                hold = await self._builds.obtain(class_name)
        except MethodRegistryError as error:
            return self._executor.unavailable(class_name, method_name, error)
        method: Any = None
        try:
            try:
                method, args, keywords = self._executor.prepare(
                    injected or hold.lease,  # type: ignore[union-attr, arg-type]
                    class_name,
                    method_name,
                    arguments,
                )
            except MethodNotFoundError as error:
                return self._executor.unavailable(class_name, method_name, error)
            if _runs_in_loop(method):
                result = method(*args, **keywords)
            else:
                call = partial(method, *args, **keywords)
                method = None  # at the last release, other references to the instance are counted
                job, hold = Job(call, hold), None
                call = None  # type: ignore[assignment]
                self._workers.call_in_pool(job)
                try:
                    result = await job.outcome()
                finally:
                    hold = job.take_hold()
            if is_awaitable(result):
                result = await result
            if hold is not None and is_running(result):
                kept, hold = hold, None
                return _keep(self._registry, kept, result)
            return result
        except GeneratorExit:  # nothing can be awaited any more
            if hold is not None:
                hold.__exit__()
            raise
        finally:
            method = None
            if hold is not None:
                await self._release(hold)

    @overload
    async def get_instance(self, class_name: type[T]) -> T: ...
    @overload
    async def get_instance(self, class_name: str | FamilyKey) -> Any: ...
    async def get_instance(self, class_name: Any) -> Any:
        """
        Return the instance of a class, building it if it is not warm.

        Args:
            class_name: A registered name or class, or the key of a family.

        Returns:
            The instance; the same one while it stays warm.

        Raises:
            MethodRegistryError: As `Registry.get_instance`.

        O(1) and without a thread on a hit.
        """
        hold = await self._builds.obtain(self._registry.name_of(class_name))
        lease = hold.lease
        assert lease is not None
        instance = lease.instance
        if lease.entry is not None:
            self._registry.share(lease.entry)
        del lease
        await self._release(hold)
        return instance

    @overload
    def use(self, class_name: type[T]) -> AsyncLease[T]: ...
    @overload
    def use(self, class_name: str | FamilyKey) -> AsyncLease[Any]: ...
    def use(self, class_name: Any) -> AsyncLease[Any]:
        """
        Look up and hold an instance for the time of an ``async with`` block.

        Args:
            class_name: A registered name or class, or the key of a family.

        Returns:
            A context manager that returns the instance; as `Registry.use`, awaited.

        Raises:
            MethodRegistryError: On entry, as `get_instance`.
        """
        return AsyncLease(self, self._registry.name_of(class_name))

    # -- removals --------------------------------------------------------------------------------

    async def clear_instance_cache(self, *, release: bool = False) -> dict[str, Any]:
        """
        Remove every instance; those that have an ``aclose()`` are closed with it, in this loop.

        Args:
            release: Also return memory to the system, and report that; see `Registry.clear_cache`.

        Returns:
            As `Registry.clear_cache`, after the instances that are not held have been closed.
        """
        clear = partial(self._registry.clear_cache, release=release)
        return await self._workers.call(clear)  # type: ignore[no-any-return]

    async def discard(self, class_name: str | type | FamilyKey) -> bool:
        """
        Remove one instance; if it has an ``aclose()`` it is closed with it, in this loop.

        Args:
            class_name: A name.

        Returns:
            Whether there was an instance.
        """
        return await self._workers.call(partial(self._registry.discard, class_name))  # type: ignore[no-any-return]

    async def evict_expired_instances(self) -> int:
        """
        Evict the instances that have been idle for longer than the TTL.

        Returns:
            How many were evicted.
        """
        return await self._workers.call(self._registry.evict_expired)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """
        End the executor's own threads, and close the registry if the executor made it.

        Synchronous methods that still run in the executor's own threads are waited for. A registry
        that was given stays open, since others may use it: see `close_registry`.
        """
        if self._owns_registry:
            await self.close_registry()
        await self._workers.shut_down()

    async def close_registry(self) -> None:
        """
        Close the registry, also one that was given; its instances are closed in this loop.

        Instances are closed in the reverse order of their building, with ``aclose()`` if they have
        it; those that another loop built, in that one.
        """
        await self._workers.call(self._registry.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    # -- as the synchronous executor -------------------------------------------------------------

    def has_method(self, class_name: str | type | FamilyKey, method_name: str) -> bool:
        """
        Tell whether a method can be expected, without building anything.

        Args:
            class_name: A name.
            method_name: A method name.

        Returns:
            As `Registry.has_method`.
        """
        return self._executor.has_method(class_name, method_name)

    def inject_method(self, class_name: str, method_name: str, method: Callable[..., Any]) -> None:
        """
        Inject a method, synchronous or not; it takes precedence over the class's own.

        Args:
            class_name: Any name, registered or not.
            method_name: The name to find it by.
            method: The callable.
        """
        self._executor.inject_method(class_name, method_name, method)

    def get_registry_stats(self) -> dict[str, Any]:
        """
        Return the statistics of the registry.

        Returns:
            As `Registry.get_stats`.
        """
        return self._executor.get_registry_stats()

    def get_routing_metrics(self) -> dict[str, Any]:
        """
        Return the counts of routed and refused payloads.

        Returns:
            As `MethodExecutor.get_routing_metrics`; payloads of `sync` are included.
        """
        return self._executor.get_routing_metrics()

    def __reduce__(self) -> Any:
        options: dict[str, Any] = {
            "method_registry": self._registry,
            "max_threads": self._max_threads,
            "arguments": self.arguments,
        }
        return partial(type(self), **options), ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._registry!r}>"

    async def _release(self, hold: AsyncHold) -> None:
        removed = hold.release()
        if removed:
            await self._workers.close(removed)


class AsyncLease(Generic[T]):
    """
    Holds an instance for the time of an ``async with`` block; see `AsyncMethodExecutor.use`.

    It may be entered again after its exit, but not while it is held. A lease that is dropped while
    it is held releases its instance.
    """

    __slots__ = ("_class_name", "_executor", "_hold")

    def __init__(self, executor: AsyncMethodExecutor, class_name: str) -> None:
        self._executor = executor
        self._class_name = class_name
        self._hold: AsyncHold | None = None

    async def __aenter__(self) -> T:
        if self._hold is not None:
            raise RuntimeError(f"this lease already holds {self._class_name!r}")
        hold = await self._executor._builds.obtain(self._class_name)
        if self._hold is not None:  # entered twice at once
            await self._executor._release(hold)
            raise RuntimeError(f"this lease already holds {self._class_name!r}")
        self._hold = hold
        assert hold.lease is not None
        return hold.lease.instance  # type: ignore[no-any-return]

    async def __aexit__(self, *exception: object) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            await self._executor._release(hold)

    def __repr__(self) -> str:
        state = "not held" if self._hold is None else "held"
        return f"<warmset lease of {self._class_name!r}, {state}>"


def _keep(registry: Registry, hold: AsyncHold, result: Any) -> Any:
    """Hold the instance until a result has ended; one that is the instance needs no hold."""
    lease = hold.lease
    if lease is not None and lease.entry is not None and lease.instance is result:
        registry.share(lease.entry)
        hold.__exit__()
        return result
    return hold_while_running(hold, result)


def _runs_in_loop(method: Any) -> bool:
    """
    Whether calling a method only makes something that runs later, in the loop.

    It is a coroutine function or a generator function, compiled or not; or its annotation says that
    it returns an awaitable, as do clients whose plain methods start a request in the running loop.
    """
    while isinstance(method, (partial, partialmethod)):
        method = method.func
    if not inspect.isroutine(method):
        method = type(method).__call__
    function = getattr(method, "__func__", method)
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    if flags & _MAKES_LATER or inspect.iscoroutinefunction(method):
        return True
    returned = returned_type(function)
    return returned is not None and issubclass(returned, (Awaitable, AsyncIterable))


_MAKES_LATER = (
    inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
)
