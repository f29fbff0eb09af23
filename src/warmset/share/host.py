"""
A budget that the processes of a host share: one memory mark, and one heavy build at a time.

There is nobody who decides for all. Each process writes into a table what it has, and which of its
instances would leave next and what that is worth; and while all together have too much, the process
whose instance is worth least of all lets it go. A process that has died has no row any more.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from .. import _fork, _logs
from ..memory.budgets import Relief, collect_and_give_back
from ..memory.limits import in_bytes, memory_limit
from .host_table import HostError, HostTable, Member, ProcessRow, process_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._core import Slot
    from ..memory.manager import MemoryManager
    from ..registry import Registry

__all__ = ["HostBudget", "HostMember", "own_bytes"]

_MEMORY = 2  # a value of `events.RemovalCause`
_LOW_PART = 0.9  # of the high mark
_UNKNOWN_BYTES = 1_000_000  # of an instance that nothing has measured
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.1


class HostBudget(NamedTuple):
    """
    A budget for all processes of this user on this host that name it.

    They have to agree on it: each keeps the marks that it was given.
    """

    max_bytes: int | float
    """The most that all together shall have. Bytes, or as a float a part of the machine's memory,
    or of the container's."""
    low_bytes: int | float = 0
    """Down to where instances leave then; 0: nine tenths of `max_bytes`."""
    name: str = "default"
    """Letters, digits, hyphens and underscores."""
    one_heavy_build: bool = True
    """Whether of the builds of heavy classes only one at a time goes on, on the whole host."""
    heavy_bytes: int = 64_000_000
    """From what size on a class counts as heavy; so does one of which no size is known yet."""
    wait_seconds: float = 600.0
    """How long to wait for another process's heavy build, before building all the same."""
    interval_seconds: float = 1.0
    """How often a process looks, where its `sweep_interval_seconds` says nothing."""

    def check(self) -> None:
        """
        Check the values.

        Raises:
            TypeError: One of them is of a wrong type.
            ValueError: One of them is out of range.
        """
        from ..setting_rules import check_setting

        for what in ("max_bytes", "low_bytes"):
            try:
                check_setting("max_rss_bytes", getattr(self, what))
            except (TypeError, ValueError) as error:
                raise type(error)(f"HostBudget: {what}: {error}") from error
        if not self.max_bytes:
            raise ValueError("HostBudget: max_bytes must be more than 0")
        if not isinstance(self.name, str):
            raise TypeError(f"HostBudget: name must be a str, got {self.name!r}")
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(
                "HostBudget: name must be of letters, digits, hyphens and underscores, got "
                f"{self.name!r}"
            )
        for what, least in (("heavy_bytes", 0), ("wait_seconds", 0), ("interval_seconds", 0.01)):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"HostBudget: {what} must be a number, got {value!r}")
            if not value >= least:
                raise ValueError(f"HostBudget: {what} must be {least} or more, got {value!r}")

    def marks(self) -> tuple[int, int]:
        """Give the high and the low mark in bytes."""
        high = in_bytes(self.max_bytes)
        low = in_bytes(self.low_bytes) if self.low_bytes else int(_LOW_PART * high)
        return high, min(low, high)


def own_bytes() -> int:
    """
    Measure the memory of this process, with its part of what it shares with others.

    Returns:
        Bytes: PSS on Linux, elsewhere RSS. The resident set would count a snapshot that eight
        processes have mapped eight times.
    """
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    from .._process_memory import resident_bytes

    return resident_bytes()


class HostMember:
    """
    The part of one registry in a budget.

    Args:
        budget: The budget.
        name: What the registry is called in the table.
        table: The table; None: that of the budget.
        probe: Gives the bytes of this process.
        give_back: Collects cycles, and has free memory given back to the system.

    One thread at a time looks after it; who comes meanwhile goes on.
    """

    def __init__(
        self,
        budget: HostBudget,
        name: str,
        *,
        table: HostTable | None = None,
        probe: Callable[[], int] = own_bytes,
        give_back: Callable[[], object] = collect_and_give_back,
    ) -> None:
        self.budget = budget
        self._name = name
        self._table = table
        self._probe = probe
        self._give_back = give_back
        self._checking = Lock()
        self._said: set[str] = set()
        self._key = self._own_key()
        _live.add(self)

    @staticmethod
    def _own_key() -> tuple[int, float]:
        pid = os.getpid()
        return pid, process_start(pid) or 0.0

    def reset_after_fork(self) -> None:
        """Be a process of one's own, which the parent's lock and row are nothing to."""
        self._checking = Lock()
        self._key = self._own_key()

    # -- the mark --------------------------------------------------------------------------------

    def check(self, manager: MemoryManager, registry: Registry, spare: Slot | None = None) -> None:
        """
        Write what this process has, and let go what is worth least on the host, if it is here.

        Args:
            manager: Chooses who leaves.
            registry: The registry.
            spare: What was just built, and is not to leave.

        Two accesses to the table, of some hundred microseconds each, and a measurement.
        """
        if not self._checking.acquire(blocking=False):
            return
        try:
            self._check(manager, registry, spare)
            self._said.discard("table")
        except HostError as error:
            self._say("table", f"the budget of the host is not kept: {error}")
        finally:
            self._checking.release()

    def _check(self, manager: MemoryManager, registry: Registry, spare: Slot | None) -> None:
        high, low = self.budget.marks()
        total, turn = self._update(manager, registry, spare)
        mine = self._probe()

        def elsewhere_and_here() -> int:
            return total - mine + self._probe()

        relief = Relief(elsewhere_and_here, self._give_back)
        while turn:
            known = registry._bytes
            if not manager.evict_one(registry, _MEMORY, -1, spare=spare):
                break
            relief.removed(total, known - registry._bytes, low)
            total, turn = self._update(manager, registry, spare)
            mine = self._probe()
        if total <= high:
            self._said.discard("nothing left")

    def _update(
        self, manager: MemoryManager, registry: Registry, spare: Slot | None
    ) -> tuple[int, bool]:
        """What all have, and whether it is this registry's turn to let something go."""
        high, low = self.budget.marks()
        table = self._table
        if table is None:
            table = self._table = HostTable(self.budget.name)
        own = self._member(manager, registry, spare)
        size = self._probe()
        result = 0, False
        exhausted = False

        def change(rows: dict[tuple[int, float], ProcessRow], relieving: bool) -> bool:
            nonlocal result, exhausted
            now = table.now()
            before = rows.get(self._key)
            # Of registries that were dropped and not closed there is nobody left to say so.
            names = {each._name for each in list(_live) if each._key == self._key}
            kept = {} if before is None else before.members
            members = {name: member for name, member in kept.items() if name in names}
            members[self._name] = own
            rows[self._key] = ProcessRow(
                pid=self._key[0],
                start=self._key[1],
                program=_program(),
                bytes=size,
                max_bytes=high,
                low_bytes=low,
                updated=now,
                interval_seconds=self.interval(registry),
                members=members,
            )
            total = sum(row.bytes for row in rows.values())
            relieving = total > high or (relieving and total > low)
            able = [
                (row.value(member, now), row.pid, row.start, name)
                for row in rows.values()
                if not row.is_late(now)
                for name, member in row.members.items()
                if member.least is not None
            ]
            mine = rows[self._key].value(own, now), *self._key, self._name
            result = total, relieving and own.least is not None and mine == min(able)
            exhausted = relieving and not able
            return relieving

        table.change(change)
        if exhausted:
            self._say_nothing_left(result[0], high)
        return result

    def _member(self, manager: MemoryManager, registry: Registry, spare: Slot | None) -> Member:
        now = registry._now()
        found: Slot | None = None
        if manager.chooser is None:
            found = registry._least_recent(spare)
        else:
            chosen = manager.chooser.victim(registry, now, spare, may_pass=False)
            found = None if chosen is None else chosen[0]
        if found is None and spare is not None and spare.instance is not None:
            found = spare  # it may leave as soon as its caller gives it back
        cached = registry._cached, max(0, registry._bytes)
        if found is None:
            return Member(self._name, *cached, None, 0, 0.0, 0.0)
        size = found.bytes if found.bytes > 0 else _UNKNOWN_BYTES
        idle = max(0.0, now - found.last_used)
        return Member(self._name, *cached, found.name, size, found.build_seconds, idle)

    def interval(self, registry: Registry) -> float:
        """Give the seconds between two looks."""
        return registry.settings.sweep_interval_seconds or self.budget.interval_seconds

    def leave(self) -> None:
        """Take part no more; the registry is closed."""

        def change(rows: dict[tuple[int, float], ProcessRow], relieving: bool) -> bool:
            row = rows.get(self._key)
            if row is not None:
                row.members.pop(self._name, None)
                if not row.members:
                    del rows[self._key]
            return relieving

        if self._table is not None:
            try:
                self._table.change(change)
            except HostError as error:
                self._say("table", f"the budget of the host cannot be left: {error}")

    # -- one heavy build at a time ---------------------------------------------------------------

    @contextmanager
    def one_at_a_time(self, manager: MemoryManager | None, slot: Slot) -> Iterator[None]:
        """
        Build while no other process builds anything heavy, if this is heavy.

        Args:
            manager: Knows how big the class was.
            slot: What is to be built.

        Builds of this process do not wait for each other: what one of them waits for may be built
        by the other one.
        """
        expected = None if manager is None else manager.sizing.expected(slot.name)
        light = expected is not None and 0 < expected < self.budget.heavy_bytes
        if light or not self.budget.one_heavy_build:
            yield
            return
        token = None
        try:
            token = _token(self.budget.name)
            if not token.take(self.budget.wait_seconds):
                token = None
                self._say(
                    f"token {slot.name}",
                    f"another process has been at a heavy build for {self.budget.wait_seconds:.0f}"
                    f" s: {slot.name!r} is built all the same",
                )
        except HostError as error:
            token = None
            self._say("token", f"heavy builds are not kept apart: {error}")
        try:
            yield
        finally:
            if token is not None:
                token.give_back()

    # -- saying it -------------------------------------------------------------------------------

    def _say_nothing_left(self, total: int, high: int) -> None:
        self._say(
            "nothing left",
            f"the processes of budget {self.budget.name!r} have {total / 1e6:.1f} MB, which should "
            f"be {high / 1e6:.1f} MB, and there is nothing left to give",
        )

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _logs.warning("share", "%s", text)


# All parts of this process in budgets, each as long as its registry.
_live: WeakSet[HostMember] = WeakSet()


def _program() -> str:
    return os.path.basename(sys.argv[0] if sys.argv else "") or "python"


class _Token:
    """The right of this process to build what is heavy; a lock that the kernel frees if it dies."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = RLock()
        self._file = -1
        self._takers = 0
        _fork.watch(self)

    def _reset_after_fork(self) -> None:
        # The lock is the parent's: it is closed here, and not unlocked.
        self._lock = RLock()
        file, self._file, self._takers = self._file, -1, 0
        if file >= 0:
            os.close(file)

    def take(self, wait_seconds: float) -> bool:
        """Whether it was had within some seconds."""
        until = time.monotonic() + wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            with self._lock:
                if self._takers or self._try():
                    self._takers += 1
                    return True
            if time.monotonic() >= until:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _try(self) -> bool:
        import fcntl

        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise HostError(f"{self._path!r} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:
            os.close(file)
            raise HostError(f"{self._path!r} cannot be locked: {error.strerror}") from error
        self._file = file
        return True

    def give_back(self) -> None:
        """Let others have it, when the last build of this process that took it has ended."""
        import fcntl

        with self._lock:
            if not self._takers:
                return  # it is the parent's, in a child that was forked in between
            self._takers -= 1
            if not self._takers:
                file, self._file = self._file, -1
                fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)


# Of the process and not of a registry: one build may go through several registries.
_tokens: dict[str, _Token] = {}


def _token(name: str) -> _Token:
    path = HostTable(name).path.replace(".json", ".build")
    return _tokens.setdefault(path, _Token(path))


def member_of(budget: Any, registry: Registry) -> HostMember:
    """
    Let a registry take part in a budget.

    Args:
        budget: A `HostBudget`, or its `max_bytes`.
        registry: The registry.

    Returns:
        Its part.

    Raises:
        HostError: This system has no budget for a host.
    """
    if not isinstance(budget, HostBudget):
        budget = HostBudget(budget)
    memory_limit()  # fails here, where a part of it cannot be told, and not at the first build
    return HostMember(budget, f"{id(registry):x}")
