"""
Faults, schedules, and a soak: ``python tests/support/stress.py faults|schedules|soak``.

`faults` puts each fault at each site where foreign code runs, at every operation, and counts:
injected, survived, lost. Lost is a broken invariant, a hang, or a name that cannot be looked up
afterwards. `schedules` runs threads that yield to each other at lines that a seed chooses.
`soak` lets threads mix every operation for a time, and checks the same at the end. Each of them
checks that every instance is in exactly one state.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import logging
import os
import random
import sys
import threading
import time
import traceback
import types
from typing import TYPE_CHECKING, Any

import warmset
from warmset.testing.structure import check_accounts, check_structure

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("Alpha", "Beta", "Gamma")
HANG_SECONDS = 60.0
CORE = tuple(f"_{name}_py.py" for name in ("core", "holds", "changes", "ring", "entry", "calls"))


class World:
    """One registry with a fault at one site, and the operations on it."""

    def __init__(self, site: str, fault: Callable[[World], None], *, weak: bool = False) -> None:
        self.site = site
        self.fault = fault
        self.injected = 0
        self.depth = 0
        self.now = 0.0
        self.registry = warmset.MethodRegistry(
            {name: f"stress_subjects.{name}" for name in NAMES},
            cache_ttl_seconds=5.0,
            max_cache_size=2,
            retry_after_seconds=0.0,
            enable_weakref=weak,
            timer=self.clock,
        )
        for name in NAMES:
            self.registry.register(name, f"stress_subjects.{name}", closer=self.close)
            self.registry.register_instantiation_rule(name, self.build)
        self.registry.add_listener(self.listen)
        self.executor = warmset.MethodExecutor(method_registry=self.registry)

    def at(self, site: str) -> None:
        """Inject the fault, if foreign code runs at its site and not within the fault."""
        # A listener that removes at each removal would never end.
        if site == self.site and self.depth < 2 and self.injected < 30:
            self.injected += 1
            self.depth += 1
            try:
                self.fault(self)
            finally:
                self.depth -= 1

    def clock(self) -> float:
        if hasattr(self, "executor"):
            self.at("timer")
        return self.now

    def build(self, cls: type) -> Any:
        self.at("rule")
        instance = cls()
        instance.world = self
        return instance

    def close(self, instance: Any) -> None:
        self.at("closer")

    def listen(self, event: Any) -> None:
        self.at("listener")

    def operations(self) -> list[Callable[[], Any]]:
        """Return each operation, once."""
        registry, executor = self.registry, self.executor
        return [
            lambda: registry.get_instance("Alpha"),
            lambda: registry.get_method("Beta", "work")(),
            lambda: registry.bind("Gamma", "work")(),
            lambda: executor.execute("Alpha", "work"),
            lambda: list(executor.execute("Beta", "stream")),
            self.lease,
            self.expire,
            lambda: registry.discard("Alpha"),
            lambda: registry.get_instance(Name("Gamma")),
            registry.clear_cache,
            lambda: check_accounts(registry),
            registry.stats,
            registry.holders,
        ]

    def lease(self) -> None:
        with self.registry.use("Gamma"):
            self.registry.clear_cache()

    def expire(self) -> None:
        self.now += 6.0
        self.registry.evict_expired()

    def sound(self) -> None:
        """Fail unless the registry is whole and every name can be looked up."""
        self.site = "nowhere"
        gc.collect()
        for name in NAMES:
            assert self.registry.get_instance(name) is not None
        check_structure(self.registry)
        stats = self.registry.stats()
        assert stats.held == 0
        assert self.registry.holders() == []
        assert stats.cached <= 2
        assert stats.hits + stats.misses == stats.lookups
        # Every instance is cached, was closed, or is known not to be closed; none is in between.
        assert stats.states["held"] == stats.states["waiting"] == 0, dict(stats.states)


class Name(str):
    """A name whose comparison and hash are foreign code; none of it must ever run."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")


class Subject:
    """Its instances are built; each of its methods is a site."""

    world: World | None = None

    def at(self, site: str) -> None:
        if self.world is not None:
            self.world.at(site)

    def work(self) -> str:
        self.at("method")
        return "done"

    def stream(self) -> Any:
        self.at("method")
        yield 1
        self.at("method")

    def __del__(self) -> None:
        with contextlib.suppress(BaseException):  # the interpreter would only print it
            self.at("finaliser")


subjects = types.ModuleType("stress_subjects")
for subject in NAMES:
    setattr(subjects, subject, type(subject, (Subject,), {"__module__": "stress_subjects"}))
sys.modules["stress_subjects"] = subjects


def _raise(world: World) -> None:
    raise ValueError("injected")


def _interrupt(world: World) -> None:
    raise KeyboardInterrupt


def _same(world: World) -> None:
    for name in NAMES:
        world.registry.get_instance(name)


def _clear(world: World) -> None:
    world.registry.clear_cache()


def _evict(world: World) -> None:
    world.now += 6.0
    world.registry.evict_expired()


def _register(world: World) -> None:
    world.registry.unregister("Alpha")
    world.registry.register("Alpha", "stress_subjects.Alpha", closer=world.close)


def _collect(world: World) -> None:
    gc.collect()


def _block(world: World) -> None:
    # Another thread works meanwhile, on no name that may be being built.
    other = threading.Thread(target=world.registry.stats)
    other.start()
    other.join(HANG_SECONDS)
    assert not other.is_alive(), "another thread is stopped"


def _fork(world: World) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            world.site = "nowhere"
            world.registry.stats()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


FAULTS: dict[str, Callable[[World], None]] = {
    "raises": _raise,
    "is interrupted": _interrupt,
    "re-enters": _same,
    "clears": _clear,
    "evicts": _evict,
    "registers anew": _register,
    "collects": _collect,
    "waits for a thread": _block,
}
if hasattr(os, "fork"):
    FAULTS["forks"] = _fork
SITES = ("rule", "closer", "listener", "finaliser", "method", "timer")


def faults(seed: int, rounds: int) -> int:
    """Run the matrix and print it as a table; return how many were lost."""
    rng = random.Random(seed)
    lost = 0
    print(f"| site | {' | '.join(FAULTS)} |")
    print(f"| --- |{' --- |' * len(FAULTS)}")
    for site in SITES:
        cells = []
        for kind, fault in FAULTS.items():
            injected = broken = 0
            for _ in range(rounds):
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
                world = World(site, fault, weak=rng.random() < 0.2)
                operations = world.operations() * 2
                rng.shuffle(operations)
                try:
                    for operation in operations:
                        _attempt(operation)
                    world.sound()
                except Exception as error:
                    broken += 1
                    print(f"lost: {site} {kind}: {error!r}", file=sys.stderr)
                    traceback.print_exception(error)
                injected += world.injected
            lost += broken
            cells.append(f"{injected} / {injected if not broken else '?'} / {broken}")
        print(f"| {site} | {' | '.join(cells)} |", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return lost


def _attempt(operation: Callable[[], Any]) -> None:
    """Do an operation; it may only raise the fault, or an error of ours."""
    try:
        operation()
    except (ValueError, KeyboardInterrupt, warmset.MethodRegistryError):
        pass


def schedules(seed: int, count: int, threads: int = 3) -> int:
    """
    Explore interleavings, and return how many broke an invariant.

    At each line of the package that a thread reaches, its own seeded dice decide whether it lets
    the others run first. In the pure core this is at the beginning of functions: its changes are
    straight lines of stores in which CPython does not switch threads.
    """
    lost = 0
    package = os.path.dirname(str(warmset.__file__))
    sys.setswitchinterval(1.0)  # threads switch where the dice say so, or where they wait
    for number in range(seed, seed + count):
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        world = World("nowhere", _raise, weak=number % 5 == 0)
        errors: list[BaseException] = []

        def work(
            index: int, number: int = number, world: World = world, errors: Any = errors
        ) -> None:
            dice = random.Random(number * 100 + index)

            def trace(frame: Any, event: str, argument: Any) -> Any:
                path = frame.f_code.co_filename
                if not path.startswith(package):
                    return None
                if event in ("line", "call") and dice.random() < 0.2:
                    time.sleep(0)
                return None if path.endswith(CORE) else trace

            operations = world.operations()
            sys.settrace(trace)
            try:
                for _ in range(8):
                    dice.choice(operations)()
            except BaseException as error:
                errors.append(error)
            finally:
                sys.settrace(None)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        try:
            if errors:
                raise errors[0]
            world.sound()
        except BaseException as error:
            lost += 1
            print(f"lost: schedule {number}: {error!r}", file=sys.stderr)
            traceback.print_exception(error)
    faulthandler.cancel_dump_traceback_later()
    print(f"{warmset.implementation}: {count} schedules of {threads} threads, {lost} lost")
    return lost


def soak(seed: int, seconds: float, threads: int) -> int:
    """Mix every operation in threads, print figures, and return 1 if an invariant broke."""
    world = World("nowhere", _raise)
    registry = world.registry
    counts = [0] * threads
    errors: list[BaseException] = []
    end = time.monotonic() + seconds
    sys.setswitchinterval(1e-5)

    def work(index: int) -> None:
        rng = random.Random(seed * 1000 + index)
        operations = world.operations()
        try:
            while time.monotonic() < end:
                rng.choice(operations)()
                counts[index] += 1
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds + HANG_SECONDS)
        assert not worker.is_alive(), "a thread hangs"
    import psutil

    stats = registry.stats()
    print(
        f"{warmset.implementation}, seed {seed}: {sum(counts)} operations in {seconds:.0f} s by "
        f"{threads} threads; {stats.lookups} look-ups, {stats.builds} builds, "
        f"{sum(stats.removals.values())} removals, {stats.closed} closed, {stats.left_open} left "
        f"open, {stats.close_failures} close failures, {stats.waits} waits; RSS "
        f"{psutil.Process().memory_info().rss / 1e6:.0f} MB; errors {len(errors)}"
    )
    for error in errors:
        print(repr(error), file=sys.stderr)
    world.sound()
    return bool(errors)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["faults", "schedules", "soak"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20, help="of each fault at each site")
    parser.add_argument("--count", type=int, default=500, help="of schedules")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.what == "faults":
        return 1 if faults(options.seed, options.rounds) else 0
    if options.what == "schedules":
        return 1 if schedules(options.seed, options.count) else 0
    return soak(options.seed, options.seconds, options.threads)


if __name__ == "__main__":
    sys.exit(main())
