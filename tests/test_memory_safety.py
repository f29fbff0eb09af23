"""Plain scripts that crashed the process, each in an interpreter of its own."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from threads import in_thread

from warmset.testing.structure import check_accounts, check_structure

PRELUDE = """
import gc, os, sys, threading, types, warmset

class Service:
    def __init__(self):
        self.calls = 0

    def call(self, function=None, *arguments):
        self.calls += 1
        return None if function is None else function(*arguments)

    def stream(self):
        yield 1
        yield 2

module = sys.modules["services"] = types.ModuleType("services")
module.Service = Service
registry = warmset.MethodRegistry({"A": "services.Service", "B": "services.Service"})
executor = warmset.MethodExecutor(method_registry=registry)
handle = registry.bind("A", "call")
"""


def run(twin: str, body: str) -> str:
    """Run a script on a core; return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    environment["WARMSET_PURE" if twin == "pure" else "WARMSET_REQUIRE_COMPILED"] = "1"
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-X",
            "faulthandler",
            "-c",
            PRELUDE + textwrap.dedent(body),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("call", ["handle(wait)", 'executor.execute("A", "call", function=wait)'])
def test_a_fork_while_another_thread_is_in_a_call(twin: str, call: str) -> None:
    """In the child that thread and its stack are gone, and so are the holds that it had."""
    body = f"""
        inside, go = threading.Event(), threading.Event()

        def wait():
            inside.set()
            go.wait(60)

        caller = threading.Thread(target=lambda: {call})
        caller.start()
        assert inside.wait(60)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                # Uses the memory that the stack of the thread had.
                threads = [threading.Thread(target=sorted, args=([3, 1, 2],)) for _ in range(20)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert registry.holders() == []
                registry.stats()
                handle()
                registry.clear_cache()
                with registry.use("B"):
                    assert [holder.class_name for holder in registry.holders()] == ["B"]
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        go.set()
        caller.join()
        print(status, registry.holders())
    """
    assert run(twin, body) == "0 []"


def test_greenlets_in_calls_of_one_thread(twin: str) -> None:
    """Their calls end in another order than they began."""
    pytest.importorskip("greenlet")
    body = """
        import random
        from greenlet import getcurrent, greenlet

        def pause():
            getcurrent().parent.switch()

        def deeper(times):
            return handle(pause) if not times else deeper(times - 1)

        running = []
        for number in range(20):
            running.append(greenlet(deeper))
            running[-1].switch(number % 7)
        assert len(registry.holders()) == 20
        random.Random(1).shuffle(running)
        for number, each in enumerate(running):
            each.switch()
            assert len(registry.holders()) == 19 - number
        print(registry.holders())
    """
    assert run(twin, body) == "[]"


def test_daemon_threads_in_calls_when_the_interpreter_exits(twin: str) -> None:
    """A finaliser that calls a handle then meets no freed memory."""
    body = """
        inside = threading.Semaphore(0)

        def wait():
            inside.release()
            threading.Event().wait(60)

        for _ in range(4):
            threading.Thread(target=handle, args=(wait,), daemon=True).start()
            inside.acquire()

        class Last:
            def __del__(self):
                try:
                    registry.holders()
                    handle()
                except Exception:
                    pass

        module.last = Last()
        print("ended", flush=True)
    """
    assert run(twin, body) == "ended"


@pytest.mark.parametrize("kind", ["handle", "lease"])
def test_use_from_a_weak_reference_callback_amid_a_collection(twin: str, kind: str) -> None:
    """The collector clears a cycle of which the handle or lease is a part."""
    body = f"""
        import weakref

        class Node:
            pass

        def cycle():
            own = warmset.MethodRegistry({{"A": "services.Service"}})
            node = Node()
            node.itself = node
            node.handle = own.bind("A", "call")
            node.lease = own.use("A")
            used = node.handle if {kind!r} == "handle" else node.lease

            def callback(_):
                try:
                    used() if {kind!r} == "handle" else used.__enter__()
                except Exception:
                    pass

            node.watched = Node()
            node.reference = weakref.ref(node.watched, callback)
            own.get_instance("A").node = node

        for _ in range(50):
            cycle()
            gc.collect()
        print("survived")
    """
    assert run(twin, body) == "survived"


def test_a_lease_that_is_entered_by_a_finaliser(twin: str) -> None:
    """It comes back to life when its registry is being dropped with it."""
    body = """
        saved = []

        class Keeper:
            def __del__(self):
                saved.append(self.lease)

        def leave_behind():
            own = warmset.MethodRegistry({"A": "services.Service"})
            keeper = Keeper()
            keeper.lease = own.use("A")
            keeper.itself = keeper
            own.get_instance("A").keeper = keeper

        for _ in range(50):
            leave_behind()
            gc.collect()
        for lease in saved:
            try:
                with lease as service:
                    service.call()
            except Exception:
                pass
        print(len(saved))
    """
    assert run(twin, body) == "50"


def test_a_second_init_of_an_executor_during_its_call(twin: str) -> None:
    """It is refused: the call goes on with the registry that it has."""
    body = """
        def again():
            other = warmset.MethodRegistry({"A": "services.Service"})
            for init in (executor.__init__, warmset.executor.Calls.__init__.__get__(executor)):
                try:
                    init(other) if init is not executor.__init__ else init(method_registry=other)
                except RuntimeError as error:
                    assert "initialised already" in str(error), error
                else:
                    raise AssertionError
            gc.collect()

        for _ in range(20):
            executor.execute("A", "call", function=again)
        print(executor.registry is registry)
    """
    assert run(twin, body) == "True"


def test_private_mappings_cannot_be_written(make: Any) -> None:
    """Slots and injected methods belong to the core."""
    registry = make()
    for mapping in (registry.slots, registry.injected):
        with pytest.raises(TypeError):
            mapping["Alpha"] = object()


def behind(view: Any) -> Any:
    """The dict behind a read-only view, which hands it to a comparison."""
    found = []

    class Thief:
        def __eq__(self, other: object) -> bool:
            found.append(other)
            return True

        __hash__ = None  # type: ignore[assignment]

    assert view == Thief()
    return found[0]


def test_what_somebody_wrote_into_a_private_mapping_is_refused(make: Any, twin: str) -> None:
    """It is of another type, or the slot of another registry."""
    if twin == "pure":
        pytest.skip("these are plain Python objects there")
    registry, other = make(), make()
    other.get_instance("Alpha")
    handle = registry.bind("Beta", "echo")
    before = registry.slots["Alpha"]
    for wrong in (object(), "Alpha", other.slots["Alpha"], type(other.slots["Alpha"])("Alpha")):
        behind(registry.slots)["Alpha"] = wrong
        for call in (registry.get_instance, registry.discard, registry.pin):
            # A slot that is found by the address of its name is still the right one.
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                call("Alpha")
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                call("".join(["Al", "pha"]))
        with pytest.raises((TypeError, ValueError)):
            registry.add_slot("Alpha", None)
        check_accounts(registry)
        check_accounts(other)
    behind(registry.slots)["Alpha"] = before
    for wrong in (object(), {"echo": object()}, {"echo": print}):
        behind(registry.injected)["Beta"] = wrong
        for call in (handle, lambda: registry.get_method("Beta", "echo")):
            with pytest.raises(TypeError):
                call()


def test_entries_that_die_with_the_private_mapping(make: Any, twin: str) -> None:
    """What reads the ring gets as many as there are."""
    if twin == "pure":
        pytest.skip("these are plain Python objects there")
    registry = make()
    for name in ("Alpha", "Beta"):
        with registry.use(name):
            pass
    behind(registry.slots)["Alpha"] = None
    gc.collect()  # a slot and its entry are a cycle
    assert [entry.name for entry in registry.ring()] == ["Beta"]
    for read in (registry.stats, registry.get_stats):
        with contextlib.suppress(AttributeError):  # of what is in the mapping now
            read()
    del registry, read  # what it counts does not agree any more


def test_the_ring_is_read_while_threads_add_and_remove(make: Any) -> None:
    """Without an interpreter lock its length changes within a step that reads it."""
    registry = make(max_cache_size=4)
    stop = threading.Event()

    def work(first: int) -> None:
        names = ("Alpha", "Beta", "Gamma", "Delta")
        for turn in itertools.count(first):
            if stop.is_set():
                return
            registry.get_instance(names[turn % 4])
            if turn % 8 == 0:
                registry.clear_cache()

    workers = [in_thread(work, first) for first in (0, 3)]
    try:
        for _ in range(3000):
            for entries in (registry.ring(), registry.ring(from_oldest=True)):
                assert None not in entries
                assert len(entries) <= 4
    finally:
        stop.set()
    for worker in workers:
        worker.result()
    check_structure(registry)


def test_each_change_refuses_the_entries_of_another_registry(make: Any) -> None:
    """Their ring and their counts are not these."""
    registry, other = make(), make()
    other.get_instance("Alpha")
    slot = other.slots["Alpha"]
    entry = slot.entry
    changes = [
        lambda: registry.drop_slot(slot),
        lambda: registry.token(slot),
        lambda: registry.invalidate(slot),
        lambda: registry.set_limits(slot, 1.0, 1.0),
        lambda: registry.construct(slot, lambda _: object()),
        lambda: registry.publish(entry, 0, 0.0),
        lambda: registry.place(entry, slot),
        lambda: registry.adopt(slot, object(), weak=False, built_at=0.0, last_used=0.0, uses=0),
        lambda: registry.amend(entry, 0.0, 0.0, 0),
        lambda: registry.remove(entry, 1),
        lambda: registry.expire(entry, 0.0),
        lambda: registry.abandon(entry),
        lambda: registry.claim(entry, [None]),
        lambda: registry.settle(entry, 4),
        lambda: registry.set_bytes(entry, 1),
        lambda: registry.hold(entry),
        lambda: registry.release(entry, None),
        lambda: registry.use("Alpha").take(lambda hold: setattr(hold, "entry", entry) or entry),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="belongs to another registry"):
            change()
    check_structure(registry)
    check_structure(other)


class NoNumber:
    """Compares as a number would, and is none."""

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __gt__ = __ge__ = __lt__


@pytest.mark.parametrize("wrong", [2.5, "1", None, NoNumber(), -1, 99])
def test_a_change_is_refused_before_it_begins(ws: Any, make: Any, wrong: Any) -> None:
    """Where its arguments are no numbers of the right kind: not in the middle of it."""
    if type(wrong) is float and ws.implementation == "compiled":
        pytest.skip("it takes the whole part of a float")
    registry = make(max_cache_size=3)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    slot = registry.slots["Alpha"]
    entry, empty = slot.entry, registry.slots["Gamma"]
    closed = registry.construct(slot, lambda _: object())
    registry.release(closed, None)
    changes: list[Any] = [
        lambda: registry.remove(entry, wrong),
        lambda: registry.take_all(wrong),
        lambda: registry.settle(closed, wrong),
    ]
    if not isinstance(wrong, int):
        changes += [
            lambda: registry.set_bytes(entry, wrong),
            lambda: registry.adopt(
                empty, object(), weak=False, built_at=0.0, last_used=0.0, uses=wrong
            ),
            lambda: registry.amend(entry, 0.0, 0.0, wrong),
            lambda: registry.watch(wrong),
        ]
    if not isinstance(wrong, (int, float, str)) and wrong is not None:
        changes += [
            lambda: registry.set_limits(slot, wrong, None),
            lambda: registry.defer(entry, wrong),
            lambda: registry.adopt(
                empty, object(), weak=False, built_at=wrong, last_used=0.0, uses=0
            ),
        ]
    for change in changes:
        with pytest.raises((TypeError, ValueError)):
            change()
        check_structure(registry)
        check_accounts(registry)


@pytest.mark.parametrize("removed", [False, True])
def test_an_entry_that_was_published_stays_in_its_slot(make: Any, removed: bool) -> None:
    registry = make()
    with registry.use("Alpha"):
        entry = registry.slots["Alpha"].entry
        if removed:
            registry.discard("Alpha")
        with pytest.raises(ValueError, match="stays in its slot"):
            registry.place(entry, registry.slots["Beta"])
        assert entry.slot.name == "Alpha"
        check_structure(registry)


@pytest.mark.parametrize("state", ["cached", "held", "waiting", "closed", "weak"])
def test_an_entry_is_published_once(make: Any, ws: Any, state: str) -> None:
    """Whatever became of it since."""
    registry = make(enable_weakref=state == "weak")
    kept = []
    with registry.use("Alpha") as instance:
        kept.append(instance)
        slot = registry.slots["Alpha"]
        entry = slot.entry
        if state == "waiting":
            registry.close_entry = lambda *_: None
        if state != "cached":
            registry.discard("Alpha")
        if state == "held":
            assert registry.publish(entry, registry.token(slot), 0.0) == ws.codes.STALE
            check_accounts(registry)
    assert registry.publish(entry, registry.token(slot), 0.0) == ws.codes.STALE
    check_accounts(registry)
    ws.closing.close_entry(registry, entry)
    check_structure(registry)


def test_a_release_without_a_hold_does_nothing(make: Any) -> None:
    registry = make()
    registry.get_instance("Alpha")
    entry = registry.slots["Alpha"].entry
    registry.release(entry, None)
    registry.discard("Alpha")
    registry.release(entry, None)
    assert entry.holds == 0
    check_structure(registry)


def test_a_second_initialisation_is_refused(ws: Any, make: Any) -> None:
    """Of each class that has one."""
    registry = make()
    executor = ws.MethodExecutor(method_registry=registry)
    for made, arguments in ((registry, {}), (executor, {"method_registry": registry})):
        for kind in type(made).__mro__:
            if kind.__name__ in ("RegistryCore", "MethodRegistry", "MethodExecutor"):
                with pytest.raises(RuntimeError, match="initialised already"):
                    kind.__init__(made, **arguments)
    assert executor.execute("Alpha", "echo", text="x") == "x"


def test_names_are_exact_before_they_are_compared(ws: Any, make: Any) -> None:
    """A subclass of str that claims to equal the empty one is taken by its characters."""
    called: list[str] = []

    class Liar(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            called.append("eq")
            return True

        def __ne__(self, other: object) -> bool:
            called.append("ne")
            return False

        def __hash__(self) -> int:
            called.append("hash")
            return 0

        def __len__(self) -> int:
            called.append("len")
            return 10**9

        def __str__(self) -> str:
            called.append("str")
            return ""

    kind = type("Kind", (), {"itself": lambda self: self})
    registry = make()
    registry.register_instantiation_rule("Alpha", lambda cls: kind())
    executor = ws.MethodExecutor(method_registry=registry)
    registry.inject_method("Gamma", "other", lambda: None)
    alpha = registry.get_instance("Alpha")
    for class_name in ("Alpha", Liar("Alpha")):
        for method_name in ("itself", Liar("itself")):
            assert executor.execute(class_name, method_name) is alpha
            assert executor.execute(class_name=class_name, method_name=method_name) is alpha
            assert registry.get_method(class_name, method_name)() is alpha
            assert registry.bind(class_name, method_name)() is alpha
            with registry.use(class_name) as held:
                assert held is alpha
    for empty in ("", Liar("")):
        with pytest.raises(TypeError, match="needs a class name"):
            executor.execute(empty, "itself")
    for wrong in (object(), 0, None, b"Alpha"):
        with pytest.raises(TypeError, match="must be a str"):
            executor.execute(wrong, "itself")
        with pytest.raises(TypeError, match="must be a str"):
            executor.execute("Alpha", wrong)
    assert called == []
