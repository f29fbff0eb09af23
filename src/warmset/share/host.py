"""
A budget shared by the processes of a host: one memory limit, and one heavy build at a time.

There is no coordinator. Each process writes its memory and its next eviction candidate into a
table. While all processes together exceed the limit, the process with the least valuable candidate
evicts it. A process that has died loses its row.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from .. import _fork, _logs
from .._locks import call_if_free, locked
from ..codes import MEMORY
from ..extension import Extension
from ..memory.budgets import Relief, collect_and_give_back
from ..memory.limits import in_bytes, memory_limit
from ..memory.manager import MemoryManager
from .host_table import HostError, HostTable, Member, ProcessRow, process_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._core import Entry, Slot
    from ..builder import Build
    from ..registry import BaseRegistry

__all__ = ["HostBudget", "HostMember", "own_bytes"]

_LOW_PART = 0.9  # low mark relative to the high mark, by default
_UNKNOWN_BYTES = 1_000_000  # assumed size of an instance that was not measured
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.1


class HostBudget(NamedTuple):
    """
    A budget for all processes of this user on this host that use its name.

    The processes should use equal values, as each applies its own.
    """

    max_bytes: int | float
    """The high mark: the memory limit for all processes together. Bytes, or as a float a part of
    the memory of the machine or container."""
    low_bytes: int | float = 0
    """The low mark: evictions above `max_bytes` continue down to it; 0: 0.9 x `max_bytes`."""
    name: str = "default"
    """The name of the budget: letters, digits, hyphens and underscores."""
    one_heavy_build: bool = True
    """Whether only one process of the host may build heavy classes at a time."""
    heavy_bytes: int = 64_000_000
    """A class is heavy from this size on, or while its size is unknown."""
    wait_seconds: float = 600.0
    """How long to wait for a heavy build of another process before building anyway."""
    interval_seconds: float = 1.0
    """The interval of checks unless the registry has a `sweep_interval_seconds`."""

    def check(self) -> None:
        """
        Check the values.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of range.
        """
        from ..setting_table import check_setting

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
                "HostBudget: name must consist of letters, digits, hyphens and underscores, got "
                f"{self.name!r}"
            )
        for what, least in (("heavy_bytes", 0), ("wait_seconds", 0), ("interval_seconds", 0.01)):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"HostBudget: {what} must be a number, got {value!r}")
            if not value >= least:
                raise ValueError(f"HostBudget: {what} must be {least} or more, got {value!r}")

    def marks(self) -> tuple[int, int]:
        """Compute the high and low marks in bytes."""
        high = in_bytes(self.max_bytes)
        low = in_bytes(self.low_bytes) if self.low_bytes else int(_LOW_PART * high)
        return high, min(low, high)


def own_bytes() -> int:
    """
    Measure the memory of this process, counting shared pages proportionally.

    Returns:
        Bytes: PSS on Linux, RSS elsewhere. RSS counts a snapshot that eight processes have mapped
        eight times.
    """
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:
            line = next(line for line in file if line.startswith(b"Pss:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError, StopIteration):
        pass
    from .._process_memory import resident_bytes

    return resident_bytes()


class HostMember(Extension):
    """
    The membership of one registry in a budget.

    Args:
        budget: The budget.
        name: The name of the registry in the table.
        table: The table; None selects that of the budget.
        probe: Measures the bytes of this process.
        give_back: Collects cycles and returns free memory to the system.

    Safe under threads: one thread at a time checks the budget, and others skip the check.
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
        self._checking = RLock()
        self._logged: set[str] = set()
        self._key = self._own_key()
        _members.add(self)

    @staticmethod
    def _own_key() -> tuple[int, float]:
        pid = os.getpid()
        return pid, process_start(pid) or 0.0

    def after_fork(self, registry: BaseRegistry) -> None:
        """Become a process of its own; the lock and the row belong to the parent."""
        self._checking = RLock()
        self._key = self._own_key()

    # -- hooks -------------------------------------------------------------------------------------

    def build(self, registry: BaseRegistry, build: Build, make: Callable[[Slot], Any]) -> Any:
        with self.one_at_a_time(registry, build.slot):
            return make(build.slot)

    def built(self, registry: BaseRegistry, build: Build) -> None:
        if build.published:
            self.check(registry, build.entry)

    def sweep(self, registry: BaseRegistry) -> None:
        self.check(registry)

    # -- the memory limit --------------------------------------------------------------------------

    def check(self, registry: BaseRegistry, spare: Entry | None = None) -> None:
        """
        Update the table, and evict while this process has the least valuable candidate.

        Args:
            registry: The registry; its memory manager chooses and evicts instances.
            spare: An entry that was just built and is not evicted.

        It costs at least one measurement and one access to the table, of some 100 us.
        """
        manager = registry.extension(MemoryManager)
        if manager is None:
            return
        try:
            call_if_free(self._checking, self._check, manager, registry, spare)
        except HostError as error:
            self._log_once("table", f"the host budget is not enforced: {error}")

    def _check(self, manager: MemoryManager, registry: BaseRegistry, spare: Entry | None) -> None:
        high, low = self.budget.marks()
        total, turn = self._update(manager, registry, spare)
        mine = self._probe()

        def current_total() -> int:
            return total - mine + self._probe()

        relief = Relief(current_total, self._give_back)
        while turn:
            known = registry.known_bytes
            if not manager.evict_one(registry, MEMORY, -1, spare=spare):
                break
            relief.removed(total, known - registry.known_bytes, low)
            total, turn = self._update(manager, registry, spare)
            mine = self._probe()
        if total <= high:
            self._logged.discard("nothing left")
        self._logged.discard("table")

    def _update(
        self, manager: MemoryManager, registry: BaseRegistry, spare: Entry | None
    ) -> tuple[int, bool]:
        """Update the row; return the total bytes, and whether this registry should evict next."""
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
            # Registries that were collected without being closed did not remove their members.
            names = {each._name for each in list(_members) if each._key == self._key}
            known = {} if before is None else before.members
            members = {name: member for name, member in known.items() if name in names}
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
            candidates = [
                (row.value(member, now), row.pid, row.start, name)
                for row in rows.values()
                if not row.is_late(now)
                for name, member in row.members.items()
                if member.least is not None
            ]
            mine = rows[self._key].value(own, now), *self._key, self._name
            result = total, relieving and own.least is not None and mine == min(candidates)
            exhausted = relieving and not candidates
            return relieving

        table.change(change)
        if exhausted:
            self._log_nothing_left(result[0], high)
        return result

    def _member(
        self, manager: MemoryManager, registry: BaseRegistry, spare: Entry | None
    ) -> Member:
        now = registry.now()
        if manager.chooser is None:
            found = registry.oldest(spare)
        else:
            found = manager.chooser.victim(registry, now, spare)
        if found is None and spare is not None and spare.in_cache:
            found = spare  # it may be evicted once its caller releases it
        cached = registry.cached, max(0, registry.known_bytes)
        if found is None:
            return Member(self._name, *cached, None, 0, 0.0, 0.0)
        size = found.bytes if found.bytes > 0 else _UNKNOWN_BYTES
        idle = max(0.0, now - found.last_used)
        return Member(self._name, *cached, found.name, size, found.build_seconds, idle)

    def interval(self, registry: BaseRegistry) -> float:
        """Get the interval of checks in seconds."""
        return registry.settings.sweep_interval_seconds or self.budget.interval_seconds

    def close(self, registry: BaseRegistry) -> None:
        """Leave the budget."""

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
                self._log_once("table", f"cannot leave the host budget: {error}")

    # -- one heavy build at a time -----------------------------------------------------------------

    @contextmanager
    def one_at_a_time(self, registry: BaseRegistry, slot: Slot) -> Iterator[None]:
        """
        Wait until no other process builds a heavy class, if this class is heavy.

        Args:
            registry: Its memory manager provides the expected size of the class.
            slot: The class to be built.

        Builds of the same process do not wait for each other, as one may need the result of the
        other.
        """
        manager = registry.extension(MemoryManager)
        expected = None if manager is None else manager.sizing.expected(slot)
        light = expected is not None and 0 < expected < self.budget.heavy_bytes
        if light or not self.budget.one_heavy_build:
            yield
            return
        owner = object()
        token = None
        try:
            try:
                token = _build_token(self.budget.name)
                if not token.take(owner, self.budget.wait_seconds):
                    self._log_once(
                        f"token {slot.name}",
                        f"another process has been building a heavy class for "
                        f"{self.budget.wait_seconds:.0f} s: {slot.name!r} is built anyway",
                    )
            except HostError as error:
                self._log_once("token", f"heavy builds may run at the same time: {error}")
            yield
        finally:
            if token is not None:
                token.release(owner)

    # -- logging -----------------------------------------------------------------------------------

    def _log_nothing_left(self, total: int, high: int) -> None:
        self._log_once(
            "nothing left",
            f"the processes of budget {self.budget.name!r} use {total / 1e6:.1f} MB, above the "
            f"limit of {high / 1e6:.1f} MB, and have nothing left to evict",
        )

    def _log_once(self, what: str, text: str) -> None:
        if what not in self._logged:
            self._logged.add(what)
            _logs.warning("share", "%s", text)


# All memberships of this process, for the lifetimes of their registries.
_members: WeakSet[HostMember] = WeakSet()


def _program() -> str:
    return os.path.basename(sys.argv[0] if sys.argv else "") or "python"


class _Token:
    """The right of this process to build heavy classes: a lock that the kernel frees on exit."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = RLock()
        self._file = -1
        # A release of what was not taken does nothing: an interrupt may come in between.
        self._holders: set[object] = set()
        _fork.watch(self)

    def reset_after_fork(self) -> None:
        # The lock belongs to the parent: the child closes its descriptor without unlocking.
        self._lock = RLock()
        file, self._file, self._holders = self._file, -1, set()
        if file >= 0:
            os.close(file)

    def take(self, owner: object, wait_seconds: float) -> bool:
        """Wait up to some seconds for the token; whether it was taken, for an owner."""
        deadline = time.monotonic() + wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            if self._try_take(owner):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @locked
    def _try_take(self, owner: object) -> bool:
        if not (self._holders or self._try_lock()):
            return False
        self._holders.add(owner)
        return True

    def _try_lock(self) -> bool:
        import fcntl

        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise HostError(f"cannot open {self._path!r}: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:
            os.close(file)
            raise HostError(f"cannot lock {self._path!r}: {error.strerror}") from error
        self._file = file
        return True

    @locked
    def release(self, owner: object) -> None:
        """Release the token; the last release in this process frees the lock."""
        import fcntl

        if owner not in self._holders:
            return  # taken before a fork: it belongs to the parent
        self._holders.discard(owner)
        if not self._holders:
            file, self._file = self._file, -1
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


# Per process and not per registry, as one build may involve several registries.
_tokens: dict[str, _Token] = {}


def _build_token(name: str) -> _Token:
    path = HostTable(name).path.replace(".json", ".build")
    return _tokens.setdefault(path, _Token(path))


def member_of(budget: Any, registry: BaseRegistry) -> HostMember:
    """
    Make a registry a member of a budget.

    Args:
        budget: A `HostBudget`, or its `max_bytes`.
        registry: The registry.

    Returns:
        The membership.

    Raises:
        HostError: This system does not support host budgets.
    """
    if not isinstance(budget, HostBudget):
        budget = HostBudget(budget)
    memory_limit()  # raises now, not at the first build, if the memory limit is unknown
    return HostMember(budget, f"{id(registry):x}")
