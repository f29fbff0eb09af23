"""
Threads, tasks, greenlets, forks and signals at once: ``python tests/support/mixed.py``.

One registry at a time, of several kinds, serves all of them: threads that run every operation of
the API, event loops whose tasks are cancelled at random, greenlets that switch inside constructors
and methods, a thread that forks children which use the registry at once, and the main thread, which
a timer interrupts with `KeyboardInterrupt` wherever the interpreter lets it. Constructors, closers,
listeners and finalisers re-enter the registry, raise, or switch.

At random moments, and at the end, the registry's entries must be the sum over their states. At the
end nothing is held, and every instance whose constructor completed was closed exactly once, never
while it was in use; only an interrupt at the very beginning of a closer may leave it open, and is
counted. The same seed makes the same random choices; the interleaving is the system's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
import types
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import warmset
from warmset.aio import AsyncMethodExecutor
from warmset.testing.structure import check_accounts, check_structure

try:
    import greenlet
except ImportError:  # there are no wheels of it for every interpreter
    greenlet = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = [f"Name{i}" for i in range(6)]
HANG_SECONDS = 120.0
KINDS: dict[str, dict[str, Any]] = {
    "bounded": {"max_cache_size": 3, "cache_ttl_seconds": 0.05},
    "single": {"max_cache_size": 1},
    "cost": {"max_cache_size": 2, "policy": "cost"},
    "weak": {"enable_weakref": True},
    "aged": {"max_cache_size": 8, "max_age_seconds": 0.02, "sweep_interval_seconds": 0.01},
    "capacity": {"max_cache_size": 2, "block_when_full": True, "block_timeout_seconds": 0.2},
}
# What an operation may raise: an injected fault, or an error of warmset that the others cause.
EXPECTED = (ValueError, warmset.MethodRegistryError)


class InjectedError(ValueError):
    """A fault that a constructor, closer or listener raises."""


class Subject:
    """The registered class; an instance records how often it was closed."""

    def __init__(self) -> None:
        world = World.current
        self.closed = 0
        self.complete = False
        world.built.append(self)
        world.disturb("constructor")
        # Last: no interrupt can arrive between this and the return.
        self.complete = True

    def work(self, x: int = 0) -> int:
        assert not self.closed, "called after it was closed"
        World.current.disturb("method")
        assert not self.closed, "closed during a call"
        return x + 1

    def stream(self) -> Iterator[int]:
        for i in range(2):
            assert not self.closed, "continued after it was closed"
            World.current.disturb("method")
            yield i

    async def wait(self) -> int:
        for _ in range(2):
            assert not self.closed, "awaited after it was closed"
            await asyncio.sleep(0)
        return 1

    def close(self) -> None:
        self.closed += 1
        assert self.closed == 1, "closed twice"
        World.current.disturb("closer")


class World:
    """
    One registry, what was built in it, and everything that works on it.

    Args:
        kind: A key of `KINDS`.
        seed: Of the random choices.
    """

    current: World

    def __init__(self, kind: str, seed: int) -> None:
        World.current = self
        self.built: list[Subject] = []
        self.seed = seed
        self.local = threading.local()
        self.counts: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.ended = threading.Event()
        self.armed = False
        self.main = threading.main_thread()
        self.registry = warmset.MethodRegistry({}, retry_after_seconds=0.0, **KINDS[kind])
        for name in NAMES:
            self.register(name)
        self.registry.add_listener(lambda event: self.disturb("listener"))
        self.registry.add_build_listener(lambda event: self.disturb("listener"))
        self.executor = warmset.MethodExecutor(method_registry=self.registry)
        self.handles = [self.registry.bind(name, "work") for name in NAMES]

    # -- disturbances ----------------------------------------------------------------------------

    def dice(self) -> random.Random:
        """Return the random numbers of the calling thread."""
        dice: random.Random | None = getattr(self.local, "dice", None)
        if dice is None:
            dice = self.local.dice = random.Random(f"{self.seed} {threading.current_thread().name}")
        return dice

    def disturb(self, site: str) -> None:
        """Where foreign code runs: raise, re-enter, collect, switch, or do nothing."""
        local = self.local
        dice = self.dice()
        hub = getattr(local, "hub", None)
        if hub is not None and site in ("constructor", "method") and dice.random() < 0.5:
            hub.switch()
        depth = getattr(local, "depth", 0)
        if depth > 1:
            return
        local.depth = depth + 1
        try:
            chance = dice.random()
            if chance < 0.03:
                raise InjectedError(site)
            if chance < 0.10:
                self.operate(dice)
            elif chance < 0.11:
                gc.collect(0)
            elif chance < 0.15:
                time.sleep(0)
        finally:
            local.depth = depth

    # -- operations ------------------------------------------------------------------------------

    def register(self, name: str) -> None:
        self.registry.register(name, Subject, close_when_removed=True)

    def operations(self) -> list[tuple[int, Callable[[random.Random, str, int], Any]]]:
        """Return every operation, with its weight."""
        registry, executor, handles = self.registry, self.executor, self.handles

        def lease(dice: random.Random, name: str, i: int) -> None:
            with registry.use(name) as held:
                self.operate(dice)
                assert not held.closed, "closed while it was held"

        def leave(dice: random.Random, name: str, i: int) -> None:
            stream = executor.execute(name, "stream")
            next(stream)
            if dice.random() < 0.5:
                stream.close()

        def anew(dice: random.Random, name: str, i: int) -> None:
            registry.unregister(name)
            self.register(name)

        def warm_up(dice: random.Random, name: str, i: int) -> None:
            # Its threads may wait for a greenlet of this thread, which waits for them meanwhile.
            if not hasattr(self.local, "hub"):
                registry.warm_up([name], workers=1)

        def pin(dice: random.Random, name: str, i: int) -> None:
            registry.pin(name)
            registry.unpin(name)

        return [
            (8, lambda dice, name, i: registry.get_instance(name)),
            (8, lambda dice, name, i: handles[i](1)),
            (8, lambda dice, name, i: executor.execute(name, "work", x=1)),
            (2, lambda dice, name, i: list(executor.execute(name, "stream"))),
            (2, lambda dice, name, i: list(registry.bind(name, "stream")())),
            (2, leave),
            (6, lease),
            (2, lambda dice, name, i: registry.get_method(name, "work")),
            (2, lambda dice, name, i: registry.discard(name)),
            (1, lambda dice, name, i: registry.clear_cache()),
            (1, lambda dice, name, i: registry.recycle(name)),
            (1, lambda dice, name, i: registry.evict_expired()),
            (1, lambda dice, name, i: registry.sweep()),
            (1, anew),
            (1, pin),
            (1, warm_up),
            (1, lambda dice, name, i: registry.forget_failures()),
            (1, lambda dice, name, i: registry.stats()),
            (1, lambda dice, name, i: registry.holders()),
            (1, lambda dice, name, i: registry.explain(name)),
            (1, lambda dice, name, i: registry.health()),
            (1, lambda dice, name, i: registry.has_method(name, "work")),
            (2, lambda dice, name, i: check_accounts(registry)),
        ]

    def operate(self, dice: random.Random) -> None:
        """Do one random operation."""
        local = self.local
        if not hasattr(local, "operations"):
            weights, local.operations = zip(*self.operations(), strict=True)
            local.weights = list(itertools.accumulate(weights))
        which = dice.randrange(len(NAMES))
        operation = dice.choices(local.operations, cum_weights=local.weights)[0]
        with contextlib.suppress(*EXPECTED):
            operation(dice, NAMES[which], which)

    # -- workers ---------------------------------------------------------------------------------

    def guard(self, work: Callable[[], None]) -> Callable[[], None]:
        """Keep what a worker raises, and stop the others."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self.errors.append(error)
                self.ended.set()

        return guarded

    def thread(self) -> None:
        dice = self.dice()
        while not self.ended.is_set():
            self.operate(dice)
            self.counts["thread"] += 1

    def loops(self) -> None:
        """Run event loops, one after the other, whose tasks are cancelled at random."""
        while not self.ended.is_set():
            asyncio.run(self.tasks())

    async def tasks(self) -> None:
        executor = AsyncMethodExecutor(method_registry=self.registry, max_threads=2)
        dice = self.dice()
        tasks = [asyncio.create_task(self.task(executor, dice)) for _ in range(6)]
        for _ in range(40):
            await asyncio.sleep(0.0005)
            which = dice.randrange(len(tasks))
            if dice.random() < 0.3 or tasks[which].done():
                tasks[which].cancel()
                await asyncio.wait([tasks[which]])
                if not tasks[which].cancelled():
                    tasks[which].result()
                tasks[which] = asyncio.create_task(self.task(executor, dice))
                self.counts["cancelled"] += 1
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await executor.aclose()

    async def task(self, executor: AsyncMethodExecutor, dice: random.Random) -> None:
        while True:
            name = dice.choice(NAMES)
            with contextlib.suppress(*EXPECTED):
                chance = dice.randrange(6)
                if chance == 0:
                    await executor.get_instance(name)
                elif chance == 1:
                    await executor.execute(name, "work", x=1)
                elif chance == 2:
                    assert await executor.execute(name, "wait") == 1
                elif chance == 3:
                    async with executor.use(name) as held:
                        await asyncio.sleep(0)
                        assert not held.closed, "closed while it was held"
                elif chance == 4:
                    await executor.discard(name)
                else:
                    check_accounts(self.registry)
            self.counts["task"] += 1
            await asyncio.sleep(0)

    def greenlets(self) -> None:
        """Run operations in greenlets of one thread, which switch where foreign code runs."""
        local = self.local
        local.hub = hub = greenlet.getcurrent()
        dice = self.dice()

        def work() -> None:
            while not self.ended.is_set():
                local.depth = 0
                self.operate(dice)
                self.counts["greenlet"] += 1
                hub.switch()

        running = [greenlet.greenlet(work) for _ in range(4)]
        while running:
            dice.choice(running).switch()
            running = [each for each in running if not each.dead]

    def forks(self) -> None:
        """Fork children, one at a time, that use the registry at once."""
        while not self.ended.is_set():
            child = os.fork()
            if child == 0:
                os._exit(self.child())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == 0, f"a forked child ended with {status}"
            self.counts["fork"] += 1
            self.ended.wait(0.02)

    def child(self) -> int:
        """Use the registry in a forked child; return the status that it exits with."""
        try:
            # A watchdog of `faulthandler` would join the one that the parent has.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(int(HANG_SECONDS / 4))
            dice = random.Random(self.seed)
            for _ in range(20):
                self.operate(dice)
            check_accounts(self.registry)
        except BaseException:
            faulthandler.dump_traceback(all_threads=False)
            import traceback

            traceback.print_exc()
            return 1
        return 0

    def interrupted(self, end: float) -> None:
        """Run operations in the main thread, with interrupts at moments that a timer chooses."""
        dice = self.dice()

        def interrupt(number: int, frame: Any) -> None:
            if self.armed:
                self.armed = False
                self.counts["interrupt"] += 1
                raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        while time.monotonic() < end and not self.ended.is_set():
            self.local.depth = 0
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, dice.expovariate(2000.0) + 1e-6)
                self.operate(dice)
                self.armed = False
            except KeyboardInterrupt:
                pass
            self.counts["main"] += 1
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        self.ended.set()

    def run(self, seconds: float) -> None:
        """Let everything work for so long, and settle the accounts."""
        faulthandler.dump_traceback_later(seconds + HANG_SECONDS, exit=True)
        # A fork or an interrupt in the middle of an import leaves a lock of CPython locked, for
        # ever. So what is imported at first use is imported here.
        with contextlib.suppress(warmset.UnknownClassError):
            self.registry.get_instance("Unknown")
        for _, operation in self.operations():
            with contextlib.suppress(*EXPECTED):
                operation(self.dice(), NAMES[0], 0)
        works = [self.thread] * 3 + [self.loops] * 2
        if greenlet is not None:
            works.append(self.greenlets)
        if hasattr(os, "fork"):
            works.append(self.forks)
        workers = [
            threading.Thread(target=self.guard(work), name=f"{work.__name__} {i}")
            for i, work in enumerate(works)
        ]
        for worker in workers:
            worker.start()
        self.guard(lambda: self.interrupted(time.monotonic() + seconds))()
        for worker in workers:
            worker.join()
        self.settle()
        faulthandler.cancel_dump_traceback_later()

    def check_at_rest(self) -> None:
        """
        Fail unless the registry is whole, and nothing is held.

        Its service threads, and threads that builds of cancelled tasks go on in, may be in the
        middle of something at first; what is lost stays lost.
        """
        deadline = time.monotonic() + HANG_SECONDS / 4
        while True:
            try:
                check_structure(self.registry)
                assert self.registry.holders() == []
                assert self.registry.stats().held == 0
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.001)

    def settle(self) -> None:
        """Fail unless nothing is held, and every complete instance was closed exactly once."""
        if self.errors:
            raise self.errors[0]
        registry = self.registry
        gc.collect()
        registry.sweep()  # it closes what an interrupt left to be closed
        self.check_at_rest()
        registry.close()
        gc.collect()
        check_accounts(registry)
        stats = registry.stats()
        complete = [instance for instance in self.built if instance.complete]
        fates = Counter(instance.closed for instance in complete)
        states = {state: count for state, count in stats.states.items() if count}
        assert set(fates) <= {0, 1}, (fates, states)
        if not registry.settings.enable_weakref:
            # Those whose closer was interrupted before its first statement are counted as failed.
            assert fates[0] <= min(states.get("close_failed", 0), self.counts["interrupt"]), fates
        assert len(complete) == stats.builds == sum(states.values()), (len(complete), states)
        self.counts["built"] = len(complete)
        self.counts.update({f"state {state}": count for state, count in states.items()})


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--only", choices=list(KINDS), help="one kind of registry")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks while threads run
    subjects: Any = types.ModuleType("mixed_subjects")
    subjects.Subject = Subject
    sys.modules["mixed_subjects"] = subjects
    sys.setswitchinterval(1e-4)
    kinds = [options.only] if options.only else list(KINDS)
    for number, kind in enumerate(kinds):
        world = World(kind, options.seed * 100 + number)
        world.run(options.seconds / len(kinds))
        counts = ", ".join(f"{count} {what}" for what, count in sorted(world.counts.items()))
        print(f"{warmset.implementation}, {kind}, seed {options.seed}: {counts}", flush=True)


if __name__ == "__main__":
    main()
