"""
The commands of the live view, and the session that turns a client's bytes into answers.

This module does not use sockets: `serving` moves the bytes.
"""

from __future__ import annotations

import os
import sys

from .. import _logs
from .._core import implementation
from .._version import __version__
from ..codes import DISCARDED
from . import protocol
from .process import resident_bytes
from .protocol import CHANGES, PROTOCOL, RequestError, decode, encode, error_answer
from .rows import describe, find_shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ..registry import BaseRegistry

    class Served(Protocol):
        """A registry that the server offers."""

        @property
        def name(self) -> str: ...
        @property
        def allow_changes(self) -> bool: ...
        @property
        def registry(self) -> BaseRegistry | None: ...


__all__ = ["ClientSession", "CommandHandler"]


class ClientSession:
    """
    The session of one client: its unfinished request and its unsent answer.

    Args:
        handler: Answers the requests.
        process: The client's process ID; None if the system does not report it.
        now: The current time in monotonic seconds.

    Attributes:
        unsent: The part of the current answer that is not sent yet.
        closing: Whether to close the connection once `unsent` is sent.
        deadline: When to close the connection unless it makes progress.

    A session has one answer at a time and reads nothing until that is sent. A client that never
    reads therefore costs the memory of one answer, and only until its deadline.
    """

    def __init__(self, handler: CommandHandler, process: int | None, now: float) -> None:
        self._handler = handler
        self._process = process
        self._request = bytearray()
        self.unsent = memoryview(b"")
        self.closing = False
        self.deadline = now + protocol.IDLE_SECONDS

    def received(self, part: bytes, now: float) -> None:
        """Accept received bytes; the answer to the first complete request goes to `unsent`."""
        if not self._request:
            self.deadline = now + protocol.REQUEST_SECONDS
        self._request += part
        self._answer_next(now)

    def sent(self, size: int, now: float) -> None:
        """Record that `size` bytes of the answer were sent."""
        self.unsent = self.unsent[size:]
        if not self.unsent and not self.closing:
            wait = protocol.REQUEST_SECONDS if self._request else protocol.IDLE_SECONDS
            self.deadline = now + wait
            self._answer_next(now)

    def _answer_next(self, now: float) -> None:
        line, end, rest = self._request.partition(b"\n")
        if len(line) > protocol.MAX_REQUEST_BYTES:
            # The start of the next request is unknown.
            self.closing = True
            answer = error_answer(f"a request is at most {protocol.MAX_REQUEST_BYTES} bytes long")
        elif not end:
            return
        else:
            self._request = rest
            answer = self._handler.answer(bytes(line), self._process)
        self.unsent = memoryview(answer)
        self.deadline = now + protocol.ANSWER_SECONDS


class CommandHandler:
    """
    Answers requests about the registries that a process serves.

    Args:
        served: Returns the registries that are served at the moment.
    """

    def __init__(self, served: Callable[[], tuple[Served, ...]]) -> None:
        self._served = served

    def answer(self, line: bytes, process: int | None) -> bytes:
        """
        Answer one request.

        Args:
            line: The request.
            process: The client's process ID, for the log.

        Returns:
            The answer as one line. Rejected requests and failing commands have an answer, too.
        """
        try:
            request = decode(line)
            return encode({"ok": True, **self._execute(request, process)})
        except RequestError as error:
            return error_answer(str(error))
        except BaseException as error:
            # Foreign code: an injected timer, a closer, a figure that is not a number.
            _logs.logger("observe").exception("the live view failed to answer a request")
            return error_answer(f"the command failed: {type(error).__name__}")

    def _execute(self, request: dict[str, Any], process: int | None) -> dict[str, Any]:
        command = request["command"]
        if command == "list":
            return self._describe_process()
        if command == "stats":
            return {**self._describe_process(), "registries": self._describe_registries(request)}
        served, registry = self._find(request["registry"])
        self._check_allowed(command, served)
        slot = None if command == "clear" else find_shown(registry, request["class"])
        if command != "clear" and slot is None:
            raise RequestError(f"no class {request['class']!r} in registry {served.name!r}")
        _log_change(command, served.name, request.get("class"), process)
        if slot is None:
            return {"removed": sum(registry.clear_entries())}
        if command == "evict":
            return {"removed": int(registry.remove_from(slot, DISCARDED))}
        registry.set_pinned(slot, command == "pin")
        return {}

    def _describe_process(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "program": _program(),
            "warmset": __version__,
            "implementation": implementation,
            "rss_bytes": resident_bytes(),
            "registries": [
                {"name": served.name, "offers": _offers(served)}
                for served in self._served()
                if served.registry is not None
            ],
        }

    def _describe_registries(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        limit = request.get("limit", protocol.MAX_CLASSES)
        if not 0 <= limit <= protocol.MAX_CLASSES:
            raise RequestError(f"stats: limit must be from 0 to {protocol.MAX_CLASSES}")
        if "registry" in request:
            wanted = [self._find(request["registry"])]
        else:
            wanted = [
                (served, registry)
                for served in self._served()
                if (registry := served.registry) is not None
            ]
        described = []
        for served, registry in wanted:
            text = describe(registry, served.name, matching=request.get("filter", ""), limit=limit)
            limit -= len(text["classes"])
            described.append({**text, "offers": _offers(served)})
        return described

    def _find(self, name: str) -> tuple[Served, BaseRegistry]:
        for served in self._served():
            registry = served.registry
            if served.name == name and registry is not None:
                return served, registry
        names = ", ".join(repr(served.name) for served in self._served())
        raise RequestError(f"no registry {name!r}; this process serves {names or 'none'}")

    def _check_allowed(self, command: str, served: Served) -> None:
        if not served.allow_changes:
            raise RequestError(
                f"{command}: this process does not allow changes to {served.name!r};"
                " serve(..., allow_changes=True) would allow them"
            )


def _offers(served: Served) -> list[str]:
    """The commands with side effects that clients may send."""
    return list(CHANGES) if served.allow_changes else []


def _program() -> str:
    """How the process was started: the name of a script, or `-m` and the name of a module."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return f"-m {spec.name.removesuffix('.__main__')}"
    return os.path.basename(sys.argv[0] if sys.argv else "") or "python"


def _log_change(command: str, registry: str, class_name: str | None, process: int | None) -> None:
    _logs.logger("observe").info(
        "%s of %r in registry %r, requested by process %s through the live view",
        command,
        class_name or "all",
        registry,
        process,
    )
