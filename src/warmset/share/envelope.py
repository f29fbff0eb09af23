"""
The envelope of a snapshot: a signed byte layout whose buffers can be used in place.

    magic, 16 bytes
    length of the header and total length, 8 bytes each, little-endian
    header: JSON
    the pickle and its buffers, each aligned to 64 bytes (large ones: 4096)
    signature, 32 bytes: HMAC-SHA256 of everything before it; without a key, SHA-256

The header contains the key of the snapshot, so that one snapshot cannot replace another, and when
it was made. Nothing but the two lengths is read before the signature is verified.
"""

from __future__ import annotations

import hmac
import json
import struct
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from ..resolver import error_text
from .errors import DamagedError
from .secret import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .secret import Secret

__all__ = ["Envelope", "Facts", "pack", "unpack"]

_MAGIC = b"warmset snapshot"
_LENGTHS = struct.Struct("<QQ")
_START = len(_MAGIC) + _LENGTHS.size
_SIGNATURE = 32
_MOST_HEADER_BYTES = 1 << 26
_STEP = 1 << 24  # bytes signed per call, during which the GIL is released
_FORMAT = 2


class Facts(NamedTuple):
    """The facts that are recorded when a snapshot is made."""

    class_name: str
    made: float
    """Seconds since the epoch."""
    build_seconds: float
    requires: dict[str, str]
    """Module -> version, for all modules whose classes and functions it contains."""
    written: list[int]
    """The indexes of the buffers that must be writable."""


class Envelope(NamedTuple):
    """A verified snapshot; nothing in it has been unpickled."""

    facts: Facts
    pickled: memoryview
    buffers: list[memoryview]


def pack(
    key: str,
    facts: Facts,
    pickled: memoryview | bytes,
    buffers: Sequence[memoryview],
    secret: Secret | None,
) -> list[memoryview | bytes]:
    """
    Lay out and sign a snapshot.

    Args:
        key: The key of the snapshot.
        facts: The facts to record in the header.
        pickled: The pickle.
        buffers: Its contiguous byte buffers.
        secret: The signing key.

    Returns:
        The bytes of the envelope in pieces; the buffers are not copied.
    """
    parts = [memoryview(pickled), *buffers]
    positions: list[tuple[int, int]] = []
    # The header contains the positions, which depend on its length: it is padded to an upper bound.
    padding = 40 * len(parts) + 64
    bare = {"format": _FORMAT, "key": key, "facts": facts._asdict()}
    length = len(json.dumps(bare)) + padding
    at = _START + length
    for part in parts:
        at = _aligned(at, part.nbytes)
        positions.append((at, part.nbytes))
        at += part.nbytes
    header = json.dumps({**bare, "positions": positions}).encode()
    assert len(header) <= length
    header += b" " * (length - len(header))
    pieces: list[memoryview | bytes] = [_MAGIC + _LENGTHS.pack(length, at + _SIGNATURE) + header]
    end = _START + length
    for part, (start, size) in zip(parts, positions, strict=True):
        if start > end:
            pieces.append(bytes(start - end))
        if size:
            pieces.append(part)
        end = start + size
    signature = digest(secret)
    for piece in pieces:
        _update(signature, memoryview(piece))
    pieces.append(signature.digest())
    return pieces


def unpack(key: str, view: memoryview, secrets: Sequence[Secret]) -> Envelope:
    """
    Verify a snapshot and locate its parts.

    Args:
        key: The key of the snapshot.
        view: The bytes of the envelope, which must not change any more.
        secrets: The accepted signing keys; without any, a checksum is expected.

    Returns:
        The parts, as views of the bytes.

    Raises:
        DamagedError: The bytes are truncated, altered, signed with another key, those of another
            snapshot, or of another format; the text says which, as far as that is known.
    """
    if view.nbytes < _START + _SIGNATURE:
        raise DamagedError(f"it has {view.nbytes} bytes, fewer than any snapshot")
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise DamagedError("it does not start like a snapshot")
    length, total = _LENGTHS.unpack(view[len(_MAGIC) : _START])
    if total != view.nbytes:
        raise DamagedError(f"it has {view.nbytes} bytes, but its header says {total}")
    found = bytes(view[-_SIGNATURE:])
    for secret in secrets or (None,):
        signature = digest(secret)
        _update(signature, view[:-_SIGNATURE])
        if hmac.compare_digest(signature.digest(), found):
            break
    else:
        kind = "signature" if secrets else "checksum"
        raise DamagedError(f"its {kind} is wrong: it was altered or signed with another key")
    # The signature is valid, so an owner of the key made it; the format may still be another one.
    end = view.nbytes - _SIGNATURE
    if not 0 < length <= min(end - _START, _MOST_HEADER_BYTES):
        raise DamagedError(f"its header has {length} bytes")
    try:
        header = json.loads(bytes(view[_START : _START + length]))
        if header["format"] != _FORMAT or header["key"] != key:
            raise DamagedError(
                f"it has format {header['format']!r} and key {header['key']!r}, expected "
                f"{_FORMAT} and {key!r}"
            )
        parts = [view[start : start + size] for start, size in _positions(header, length, end)]
        return Envelope(_facts(header["facts"], len(parts)), parts[0], parts[1:])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(f"its header is invalid: {error_text(error, 200)}") from error


def _positions(header: Any, length: int, end: int) -> list[tuple[int, int]]:
    found = header["positions"]
    if type(found) is not list or not found:
        raise ValueError("it has no positions")
    for start, size in found:
        if type(start) is not int or type(size) is not int:
            raise TypeError("a position is not a number")
        if not (_START + length <= start and 0 <= size <= end - start):
            raise ValueError("a position is outside of it")
    return found


def _facts(found: Any, parts: int) -> Facts:
    facts = Facts(**found)
    requires, written = facts.requires, facts.written
    if type(facts.class_name) is not str or type(requires) is not dict or type(written) is not list:
        raise TypeError("a fact has the wrong type")
    if not all(type(text) is str for item in requires.items() for text in item):
        raise TypeError("a version is not a text")
    for number in (facts.made, facts.build_seconds):
        if type(number) not in (int, float) or not isfinite(number):
            raise TypeError("a time is not a number")
    if not all(type(at) is int and 0 <= at < parts - 1 for at in written):
        raise ValueError("a buffer is outside of it")
    return facts


def _aligned(at: int, size: int) -> int:
    step = 4096 if size >= 1 << 16 else 64
    return (at + step - 1) // step * step


def _update(signature: Any, view: memoryview) -> None:
    flat = view.cast("B") if view.format != "B" or view.ndim != 1 else view
    for start in range(0, flat.nbytes, _STEP):
        signature.update(flat[start : start + _STEP])
