"""
What a store on a server writes beside the snapshots: manifests and locks, which are signed.

Whoever can write to the server can put anything there. A text without a valid signature for its
purpose and its key is treated as if it did not exist, and all numbers are bounded before they are
used.
"""

from __future__ import annotations

import hmac
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from .errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .secret import Secret

__all__ = ["CHUNK_BYTES", "MOST_BYTES", "Manifest", "is_lock", "read_manifest", "sign_lock"]

CHUNK_BYTES = 8 << 20  # bounds one command of the server, which blocks other clients
MOST_BYTES = 1000
"""The most bytes of a manifest or a lock that are read."""
_SIGNATURE = 64
_FORMAT = 2
_MOST_SKEW_SECONDS = 60


class Manifest(NamedTuple):
    """The parts of a snapshot on a server."""

    number: str
    """The random number of the upload, in the names of its chunks."""
    size: int
    """The bytes of the snapshot."""

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return -(-self.size // CHUNK_BYTES)

    def signed(self, key: str, secret: Secret) -> bytes:
        """Write the manifest of a key."""
        text = json.dumps({"format": _FORMAT, "number": self.number, "size": self.size}).encode()
        return _signature(secret, "manifest", key, text) + text


def read_manifest(
    found: bytes, key: str, secrets: Sequence[Secret], max_snapshot_bytes: float
) -> Manifest:
    """
    Read the manifest of a key.

    Args:
        found: The bytes that are stored as the manifest.
        key: The key.
        secrets: The accepted signing keys.
        max_snapshot_bytes: The most bytes of a snapshot.

    Returns:
        The manifest.

    Raises:
        DamagedError: It is invalid, or not signed for this key.
    """
    text = found[_SIGNATURE:]
    if len(found) >= MOST_BYTES or not any(
        hmac.compare_digest(_signature(secret, "manifest", key, text), found[:_SIGNATURE])
        for secret in secrets
    ):
        raise DamagedError("the signature of its manifest is wrong")
    try:
        table = json.loads(text)
        number, size = table["number"], table["size"]
        if table["format"] != _FORMAT:
            raise ValueError("another format")
        if type(number) is not str or not re.fullmatch("[0-9a-f]{32}", number):
            raise ValueError("its number is invalid")
        if type(size) is not int or not 0 < size <= max_snapshot_bytes:
            raise ValueError(f"it has {size!r} bytes, expected at most {max_snapshot_bytes:.0f}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(f"its manifest is invalid: {error}") from error
    return Manifest(number, size)


def sign_lock(token: str, key: str, lease_seconds: float, now: float, secret: Secret) -> bytes:
    """
    Write the lock of a key.

    Args:
        token: 32 hexadecimal digits that tell the holder from others.
        key: The key.
        lease_seconds: How long the lock is valid unless it is renewed.
        now: Seconds since the epoch.
        secret: The signing key.

    Returns:
        The lock; the token is at a fixed position in it.
    """
    text = f"{token} {now:.0f} {lease_seconds:.0f}".encode()
    return _signature(secret, "lock", key, text) + text


def is_lock(found: bytes, key: str, secrets: Sequence[Secret], now: float) -> bool:
    """
    Check whether a text is the lock of a builder that others should wait for.

    Args:
        found: The bytes that are stored as the lock.
        key: The key.
        secrets: The accepted signing keys.
        now: Seconds since the epoch.

    Returns:
        False for a text that was not signed for this key, or that was signed longer ago than its
        lease, so that somebody has put it back. The clocks of two machines may differ by a minute.
    """
    text = found[_SIGNATURE:]
    if len(found) >= MOST_BYTES or not any(
        hmac.compare_digest(_signature(secret, "lock", key, text), found[:_SIGNATURE])
        for secret in secrets
    ):
        return False
    times = re.fullmatch(rb"[0-9a-f]{32} ([0-9]{1,15}) ([0-9]{1,15})", text)
    return times is not None and abs(now - int(times[1])) <= int(times[2]) + _MOST_SKEW_SECONDS


def _signature(secret: Secret, purpose: str, key: str, text: bytes) -> bytes:
    signer = secret.signer()
    # The key contains no line break, so that no two pairs of key and text are signed alike.
    signer.update(f"warmset {purpose}\n{key}\n".encode() + text)
    return signer.hexdigest().encode()
