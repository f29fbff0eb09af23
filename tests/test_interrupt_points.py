"""
Where an interrupt finds no handler: at jumps back, and between an acquisition and its `try`.

`test_interrupts` raises where a tracing function is called, which is after a jump. The interpreter
raises at the jump itself, which the compiler may have left out of the block around the loop.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from interrupts import Scene, check_after_interrupt, files_of, interrupt_each_point, undisturbed
from threads import in_thread, until

import warmset

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.version_info >= (3, 11):
    from uncovered_jumps import uncovered_jumps

no_disturbance = pytest.fixture(autouse=True)(undisturbed)
PACKAGE = Path(warmset.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
has_tables = pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no table of handlers")

# -- in the source -------------------------------------------------------------------------------


@has_tables
def test_no_jump_back_leaves_a_handler() -> None:
    """A loop is in a function that is called within the block, and not in the block."""
    found = [
        f"{path.relative_to(PACKAGE)}:{jump.line}: a jump back in {jump.function} leaves its"
        f" `{jump.handler}`: an interrupt there skips it; move the loop into a function"
        for path in SOURCES
        for jump in uncovered_jumps(path.read_text(encoding="utf-8"), str(path))
    ]
    assert not found, "\n".join(found)


LOOPS = {
    "with": "with lock:\n        for x in a:\n            if x: b()",
    "finally": "try:\n        for x in a:\n            if x: b()\n    finally: c()",
    "except BaseException": (
        "try:\n        for x in a:\n            if x: b()\n    except BaseException: c()"
    ),
}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all jumps are in the table")
@pytest.mark.parametrize("kind", LOOPS)
def test_such_a_jump_is_found(kind: str) -> None:
    """The search sees what the compiler does."""
    found = uncovered_jumps(f"def f(a):\n    {LOOPS[kind]}\n", "f.py")
    assert {(jump.function, jump.handler) for jump in found} == {("f", kind)}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all jumps are in the table")
def test_other_handlers_do_not_matter() -> None:
    """What an interrupt does not reach anyway."""
    source = (
        "def f(a):\n    try:\n        for x in a:\n            if x: b()\n    except OSError: c()\n"
    )
    assert uncovered_jumps(source, "f.py") == []


# The locks that are taken for somebody else, or are made and acquired by one who waits for them.
ACQUIRERS = {
    "_locks.py": {"call_locked", "call_if_free"},
    "_event_accumulator.py": {"_read", "_settle"},
    "builds.py": {"__init__"},
    "contexts.py": {"wait_for"},
    "lifecycle/capacity.py": {"_wait", "_wait_until"},
    "lifecycle/services.py": {"reset_after_fork", "_do_steps"},
}
# With an interpreter lock these have none. Without one, the loops are around the blocks.
CORE = {"_calls_py.py", "_changes_py.py", "_core_py.py", "_holds_py.py", "_ring_py.py"}


def _functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield each node with the name of the innermost function around it."""
    for child in ast.iter_child_nodes(tree):
        inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield name, child
        yield from _functions(child, child.name if inner else name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_locks_are_acquired_in_one_way(path: Path) -> None:
    """By `_locks.call_locked` and its like, which are safe on each version."""
    where = path.relative_to(PACKAGE).as_posix()
    allowed = ACQUIRERS.get(where, set())
    for function, node in _functions(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            acquires = node.func.attr == "acquire"
            assert not acquires or function in allowed, f"{where}:{node.lineno}: use `_locks`"
        if isinstance(node, ast.With) and where not in CORE:
            for item in node.items:
                text = ast.unparse(item.context_expr)
                assert not text.endswith("lock"), f"{where}:{node.lineno}: use `_locks`"


# -- the ways to lock ----------------------------------------------------------------------------


class Counter:
    """Counts with a lock."""

    def __init__(self, locks: Any) -> None:
        self.lock = locks.make_lock()
        self.counts = [0]
        self.call_locked, self.call_if_free = locks.call_locked, locks.call_if_free

    def add(self) -> int:
        self.counts[0] += 1
        return self.counts[0]

    def nested(self) -> int:
        return self.call_locked(self.lock, self.add)  # type: ignore[no-any-return]


WAYS = {
    "call_locked": lambda counter: counter.call_locked(counter.lock, counter.add),
    "nested": lambda counter: counter.call_locked(counter.lock, counter.nested),
    "call_if_free": lambda counter: counter.call_if_free(counter.lock, counter.add),
}


@pytest.fixture
def locks(ws: Any) -> Any:
    return importlib.import_module("warmset._locks")


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_leaves_no_lock_locked(
    locks: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Wherever it arrives; `Counter` counts as a module of the package."""
    monkeypatch.setattr("interrupts.STEP", 1)

    def check(counter: Counter) -> None:
        assert not counter.lock._is_owned()
        before = counter.counts[0]
        assert in_thread(WAYS[way], counter).result() == before + 1

    files = {locks.__file__, __file__}
    interrupt_each_point(lambda: Counter(locks), WAYS[way], check, files)


def test_an_interrupted_wait_leaves_the_lock_to_its_owner(locks: Any) -> None:
    """It was not acquired, so it is not released."""

    class Interrupted:
        """An `RLock` that another thread has, and whose wait is interrupted."""

        def __init__(self) -> None:
            self.lock = locks.make_lock()
            in_thread(self.lock.acquire).result()

        def acquire(self) -> None:
            raise KeyboardInterrupt

        def release(self) -> None:
            self.lock.release()

    lock = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        locks.call_locked(lock, pytest.fail)
    assert not lock.lock.acquire(False)


def test_what_is_locked_is_left_alone(locks: Any) -> None:
    """By another thread, or further up in this one."""
    counter = Counter(locks)
    nested = locks.call_locked(counter.lock, locks.call_if_free, counter.lock, counter.add)
    elsewhere = locks.call_locked(
        counter.lock, lambda: in_thread(locks.call_if_free, counter.lock, counter.add).result()
    )
    assert (nested, elsewhere, counter.counts) == (None, None, [0])
    assert locks.call_if_free(counter.lock, counter.add) == 1


def test_a_locked_method_keeps_its_name_and_its_errors(locks: Any) -> None:
    """And releases its lock after an error."""

    class Some:
        def __init__(self) -> None:
            self._lock = locks.make_lock()

        @locks.locked
        def fail(self, *, error: Exception) -> None:
            """Fail."""
            assert self._lock._is_owned()
            raise error

    some = Some()
    with pytest.raises(ValueError, match="it"):
        some.fail(error=ValueError("it"))
    assert not some._lock._is_owned()
    assert (Some.fail.__name__, Some.fail.__doc__) == ("fail", "Fail.")


def test_an_interrupt_that_a_condition_hides_is_raised(locks: Any) -> None:
    """As by a signal while `Thread.start` waits in the standard library."""

    class Starting:
        def start(self) -> None:
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("release unlocked lock")

    with pytest.raises(KeyboardInterrupt):
        locks.start_thread(Starting())


# -- what uses them ------------------------------------------------------------------------------


@pytest.mark.points
@pytest.mark.parametrize("way", ["get", "evict", "sweep"])
def test_a_policy(ws: Any, make: Any, samples: Any, way: str) -> None:
    """No candidate is lost: what is free can be evicted."""
    files = files_of(("_locks", "memory.choosing", "memory.manager"))

    def prepare() -> Scene:
        scene = Scene(make, ws, samples, policy="cost")
        for name in ("Gamma", "Delta"):
            with scene.registry.use(name):
                pass
        return scene

    def operate(scene: Scene) -> None:
        if way == "sweep":
            scene.registry.sweep()
        elif way == "evict":
            scene.registry.evict_by_policy(1)
        else:
            with scene.registry.use("Alpha"):
                pass

    def check(scene: Scene) -> None:
        registry = scene.registry
        for name in ("Alpha", "Beta", "Gamma", "Delta"):
            with registry.use(name):
                pass
        assert registry.stats().cached <= 2
        check_after_interrupt(registry, samples)

    interrupt_each_point(prepare, operate, check, files)


def test_a_service(ws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be woken again."""
    services = importlib.import_module("warmset.lifecycle.services")
    monkeypatch.setattr("interrupts.STEP", 1)

    class Ran:
        def __init__(self) -> None:
            self.steps = 0
            self.service = services.Service("warmset-test", self.step)

        def step(self) -> None:
            self.steps += 1

    def check(ran: Ran) -> None:
        before = ran.steps
        ran.service.wake()
        until(lambda: ran.steps > before)
        until(lambda: not ran.service.is_running)

    files = files_of(("_locks", "lifecycle.services"))
    interrupt_each_point(Ran, lambda ran: ran.service.wake(), check, files)


# -- accumulators --------------------------------------------------------------------------------


@pytest.fixture
def accumulator(ws: Any) -> Any:
    """Sums numbers in two steps, and starts anew after a call that did not end."""
    base = importlib.import_module("warmset._event_accumulator").EventAccumulator

    class Sums(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.sums = [0, 0]
            self.between: Any = lambda: None
            self.recoveries = 0

        def _add(self, event: int) -> None:
            self.sums[0] += event
            self.between()
            self.sums[1] += event

        def _recover(self) -> None:
            self.sums = [0, 0]
            self.recoveries += 1

    return Sums


def test_an_interrupted_accumulator_goes_on(
    accumulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after its lock was acquired, in the middle of `_add`, or anywhere else."""
    monkeypatch.setattr("interrupts.STEP", 1)
    files = {*files_of(("_event_accumulator",)), __file__}

    def check(sums: Any) -> None:
        assert not sums._adding._is_owned()
        in_thread(sums, 5).result()
        assert not sums._queue
        assert sums.sums[0] == sums.sums[1] >= 5

    interrupt_each_point(accumulator, lambda sums: sums(1), check, files)


def test_an_accumulator_that_another_thread_was_in_at_a_fork(accumulator: Any) -> None:
    """The child starts from a whole state; the parent goes on."""
    import os
    import threading

    if not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    sums = accumulator()
    is_between, may_go_on = threading.Event(), threading.Event()

    def between() -> None:
        is_between.set()
        may_go_on.wait(30)

    sums.between = between
    running = in_thread(sums, 1)
    assert is_between.wait(30)
    child = os.fork()
    if child == 0:
        sums.between = lambda: None
        sums(2)
        os._exit(0 if (sums.sums, sums.recoveries) == ([2, 2], 1) else 1)
    status = os.waitpid(child, 0)[1]
    may_go_on.set()
    running.result()
    assert os.waitstatus_to_exitcode(status) == 0
    assert (sums.sums, sums.recoveries) == ([1, 1], 0)
