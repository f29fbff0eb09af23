"""
Random calls of everything: ``python tests/support/fuzz.py --seconds N --seed S``.

Each round makes registries, executors, leases and handles, and calls their methods at random, the
private ones too, with arguments that fit or do not. Constructors, closers, timers, listeners,
finalisers, weak-reference callbacks, and the comparisons of subclasses of `str` and `dict` call at
random in turn. In some rounds the collector runs at each allocation, allocations fail, or somebody
writes into the private mappings. A round is repeated by its seed.

What must not happen is a crash, a read of freed memory (`ci/sanitizers.sh` runs this under
AddressSanitizer and with assertions), a hang, or an account that does not balance.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import inspect
import logging
import random
import sys
import types
import warnings
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any

import warmset
from warmset._core import Entry, ExecutorCore, RegistryCore, Slot
from warmset.testing.structure import check_accounts, check_structure

try:
    import _testcapi
except ImportError:  # not part of every distribution
    _testcapi = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ("Alpha", "Beta", "Gamma", "Delta")
METHODS = ("work", "stream", "wait", "items", "none", "same", "fixed", "missing")
STEPS = 150
HANG_SECONDS = 120.0
COMPILED = warmset.implementation == "compiled"

# Not called: they take seconds, start threads, write files, or need a process of their own.
SKIPPED = frozenset(
    {
        "from_file", "from_settings", "health", "measure_all", "plan", "profile", "record_profile",
        "release_memory", "warm_up", "explain", "reset_after_fork", "attach", "extension",
    }
)  # fmt: skip
# Steps of changes in the pure core, which make sense in their order only; elsewhere they are C.
INTERNAL = frozenset({"after_release", "enter", "give_back", "leave", "take_over", "adopt"})
# Counters that may be assigned: an account would not balance afterwards.
COUNTERS = frozenset({"builds", "evictions", "hits", "adopted"})
# After these the structure is whole, too; all others are left to wild rounds.
TAME = (
    "get_instance", "get_method", "has_method", "inject_method", "drop_injected", "register",
    "discard", "clear_cache", "evict_expired", "sweep", "pin", "unpin", "stats", "get_stats",
    "holders", "recycle", "unregister", "ring", "oldest", "stale", "counters", "holds", "count",
    "class_names", "pinned", "forget_failures", "measure", "make_capacity", "has_capacity",
    "weakly_alive",
)  # fmt: skip


class ChaosError(Exception):
    """Raised by foreign code."""


class World:
    """What the calls of one round are made on."""

    def __init__(self, seed: int) -> None:
        self.random = rng = random.Random(seed)
        self.wild = rng.random() < 0.6
        # Without memory, a debug build of the interpreter fails its own assertions, and 3.13 reads
        # through NULL where it makes a function (`PyFunction_NewWithQualName`).
        sound = not hasattr(sys, "gettotalrefcount") and sys.version_info < (3, 13)
        fails = COMPILED and sound and _testcapi is not None
        self.no_memory = fails and self.wild and rng.random() < 0.3
        self.collecting = rng.random() < 0.25
        # In the pure core they are plain attributes, and what is written there is simply used.
        self.tampering = COMPILED and self.wild and rng.random() < 0.2
        self.depth = 0
        self.ended = False
        self.now = 0.0
        self.calls = 0
        self.pool: list[Any] = []
        self.registries: list[Any] = []
        self.executors: list[Any] = []
        self.leases: list[Any] = []
        self.handles: list[Any] = []
        self.running: list[Any] = []
        for _ in range(rng.choice((1, 1, 2))):
            self.make_registry()

    # -- what there is ---------------------------------------------------------------------------

    def make_registry(self) -> None:
        rng = self.random
        options: dict[str, Any] = {}
        if rng.random() < 0.3:
            options["policy"] = "cost"
        registry = warmset.MethodRegistry(
            {name: f"fuzz_subjects.{name}" for name in NAMES},
            cache_ttl_seconds=rng.choice((0.0, 3.0, 300.0)),
            max_age_seconds=rng.choice((0.0, 0.0, 20.0)),
            max_cache_size=rng.choice((1, 2, 3, 100)),
            enable_weakref=rng.random() < 0.3,
            retry_after_seconds=0.0,
            timer=self.clock if rng.random() < 0.5 else None,
            **options,
        )
        for name in NAMES[:2]:
            registry.register(name, f"fuzz_subjects.{name}", closer=self.close)
            registry.register_instantiation_rule(name, self.build)
        registry.add_listener(self.listen)
        self.registries.append(registry)
        self.executors.append(warmset.MethodExecutor(method_registry=registry))

    def clock(self) -> float:
        self.chaos(0.02)
        self.now += self.random.choice((0.0, 0.0, 0.1, 2.0))
        return self.now

    def build(self, cls: type) -> Any:
        self.chaos(0.2)
        if self.random.random() < 0.05:
            return None
        return cls()

    def close(self, instance: Any) -> None:
        self.chaos(0.2)

    def listen(self, event: Any) -> None:
        self.chaos(0.1)

    def chaos(self, likely: float) -> None:
        """Call something at random, or raise, where foreign code runs."""
        rng = self.random
        if self.depth >= 3 or rng.random() >= likely:
            return
        self.depth += 1
        try:
            if rng.random() < 0.1:
                raise ChaosError
            self.step()
        finally:
            self.depth -= 1

    # -- arguments -------------------------------------------------------------------------------

    def name(self) -> str:
        name = self.random.choice(NAMES)
        if self.random.random() < 0.2:
            return Liar(name)
        if self.random.random() < 0.2:
            return "".join(list(name))  # equal, and another object
        return name

    def slot(self) -> Any:
        registry = self.random.choice(self.registries)
        slots = list(registry.slots.values())
        return self.random.choice(slots) if slots else Slot("Alpha")

    def entry(self) -> Any:
        rng = self.random
        if rng.random() < 0.7:
            entry = getattr(self.slot(), "entry", None)
            if entry is not None:
                return entry
        known = [each for each in self.pool if isinstance(each, Entry)]
        return rng.choice(known) if known else Entry(Slot("Alpha"))

    def holder(self) -> Any:
        """Return what an operation puts an entry into."""
        found: list[Any] = []
        registry = self.random.choice(self.registries)
        registry.use(self.random.choice(NAMES)).take(found.append)
        if self.random.random() < 0.5:
            found[0].entry = self.junk() if self.wild else None
        return found[0]

    def junk(self) -> Any:
        rng = self.random
        return rng.choice(
            (
                None, object(), "", Liar(""), Liar("x"), b"x", 0, -1, 2**70, True, Number(3), 1.5,
                float("nan"), float("inf"), Real(2.0), [], {}, (), LyingDict(), type, warmset,
                Slot("Alpha"), self.slot, rng, *self.pool[-3:],
            )
        )  # fmt: skip

    def value(self, parameter: str) -> Any:
        """Return an argument for a parameter of this name, mostly one that fits."""
        rng = self.random
        if self.wild and rng.random() < 0.15:
            return self.junk()
        makers: dict[str, Callable[[], Any]] = {
            "class_name": self.name,
            "method_name": lambda: rng.choice(METHODS),
            "method": lambda: rng.choice((self.close, len, Service.work, lambda: None)),
            "entry": self.entry,
            "spare": self.entry,
            "replacing": self.entry,
            "old": self.entry,
            "ended": self.entry,
            "slot": self.slot,
            "token": lambda: rng.randrange(4),
            "now": lambda: rng.choice((None, self.now)),
            "cause": lambda: rng.randrange(-1, 12),
            "state": lambda: rng.randrange(-1, 10),
            "which": lambda: rng.randrange(3),
            "count": lambda: rng.choice((0, 1, -1)),
            "size": lambda: rng.randrange(-1, 1000),
            "make": lambda: lambda slot: rng.choice((Service(), None, 5)),
            "find": lambda: lambda hold: setattr(hold, "entry", self.entry()),
            "holder": self.holder,
            "hold": self.holder,
            "instance": Service,
            "content": lambda: rng.choice((Service(), weakref.ref(self))),
            "box": lambda: [Service()],
            "entries": lambda: [self.entry()],
            "target": lambda: rng.choice((Service, f"fuzz_subjects.{NAMES[0]}", Service.work)),
            "class_path": lambda: rng.choice((f"fuzz_subjects.{NAMES[1]}", "no.such")),
            "lease": lambda: rng.choice(self.leases or [None]),
            "seconds": lambda: rng.choice((0.0, 1.0)),
            "uses": lambda: rng.randrange(5),
            "most": lambda: rng.choice((None, 0, 1, 5)),
            "value": self.junk,
        }
        maker = makers.get(parameter)
        if maker is not None:
            return maker()
        if parameter.endswith(("seconds", "_at", "used", "than")):
            return rng.choice((0.0, 1.0, self.now))
        return rng.choice((True, False, None, 1))

    # -- steps -----------------------------------------------------------------------------------

    def step(self) -> None:
        """Do something at random; what it raises is no matter."""
        rng = self.random
        self.calls += 1
        steps: list[Callable[[], Any]] = [
            self.call_method, self.call_method, self.enter, self.leave, self.call_handle,
            self.execute, self.resume, self.litter, self.subclass,
        ]  # fmt: skip
        if self.wild:
            steps += [self.call_private, self.call_private, self.initialise_again, self.assign]
            if self.tampering:
                steps.append(self.tamper)
        step = rng.choice(steps)
        if self.no_memory and self.depth == 0 and rng.random() < 0.3:
            self.without_memory(step)
        else:
            self.guarded(step)

    def guarded(self, step: Callable[[], Any]) -> None:
        try:
            found = step()
        except Exception:
            return
        if found is not None and len(self.pool) < 60:
            self.pool.append(found)
        elif self.pool:
            self.pool[self.random.randrange(len(self.pool))] = found

    def without_memory(self, step: Callable[[], Any]) -> None:
        start = self.random.randrange(80)
        # Not without an end: the interpreter itself does not get out of that.
        stop = start + self.random.choice((1, 2, 20))
        try:
            _testcapi.set_nomemory(start, stop)
            try:
                step()
            finally:
                _testcapi.remove_mem_hooks()
        except Exception:
            pass

    def call(self, owner: Any, name: str) -> Any:
        function = getattr(owner, name)
        args: list[Any] = []
        keywords: dict[str, Any] = {}
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return function(*(self.junk() for _ in range(self.random.randrange(3))))
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.default is not parameter.empty and self.random.random() < 0.7:
                continue
            if parameter.kind is parameter.KEYWORD_ONLY:
                keywords[parameter.name] = self.value(parameter.name)
            else:
                args.append(self.value(parameter.name))
        if self.wild and self.random.random() < 0.05:
            args.append(self.junk())
        return function(*args, **keywords)

    def call_method(self) -> Any:
        return self.call(self.random.choice(self.registries), self.random.choice(TAME))

    def call_private(self) -> Any:
        """Call anything of anything."""
        rng = self.random
        owners = [*self.registries, *self.executors, *self.leases[-3:], *self.handles[-2:]]
        owner = rng.choice([*owners, self.slot(), self.entry(), *self.pool[-3:]])
        names = [
            name
            for name in dir(type(owner))
            if name not in SKIPPED
            and name != "close"
            and (COMPILED or not (name.startswith("_") or name in INTERNAL))
            and (not name.startswith("__") or name in ("__repr__", "__sizeof__", "__reduce__"))
        ]
        name = rng.choice(names)
        found = getattr(owner, name)
        return self.call(owner, name) if callable(found) else found

    def initialise_again(self) -> Any:
        rng = self.random
        owner = rng.choice([*self.registries, *self.executors, *self.leases, *self.handles])
        kind = rng.choice(
            [each for each in type(owner).__mro__ if each.__module__.startswith("warmset")]
        )
        if rng.random() < 0.5:
            return kind.__init__(owner, *(self.junk() for _ in range(rng.randrange(3))))
        return kind.__new__(kind, *(self.junk() for _ in range(rng.randrange(3))))

    def assign(self) -> None:
        rng = self.random
        if not COMPILED:  # the pure core cannot be harmed, but its accounts can
            rng.choice(self.registries).max_size = rng.randrange(1, 5)
            return
        owner = rng.choice([*self.registries, *self.executors, self.slot(), self.entry()])
        names = [each for each in dir(type(owner)) if not each.startswith("__")]
        name = rng.choice(names)
        kind = next(each for each in type(owner).__mro__ if name in vars(each))
        if name in COUNTERS or kind not in (Slot, Entry, *RegistryCore.__mro__, ExecutorCore):
            return
        before = getattr(owner, name)
        if not callable(before):
            setattr(owner, name, self.junk() if rng.random() < 0.5 else before)

    def tamper(self) -> None:
        """Write into the dicts behind the read-only views."""
        rng = self.random
        registry = rng.choice(self.registries)
        found: list[Any] = []

        class Thief:
            def __eq__(self, other: object) -> bool:
                found.append(other)
                return False

            __hash__ = None  # type: ignore[assignment]

        _ = rng.choice((registry.slots, registry.injected)) == Thief()
        stolen = found[0]
        values = [self.junk(), self.slot(), {}, {"work": self.junk()}]
        if rng.random() < 0.3 and stolen:
            stolen.pop(rng.choice(list(stolen)), None)
        else:
            stolen[rng.choice(NAMES)] = rng.choice(values)

    def enter(self) -> Any:
        lease = self.random.choice(self.registries).use(self.name())
        self.leases.append(lease)
        return lease.__enter__()

    def leave(self) -> None:
        if self.leases:
            lease = self.leases[self.random.randrange(len(self.leases))]
            if self.random.random() < 0.2:
                lease.__enter__()
            lease.__exit__(None, None, None)
            if self.random.random() < 0.5:
                self.leases.remove(lease)

    def call_handle(self) -> Any:
        if not self.handles or self.random.random() < 0.3:
            registry = self.random.choice(self.registries)
            self.handles.append(registry.bind(self.name(), self.random.choice(METHODS)))
            del self.handles[:-8]
        handle = self.random.choice(self.handles)
        found = handle(*([self.junk()] * self.random.choice((0, 0, 1, 12))))
        self.running.append(found)
        return found

    def execute(self) -> Any:
        rng = self.random
        payload: dict[str, Any] = {}
        if rng.random() < 0.3:
            payload = {rng.choice(("text", "limit", Liar("text"), "other")): self.junk()}
        if rng.random() < 0.1:
            payload = LyingDict(payload)
        names = [self.name(), rng.choice((*METHODS, Liar("work")))]
        if self.wild and rng.random() < 0.3:
            names = [self.junk() for _ in range(rng.randrange(4))]
        found = rng.choice(self.executors).execute(*names, **payload)
        self.running.append(found)
        return found

    def resume(self) -> None:
        """Go on with, or drop, what a method returned."""
        if not self.running:
            return
        each = self.running.pop(self.random.randrange(len(self.running)))
        if self.random.random() < 0.3:
            return
        if hasattr(each, "send"):
            each.send(None)
        elif hasattr(each, "__anext__"):
            each.__anext__().send(None)

    def litter(self) -> None:
        """Leave cycles with finalisers and weak-reference callbacks to the collector."""
        rng = self.random
        node = Node(self)
        node.things = [node, *rng.sample(self.leases, min(2, len(self.leases)))]
        node.things += [rng.choice(self.registries), *self.handles[-1:], *self.pool[-1:]]
        node.things.append(rng.choice(self.registries).use(rng.choice(NAMES)))
        other = Node(self)
        node.things.append(weakref.ref(other, lambda _: self.chaos(0.3)))
        del node, other
        if rng.random() < 0.2:
            gc.collect()
        if self.wild and not self.collecting and rng.random() < 0.02:
            with contextlib.suppress(RecursionError):
                self.recurse()

    def recurse(self) -> None:
        self.step()
        self.recurse()

    def subclass(self) -> Any:
        """Use subclasses that skip or repeat the initialisation."""
        rng = self.random

        class Executor(warmset.MethodExecutor):
            def __init__(self, *args: Any) -> None:
                if args:
                    super().__init__(method_registry=args[0])
                    with contextlib.suppress(RuntimeError):
                        super().__init__(method_registry=args[0])

        class Registry(warmset.MethodRegistry):
            def __init__(self) -> None:
                pass

        made = rng.choice((Executor, lambda: Executor(rng.choice(self.registries)), Registry))()
        if isinstance(made, Registry):
            return rng.choice(
                (made.get_instance, made.use, made.cached, made.ring, made.clear_cache)
            )(*rng.choice(((), ("Alpha",))))
        return made.execute(rng.choice(NAMES), rng.choice(METHODS))

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Release all, and check the accounts."""
        self.depth, self.ended = 3, True  # no more re-entry
        with contextlib.suppress(Exception):
            self.running.clear()
        if not self.wild:
            self.pool.clear()
        gc.collect()
        for lease in self.leases:
            with contextlib.suppress(Exception):
                lease.__exit__(None, None, None)
        self.leases.clear()
        for registry in self.registries:
            check_accounts(registry)
            if not self.wild:
                check_structure(registry)
            with contextlib.suppress(Exception):
                registry.clear_cache()
            check_accounts(registry)
        self.pool.clear()


class Liar(str):
    """Claims to equal whatever it is compared with, and calls at random meanwhile."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        current.chaos(0.3)
        return True

    def __ne__(self, other: object) -> bool:
        current.chaos(0.3)
        return False

    def __hash__(self) -> int:
        current.chaos(0.3)
        return 0

    def __len__(self) -> int:
        return 10**9

    def __str__(self) -> str:
        current.chaos(0.3)
        return self


class Number(int):
    def __index__(self) -> int:
        current.chaos(0.3)
        return 1

    __int__ = __index__


class Real(float):
    def __float__(self) -> float:
        current.chaos(0.3)
        return 1.0

    def __gt__(self, other: object) -> bool:
        current.chaos(0.3)
        return True


class LyingDict(dict):  # type: ignore[type-arg]
    def keys(self) -> Any:
        current.chaos(0.3)
        return [Liar("text"), "limit"]

    def __getitem__(self, key: Any) -> Any:
        current.chaos(0.3)
        return key


class Node:
    """Part of a cycle that the collector finds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.things: list[Any] = []

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.world.chaos(0.3)
        if not self.world.ended and self.world.random.random() < 0.1:
            self.world.pool.append(self)  # it comes back to life


class Service:
    """What is built."""

    fixed = staticmethod(len)

    def __init__(self) -> None:
        current.chaos(0.05)
        if current.random.random() < 0.2:
            self.cycle = Node(current)
            self.cycle.things.append(self)

    def work(self, text: Any = None, limit: int = 0) -> Any:
        current.chaos(0.2)
        return text

    def stream(self) -> Iterator[int]:
        yield 1
        current.chaos(0.2)
        yield 2

    async def wait(self) -> int:
        current.chaos(0.2)
        return 1

    async def items(self) -> Any:
        yield 1

    def none(self) -> None:
        current.chaos(0.2)

    def same(self) -> Any:
        return self

    def close(self) -> None:
        current.chaos(0.1)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            current.chaos(0.1)


current: World


def run_round(seed: int) -> int:
    """Run one round; return how many calls were made."""
    global current
    current = world = World(seed)
    if world.collecting:
        gc.set_threshold(1, 1, 1)
    try:
        for _ in range(STEPS):
            world.step()
    finally:
        gc.set_threshold(700, 10, 10)
    world.finish()
    return world.calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--rounds", type=int, default=0, help="0: as many as the time allows")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    sys.setrecursionlimit(600)
    module = sys.modules["fuzz_subjects"] = types.ModuleType("fuzz_subjects")
    for name in NAMES:
        setattr(module, name, type(name, (Service,), {"__module__": "fuzz_subjects"}))
    end = monotonic() + options.seconds
    rounds = calls = 0
    while options.rounds == rounds == 0 or (
        rounds < options.rounds if options.rounds else monotonic() < end
    ):
        seed = options.seed + rounds
        print(f"\rround of seed {seed}", end="", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        calls += run_round(seed)
        rounds += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"\n{warmset.implementation} core: {rounds} rounds, {calls} calls, accounts balance")
    return 0


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
