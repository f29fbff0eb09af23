"""
The asking side of the live view: finds the processes that serve, and asks them.

Everything here belongs to the command line, or to a script that wants what it shows.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress

from . import protocol
from .private import SUFFIX, check_directory, check_peer, places
from .protocol import LiveViewError, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Connection", "GoneError", "Process", "find", "processes"]

ANSWER_SECONDS = 5.0


class GoneError(LiveViewError):
    """The process has ended, or serves no more."""


class Connection:
    """
    A connection to the live view of one process.

    Args:
        path: Its socket.
        timeout_seconds: For how long an answer is waited for.

    Raises:
        GoneError: Nobody listens there.
        LiveViewError: The process does not answer, or belongs to somebody else.

    For one thread at a time.
    """

    def __init__(self, path: str, *, timeout_seconds: float = ANSWER_SECONDS) -> None:
        self.path = path
        self._unread = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_seconds)
            self._socket.connect(path)
            self.pid = check_peer(self._socket)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                raise GoneError("nobody listens there any more") from error
            if isinstance(error, OSError):
                raise LiveViewError(f"cannot connect to {path!r}: {error}") from error
            raise

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """
        Ask, and wait for the answer.

        Args:
            command: One of `protocol.COMMANDS`.
            arguments: What stands beside it; what is None is left out.

        Returns:
            The answer.

        Raises:
            GoneError: The process has ended meanwhile.
            LiveViewError: It refuses, does not answer in time, or what it says makes no sense.
        """
        given = {key: value for key, value in arguments.items() if value is not None}
        try:
            self._socket.sendall(encode({"command": command, **given}))
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer that says why may be there to be read
        except OSError as error:
            raise LiveViewError(f"the process does not answer: {error}") from error
        answer = self._receive()
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            text = answer.get("error") if isinstance(answer, dict) else None
            raise LiveViewError(str(text or "the process answered something else than asked"))
        return answer

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def abort(self) -> None:
        """Have whoever waits for an answer wait no longer; from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _receive(self) -> Any:
        parts = [self._unread]
        size = len(self._unread)
        try:
            while b"\n" not in parts[-1]:
                part = self._socket.recv(65_536)
                if not part:
                    raise GoneError("the process has ended, or serves no more")
                parts.append(part)
                size += len(part)
                if size > protocol.MAX_ANSWER_BYTES:
                    raise LiveViewError("the answer is too long")
        except ConnectionResetError as error:
            raise GoneError("the process has ended, or serves no more") from error
        except OSError as error:
            raise LiveViewError(f"the process does not answer: {error}") from error
        line, _, self._unread = b"".join(parts).partition(b"\n")
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LiveViewError("the process answered something that is no JSON") from error


class Process:
    """
    A process that serves.

    Attributes:
        path: Its socket.
        pid: Its number, as it knows itself.
        program: The name of its script.
        registries: The names of what it serves.
    """

    __slots__ = ("path", "pid", "program", "registries")

    def __init__(self, path: str, answer: dict[str, Any]) -> None:
        self.path = path
        try:
            self.pid = int(answer["pid"])
            self.program = str(answer["program"])
            self.registries = [str(registry["name"]) for registry in answer["registries"]]
        except (KeyError, TypeError, ValueError) as error:
            raise LiveViewError("the process answered something else than asked") from error

    def connect(self) -> Connection:
        """Connect to it; see `Connection`."""
        return Connection(self.path)

    def __repr__(self) -> str:
        return f"<process {self.pid}, {self.program}: {', '.join(self.registries)}>"


def processes(*, timeout_seconds: float = 2.0) -> tuple[list[Process], list[str]]:
    """
    Find the processes of this user that serve; sockets of dead ones are removed.

    Args:
        timeout_seconds: For how long the answer of each is waited for.

    Returns:
        The processes, by pid, and a line for each place or socket that something is wrong with.
    """
    found: list[Process] = []
    faults: list[str] = []
    for path in _sockets(faults):
        try:
            with Connection(path, timeout_seconds=timeout_seconds) as connection:
                found.append(Process(path, connection.ask("list")))
        except GoneError as error:
            # Refused: its process is dead. Ended while it was asked: it removes its own.
            if isinstance(error.__cause__, ConnectionRefusedError):
                with suppress(OSError):
                    os.unlink(path)
        except LiveViewError as error:
            faults.append(f"{os.path.basename(path).removesuffix(SUFFIX)}: {error}")
    found.sort(key=lambda process: process.pid)
    return found, faults


def find(target: str | None, among: list[Process]) -> list[Process]:
    """
    Choose the processes that a PID or a NAME means.

    Args:
        target: A process number, the name of a registry, or None for all.
        among: The processes.

    Returns:
        Those that it means.
    """
    if target is None:
        return among
    if target.isdigit():
        return [process for process in among if process.pid == int(target)]
    return [process for process in among if target in process.registries]


def _sockets(faults: list[str]) -> Iterator[str]:
    for place in places():
        try:
            check_directory(place)
            names = sorted(os.listdir(place))
        except FileNotFoundError:
            continue
        except (LiveViewError, OSError) as error:
            faults.append(str(error))
            continue
        for name in names:
            if name.endswith(SUFFIX) and not name.startswith("."):
                yield os.path.join(place, name)
