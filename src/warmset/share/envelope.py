"""
The envelope of a snapshot: a signed byte layout whose buffers can be used in place.

    magic, 16 bytes
    length of the header and total length, 8 bytes each, little-endian
    header: JSON
    the pickle and its buffers, each aligned to 64 bytes (large ones: 4096)
    signature, 32 bytes: HMAC-SHA256 of everything before it; without a key, SHA-256

The header contains the key of the snapshot, so that one snapshot cannot replace another. The pickle
is not read before the signature is verified.
"""

from __future__ import annotations

import hmac
import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import DamagedError
from .secret import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .secret import Secret

__all__ = ["Envelope", "pack", "unpack"]

_MAGIC = b"warmset snapshot"
_LENGTHS = struct.Struct("<QQ")
_START = len(_MAGIC) + _LENGTHS.size
_SIGNATURE = 32
_STEP = 1 << 24  # bytes signed per call, during which the GIL is released
_FORMAT = 1


class Envelope(NamedTuple):
    """A verified snapshot; nothing in it has been unpickled."""

    facts: Mapping[str, Any]
    """The facts that were recorded when it was made."""
    pickled: memoryview
    buffers: list[memoryview]


def pack(
    key: str,
    facts: Mapping[str, Any],
    pickled: memoryview | bytes,
    buffers: Sequence[memoryview],
    secret: Secret | None,
) -> list[memoryview | bytes]:
    """
    Lay out and sign a snapshot.

    Args:
        key: The key of the snapshot.
        facts: Facts to record in the header, as JSON data.
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
    bare = {"format": _FORMAT, "key": key, "facts": dict(facts)}
    length = len(json.dumps(bare)) + padding
    at = _START + length
    for part in parts:
        at = _aligned(at, part.nbytes)
        positions.append((at, part.nbytes))
        at += part.nbytes
    header = json.dumps({**bare, "places": positions}).encode()
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


def unpack(key: str, view: memoryview, secret: Secret | None) -> Envelope:
    """
    Verify a snapshot and locate its parts.

    Args:
        key: The key of the snapshot.
        view: The bytes of the envelope, which must not change any more.
        secret: The signing key.

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
    signature = digest(secret)
    _update(signature, view[:-_SIGNATURE])
    if not hmac.compare_digest(signature.digest(), bytes(view[-_SIGNATURE:])):
        kind = "checksum" if secret is None else "signature"
        raise DamagedError(f"its {kind} is wrong: it was altered or signed with another key")
    # The signature is valid, so an owner of the key made it; the format may still be another one.
    try:
        header = json.loads(bytes(view[_START : _START + length]))
        if header["format"] != _FORMAT or header["key"] != key:
            raise DamagedError(
                f"it has format {header['format']!r} and key {header['key']!r}, expected "
                f"{_FORMAT} and {key!r}"
            )
        first, *others = [view[start : start + size] for start, size in header["places"]]
        return Envelope(header["facts"], first, others)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its header is invalid: {error}") from error


def _aligned(at: int, size: int) -> int:
    step = 4096 if size >= 1 << 16 else 64
    return (at + step - 1) // step * step


def _update(signature: Any, view: memoryview) -> None:
    flat = view.cast("B") if view.format != "B" or view.ndim != 1 else view
    for start in range(0, flat.nbytes, _STEP):
        signature.update(flat[start : start + _STEP])
