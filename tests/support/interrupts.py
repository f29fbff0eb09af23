"""
An interrupt at each point of an operation where the interpreter can deliver one, one per run.

The points are those of `reentry_points`: a signal handler runs there, and may raise.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from reentry_points import ReentryPoints
from threads import in_thread, until

from warmset.testing.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

CORE = ("_core_py", "_holds_py", "_changes_py", "_ring_py", "_entry_py", "_calls_py", "_plain_py")
ABOVE = (
    "api",
    "builder",
    "builds",
    "cache",
    "classes",
    "closing",
    "contexts",
    "failures",
    "foreign",
    "legacy",
    "lifecycle.capacity",
    "lifecycle.listening",
    "registry",
    "streams",
    "waits",
)


# Each so many points; ci/full.sh tries all of them.
STEP = int(os.environ.get("WARMSET_POINTS_STEP", "5"))


def files_of(modules: Collection[str]) -> set[str]:
    """Return the files of modules of the package under test."""
    return {str(importlib.import_module(f"warmset.{name}").__file__) for name in modules}


def interrupt_each_point(
    prepare: Callable[[], Any],
    operate: Callable[[Any], object],
    check: Callable[[Any], object],
    files: Collection[str],
) -> None:
    """
    Interrupt an operation at one point after another.

    Args:
        prepare: Makes the scene of one run.
        operate: The operation; it gets the scene.
        check: Fails if the interrupt lost something; it gets the scene.
        files: Whose points count.

    Raises:
        AssertionError: It names the points at which something was lost.
    """
    failures: dict[str, BaseException] = {}
    number = 0
    found = True
    while found:
        scene = prepare()
        points = ReentryPoints(number, _interrupt, files)
        try:
            found = points.run(lambda scene=scene: operate(scene))  # type: ignore[misc]
        except KeyboardInterrupt:
            found = True
        try:
            check(scene)
        except BaseException as error:
            failures.setdefault(points.where or "without an interrupt", error)
        number += STEP
    if failures:
        first = next(iter(failures.values()))
        lines = "\n".join(f"{where}: {error!r}"[:300] for where, error in failures.items())
        raise AssertionError(f"at {len(failures)} of {number} points:\n{lines}") from first


def _interrupt() -> None:
    raise KeyboardInterrupt


def check_after_interrupt(registry: Any, samples: Any, *, adopted: int = 0) -> None:
    """
    Fail if an interrupt lost an instance, a hold or a waiter, or blocks a name.

    Args:
        registry: The registry; nobody uses it any more.
        samples: The module of the sample classes.
        adopted: How many instances were written to the cache.
    """
    package = sys.modules["warmset"]
    assert registry.holders() == []
    assert registry.builder.in_progress() == []
    assert registry.builder.waiting() == 0
    assert registry.watched == 0
    samples.script.clear()
    # In another thread, which would wait where the name is blocked; and held, since what a policy
    # does not admit is left open where it was returned without a lease.
    for name in ("Alpha", "Beta"):
        assert in_thread(_use, registry, name).result()
    registry.sweep()
    check_structure(registry)
    stats = registry.stats()
    assert stats.held == 0
    assert stats.cached <= registry.max_size
    registry.clear_cache()
    check_structure(registry)
    stats = registry.stats()
    assert stats.builds == len(samples.built)
    assert stats.adopted == adopted
    assert stats.closed == len(samples.closed)
    ended = {"closed", "left_open", "nothing_to_close"}
    assert {state for state, count in stats.states.items() if count} <= ended
    # Without an interpreter lock, the pure core cannot tell that nobody refers to an instance.
    if package.implementation == "compiled" or getattr(sys, "_is_gil_enabled", lambda: True)():
        assert stats.left_open == 0


def _use(registry: Any, name: str) -> bool:
    with registry.use(name) as instance:
        return instance is not None


class Others:
    """Threads that wait for a build which is then interrupted."""

    def __init__(self, registry: Any, name: str, count: int) -> None:
        self._registry = registry
        self._name = name
        self._count = count
        self.running: list[Any] = []

    def __call__(self, _: Any) -> None:
        """Let them begin to wait; the constructor calls it."""
        if not self.running:
            for _ in range(self._count):
                self.running.append(in_thread(self._use))
            build = self._registry.builder._builds[self._name]
            until(lambda: len(build.waiters) == self._count)

    def _use(self) -> bool:
        with self._registry.use(self._name) as instance:
            assert not instance.is_closed
            return True

    def check(self) -> None:
        """Fail unless each of them was served."""
        for running in self.running:
            assert running.result() is True
        self.running.clear()


class Scene:
    """A registry with two of at most two instances, and an executor."""

    def __init__(self, make: Any, ws: Any, samples: Any, **options: Any) -> None:
        for notes in (samples.built, samples.closed, samples.script):
            notes.clear()
        self.registry = make(**{"max_cache_size": 2, "cache_ttl_seconds": 10, **options})
        self.executor = ws.MethodExecutor(method_registry=self.registry)
        self.handle = self.registry.bind("Alpha", "echo")
        self.others = Others(self.registry, "Alpha", 2)


def undisturbed() -> Iterator[None]:
    """Keep the collector from adding points; an interrupt in a finaliser is printed nowhere."""
    gc.disable()
    report = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    yield
    sys.unraisablehook = report
    gc.enable()
