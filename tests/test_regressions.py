"""Faults that were found once, each with its story."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from typing import Any

import pytest
import structure


def until(condition: Any) -> None:
    """Wait until something is so, in another thread."""
    pause = threading.Event()
    for _ in range(30_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to be")


def test_a_build_does_not_land_in_a_slot_that_was_forgotten(make: Any, samples: Any) -> None:
    """
    A waiter went on building for the slot that it had waited at, although its name had been
    unregistered and registered anew: two slots of one name in the ring, then a crash.
    """
    registry = make({"Alpha": "samples.Alpha"})
    entered, go = threading.Event(), threading.Event()

    def rule(cls: type) -> Any:
        if not entered.is_set():
            entered.set()
            assert go.wait(30)
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    threads = [threading.Thread(target=registry.get_instance, args=("Alpha",)) for _ in range(2)]
    threads[0].start()
    assert entered.wait(30)
    registry.discard("Alpha")
    threads[1].start()
    until(lambda: registry.stats().waits == 1)
    registry.unregister_class("Alpha")
    registry.register_class("Alpha", "samples.Beta")
    go.set()
    for thread in threads:
        thread.join(30)
    registry.get_instance("Alpha")
    assert registry._ring() == ["Alpha"]
    assert len(registry) == 1


def test_names_are_counted_right_under_threads(make: Any) -> None:
    """Registering and forgetting counted outside of the change, and the count drifted."""
    registry = make({})

    def work() -> None:
        for _ in range(300):
            registry.register_class("Alpha", "samples.Alpha")
            registry.unregister_class("Alpha")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(registry) == len(registry.class_names()) == 0


def test_the_collector_inside_a_walk_of_the_ring(make: Any) -> None:
    """The list of the walk was made first, and somebody left while it was: its end was empty."""
    registry = make({f"N{i}": "samples.Alpha" for i in range(50)})

    class Clears:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            registry.clear_cache()

    thresholds = gc.get_threshold()
    try:
        for offset in range(1, 40):
            gc.disable()
            gc.collect()
            for i in range(50):
                registry.get_instance(f"N{i}")
            Clears()
            kept = [[] for _ in range(300)]  # empties the free list of lists
            gc.set_threshold(gc.get_count()[0] + offset, 10**6, 10**6)
            gc.enable()
            registry._ring()
            registry._entries()
            registry._holders()
            del kept
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()


def test_a_closed_registry_does_not_go_on_building(ws: Any, make: Any, samples: Any) -> None:
    """A waiter at a build that `close` had made stale built and cached another one after it."""
    registry = make()
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        if not entered.is_set():
            entered.set()
            assert go.wait(30)

    samples.script["Alpha"] = slow
    results: list[Any] = []

    def ask() -> None:
        try:
            results.append(registry.get_instance("Alpha"))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert entered.wait(30)
    registry.discard("Alpha")
    threads[1].start()
    until(lambda: registry.stats().waits == 1)
    registry.close()
    go.set()
    for thread in threads:
        thread.join(30)
    assert sorted(type(result).__name__ for result in results) == ["Alpha", "ClosedError"]
    assert registry.stats().cached == 0
    with pytest.raises(ws.ClosedError):
        registry._cache["Alpha"] = ws.CacheEntry(object(), 0.0, 0.0)


def test_an_executor_that_was_not_initialised(ws: Any) -> None:
    """It crashed."""

    class Mine(ws.MethodExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(AttributeError):
        Mine().execute("Alpha", "echo")


def test_handles_and_leases_of_no_registry(ws: Any) -> None:
    """They called what lay beside None in memory."""
    with pytest.raises((TypeError, AttributeError)):
        ws.Handle(None, "Alpha", "echo")()
    with pytest.raises((TypeError, AttributeError)):
        ws.Lease(None, "Alpha").__enter__()


@pytest.mark.parametrize("way", ["injected", "attribute"])
def test_a_handle_that_reaches_itself(make: Any, way: str) -> None:
    """It ran out of the C stack."""
    registry = make()
    handle = registry.bind("Alpha", "echo")
    if way == "injected":
        registry.inject_method("Alpha", "echo", handle)
    else:
        registry.get_instance("Alpha").echo = handle
    with pytest.raises(RecursionError):
        handle()
    registry.clear_cache()


def test_an_injected_method_whose_end_calls_its_handle(make: Any) -> None:
    """The handle still pointed at it while it was dropped."""
    registry = make()
    calls = []

    class Inner:
        def __del__(self) -> None:
            calls.append(handle("last"))

    class Outer:
        def __init__(self) -> None:
            self.inner = Inner()

        def __call__(self, text: str) -> str:
            return text

    registry.inject_method("Alpha", "echo", Outer())
    handle = registry.bind("Alpha", "echo")
    handle("first")
    registry.inject_method("Alpha", "echo", str.upper)
    assert handle("x") == "X"
    gc.collect()
    assert calls == ["LAST"]


def test_an_execute_that_is_overridden_and_called_by_keyword(ws: Any, make: Any) -> None:
    """It was dispatched anew, to the override that had called it."""
    calls = []

    class Counting(ws.MethodExecutor):  # type: ignore[misc, name-defined]
        def execute(self, class_name: str, method_name: str, **arguments: Any) -> Any:
            calls.append(method_name)
            return super().execute(class_name=class_name, method_name=method_name, **arguments)

    executor = Counting(method_registry=make())
    assert executor.execute("Alpha", "echo", text="x") == "x"
    assert calls == ["echo"]


def test_empty_names_are_names_that_were_not_given(ws: Any, make: Any, samples: Any) -> None:
    """The two cores differed."""
    executor = ws.MethodExecutor(method_registry=make())
    assert executor.execute("Alpha", "", method_name="echo", text="x") == "x"
    assert executor.execute("", "echo", class_name="Alpha", text="x") == "x"
    with pytest.raises(TypeError, match="needs a class name and a method name"):
        executor.execute("Beta", "")
    assert samples.built == ["Alpha"]


def test_a_route_keeps_no_weak_instance_alive(ws: Any, make: Any) -> None:
    """A bound method whose function the instance made itself refers to the instance."""
    registry = make(enable_weakref=True)

    class Closing:
        def __init__(self) -> None:
            self.run = types.MethodType(lambda me, x=1: (self, x)[1], object())

    registry.register_instantiation_rule("Alpha", lambda cls: Closing())
    executor = ws.MethodExecutor(method_registry=registry)
    instance = registry.get_instance("Alpha")
    assert executor.execute("Alpha", "run", x=2) == 2
    gone = weakref.ref(instance)
    del instance
    gc.collect()
    assert gone() is None


def test_a_failed_build_leaves_the_callers_exception_alone(ws: Any, make: Any) -> None:
    """Clearing the locals of a failure went on into what its caller was handling."""
    registry = make({"Broken": "samples.Broken"}, retry_after_seconds=30)

    def errors() -> Any:
        for i in range(3):
            try:
                raise KeyError(i)
            except KeyError as error:
                yield error

    rounds = 0
    for error in errors():
        rounds += 1
        try:
            raise error
        except KeyError:
            registry.forget_failures()
            with pytest.raises(ws.BuildError):
                registry.get_instance("Broken")
    assert rounds == 3


@pytest.mark.parametrize("retry_after", [0, 30])
def test_a_failed_build_lets_go_of_its_locals(
    ws: Any, make: Any, samples: Any, retry_after: float
) -> None:
    """Also when it is not remembered."""
    gone: list[Any] = []

    class Half:
        pass

    def failing(_: Any) -> None:
        half = Half()
        gone.append(weakref.ref(half))
        raise ValueError("half way")

    samples.script["Alpha"] = failing
    registry = make(retry_after_seconds=retry_after)
    gc.disable()
    try:
        with pytest.raises(ws.BuildError):
            registry.get_instance("Alpha")
        assert gone[0]() is None
    finally:
        gc.enable()


def test_errors_of_somebody_elses_making(ws: Any, make: Any, samples: Any) -> None:
    """A subclass of ours with a constructor of its own broke the builder."""

    class Mine(ws.MethodRegistryError):  # type: ignore[misc, name-defined]
        def __init__(self, code: int) -> None:
            self.code = code

        def __new__(cls, code: int) -> Any:
            return super().__new__(cls)

    def failing(_: Any) -> None:
        raise Mine(3)

    samples.script["Alpha"] = failing
    registry = make()
    for _ in range(2):
        with pytest.raises(ws.BuildError) as caught:
            registry.get_instance("Alpha")
        assert isinstance(caught.value.__cause__, Mine)


def test_two_threads_that_enter_one_lease(make: Any, samples: Any) -> None:
    """Both did while the instance was being built; one hold was never given back."""
    registry = make()
    lease = registry.use("Alpha")
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(30)

    samples.script["Alpha"] = slow
    thread = threading.Thread(target=lease.__enter__)
    thread.start()
    assert entered.wait(30)
    with pytest.raises(RuntimeError, match="already holds"):
        lease.__enter__()
    go.set()
    thread.join(30)
    lease.__exit__(None, None, None)
    assert registry.stats().held == 0


def test_an_error_from_inside_a_method_is_not_looked_up_again(make: Any) -> None:
    """A property that raised the second time replaced it."""
    registry = make()
    reads = []

    class Odd:
        @property
        def method(self) -> Any:
            reads.append(1)
            return self._method

        def _method(self) -> None:
            raise TypeError("mine")

    registry.register_instantiation_rule("Alpha", lambda cls: Odd())
    with pytest.raises(TypeError, match="mine"):
        registry.bind("Alpha", "method")()
    assert reads == [1]


def test_a_builtin_method_that_is_exchanged(ws: Any, make: Any) -> None:
    """Its type alone did not tell it from another one."""
    executor = ws.MethodExecutor(method_registry=make())

    class Items(list):  # type: ignore[type-arg]
        pass

    executor.registry.register_instantiation_rule("Alpha", lambda cls: Items())
    items = executor.registry.get_instance("Alpha")
    items.method = items.append
    executor.execute("Alpha", "method", object=1)
    items.method = items.clear
    executor.execute("Alpha", "method")
    assert items == []


def test_payloads_that_were_refused_by_mistake(ws: Any, make: Any) -> None:
    """Files for typing's IO, a default passed explicitly, annotations that answer to everything."""
    import io
    import typing

    class Greedy:
        def __getattr__(self, name: str) -> Any:
            raise OSError(name)

    def method(file=None, number=Ellipsis, greedy=0) -> str:  # type: ignore[no-untyped-def]
        return "ran"

    method.__annotations__ = {
        "file": typing.TextIO | typing.IO[bytes],
        "number": int,
        "greedy": Greedy(),
    }
    executor = ws.MethodExecutor(method_registry=make({}))
    executor.inject_method("Free", "method", method)
    assert executor.execute("Free", "method", file=io.StringIO(), number=..., greedy=1) == "ran"
    with pytest.raises(ws.ArgumentValidationError):
        executor.execute("Free", "method", number="1")


def test_the_legacy_set_of_failed_classes_takes_part_in_set_operations(make: Any) -> None:
    """It made a generator of itself."""
    registry = make()
    registry._failed_classes.add("Alpha")
    assert registry._failed_classes & {"Alpha", "Beta"} == {"Alpha"}
    assert registry._failed_classes | {"Beta"} == {"Alpha", "Beta"}
    assert registry._failed_classes - {"Alpha"} == set()


def test_assigning_an_instance_to_a_live_entry(ws: Any, make: Any) -> None:
    """It was ignored."""
    registry = make()
    registry.get_instance("Alpha")
    entry = registry._cache["Alpha"]
    other = object()
    entry.instance = other
    assert registry.get_instance("Alpha") is other
    for nonsense in (-1, 2.5, "3"):
        with pytest.raises(ValueError, match="access_count must be an int of 0 or more"):
            entry.access_count = nonsense


def test_names_that_a_replaced_loader_does_not_know_leave_no_slot(ws: Any, make: Any) -> None:
    """Each junk name that was asked for stayed for ever."""
    registry = make({})

    def load(class_name: str) -> type:
        if class_name != "Known":
            raise KeyError(class_name)
        return dict

    registry._load_class = load
    for i in range(5):
        with pytest.raises(ws.MethodRegistryError):
            registry.get_instance(f"junk {i}")
    assert list(registry._slots) == []
    assert registry.has_method("Known", "get")
    assert registry.get_instance("Known") == {}


def test_a_registry_is_initialised_once(make: Any) -> None:
    """A second time lost names, and kept slots."""
    registry = make()
    with pytest.raises(RuntimeError, match="initialised already"):
        registry.__init__({})
    structure.check(registry)


def test_methods_of_the_metaclass_are_not_the_instances(make: Any) -> None:
    """`has_method` found them."""
    assert not make().has_method("Alpha", "mro")


def test_the_end_of_the_interpreter_with_daemon_threads(twin: str) -> None:
    """A lease in a global waited for a lock that a frozen thread held."""
    code = """
        import sys, threading, types
        sys.setswitchinterval(1e-6)
        import warmset
        module = types.ModuleType("models")
        module.Model = type("Model", (), {"tag": lambda self: None})
        sys.modules["models"] = module
        registry = warmset.MethodRegistry({"Model": "models.Model"})
        lease = registry.use("Model")
        lease.__enter__()
        handle = registry.bind("Model", "tag")
        def work():
            while True:
                registry.get_instance("Model")
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
    """
    import os

    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment["WARMSET_PURE"] = "1" if twin == "pure" else ""
    for _ in range(5):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr


def test_a_build_that_began_after_another_had_left_is_kept(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build ended and left between the miss and the take-off, and this one was dropped."""
    registry = make(max_cache_size=1)
    token = type(registry)._token
    late = []

    def token_and_more(self: Any, slot: Any) -> Any:
        before = token(self, slot)
        if not late:
            late.append(slot.name)
            registry.get_instance("Alpha")
            registry.get_instance("Beta")  # in its place
        return before

    monkeypatch.setattr(type(registry), "_token", token_and_more)
    instance = registry.get_instance("Alpha")
    assert late == ["Alpha"]
    assert registry._ring() == ["Alpha"]
    assert registry.get_instance("Alpha") is instance


@pytest.mark.pure_core
def test_what_dies_after_its_module_is_quiet(
    make: Any, twin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the interpreter's end a module's names are None before the last registry is dropped."""
    registry = make()
    lease = registry.use("Alpha")
    lease.__enter__()
    ring = sys.modules[type(registry).__mro__[-2].__module__]
    for module in (ring, sys.modules[type(lease).__module__]):
        monkeypatch.setattr(module, "sys", None)
    lease.__del__()
    registry.__del__()
    assert registry._ring() == []
    assert registry.holders() == []
