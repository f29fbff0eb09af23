"""
What the live view answers: a conversation's bytes in, its bytes out, and the fixed set of commands.

No socket here: `serving` moves the bytes.
"""

from __future__ import annotations

import os
import sys

from . import protocol
from .process import resident_bytes
from .protocol import CHANGES, PROTOCOL, RequestError, decode, encode, refusal
from .rows import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..registry import Registry
    from .serving import Served

__all__ = ["Answerer", "Conversation"]


class Conversation:
    """
    One client: what it has asked so far, and what it has not yet taken of the answer.

    Args:
        answerer: Knows the answers.
        process: The client's process, where the system told it.
        now: Monotonic seconds.

    One answer at a time: while one is unsent, nothing is read, so a client that never reads costs
    one answer, until its time is over.
    """

    def __init__(self, answerer: Answerer, process: int | None, now: float) -> None:
        self._answerer = answerer
        self._process = process
        self._request = bytearray()
        self.unsent = memoryview(b"")
        self.over = False
        """Whether to hang up once all is sent."""
        self.deadline = now + protocol.IDLE_SECONDS

    def received(self, part: bytes, now: float) -> None:
        """Take what came in; the first whole request in it is answered into `unsent`."""
        if not self._request:
            self.deadline = now + protocol.REQUEST_SECONDS
        self._request += part
        self._go_on(now)

    def sent(self, size: int, now: float) -> None:
        """Note how much of the answer has been taken."""
        self.unsent = self.unsent[size:]
        if not self.unsent and not self.over:
            wait = protocol.REQUEST_SECONDS if self._request else protocol.IDLE_SECONDS
            self.deadline = now + wait
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        line, end, rest = self._request.partition(b"\n")
        if len(line) > protocol.MAX_REQUEST_BYTES:
            # Where the next request begins cannot be told.
            self.over = True
            answer = refusal(f"a request is at most {protocol.MAX_REQUEST_BYTES} bytes long")
        elif not end:
            return
        else:
            self._request = rest
            answer = self._answerer.answer(bytes(line), self._process)
        self.unsent = memoryview(answer)
        self.deadline = now + protocol.ANSWER_SECONDS


class Answerer:
    """
    Answers requests about the registries that a process serves.

    Args:
        served: Gives what is served just now.
    """

    def __init__(self, served: Callable[[], tuple[Served, ...]]) -> None:
        self._served = served

    def answer(self, line: bytes, process: int | None) -> bytes:
        """
        Answer one request.

        Args:
            line: The request.
            process: The client, for the log.

        Returns:
            The answer, a line; also where the request is refused, or answering it fails.
        """
        try:
            request = decode(line)
            return encode({"ok": True, **self._act(request, process)})
        except RequestError as error:
            return refusal(str(error))
        except Exception as error:
            # An injected timer, a closer's interrupt, a figure that is no number.
            from logging import getLogger

            getLogger("warmset.observe").exception("the live view could not answer")
            return refusal(f"answering failed: {type(error).__name__}")

    def _act(self, request: dict[str, Any], process: int | None) -> dict[str, Any]:
        command = request["command"]
        if command == "list":
            return self._introduce()
        if command == "stats":
            return {**self._introduce(), "registries": self._describe(request)}
        served, registry = self._find(request["registry"])
        self._permit(command, served)
        if command != "clear" and request["class"] not in registry:
            raise RequestError(f"no class {request['class']!r} in registry {served.name!r}")
        _note(command, served.name, request.get("class"), process)
        if command == "clear":
            cleared = registry.clear_cache()
            return {"removed": cleared["entries_cleared"] + cleared["weakrefs_cleared"]}
        if command == "evict":
            return {"removed": int(registry.discard(request["class"]))}
        getattr(registry, command)(request["class"])  # `pin` or `unpin`
        return {}

    def _introduce(self) -> dict[str, Any]:
        import warmset

        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "program": _program(),
            "warmset": warmset.__version__,
            "implementation": warmset.implementation,
            "rss_bytes": resident_bytes(),
            "registries": [
                {"name": served.name, "offers": _offers(served)}
                for served in self._served()
                if served.registry is not None
            ],
        }

    def _describe(self, request: dict[str, Any]) -> list[dict[str, Any]]:
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

    def _find(self, name: str) -> tuple[Served, Registry]:
        for served in self._served():
            registry = served.registry
            if served.name == name and registry is not None:
                return served, registry
        names = ", ".join(repr(served.name) for served in self._served())
        raise RequestError(f"no registry {name!r}; there is {names or 'none'}")

    def _permit(self, command: str, served: Served) -> None:
        if not served.allow_changes:
            raise RequestError(
                f"{command}: this process does not allow changes to {served.name!r};"
                " it would, had it served with allow_changes=True"
            )


def _offers(served: Served) -> list[str]:
    """The commands that change something and that a client may ask for."""
    return list(CHANGES) if served.allow_changes else []


def _program() -> str:
    """What the process was started as: a script's name, or `-m` and a module's."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return f"-m {spec.name.removesuffix('.__main__')}"
    return os.path.basename(sys.argv[0] if sys.argv else "") or "python"


def _note(command: str, registry: str, class_name: str | None, process: int | None) -> None:
    from logging import getLogger

    getLogger("warmset.observe").info(
        "%s of %r in registry %r, asked for by process %s over the live view",
        command,
        class_name or "all",
        registry,
        process,
    )
