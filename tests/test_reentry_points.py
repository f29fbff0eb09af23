"""
Other code at every re-entry point of every operation, one after another.

In the pure core the points are between atomic changes; above it, between the core's operations.

The compiled core has no re-entry points but the calls that it makes itself, which `test_reentry`
covers.
"""

from __future__ import annotations

import gc
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from interrupts import STEP
from reentry_points import ReentryPoints

from warmset.events import RemovalCause
from warmset.testing.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

CORE = ("_core_py", "_holds_py", "_changes_py", "_ring_py", "_entry_py", "_calls_py")
ABOVE = (
    "cache",
    "builder",
    "waits",
    "registry",
    "classes",
    "closing",
    "legacy",
    "lifecycle.listening",
)


class Scene:
    """A registry with a held, a warm and an expired instance, and a removed one that is held."""

    def __init__(self, ws: Any, make: Any, timer: Any, samples: Any, **options: Any) -> None:
        self.ws, self.samples = ws, samples
        self.written = self.abandoned = 0
        self.registry = registry = make(max_cache_size=3, cache_ttl_seconds=5, **options)
        self.events: list[Any] = []
        registry.add_listener(self.events.append)
        self.executor = ws.MethodExecutor(method_registry=registry)
        self.handle = registry.bind("Beta", "echo")
        self.removed, self.held = registry.use("Delta"), registry.use("Alpha")
        self.removed.__enter__()
        registry.discard("Delta")
        timer.advance(1)
        registry.get_instance("Gamma")
        timer.advance(6)
        self.held.__enter__()
        registry.get_instance("Beta")
        assert registry.cached == (0 if registry.weak_mode else 3)

    def finish(self) -> None:
        """Release every hold; the registry is whole then, and no instance is lost."""
        for lease in (self.removed, self.held):
            lease.__exit__(None, None, None)
        registry = self.registry
        check_structure(registry)
        stats = registry.stats()
        assert stats.held == 0
        assert stats.cached <= 3
        assert registry.holders() == []
        registry.clear_cache()
        check_structure(registry)
        stats = registry.stats()
        states = stats.states
        assert stats.builds == len(self.samples.built)
        assert stats.adopted == self.written
        assert stats.builds + stats.adopted == sum(states.values())
        assert stats.closed == len(self.samples.closed)
        assert states["parents"] == self.abandoned
        ended = {"closed", "left_open", "nothing_to_close", "parents"}
        assert {state for state, count in states.items() if count} <= ended
        assert sum(stats.removals.values()) == len(self.events)


def _use(scene: Scene, name: str) -> None:
    with scene.registry.use(name) as instance:
        instance.echo()


def _write(scene: Scene) -> None:
    """Write to the mapping that the pipeline's code knows."""
    instance = scene.samples.Beta()
    scene.samples.built.pop()
    scene.registry._cache["Beta"] = scene.ws.CacheEntry(instance, 1000.0, 1000.0)
    scene.written += 1


def _amend(scene: Scene) -> None:
    entry = scene.registry.slots["Alpha"].entry
    if entry is not None:
        scene.registry.amend(entry, entry.built_at - 1.0, entry.last_used - 1.0, 1)


def _measure(scene: Scene) -> None:
    entry = scene.registry.slots["Alpha"].entry
    if entry is not None:
        cached = scene.registry.set_bytes(entry, 10)
        assert cached or entry is not scene.registry.slots["Alpha"].entry


def _abandon(scene: Scene) -> None:
    """As a forked child does."""
    entry = scene.registry.slots["Beta"].entry
    if entry is not None and scene.registry.abandon(entry):
        scene.abandoned += 1
        scene.registry.handle_removed([entry])


def _rename(scene: Scene) -> None:
    slot, _ = scene.registry.add_slot("New", "samples.Alpha")
    scene.registry.forget_slot(slot, RemovalCause.DISCARDED)


def _close_held(scene: Scene) -> None:
    scene.registry.discard("Alpha")
    scene.held.__exit__(None, None, None)


def _lease_again(scene: Scene) -> None:
    lease = scene.registry.copy_lease(scene.held)
    assert lease.entry is None or lease.entry.instance is not None
    lease.__exit__(None, None, None)


OPERATIONS: dict[str, Callable[[Scene], object]] = {
    "get held": lambda s: s.registry.get_instance("Alpha").echo(),
    "get warm": lambda s: s.registry.get_instance("Beta").echo(),
    "get expired": lambda s: s.registry.get_instance("Gamma").echo(),
    "get removed": lambda s: s.registry.get_instance("Delta").echo(),
    "use held": lambda s: _use(s, "Alpha"),
    "use warm": lambda s: _use(s, "Beta"),
    "use removed": lambda s: _use(s, "Delta"),
    "use expired": lambda s: _use(s, "Gamma"),
    "call": lambda s: s.handle("x"),
    "execute": lambda s: s.executor.execute("Beta", "echo", text="x"),
    "evict expired": lambda s: s.registry.evict_expired(),
    "clear": lambda s: s.registry.clear_cache(),
    "discard held": lambda s: s.registry.discard("Alpha"),
    "discard warm": lambda s: s.registry.discard("Beta"),
    "release held": lambda s: s.held.__exit__(None, None, None),
    "release removed": lambda s: s.removed.__exit__(None, None, None),
    "write": _write,
    "amend": _amend,
    "measure": _measure,
    "abandon": _abandon,
    "rename": _rename,
    "lease again": _lease_again,
    "close held": _close_held,
    "recycle warm": lambda s: s.registry.recycle("Beta"),
    "recycle held": lambda s: s.registry.recycle("Alpha"),
    "unregister": lambda s: s.registry.unregister("Gamma"),
    "register": lambda s: s.registry.register("Gamma", "samples.Gamma", max_age_seconds=1e6),
}
INNER = [  # one of each way in which they change an entry
    name
    for name in OPERATIONS
    if not name.startswith(("use", "call", "execute", "discard warm", "recycle held"))
]


FEW = ("get removed", "get expired", "clear", "close held", "release held", "recycle warm")


@pytest.fixture
def no_collector() -> Any:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=[False, True], ids=["strong", "weak"])
def scene(request: Any, ws: Any, make: Any, timer: Any, samples: Any, no_collector: Any) -> Any:
    """Make a scene, again and again."""

    def scene() -> Scene:
        samples.built.clear()
        samples.closed.clear()
        return Scene(ws, make, timer, samples, enable_weakref=request.param)

    return scene


def reenter(ws: Any, scene: Any, modules: Collection[str], outer: str, inner: str) -> int:
    """Do one operation at every STEPth re-entry point of another; return how many there were."""
    files = {importlib.import_module(f"warmset.{name}").__file__ for name in modules}
    number = crc32(f"{outer} {inner}".encode()) % STEP  # each pair starts at another one
    while True:
        current = scene()

        def operate(name: str, current: Scene = current) -> None:
            try:
                OPERATIONS[name](current)
            except (ws.UnknownClassError, ws.CycleError):
                pass  # the other operation unregistered the class, or is building it

        points = ReentryPoints(number, partial(operate, inner), files)
        try:
            found = points.run(partial(operate, outer))
            current.finish()
        except BaseException as error:
            error.args = (f"{inner!r} in {outer!r} at point {number}, {points.where}", error)
            raise
        if not found:
            return number
        number += STEP


@pytest.mark.pure_core
@pytest.mark.parametrize("outer", OPERATIONS)
def test_every_operation_at_every_point_of_the_core(ws: Any, scene: Any, outer: str) -> None:
    assert sum(reenter(ws, scene, CORE, outer, inner) for inner in INNER)


@pytest.mark.pure_core
@pytest.mark.parametrize("outer", OPERATIONS)
def test_some_operations_at_every_point_above_the_core(ws: Any, scene: Any, outer: str) -> None:
    for inner in FEW:
        reenter(ws, scene, ABOVE, outer, inner)
