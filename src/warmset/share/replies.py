"""
Replies of a server to which others may write: bounded and converted, never trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import is_key
from .manifests import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["as_bytes", "as_key", "as_number", "as_sizes", "milliseconds", "split"]

_MOST_MS = 1 << 52


def as_bytes(reply: object) -> bytes:
    """Get a reply as bytes; a client with `decode_responses` gives a str."""
    if isinstance(reply, str):
        return reply.encode("utf-8", "surrogateescape")
    return reply if isinstance(reply, bytes) else b""


def as_key(reply: object) -> str | None:
    """Get a reply as the key of a snapshot; None if it is no key."""
    text = as_bytes(reply).decode("utf-8", "replace")
    return text if is_key(text) else None


def as_number(reply: object) -> int:
    """Get a reply as a number of bytes; 0 for anything else."""
    digits = as_bytes(reply)
    return int(digits) if digits.isdigit() and len(digits) < 16 else 0


def as_sizes(keys: Sequence[object], replies: Sequence[object]) -> list[tuple[str, int]]:
    """Get replies as keys of snapshots and their bytes."""
    return [(as_key(key) or "", as_number(each)) for key, each in zip(keys, replies, strict=True)]


def milliseconds(seconds: float) -> int:
    """Convert seconds for a command, at most to the number that all servers accept."""
    return min(int(1000 * seconds), _MOST_MS)


def split(pieces: Sequence[memoryview | bytes]) -> Iterator[bytes]:
    """Split the bytes of a snapshot into chunks."""
    chunk = bytearray()
    for piece in pieces:
        rest = memoryview(piece).cast("B")
        while rest.nbytes:
            space = CHUNK_BYTES - len(chunk)
            chunk += rest[:space]
            rest = rest[space:]
            if len(chunk) == CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    if chunk:
        yield bytes(chunk)
