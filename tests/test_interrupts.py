"""
An interrupt at each point where the interpreter can deliver one loses nothing and blocks nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from interrupts import (
    ABOVE,
    CORE,
    Scene,
    check_after_interrupt,
    files_of,
    interrupt_each_point,
    undisturbed,
)
from threads import in_thread, until

pytestmark = pytest.mark.points
no_disturbance = pytest.fixture(autouse=True)(undisturbed)


def use(scene: Scene) -> None:
    with scene.registry.use("Alpha") as instance:
        instance.echo()


def fill(scene: Scene) -> None:
    """Have two instances of other classes cached."""
    for name in ("Gamma", "Delta"):
        with scene.registry.use(name):
            pass


CALLS = {
    "get": lambda s: s.registry.get_instance("Alpha") and None,
    "use": use,
    "handle": lambda s: s.handle("x"),
    "execute": lambda s: s.executor.execute("Alpha", "echo", text="x"),
    "generator": lambda s: list(s.executor.execute("Alpha", "words")),
    "method": lambda s: s.registry.get_method("Alpha", "echo")("x"),
}


@pytest.fixture
def files(ws: Any, twin: str) -> set[str]:
    return files_of((*ABOVE, *CORE) if twin == "pure" else ABOVE)


@pytest.fixture
def words(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpha has a method that is a generator."""
    monkeypatch.setattr(
        samples.Alpha, "words", lambda self: (str(n) for n in range(2)), raising=False
    )


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("before", ["cold", "warm", "expired", "full"])
def test_calls(
    ws: Any, make: Any, samples: Any, timer: Any, files: set[str], before: str, way: str
) -> None:
    """A look-up that builds, evicts, or finds something warm."""

    def prepare() -> Scene:
        scene = Scene(make, ws, samples)
        if before == "full":
            fill(scene)
        elif before != "cold":
            use(scene)
            timer.advance(11 if before == "expired" else 1)
        return scene

    def check(scene: Scene) -> None:
        check_after_interrupt(scene.registry, samples)

    interrupt_each_point(prepare, CALLS[way], check, files)


def test_a_builder_with_waiters(ws: Any, make: Any, samples: Any, files: set[str]) -> None:
    """They get what was built, or one of them builds for all."""

    def prepare() -> Scene:
        scene = Scene(make, ws, samples)
        samples.script["Alpha"] = scene.others
        return scene

    def check(scene: Scene) -> None:
        scene.others.check()
        check_after_interrupt(scene.registry, samples)

    interrupt_each_point(prepare, use, check, files)


def test_a_waiter(ws: Any, make: Any, samples: Any, files: set[str]) -> None:
    """It gives back what it was given; the build and another waiter are not affected."""

    def prepare() -> Scene:
        scene = Scene(make, ws, samples)
        registry = scene.registry

        def script(_: Any) -> None:
            # An interrupted waiter never gets there: then the operation is over.
            until(lambda: registry.builder.waiting() == 2 or scene.is_over)

        scene.is_over = False
        samples.script["Alpha"] = script
        scene.others.running.append(in_thread(registry.get_instance, "Alpha"))
        until(registry.builder.in_progress)
        scene.others.running.append(in_thread(registry.get_instance, "Alpha"))
        until(lambda: registry.builder.waiting() == 1)
        return scene

    def wait(scene: Scene) -> None:
        try:
            use(scene)
        finally:
            scene.is_over = True

    def check(scene: Scene) -> None:
        builder, other = (running.result() for running in scene.others.running)
        assert builder is other
        del builder, other
        scene.others.running.clear()
        check_after_interrupt(scene.registry, samples)

    interrupt_each_point(prepare, wait, check, files)


REMOVALS = {
    "clear": lambda s: s.registry.clear_cache(),
    "discard": lambda s: s.registry.discard("Alpha"),
    "expire": lambda s: s.registry.evict_expired(),
    "sweep": lambda s: s.registry.sweep(),
    "unregister": lambda s: s.registry.unregister("Gamma"),
    "register": lambda s: s.registry.register("Alpha", "samples.Alpha", pin=True),
    "recycle": lambda s: s.registry.recycle("Alpha"),
    "limit": lambda s: setattr(s.registry, "_max_cache_size", 1),
    "failing build": lambda s: s.registry.get_instance("Broken"),
}


@pytest.mark.parametrize("way", REMOVALS)
def test_removals(ws: Any, make: Any, samples: Any, timer: Any, files: set[str], way: str) -> None:
    """What was removed is closed once, by then or later."""

    def prepare() -> Scene:
        scene = Scene(make, ws, samples, retry_after_seconds=0)
        scene.registry.add_listener(lambda event: None)
        scene.registry.register("Broken", lambda: 1 / 0)
        fill(scene)
        use(scene)
        timer.advance(11)
        return scene

    def operate(scene: Scene) -> None:
        try:
            REMOVALS[way](scene)
        except ws.BuildError:
            pass

    def check(scene: Scene) -> None:
        check_after_interrupt(scene.registry, samples)

    interrupt_each_point(prepare, operate, check, files)


def test_close(ws: Any, make: Any, samples: Any, files: set[str]) -> None:
    """Closing again closes what is left."""

    def prepare() -> Scene:
        scene = Scene(make, ws, samples)
        fill(scene)
        return scene

    def check(scene: Scene) -> None:
        scene.registry.close()
        assert sorted(samples.closed) == ["Delta", "Gamma"]

    interrupt_each_point(prepare, lambda s: s.registry.close(), check, files)


def test_closing_what_an_interrupt_left(ws: Any, make: Any, samples: Any, files: set[str]) -> None:
    """It may be interrupted itself."""

    def prepare() -> Scene:
        scene = Scene(make, ws, samples)
        fill(scene)

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        remember, scene.registry.close_entry = scene.registry.close_entry, interrupt
        with contextlib.suppress(KeyboardInterrupt):
            scene.registry.clear_cache()
        scene.registry.close_entry = remember
        assert scene.registry.left_over
        return scene

    def check(scene: Scene) -> None:
        check_after_interrupt(scene.registry, samples)

    interrupt_each_point(prepare, lambda s: s.registry.sweep(), check, files)
