"""
Foreign code at every door of every change, one door after another: the pure core.

The compiled core has no doors but the calls that it makes itself, which `test_reentry` covers. The
doors of 3.13 and later are those of 3.12; the tracing there leaves out instructions.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structure
from doors import Doors

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = ("_core_py", "_changes_py", "_ring_py", "_slots_py", "_calls_py")


class Scene:
    """A registry with something held, something warm, something expired and something that left."""

    def __init__(self, ws: Any, make: Any, timer: Any, samples: Any, **options: Any) -> None:
        self.ws, self.samples = ws, samples
        self.written = self.passed_on = 0
        self.registry = registry = make(max_cache_size=2, cache_ttl_seconds=5, **options)
        publish = registry._publish

        def publish_and_note(*arguments: Any) -> int:
            epoch = int(publish(*arguments))
            self.passed_on += epoch < 0  # cleared meanwhile: it went to its waiters alone
            return epoch

        registry._publish = publish_and_note
        self.executor = ws.MethodExecutor(method_registry=registry)
        self.handle = registry.bind("Beta", "echo")
        self.left, self.held = registry.use("Delta"), registry.use("Alpha")
        self.left.__enter__()
        registry.discard("Delta")  # taken out while it is held: it may come back
        timer.advance(1)
        registry.get_instance("Gamma")
        timer.advance(6)  # it expires
        self.held.__enter__()
        registry.get_instance("Beta")

    def finish(self) -> None:
        """Give everything back; whatever happened, nothing is lost."""
        for lease in (self.left, self.held):
            lease.__exit__(None, None, None)
        registry = self.registry
        structure.check(registry)
        stats = registry.stats()
        assert stats.held == 0
        assert stats.cached <= 2
        assert registry.holders() == []
        assert all(not slot.leaving for slot in registry._slots.values())
        registry.clear_cache()
        stats = registry.stats()
        assert stats.builds == len(self.samples.built)
        if not registry._weak_mode:
            assert stats.closed == len(self.samples.closed)
            assert stats.closed + stats.left_open == stats.builds - self.passed_on + self.written


def _use(scene: Scene, name: str) -> None:
    with scene.registry.use(name) as instance:
        instance.echo()


def _write(scene: Scene) -> None:
    """By way of the mapping that the pipeline's code knows."""
    instance = scene.registry.get_instance("Beta")
    scene.registry._cache["Beta"] = scene.ws.CacheEntry(instance, 1000.0, 1000.0)
    scene.written += 1


OPERATIONS: dict[str, Callable[[Scene], object]] = {
    "get what is held": lambda s: s.registry.get_instance("Alpha").echo(),
    "get what is warm": lambda s: s.registry.get_instance("Beta").echo(),
    "get what has expired": lambda s: s.registry.get_instance("Gamma").echo(),
    "get what left": lambda s: s.registry.get_instance("Delta").echo(),
    "use what is held": lambda s: _use(s, "Alpha"),
    "use what is warm": lambda s: _use(s, "Beta"),
    "use what left": lambda s: _use(s, "Delta"),
    "use what has expired": lambda s: _use(s, "Gamma"),
    "call": lambda s: s.handle("x"),
    "execute": lambda s: s.executor.execute("Beta", "echo", text="x"),
    "evict": lambda s: s.registry.evict_expired(),
    "clear": lambda s: s.registry.clear_cache(),
    "discard what is held": lambda s: s.registry.discard("Alpha"),
    "discard what is warm": lambda s: s.registry.discard("Beta"),
    "give back": lambda s: s.held.__exit__(None, None, None),
    "give back what left": lambda s: s.left.__exit__(None, None, None),
    "write": _write,
    "recycle what is warm": lambda s: s.registry.recycle("Beta"),
    "recycle what is held": lambda s: s.registry.recycle("Alpha"),
    "forget": lambda s: s.registry.unregister_class("Gamma"),
}


INNER = [  # one of each way in which they change a slot
    name
    for name in OPERATIONS
    if not name.startswith(("use", "call", "execute", "discard what is w", "recycle what is h"))
]


@pytest.fixture
def no_collector() -> Any:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.pure_core
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="its doors are those of 3.12")
@pytest.mark.parametrize("weak", [False, True], ids=["strong", "weak"])
@pytest.mark.parametrize("outer", OPERATIONS)
def test_every_operation_at_every_door(
    ws: Any,
    make: Any,
    samples: Any,
    timer: Any,
    no_collector: Any,
    outer: str,
    weak: bool,
) -> None:
    files = {getattr(ws, name).__file__ for name in MODULES}
    unknown = ws.MethodRegistryError
    for inner in INNER:
        number = 0
        while True:
            samples.built.clear()
            samples.closed.clear()
            scene = Scene(ws, make, timer, samples, enable_weakref=weak)

            def come_in(operation: Callable[[Scene], object], scene: Scene = scene) -> None:
                try:
                    operation(scene)
                except unknown:
                    pass  # the other one has forgotten the class

            doors = Doors(number, partial(come_in, OPERATIONS[inner]), files)
            try:
                found = doors.run(lambda: come_in(OPERATIONS[outer]))
                scene.finish()
            except BaseException as error:
                error.args = (f"{inner!r} in {outer!r} at door {number}, {doors.where}", error)
                raise
            if not found:
                break
            number += 1
        assert number
