"""
The bytes of a snapshot: laid out so that buffers can be used where they lie, and signed.

    magic, 16 bytes
    length of the header, and of the whole, 8 bytes each, little-endian
    header: JSON
    the pickle, and its buffers, each from a multiple of 64 (large ones: of 4096) on
    signature, 32 bytes: HMAC-SHA256 of all before, or without a key SHA-256

The header names the key that the snapshot is kept under, so that no snapshot passes for another.
Nothing of the pickle is looked at before the signature was found right.
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

__all__ = ["Sealed", "seal", "unseal"]

_MAGIC = b"warmset snapshot"
_LENGTHS = struct.Struct("<QQ")
_START = len(_MAGIC) + _LENGTHS.size
_SIGNATURE = 32
_STEP = 1 << 24  # bytes signed at once: the interpreter's lock is free meanwhile
_FORMAT = 1


class Sealed(NamedTuple):
    """An opened snapshot; nothing in it has been run."""

    facts: Mapping[str, Any]
    """What was said about it when it was made."""
    pickled: memoryview
    buffers: list[memoryview]


def seal(
    key: str,
    facts: Mapping[str, Any],
    pickled: memoryview | bytes,
    buffers: Sequence[memoryview],
    secret: Secret | None,
) -> list[memoryview | bytes]:
    """
    Lay a snapshot out and sign it.

    Args:
        key: What it will be kept under.
        facts: What is to be known about it; JSON.
        pickled: The pickle.
        buffers: Its buffers, contiguous, of bytes.
        secret: The key to sign with.

    Returns:
        Its bytes, in pieces; the buffers are not copied.
    """
    parts = [memoryview(pickled), *buffers]
    places: list[tuple[int, int]] = []
    # Lengths of numbers in the header depend on the places, and these on its length: room is left.
    room = 40 * len(parts) + 64
    bare = {"format": _FORMAT, "key": key, "facts": dict(facts)}
    length = len(json.dumps(bare)) + room
    at = _START + length
    for part in parts:
        at = _aligned(at, part.nbytes)
        places.append((at, part.nbytes))
        at += part.nbytes
    header = json.dumps({**bare, "places": places}).encode()
    assert len(header) <= length
    header += b" " * (length - len(header))
    pieces: list[memoryview | bytes] = [_MAGIC + _LENGTHS.pack(length, at + _SIGNATURE) + header]
    end = _START + length
    for part, (start, size) in zip(parts, places, strict=True):
        if start > end:
            pieces.append(bytes(start - end))
        if size:
            pieces.append(part)
        end = start + size
    signature = digest(secret)
    for piece in pieces:
        _add(signature, memoryview(piece))
    pieces.append(signature.digest())
    return pieces


def unseal(key: str, view: memoryview, secret: Secret | None) -> Sealed:
    """
    Check a snapshot and find its parts.

    Args:
        key: What it is kept under.
        view: Its bytes, which must not change any more.
        secret: The key that it must be signed with.

    Returns:
        Its parts, where they lie.

    Raises:
        DamagedError: It is cut short, altered, signed by another key, kept under another one, or of
            another format; the text tells which, as far as that can be told.
    """
    if view.nbytes < _START + _SIGNATURE:
        raise DamagedError(f"it has {view.nbytes} bytes, which is less than any snapshot has")
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise DamagedError("it does not begin as a snapshot does")
    length, total = _LENGTHS.unpack(view[len(_MAGIC) : _START])
    if total != view.nbytes:
        raise DamagedError(f"it has {view.nbytes} bytes, and says that it had {total}")
    signature = digest(secret)
    _add(signature, view[:-_SIGNATURE])
    if not hmac.compare_digest(signature.digest(), bytes(view[-_SIGNATURE:])):
        kind = "checksum" if secret is None else "signature"
        raise DamagedError(f"its {kind} is wrong: it was altered, or made with another key")
    # From here on it is what somebody who has the key made; it may still be another version's.
    try:
        header = json.loads(bytes(view[_START : _START + length]))
        if header["format"] != _FORMAT or header["key"] != key:
            raise DamagedError(
                f"it is format {header['format']!r} of {header['key']!r}, expected "
                f"{_FORMAT} of {key!r}"
            )
        first, *others = [view[start : start + size] for start, size in header["places"]]
        return Sealed(header["facts"], first, others)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its header cannot be read: {error}") from error


def _aligned(at: int, size: int) -> int:
    step = 4096 if size >= 1 << 16 else 64
    return (at + step - 1) // step * step


def _add(signature: Any, view: memoryview) -> None:
    flat = view.cast("B") if view.format != "B" or view.ndim != 1 else view
    for start in range(0, flat.nbytes, _STEP):
        signature.update(flat[start : start + _STEP])
