"""
Threads that keep accounts of what they do: ``python tests/support/accounts.py --seconds 60``.

Each thread looks up, holds, calls and executes, on names of which more are asked for than fit, and
counts what it did. Meanwhile no instance may be closed that somebody holds, and none twice. After
it, the registry must have counted the same: no look-up, no use, no hold and no call is lost; and
what was built is closed, each instance once.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

import structure

import warmset

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [f"Name{i}" for i in range(8)]


class Counted:
    """What is built: it knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0
        built.append(self)

    def work(self, x: int = 0, y: int = 0) -> int:
        assert not self.closed, "called after it was closed"
        return x + y

    def stream(self) -> Iterator[int]:
        for i in range(3):
            assert not self.closed, "goes on after it was closed"
            yield i

    def close(self) -> None:
        self.closed += 1
        assert self.closed == 1, "closed twice"


built: list[Counted] = []


class Accounts:
    """One registry, and how often the threads did what."""

    def __init__(self, size: int, names: int) -> None:
        self.names = NAMES[:names]
        self.registry = warmset.MethodRegistry({}, max_cache_size=size, cache_ttl_seconds=0.05)
        for name in self.names:
            self.registry.register_class(name, "accounts_subjects.Counted", close_when_removed=True)
        self.executor = warmset.MethodExecutor(method_registry=self.registry)
        self.handles = [self.registry.bind(name, "work") for name in self.names]
        self.lookups = self.routes = 0
        self.errors: list[BaseException] = []
        self._noting = threading.Lock()

    def work(self, seed: int, end: float) -> None:
        """What one thread does."""
        rng = random.Random(seed)
        lookups = routes = 0
        try:
            while time.monotonic() < end:
                for _ in range(50):
                    which = min(int(rng.expovariate(0.5)), len(self.names) - 1)
                    done = self.do(rng.randrange(12), which, rng)
                    lookups += done[0]
                    routes += done[1]
        except BaseException as error:
            self.errors.append(error)
        with self._noting:
            self.lookups += lookups
            self.routes += routes

    def do(self, what: int, which: int, rng: random.Random) -> tuple[int, int]:
        """One operation; how many look-ups and routed calls it was."""
        registry, name = self.registry, self.names[which]
        if what < 3:
            registry.get_instance(name)
            return 1, 0
        if what == 3:
            registry.get_instance("".join(name))  # an equal name that is another object
            return 1, 0
        if what == 4:
            registry.get_method(name, "work")
            return 1, 0
        if what < 7:
            assert self.handles[which](1, y=2) == 3
            return 1, 0
        if what < 9:
            assert self.executor.execute(name, "work", x=1, y=2) == 3
            return 1, 1
        if what == 9:
            assert list(self.executor.execute(name, "stream")) == [0, 1, 2]
            return 1, 1
        if what == 10:
            with registry.use(name) as held:
                assert not held.closed, "held after it was closed"
                other = registry.get_instance(rng.choice(self.names))
                assert other is not None
                assert not held.closed, "closed while it was held"
            return 2, 0
        if rng.random() < 0.5:
            registry.evict_expired()
        else:
            registry.stats()
        return 0, 0

    def settle(self) -> None:
        """Fail unless the registry counted what the threads did."""
        if self.errors:
            raise self.errors[0]
        structure.check(self.registry)
        stats = self.registry.stats()
        assert stats.hits + stats.misses == self.lookups, (stats, self.lookups)
        assert self.executor.get_routing_metrics()["total_routes"] == self.routes
        assert self.registry.holders() == []
        assert stats.held == 0
        gone = sum(stats.removals.values())
        assert gone + stats.cached == stats.builds, (stats, len(built))
        self.registry.clear_cache()
        assert [instance.closed for instance in built] == [1] * len(built)
        assert len(built) == stats.builds


def run(seed: int, seconds: float, threads: int) -> None:
    """Let threads work for a while, with room for less and less of the names."""
    for size, names in ((6, 8), (2, 8), (8, 8), (1, 3)):
        built.clear()
        accounts = Accounts(size, names)
        end = time.monotonic() + seconds / 4
        workers = [
            threading.Thread(target=accounts.work, args=(seed * 1000 + i, end))
            for i in range(threads)
        ]
        faulthandler.dump_traceback_later(seconds + 120.0, exit=True)
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        faulthandler.cancel_dump_traceback_later()
        accounts.settle()
        print(
            f"{warmset.implementation}, {threads} threads, {names} names, room for {size}: "
            f"{accounts.lookups} look-ups, {len(built)} builds, all accounted for",
            flush=True,
        )


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    subjects: Any = types.ModuleType("accounts_subjects")
    subjects.Counted = Counted
    sys.modules["accounts_subjects"] = subjects
    sys.setswitchinterval(1e-5)
    run(options.seed, options.seconds, options.threads)


if __name__ == "__main__":
    main()
