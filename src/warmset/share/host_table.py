"""
The table of a host budget: the member processes, their memory, and their next eviction candidates.

It is a small file in the private directory of the user. Each access reads or rewrites all of it,
under a lock on a second file; it is replaced atomically and therefore never incomplete. Each access
drops the rows of processes that have ended.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _logs, _private_directory
from ..resolver import error_text
from .errors import StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HostError", "HostTable", "Member", "ProcessRow", "process_start", "tables"]

_FORMAT = 1
_LOCK_SECONDS = 1.0  # longest wait for the lock; longer means a stopped process or a hung disk
_PAUSE_SECONDS = 0.001
_MOST_BYTES, _MOST_ROWS, _MOST_CHARACTERS = 4_000_000, 10_000, 10_000
_MOST = 1 << 60
_LEAST_BUILD_SECONDS, _LEAST_IDLE_SECONDS = 1e-6, 0.1


class HostError(StoreError):
    """The table cannot be used; the text says why."""


class Member(NamedTuple):
    """A registry of a process, as a member of the budget."""

    name: str
    cached: int
    """The number of cached instances."""
    cached_bytes: int
    """Their bytes, as far as they are known."""
    least: str | None
    """The class whose instance would be evicted next; None if none can be."""
    least_bytes: int
    build_seconds: float
    """The build seconds of that instance."""
    idle_seconds: float
    """The idle seconds of that instance when the row was written."""


class ProcessRow(NamedTuple):
    """A process that takes part in the budget."""

    pid: int
    start: float
    """Its start time, as process IDs are reused."""
    program: str
    bytes: int
    """The memory of the process."""
    max_bytes: int
    """The high mark for the memory of all processes together."""
    low_bytes: int
    """The low mark, down to which instances are evicted once the high mark is exceeded."""
    updated: float
    """When the row was written; monotonic seconds are the same for all processes of a host."""
    interval_seconds: float
    """The interval of its checks."""
    members: dict[str, Member]

    def value(self, member: Member, now: float) -> float:
        """
        Compute the value of a member's eviction candidate.

        The measure does not depend on the policy, so that processes can be compared: build seconds,
        divided by bytes and by idle seconds.
        """
        idle = max(0.0, now - self.updated) + member.idle_seconds
        seconds = max(member.build_seconds, _LEAST_BUILD_SECONDS)
        return seconds / max(member.least_bytes, 1) / max(idle, _LEAST_IDLE_SECONDS)

    def is_late(self, now: float) -> bool:
        """Whether the process has missed so many checks that others should not wait for it."""
        return now - self.updated > 5 * self.interval_seconds


class HostTable:
    """
    The rows of all processes that share a budget.

    Args:
        name: The name of the budget.
        directory: A private directory; None selects this user's.
        alive: Whether a process is alive, given its process ID and start time.
        clock: Returns monotonic seconds.

    Raises:
        HostError: There is no private directory, or this system has no file locks.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: str | None = None,
        alive: Callable[[int, float], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if fcntl is None:
            raise HostError("a host budget needs the file locks of a POSIX system")
        directory = _private_directory.make_directory(HostError) if directory is None else directory
        self.path = os.path.join(directory, f"host-{name}.json")
        self._lock = os.path.join(directory, f"host-{name}.lock")
        self._alive = _is_alive if alive is None else alive
        self._clock = clock
        self.relieving = False
        self._problem = ""

    def now(self) -> float:
        """Read the clock: monotonic seconds."""
        return self._clock()

    def read(self) -> list[ProcessRow]:
        """
        Read the rows of all live processes.

        Returns:
            The rows, sorted by process ID.

        Raises:
            HostError: The table cannot be read.
        """
        with self._locked():
            rows, self.relieving = self._load()
        self._log_problem()
        return sorted(self._live_rows(rows).values())

    def change(self, change: Callable[[dict[tuple[int, float], ProcessRow], bool], bool]) -> None:
        """
        Modify the rows atomically.

        Args:
            change: Receives the rows of all live processes by process ID and start time, which it
                modifies in place, and whether the processes are relieving memory at present.
                Returns whether they should from now on.

        Raises:
            HostError: The table cannot be written.
        """
        with self._locked():
            rows, relieving = self._load()
            rows = self._live_rows(rows)
            self.relieving = change(rows, relieving)
            self._store(rows)
        self._log_problem()

    def _live_rows(
        self, rows: dict[tuple[int, float], ProcessRow]
    ) -> dict[tuple[int, float], ProcessRow]:
        return {key: row for key, row in rows.items() if self._alive(*key)}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(self._lock, flags, 0o600)
        except OSError as error:
            raise HostError(f"cannot open {self._lock!r}: {error.strerror}") from error
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise HostError(f"{self._lock!r} is locked by another process") from error
                    time.sleep(_PAUSE_SECONDS)
                except OSError as error:
                    raise HostError(f"cannot lock {self._lock!r}: {error}") from error
            yield
        finally:
            # Closing alone would not unlock it if a child forked in the meantime has it open, too.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def _load(self) -> tuple[dict[tuple[int, float], ProcessRow], bool]:
        content = self._read()
        if content is None:
            return {}, False
        try:
            return self._rows(json.loads(content))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            self._problem = f"is invalid and starts empty: {error_text(error, 200)}"
            return {}, False

    def _read(self) -> bytes | None:
        """Read the file, if it is a file of this user and not too large; None without a file."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(self.path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot read {self.path!r}: {error.strerror}") from error
        with open(file, "rb") as stream:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise HostError(f"cannot read {self.path!r}: it is not a file of this user")
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            return b""  # it starts empty
        return content

    def _rows(self, table: Any) -> tuple[dict[tuple[int, float], ProcessRow], bool]:
        if table["format"] != _FORMAT:
            raise ValueError(f"format {table['format']!r}, expected {_FORMAT}")
        found = table["processes"]
        if type(found) is not list or type(table["relieving"]) is not bool:
            raise TypeError("it has no rows")
        rows = [row for row in map(_row, found[:_MOST_ROWS]) if row is not None]
        malformed = len(found) - len(rows)
        if malformed:
            self._problem = f"has {malformed} malformed rows, which are skipped"
        return {(row.pid, row.start): row for row in rows}, table["relieving"]

    def _log_problem(self) -> None:
        """Log a problem of the last access, after the lock is released."""
        problem, self._problem = self._problem, ""
        if problem:
            _logs.warning("share", "%r %s", self.path, problem)

    def _store(self, rows: dict[tuple[int, float], ProcessRow]) -> None:
        table = {
            "format": _FORMAT,
            "relieving": self.relieving,
            "processes": [
                {
                    **row._asdict(),
                    "members": {key: each._asdict() for key, each in row.members.items()},
                }
                for row in rows.values()
            ],
        }
        new = f"{self.path}.new"
        try:
            with suppress(FileNotFoundError):
                os.unlink(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600), "w", encoding="utf-8") as stream:
                json.dump(table, stream)
            os.replace(new, self.path)
        except OSError as error:
            raise HostError(f"cannot write {self.path!r}: {error.strerror}") from error


def tables() -> dict[str, str]:
    """
    Find the budgets that have a table in a private directory of this user.

    Returns:
        Name -> directory, as a process and its user's shell may use different directories.
    """
    found: dict[str, str] = {}
    for directory in _private_directory.private_directories():
        with suppress(OSError, HostError):
            _private_directory.check_directory(directory, HostError)
            _add_tables(directory, found)
    return found


def _add_tables(directory: str, found: dict[str, str]) -> None:
    for file in sorted(os.listdir(directory)):
        if file.startswith("host-") and file.endswith(".json"):
            found.setdefault(file.removeprefix("host-").removesuffix(".json"), directory)


def _row(table: object) -> ProcessRow | None:
    """Check a row; None if it is malformed."""
    if type(table) is not dict or table.keys() != set(ProcessRow._fields):
        return None
    members = table["members"]
    if type(members) is not dict or len(members) > _MOST_ROWS:
        return None
    checked = {key: _member(each) for key, each in members.items()}
    row = ProcessRow(**{**table, "members": checked})
    counts = row.bytes, row.max_bytes, row.low_bytes
    seconds = row.start, row.updated, row.interval_seconds
    if (
        None in checked.values()
        or not all(map(_is_text, (*members, row.program)))
        or type(row.pid) is not int
        or not 0 < row.pid < 1 << 31
        or not all(type(number) is int and 0 <= number < _MOST for number in counts)
        or not all(map(_is_seconds, seconds))
    ):
        return None
    return row


def _member(table: object) -> Member | None:
    if type(table) is not dict or table.keys() != set(Member._fields):
        return None
    member = Member(**table)
    counts = member.cached, member.cached_bytes, member.least_bytes
    valid = (
        _is_text(member.name)
        and (member.least is None or _is_text(member.least))
        and all(type(number) is int and 0 <= number < _MOST for number in counts)
        and all(map(_is_seconds, (member.build_seconds, member.idle_seconds)))
    )
    return member if valid else None


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= _MOST_CHARACTERS


def _is_seconds(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < _MOST  # type: ignore[operator]


def process_start(pid: int) -> float | None:
    """
    Get the start time of a process.

    Args:
        pid: Its process ID.

    Returns:
        A number that distinguishes it from other processes with the same ID; None if there is no
        such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may contain anything; the start is field 22, in clock ticks.
            return float(file.read().rpartition(b")")[2].split()[19])
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return None
    except (OSError, ValueError, IndexError):
        return None
    try:
        import psutil

        return float(psutil.Process(pid).create_time())
    except Exception:  # there is no such process, or psutil cannot tell or is missing
        return None


def _is_alive(pid: int, start: float) -> bool:
    return process_start(pid) == start
