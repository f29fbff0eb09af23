"""
The client of the live view: finds the processes that serve it and sends them commands.

The command line uses it; scripts may, too.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress

from . import protocol
from .access import SUFFIX, check_directory, check_peer, private_directories
from .answers import check_answer
from .protocol import LiveViewError, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Connection", "GoneError", "Process", "find", "processes"]

ANSWER_SECONDS = 5.0


class GoneError(LiveViewError):
    """The process has ended or has stopped serving."""


class Connection:
    """
    A connection to the live view of one process.

    Args:
        path: The path of its socket.
        timeout_seconds: How long to wait for each answer.

    Raises:
        GoneError: No process listens on the socket.
        LiveViewError: The connection fails, or the process belongs to another user.

    Not thread-safe, except for `abort`.
    """

    def __init__(self, path: str, *, timeout_seconds: float = ANSWER_SECONDS) -> None:
        self.path = path
        self._unread = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_seconds)
            self._timeout = timeout_seconds
            self._socket.connect(path)
            self.pid = check_peer(self._socket)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                raise GoneError("no process listens on the socket") from error
            if isinstance(error, OSError):
                raise LiveViewError(f"cannot connect to {path!r}: {error}") from error
            raise

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a command and wait for the answer.

        Args:
            command: One of `protocol.COMMANDS`.
            arguments: The arguments of the command; those that are None are not sent.

        Returns:
            The answer; malformed parts are left out and counted, see `answers.check_answer`.

        Raises:
            GoneError: The process has ended.
            LiveViewError: The process rejects the command, does not answer in time, or sends an
                invalid answer.
        """
        given = {key: value for key, value in arguments.items() if value is not None}
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(encode({"command": command, **given}))
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer with the reason may have arrived before the connection was closed
        except OSError as error:
            raise LiveViewError(f"the process does not answer: {error}") from error
        return check_answer(command, self._receive())

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def abort(self) -> None:
        """End a wait for an answer in another thread, which raises `GoneError` there."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _receive(self) -> Any:
        parts = [self._unread]
        size = len(self._unread)
        # One deadline for the whole answer: a process that sends byte by byte cannot extend it.
        deadline = time.monotonic() + self._timeout
        try:
            while b"\n" not in parts[-1]:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                part = self._socket.recv(65_536)
                if not part:
                    raise GoneError("the process has ended or has stopped serving")
                parts.append(part)
                size += len(part)
                if size > protocol.MAX_ANSWER_BYTES:
                    raise LiveViewError("the answer is too long")
        except ConnectionResetError as error:
            raise GoneError("the process has ended or has stopped serving") from error
        except OSError as error:
            raise LiveViewError(f"the process does not answer: {error}") from error
        line, _, self._unread = b"".join(parts).partition(b"\n")
        try:
            return json.loads(line, parse_constant=_reject)
        except (ValueError, RecursionError) as error:
            raise LiveViewError("the process sent an answer that is not JSON") from error


class Process:
    """
    A process that serves the live view.

    Args:
        path: The path of its socket.
        answer: Its checked answer to the command ``list``.

    Attributes:
        path: The path of its socket.
        pid: Its process ID, as the process itself reports it.
        program: The name of its script or module.
        registries: The names of the registries that it serves.
    """

    __slots__ = ("path", "pid", "program", "registries")

    def __init__(self, path: str, answer: dict[str, Any]) -> None:
        self.path = path
        self.pid: int = answer["pid"]
        self.program: str = answer["program"]
        self.registries: list[str] = [registry["name"] for registry in answer["registries"]]

    def connect(self) -> Connection:
        """Connect to the process; see `Connection`."""
        return Connection(self.path)

    def __repr__(self) -> str:
        return f"<process {self.pid}, {self.program}: {', '.join(self.registries)}>"


def processes(*, timeout_seconds: float = 2.0) -> tuple[list[Process], list[str]]:
    """
    Find the processes of this user that serve the live view, and remove sockets of dead ones.

    Args:
        timeout_seconds: How long to wait for the answer of each process.

    Returns:
        The processes, sorted by process ID, and one message for each directory or socket that
        cannot be used.
    """
    found: list[Process] = []
    problems: list[str] = []
    for path in _sockets(problems):
        try:
            with Connection(path, timeout_seconds=timeout_seconds) as connection:
                found.append(Process(path, connection.ask("list")))
        except GoneError as error:
            # Only a dead process leaves a socket that refuses connections. A process that ended
            # after the connection removes its socket itself.
            if isinstance(error.__cause__, ConnectionRefusedError):
                with suppress(OSError):
                    os.unlink(path)
        except LiveViewError as error:
            problems.append(f"{os.path.basename(path).removesuffix(SUFFIX)}: {error}")
    found.sort(key=lambda process: process.pid)
    return found, problems


def find(target: str | None, among: list[Process]) -> list[Process]:
    """
    Select processes by process ID or registry name.

    Args:
        target: A process ID, the name of a registry, or None to select all processes.
        among: The processes to select from.

    Returns:
        The selected processes.
    """
    if target is None:
        return among
    if target.isdigit():
        return [process for process in among if process.pid == int(target)]
    return [process for process in among if target in process.registries]


def _sockets(problems: list[str]) -> Iterator[str]:
    for directory in private_directories():
        try:
            check_directory(directory)
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        except (LiveViewError, OSError) as error:
            problems.append(str(error))
            continue
        for name in names:
            if name.endswith(SUFFIX) and not name.startswith("."):
                yield os.path.join(directory, name)


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
