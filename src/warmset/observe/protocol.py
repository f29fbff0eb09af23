"""
The protocol of the live view: one JSON object per line, requests and answers in turn.

A request is ``{"command": NAME, ...}`` of at most `MAX_REQUEST_BYTES`; an answer is
``{"ok": true, ...}`` or ``{"ok": false, "error": TEXT}``. The only commands are those of
`COMMANDS`; nothing in a request is ever evaluated, imported or called.
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
    "error_answer",
]

PROTOCOL = 2
"""The version; it increases when answers lose or change a field that clients rely on."""

MAX_REQUEST_BYTES = 16_384
MAX_ANSWER_BYTES = 64_000_000
"""The most that a client reads; the server bounds its answers by `MAX_CLASSES`."""
MAX_CLASSES = 10_000
"""The most classes in one answer."""
MAX_CONNECTIONS = 32
REQUEST_SECONDS = 5.0
"""From the first byte of a request to its last."""
ANSWER_SECONDS = 5.0
"""From the first byte of an answer to its last."""
IDLE_SECONDS = 60.0
"""Between two requests of one connection."""

CHANGES = ("evict", "clear", "pin", "unpin")
"""Commands with side effects; each process decides whether it accepts them."""

# Command -> its arguments: name -> (type, whether it is required).
COMMANDS: dict[str, dict[str, tuple[type, bool]]] = {
    "list": {},
    "stats": {"registry": (str, False), "filter": (str, False), "limit": (int, False)},
    "evict": {"registry": (str, True), "class": (str, True)},
    "pin": {"registry": (str, True), "class": (str, True)},
    "unpin": {"registry": (str, True), "class": (str, True)},
    "clear": {"registry": (str, True)},
}


class LiveViewError(RuntimeError):
    """The live view is unavailable: its directory is not private or the process does not answer."""


class RequestError(Exception):
    """A request is rejected; the text of this error is the answer."""


def decode(line: bytes) -> dict[str, Any]:
    """
    Decode and check one request.

    Args:
        line: The line, without its newline.

    Returns:
        The request: a known command with valid arguments and no unknown ones.

    Raises:
        RequestError: The line is not such a request.
    """
    try:
        request = json.loads(line.decode(), parse_constant=_reject)
    except (ValueError, RecursionError):
        raise RequestError("not a line of JSON in UTF-8") from None
    if type(request) is not dict:
        raise RequestError(f"expected a JSON object, got {type(request).__name__}")
    command = request.get("command")
    if type(command) is not str or command not in COMMANDS:
        raise RequestError(
            f"unknown command {_short(command)}; expected one of {', '.join(COMMANDS)}"
        )
    arguments = COMMANDS[command]
    for name in request:
        if name != "command" and name not in arguments:
            raise RequestError(f"{command}: unexpected {_short(name)}")
    for name, (kind, required) in arguments.items():
        if name not in request and not required:
            continue
        value = request.get(name)
        if type(value) is not kind or value == "":
            expected = "a whole number" if kind is int else "a non-empty string"
            raise RequestError(f"{command}: {name} must be {expected}, got {_short(value)}")
    return request


def encode(message: dict[str, Any]) -> bytes:
    """
    Encode one request or answer.

    Args:
        message: Plain data.

    Returns:
        One line of ASCII, with its newline.

    Raises:
        ValueError: The message contains a float that is not finite.
    """
    return json.dumps(message, allow_nan=False).encode("ascii") + b"\n"


def error_answer(text: str) -> bytes:
    """Encode the answer to a rejected request."""
    return encode({"ok": False, "error": text})


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _short(value: object) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= 80 else f"{text[:77]}..."
