"""
Threads that count what they do: ``python tests/support/accounts.py --seconds 60``.

Each thread looks up, holds, calls and executes, on more names than fit into the cache, and counts
what it did. In some of the runs threads also clear, discard, unregister and register while others
build. No instance may be closed while it is held, and none twice. At random moments the registry's
entries must be the sum over their states. At the end it must have counted the same as the threads:
no look-up, no hold and no call is lost; and every instance that was built is closed, once.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import random
import sys
import threading
import time
import types
from collections import Counter
from typing import TYPE_CHECKING, Any

import warmset
from warmset.testing.structure import check_accounts, check_structure

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [f"Name{i}" for i in range(8)]


class Counted:
    """The registered class; an instance counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0
        built.append(self)

    def work(self, x: int = 0, y: int = 0) -> int:
        assert not self.closed, "called after it was closed"
        return x + y

    def stream(self) -> Iterator[int]:
        for i in range(3):
            assert not self.closed, "continued after it was closed"
            yield i

    def close(self) -> None:
        self.closed += 1
        assert self.closed == 1, "closed twice"


class Other(Counted):
    """Another class for the same names."""


built: list[Counted] = []


class Accounts:
    """
    One registry, and how often the threads did what.

    Args:
        size: Its `max_cache_size`.
        names: How many names there are.
        removals: Whether threads also clear, discard, unregister and register while others build.
        closing: Whether the registry is closed while they work.
    """

    def __init__(self, size: int, names: int, *, removals: bool, closing: bool = False) -> None:
        self.names = NAMES[:names]
        self.removals = removals
        self.closing = closing
        self.registry = warmset.MethodRegistry({}, max_cache_size=size, cache_ttl_seconds=0.05)
        for name in self.names:
            self.register(name, Counted)
        self.executor = warmset.MethodExecutor(method_registry=self.registry)
        self.handles = [self.registry.bind(name, "work") for name in self.names]
        self.lookups = self.routes = 0
        self.errors: list[BaseException] = []
        self._noting = threading.Lock()

    def register(self, name: str, cls: type) -> None:
        """Register a class, whose instances are closed even if they are referred to."""
        self.registry.register(name, cls, close_when_removed=True)

    def work(self, seed: int, end: float) -> None:
        """Run in one thread."""
        rng = random.Random(seed)
        lookups = routes = 0
        try:
            while time.monotonic() < end:
                for _ in range(50):
                    which = min(int(rng.expovariate(0.5)), len(self.names) - 1)
                    if self.removals and rng.random() < 0.05:
                        try:
                            self.remove(rng.randrange(6), self.names[which])
                        except warmset.ClosedError:
                            assert self.closing, "registering failed before the close"
                        continue
                    done = self.do(rng.randrange(12), which, rng)
                    lookups += done[0]
                    routes += done[1]
        except BaseException as error:
            self.errors.append(error)
        with self._noting:
            self.lookups += lookups
            self.routes += routes

    def remove(self, what: int, name: str) -> None:
        """Remove something, or register a name anew, while other threads build it."""
        registry = self.registry
        if what == 0:
            registry.clear_cache()
        elif what < 3:
            registry.discard(name)
        elif what == 3:
            registry.unregister(name)
            self.register(name, Counted)
        elif what == 4:
            self.register(name, Other)
        else:
            self.register(name, Counted)
        check_accounts(registry)

    def do(self, what: int, which: int, rng: random.Random) -> tuple[int, int]:
        """Do one operation; return how many look-ups and routed calls it was."""
        try:
            return self.call(what, which, rng)
        except (warmset.UnknownClassError, warmset.ClosedError, warmset.MethodNotFoundError):
            # Between `unregister` and `register`, or after `close`: counted as a miss.
            assert self.removals or self.closing
            return 1, 0

    def call(self, what: int, which: int, rng: random.Random) -> tuple[int, int]:
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
                with contextlib.suppress(warmset.UnknownClassError, warmset.ClosedError):
                    registry.get_instance(rng.choice(self.names))
                assert not held.closed, "closed while it was held"
            return 2, 0
        if rng.random() < 0.5:
            registry.evict_expired()
        else:
            check_accounts(registry)
        return 0, 0

    def settle(self) -> None:
        """Fail unless the registry counted what the threads did, and every instance has a state."""
        if self.errors:
            raise self.errors[0]
        check_structure(self.registry)
        stats = self.registry.stats()
        assert stats.hits + stats.misses == self.lookups, (stats, self.lookups)
        assert self.executor.get_routing_metrics()["total_routes"] == self.routes
        assert self.registry.holders() == []
        assert stats.held == 0
        removed = sum(stats.removals.values())
        # A build whose name was cleared meanwhile is never cached, and so never removed.
        assert removed + stats.cached <= stats.builds, (stats, len(built))
        if not (self.removals or self.closing):
            assert removed + stats.cached == stats.builds, (stats, len(built))
        self.registry.close()
        stats = self.registry.stats()
        fates = Counter(instance.closed for instance in built)
        assert fates == {1: len(built)}, (fates, dict(stats.states))
        assert len(built) == stats.builds == stats.states["closed"]


def run(seed: int, seconds: float, threads: int) -> None:
    """Let threads work for a while, within bounds of several sizes."""
    for size, names, kind in (
        (6, 8, ""),
        (2, 8, "removals"),
        (8, 8, "removals"),
        (1, 3, ""),
        (1, 3, "removals"),
        (2, 8, "removals, closing"),
    ):
        built.clear()
        accounts = Accounts(size, names, removals="removals" in kind, closing="closing" in kind)
        end = time.monotonic() + seconds / 6
        workers = [
            threading.Thread(target=accounts.work, args=(seed * 1000 + i, end))
            for i in range(threads)
        ]
        faulthandler.dump_traceback_later(seconds + 120.0, exit=True)
        for worker in workers:
            worker.start()
        if accounts.closing:
            workers[0].join(seconds / 12)
            accounts.registry.close()
            check_accounts(accounts.registry)
        for worker in workers:
            worker.join()
        faulthandler.cancel_dump_traceback_later()
        accounts.settle()
        print(
            f"{warmset.implementation}, {threads} threads, {names} names, at most {size} cached"
            f"{kind and ', '}{kind}: {accounts.lookups} look-ups, "
            f"{len(built)} builds, all accounted for",
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
