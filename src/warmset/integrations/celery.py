"""
Celery: instances that tasks hold, and a registry for each worker process.

The main process of a prefork pool runs no task, so it builds nothing. Each child warms up for
itself after the fork, and closes what it built when it ends, also when `max_tasks_per_child`
replaces it. What a child inherits belongs to the main process: see `after_fork` of
`Registry.register`.
"""

from __future__ import annotations

import inspect
import threading
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from celery import signals

from .. import _logs
from .._locks import start_thread
from .keys import checked, warm_up_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..api import Registry
    from ..family_keys import FamilyKey
    from ..memory.profiles import Profile

_Result = TypeVar("_Result")

__all__ = ["leased", "setup_worker"]

_PREFORK = "celery.concurrency.prefork"


def setup_worker(
    registry: Registry,
    *,
    warm_up: Profile | Iterable[str | type | FamilyKey] | None = None,
    deadline_seconds: float | None = None,
) -> None:
    """
    Warm a registry up in each process that runs tasks, and close it when the process ends.

    Args:
        registry: The registry, which the module of the Celery application makes.
        warm_up: What to build when a process starts: a profile, or class names, classes and keys of
            families. A thread of its own builds, because Celery kills a process that has not
            started after `worker_proc_alive_timeout` (4 seconds); a task that needs an instance
            waits for its build. What fails is logged.
        deadline_seconds: Start no build of the warm-up after this time; None: no deadline.

    It works with the pools prefork, solo, threads, gevent and eventlet, and does nothing in
    processes that are no worker, such as those that send tasks. Calling it again for a registry
    replaces the warm-up.
    """
    if warm_up is not None and not hasattr(warm_up, "classes"):
        warm_up = tuple(warm_up)  # more than one process may read it

    def start_process(**_: Any) -> None:
        if warm_up is not None:
            arguments = registry, warm_up, deadline_seconds
            thread = threading.Thread(
                target=_warm_up, args=arguments, name="warmset-warm-up", daemon=True
            )
            start_thread(thread)

    def start_worker(sender: Any = None, **_: Any) -> None:
        # Children of the prefork pool and the solo pool report themselves: `worker_process_init`.
        pool = type(getattr(sender, "pool", None)).__module__
        if pool not in (_PREFORK, "celery.concurrency.solo"):
            start_process()

    def stop(**_: Any) -> None:
        registry.close_own()

    for signal, receiver in (
        (signals.worker_process_init, start_process),
        (signals.worker_ready, start_worker),
        (signals.worker_process_shutdown, stop),
        (signals.worker_shutdown, stop),
    ):
        identity = f"warmset-{id(registry)}"
        signal.disconnect(sender=None, dispatch_uid=identity)
        signal.connect(receiver, weak=False, dispatch_uid=identity)


def _warm_up(
    registry: Registry,
    warm_up: Profile | Iterable[str | type],
    deadline_seconds: float | None,
) -> None:
    try:
        registry.warm_up(warm_up_keys(registry, warm_up), deadline_seconds=deadline_seconds)
    except Exception as error:
        # Also if the process ends meanwhile, which closes the registry.
        if not registry.closed:
            _logs.warning("builds", "the warm-up of the worker failed", error=error)


def leased(
    registry: Registry, **keys: str | type | FamilyKey
) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """
    Make a decorator that passes held instances to a task.

    Args:
        registry: The registry.
        keys: Name of a parameter -> class name, class that is registered itself, or key of a
            family.

    Returns:
        The decorator, which is applied before that of the task. The instances are built if they are
        not warm, are passed by keyword, and are held until the task ends.

    Raises:
        TypeError: A key is none of these; or the task has no such parameter.

    Errors of look-ups are raised in the task, where ``autoretry_for`` can name
    `MethodRegistryError`.
    """
    found = {name: checked(key) for name, key in keys.items()}

    def decorate(function: Callable[..., _Result]) -> Callable[..., _Result]:
        signature = inspect.signature(function)
        for name in found:
            if name not in signature.parameters:
                raise TypeError(f"{function.__qualname__}{signature} has no parameter {name!r}")

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> _Result:
            with ExitStack() as stack:
                for name, key in found.items():
                    kwargs[name] = stack.enter_context(registry.use(key))
                try:
                    return function(*args, **kwargs)
                finally:
                    kwargs.clear()  # at the last release, other references are counted

        # Callers pass only the others: Celery checks the arguments of a message by this.
        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                parameter for name, parameter in signature.parameters.items() if name not in found
            ]
        )
        # Celery would follow it to the parameters of the function.
        del call.__wrapped__
        return call

    return decorate
