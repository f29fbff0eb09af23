"""
The table of a host's budget: which processes take part, what they have, and who is to give first.

It is a small file in the private directory of the user, read and written whole, under a lock on a
file beside it, and replaced in one step: so it is never half written. Whoever opens it drops the
rows of processes that are no more: what they had is theirs no longer.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _logs, _private_place
from .errors import StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HostError", "HostTable", "Member", "ProcessRow", "process_start", "tables"]

_FORMAT = 1
_LOCK_SECONDS = 1.0  # that a lock is waited for: whoever has it is stopped, or the disk hangs
_PAUSE_SECONDS = 0.001
_LEAST_BUILD_SECONDS, _LEAST_IDLE_SECONDS = 1e-6, 0.1


class HostError(StoreError):
    """The table cannot be used; the text says why."""


class Member(NamedTuple):
    """One registry of a process."""

    name: str
    cached: int
    """Instances."""
    cached_bytes: int
    """As far as they are known."""
    least: str | None
    """The class whose instance would leave next; None if none may."""
    least_bytes: int
    build_seconds: float
    """Of that instance."""
    idle_seconds: float
    """Of that instance, when the row was written."""


class ProcessRow(NamedTuple):
    """One process."""

    pid: int
    start: float
    """When it began: another process may have its number later."""
    program: str
    bytes: int
    """Its memory."""
    max_bytes: int
    """The mark that it keeps for all of them together."""
    low_bytes: int
    """Down to where instances leave when that is passed."""
    updated: float
    """Monotonic seconds, which are the same for all processes of a host."""
    interval_seconds: float
    """How often it looks."""
    members: dict[str, Member]

    def value(self, member: Member, now: float) -> float:
        """
        Tell what the instance of a member is worth that would leave next.

        Of every policy the same measure, so that processes can be compared: what it costs to have
        it again, for each byte, by the time that it has not been used.
        """
        idle = max(0.0, now - self.updated) + member.idle_seconds
        seconds = max(member.build_seconds, _LEAST_BUILD_SECONDS)
        return seconds / max(member.least_bytes, 1) / max(idle, _LEAST_IDLE_SECONDS)

    def is_late(self, now: float) -> bool:
        """Whether it has not been heard of for so long that nobody should wait for it."""
        return now - self.updated > 5 * self.interval_seconds


class HostTable:
    """
    The rows of all processes that share a budget.

    Args:
        name: Of the budget.
        directory: The private directory; None: this user's.
        alive: Tells whether a process is there, by its number and its start.
        clock: Gives monotonic seconds.

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
            raise HostError("a budget for a host needs the file locks of a POSIX system")
        directory = _private_place.make_directory(HostError) if directory is None else directory
        self.path = os.path.join(directory, f"host-{name}.json")
        self._lock = os.path.join(directory, f"host-{name}.lock")
        self._alive = _is_alive if alive is None else alive
        self._clock = clock
        self.relieving = False
        self._fault = ""

    def now(self) -> float:
        """Give monotonic seconds."""
        return self._clock()

    def read(self) -> list[ProcessRow]:
        """
        Give the rows of all processes that there are.

        Returns:
            In the order of their numbers.

        Raises:
            HostError: The table cannot be read.
        """
        with self._locked():
            rows, self.relieving = self._load()
        self._tell()
        return sorted(self._living(rows).values())

    def change(self, change: Callable[[dict[tuple[int, float], ProcessRow], bool], bool]) -> None:
        """
        Change the rows in one step.

        Args:
            change: Takes the rows of all processes that there are, by number and start, which it
                changes; and whether memory is being given just now. It tells whether it is to be
                from now on.

        Raises:
            HostError: The table cannot be written.
        """
        with self._locked():
            rows, relieving = self._load()
            rows = self._living(rows)
            self.relieving = change(rows, relieving)
            self._store(rows)
        self._tell()

    def _living(
        self, rows: dict[tuple[int, float], ProcessRow]
    ) -> dict[tuple[int, float], ProcessRow]:
        return {key: row for key, row in rows.items() if self._alive(*key)}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(self._lock, flags, 0o600)
        except OSError as error:
            raise HostError(f"{self._lock!r} cannot be opened: {error.strerror}") from error
        try:
            until = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= until:
                        raise HostError(f"{self._lock!r} is locked by somebody else") from error
                    time.sleep(_PAUSE_SECONDS)
                except OSError as error:
                    raise HostError(f"{self._lock!r} cannot be locked: {error}") from error
            yield
        finally:
            # Closing does not unlock what a child that was forked just now has open, too.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def _load(self) -> tuple[dict[tuple[int, float], ProcessRow], bool]:
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(file, encoding="utf-8") as stream:
                content = stream.read()
        except FileNotFoundError:
            return {}, False
        except OSError as error:
            raise HostError(f"{self.path!r} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            content = ""
        try:
            table = json.loads(content)
            if table["format"] != _FORMAT:
                raise ValueError(f"format {table['format']!r}, expected {_FORMAT}")
            rows = [_row(each) for each in table["processes"]]
            return {(row.pid, row.start): row for row in rows}, bool(table["relieving"])
        except (ValueError, KeyError, TypeError) as error:
            self._fault = str(error)
            return {}, False

    def _tell(self) -> None:
        """Log what was wrong, when nothing is locked any more."""
        fault, self._fault = self._fault, ""
        if fault:
            _logs.warning(
                "share", "%r cannot be understood and is begun anew: %s", self.path, fault
            )

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
            raise HostError(f"{self.path!r} cannot be written: {error.strerror}") from error


def tables() -> dict[str, str]:
    """
    Give the budgets that have a table in a private directory of this user.

    Returns:
        Name -> directory. A process and its user's shell need not agree on where that is.
    """
    found: dict[str, str] = {}
    for place in _private_place.places():
        with suppress(OSError, HostError):
            _private_place.check_directory(place, HostError)
            for file in sorted(os.listdir(place)):
                if file.startswith("host-") and file.endswith(".json"):
                    found.setdefault(file.removeprefix("host-").removesuffix(".json"), place)
    return found


def _row(table: dict[str, Any]) -> ProcessRow:
    members = {key: Member(**each) for key, each in table.pop("members").items()}
    row = ProcessRow(members=members, **table)
    numbers = (row.pid, row.start, row.bytes, row.max_bytes, row.updated, row.interval_seconds)
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError(f"a row has figures that are no numbers: {row!r}")
    return row


def process_start(pid: int) -> float | None:
    """
    Tell when a process began.

    Args:
        pid: Its number.

    Returns:
        A number that another process of the same number does not have; None if there is none.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in brackets, may hold anything; the field is the 22nd, in clock ticks.
            return float(file.read().rpartition(b")")[2].split()[19])
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return None
    except (OSError, ValueError, IndexError):
        return None
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _is_alive(pid: int, start: float) -> bool:
    return process_start(pid) == start
