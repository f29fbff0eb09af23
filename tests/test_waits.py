"""Who waits for whom: nobody for ever, nobody inside a lock, and what was waited for is given."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from interrupts import ABOVE, CORE, STEP, files_of, undisturbed
from reentry_points import ReentryPoints
from threads import PATIENCE, Gate, in_thread, outcomes, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_clears_after_a_look_up_do_not_affect_it(make: Any, samples: Any) -> None:
    """It gets the result of the build that it waited for, which is not cached."""
    registry = make()
    samples.script["Alpha"] = gate = Gate()
    running = [in_thread(registry.get_instance, "Alpha") for _ in range(3)]
    until(lambda: registry.builder.waiting() == 2)
    for _ in range(3):
        registry.clear_cache()
        registry.discard("Alpha")
    gate.open()
    assert len(set(map(id, outcomes(running)))) == 1
    assert samples.built == ["Alpha"]
    assert registry.cached == 0


def test_a_thread_that_builds_and_discards_starves_nobody(make: Any, samples: Any) -> None:
    """A waiter is served by the second build at the latest."""
    registry = make()
    waiting: list[Any] = []
    built_when_served: list[int] = []

    def wait() -> None:
        registry.get_instance("Alpha")
        built_when_served.append(len(samples.built))

    def script(_: Any) -> None:
        if not waiting:
            registry.discard("Alpha")  # this build is not for those who come later
            waiting.append(in_thread(wait))
        until(lambda: registry.builder.waiting() or built_when_served)

    samples.script["Alpha"] = script
    for _ in range(20):
        registry.get_instance("Alpha")
        registry.discard("Alpha")
        samples.script.clear()
    waiting[0].result()
    assert built_when_served[0] <= 21


def test_a_cycle_through_two_registries(ws: Any, make: Any, samples: Any) -> None:
    """Each thread builds in one registry and waits for the other one."""
    first, second = make(retry_after_seconds=0), make(retry_after_seconds=0)
    barrier = threading.Barrier(2)

    def ask(other: Any, name: str) -> Callable[[Any], None]:
        def script(_: Any) -> None:
            barrier.wait(PATIENCE)
            other.get_instance(name)

        return script

    samples.script.update(Alpha=ask(second, "Beta"), Beta=ask(first, "Alpha"))
    results = outcomes(
        [in_thread(first.get_instance, "Alpha"), in_thread(second.get_instance, "Beta")]
    )
    assert any(isinstance(result, ws.CycleError) for result in results)
    assert all(isinstance(result, ws.MethodRegistryError) for result in results)


# -- locks ---------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Any], object]] = {
    "clear": lambda registry: registry.clear_cache(),
    "discard": lambda registry: registry.discard("Alpha"),
    "evict": lambda registry: registry.get_instance("Extra"),
    "hit": lambda registry: registry.bind("Alpha", "echo")("x"),
    "expire": lambda registry: registry.evict_expired(),
}


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="its points are those of 3.12")
@pytest.mark.parametrize("policy", ["lru", "cost"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_code_that_comes_in_waits_for_another_threads_build(
    make: Any, samples: Any, twin: str, timer: Any, policy: str, operation: str
) -> None:
    """That thread needs every lock that there is, so nobody may wait for it inside one."""
    modules = ("memory.choosing", "memory.manager", *ABOVE, *(CORE if twin == "pure" else ()))
    for disturbed in undisturbed():  # noqa: B007
        number, found = 0, True
        while found:
            samples.built.clear()
            registry = make(max_cache_size=2, cache_ttl_seconds=5, policy=policy)
            registry.register("Extra", "samples.Delta")
            others: list[Any] = []
            for name in ("Alpha", "Gamma"):
                registry.get_instance(name)
            timer.advance(6 if operation == "expire" else 1)
            begun = threading.Event()

            def script(_: Any, registry: Any = registry, begun: Any = begun) -> None:
                if not begun.is_set():
                    begun.set()
                    until(lambda: registry.builder.waiting() or samples.built.count("Beta") > 1)
                    registry.discard("Gamma")
                    registry.get_instance("Delta")

            def come_in(
                registry: Any = registry,
                begun: Any = begun,
                script: Any = script,
                others: Any = others,
            ) -> None:
                samples.script["Beta"] = script
                others.append(in_thread(registry.get_instance, "Beta"))
                assert begun.wait(PATIENCE)
                registry.get_instance("Beta")

            points = ReentryPoints(number, come_in, files_of(modules))
            found = points.run(lambda registry=registry: OPERATIONS[operation](registry))
            for other in others:
                other.result()
            samples.script.clear()
            number += STEP


def test_an_import_that_asks_for_a_class_whose_rule_imports_it(
    ws: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that imports gets an error, and the other one goes on."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "asks", raising=False)
    registry = make(retry_after_seconds=0)
    (tmp_path / "asks.py").write_text("import conftest_hooks\nconftest_hooks.imported()\n")
    building = threading.Event()
    hooks = mock.Mock()
    monkeypatch.setitem(sys.modules, "conftest_hooks", hooks)
    asked: list[BaseException] = []

    def imported() -> None:
        if asked:
            return
        assert building.wait(PATIENCE)
        try:
            registry.get_instance("Alpha")
        except ws.CycleError as error:
            asked.append(error)

    hooks.imported = imported

    def rule(cls: type) -> Any:
        building.set()
        until(lambda: registry.builder.waiting() == 1)
        importlib.import_module("asks")
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    importing = in_thread(importlib.import_module, "asks")
    builder = in_thread(registry.get_instance, "Alpha")
    importing.result()
    assert builder.result() is registry.get_instance("Alpha")
    assert str(asked[0]) == "cyclic build: Alpha -> import of asks -> Alpha"
    del sys.modules["asks"]


# -- failures that pass by themselves --------------------------------------------------------------


def test_a_timeout_within_a_build_is_not_remembered(ws: Any, make: Any, samples: Any) -> None:
    """Nothing is wrong with the outer class, however its rule wraps the error."""
    registry = make(build_timeout_seconds=0.01, retry_after_seconds=1e9)
    samples.script["Beta"] = gate = Gate()
    builder = in_thread(registry.get_instance, "Beta")
    gate.wait()

    def script(_: Any) -> None:
        try:
            registry.get_instance("Beta")
        except ws.BuildTimeoutError as error:
            raise ValueError("no Beta") from error

    samples.script["Alpha"] = script
    with pytest.raises(ws.BuildError, match="no Beta"):
        registry.get_instance("Alpha")
    assert registry.stats().failed_class_names == ()
    gate.open()
    builder.result()
    assert type(registry.get_instance("Alpha")) is samples.Alpha


def test_a_lack_of_capacity_within_a_build_is_not_remembered(
    ws: Any, make: Any, samples: Any
) -> None:
    """As a timeout."""
    registry = make(
        max_cache_size=2, block_when_full=True, block_timeout_seconds=0.0, retry_after_seconds=1e9
    )

    def script(_: Any) -> None:
        with registry.use("Beta"), registry.use("Gamma"), registry.use("Delta"):
            pass

    samples.script["Alpha"] = script
    with pytest.raises(ws.BuildError):
        registry.get_instance("Alpha")
    samples.script.clear()
    assert type(registry.get_instance("Alpha")) is samples.Alpha


def test_a_class_that_is_replaced_by_a_mock(ws: Any, make: Any, samples: Any) -> None:
    """What failed was the mock: the class itself is built as soon as it is back."""
    registry = make(retry_after_seconds=1e9)
    with mock.patch("samples.Alpha", new=mock.NonCallableMock()):
        for _ in range(2):
            with pytest.raises(ws.MethodRegistryError):
                registry.get_instance("Alpha")
    assert type(registry.get_instance("Alpha")) is samples.Alpha


def test_a_look_up_during_a_circular_import(
    ws: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class is not there yet; when the import has ended, it is."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half.py").write_text("import half_hooks\nhalf_hooks.ask()\nclass Model: pass\n")
    registry = make({"Model": "half.Model"}, retry_after_seconds=1e9)
    hooks = mock.Mock()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            registry.get_instance("Model")
        except ws.MethodRegistryError as error:
            errors.append(error)

    hooks.ask = ask
    monkeypatch.setitem(sys.modules, "half_hooks", hooks)
    try:
        importlib.import_module("half")
        assert len(errors) == 1
        assert type(registry.get_instance("Model")).__name__ == "Model"
    finally:
        sys.modules.pop("half", None)


def test_a_failure_that_was_raised_before_elsewhere(ws: Any, make: Any, samples: Any) -> None:
    """The generator in which it was raised goes on, and its locals are untouched."""
    registry = make(retry_after_seconds=1e9)
    kept: list[BaseException] = []

    def numbers() -> Any:
        for number in range(3):
            try:
                raise ValueError(number)
            except ValueError as error:
                kept.append(error)
            yield number

    def ordinary() -> None:
        model = "half a model"
        raise KeyError(model)

    generator = numbers()
    next(generator)
    try:
        ordinary()
    except KeyError as error:
        kept.append(error)

    def script(_: Any) -> None:
        raise kept.pop()

    samples.script["Alpha"] = samples.script["Beta"] = script
    raised = kept[:]
    for name in ("Alpha", "Beta"):
        with pytest.raises(ws.BuildError):
            registry.get_instance(name)
    assert list(generator) == [1, 2]
    traceback: Any = raised[1].__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_locals == {"model": "half a model"}
