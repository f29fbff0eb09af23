"""
What is said over the live view's socket: one JSON object a line, asked and answered in turn.

A request is ``{"command": NAME, ...}``, at most `MAX_REQUEST_BYTES` long; an answer is
``{"ok": true, ...}`` or ``{"ok": false, "error": TEXT}``. The commands are those of `COMMANDS` and
no others; nothing that is sent is ever evaluated, imported or called.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CHANGES",
    "COMMANDS",
    "PROTOCOL",
    "LiveViewError",
    "RequestError",
    "decode",
    "encode",
    "refusal",
]

PROTOCOL = 1
"""Goes up when an answer loses or changes something that clients rely on."""

MAX_REQUEST_BYTES = 16_384
MAX_ANSWER_BYTES = 64_000_000
"""What a client takes; the server's answers are bounded by `MAX_CLASSES`."""
MAX_CLASSES = 10_000
"""How many classes an answer tells of at most."""
MAX_CONNECTIONS = 32
REQUEST_SECONDS = 5.0
"""From the first byte of a request to its last."""
ANSWER_SECONDS = 5.0
"""From the first byte of an answer to its last."""
IDLE_SECONDS = 60.0
"""Between two requests of one connection."""

CHANGES = ("evict", "clear", "pin", "unpin")
"""Commands that change something; each process says whether it takes them."""

# Command -> what may stand beside it: name -> type, and whether it must be there.
COMMANDS: dict[str, dict[str, tuple[type, bool]]] = {
    "list": {},
    "stats": {"registry": (str, False), "filter": (str, False), "limit": (int, False)},
    "evict": {"registry": (str, True), "class": (str, True)},
    "pin": {"registry": (str, True), "class": (str, True)},
    "unpin": {"registry": (str, True), "class": (str, True)},
    "clear": {"registry": (str, True)},
}


class LiveViewError(RuntimeError):
    """The live view cannot be had: the directory is not safe, or the process does not answer."""


class RequestError(Exception):
    """A request that is refused; its text is the answer."""


def decode(line: bytes) -> dict[str, Any]:
    """
    Read one request.

    Args:
        line: The line, without its end.

    Returns:
        The request: a known command with the right arguments, and no others.

    Raises:
        RequestError: It is anything else.
    """
    try:
        request = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise RequestError("not a line of JSON in UTF-8") from None
    if type(request) is not dict:
        raise RequestError(f"expected a JSON object, got {type(request).__name__}")
    command = request.get("command")
    if type(command) is not str or command not in COMMANDS:
        raise RequestError(
            f"unknown command {_short(command)}; expected one of {', '.join(COMMANDS)}"
        )
    taken = COMMANDS[command]
    for name in request:
        if name != "command" and name not in taken:
            raise RequestError(f"{command}: unexpected {_short(name)}")
    for name, (kind, needed) in taken.items():
        if name not in request and not needed:
            continue
        value = request.get(name)
        if type(value) is not kind or value == "":
            wanted = "a whole number" if kind is int else "a non-empty string"
            raise RequestError(f"{command}: {name} must be {wanted}, got {_short(value)}")
    return request


def encode(message: dict[str, Any]) -> bytes:
    """
    Write one request or answer.

    Args:
        message: Plain data.

    Returns:
        One line of ASCII, with its end.

    Raises:
        ValueError: It holds a float that is not finite.
    """
    return json.dumps(message, allow_nan=False).encode("ascii") + b"\n"


def refusal(text: str) -> bytes:
    """Write the answer to what is refused."""
    return encode({"ok": False, "error": text})


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
