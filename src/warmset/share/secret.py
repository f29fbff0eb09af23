"""
The signing key of snapshots.

The key never appears in an error, a log record, a `repr` or a pickle. A pickled key from a file or
the environment is read from there again; a key given as bytes cannot be pickled.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING, Any

from .errors import StoreRefusedError

if TYPE_CHECKING:
    AnyPath = str | os.PathLike[str]

__all__ = ["KEY_VARIABLE", "Secret", "secret_from"]

KEY_VARIABLE = "WARMSET_STORE_KEY"
_LEAST_BYTES = 16


class Secret:
    """
    A key for HMAC-SHA256.

    Args:
        key: At least 16 bytes.
        origin: The source of the key, for the text of errors and for unpickling.

    Raises:
        ValueError: The key is too short.
    """

    __slots__ = ("_key", "_origin")

    def __init__(self, key: bytes, origin: tuple[str, str] | None = None) -> None:
        if len(key) < _LEAST_BYTES:
            raise ValueError(
                f"the key of a store must have at least {_LEAST_BYTES} bytes, got {len(key)}"
                f"{_from(origin)}; for example: python -c 'import secrets; "
                "print(secrets.token_hex(32))'"
            )
        self._key = bytes(key)
        self._origin = origin

    def signer(self) -> hmac.HMAC:
        """Make a new HMAC-SHA256 with this key."""
        return hmac.new(self._key, digestmod="sha256")

    @property
    def fingerprint(self) -> str:
        """A text that distinguishes this key from others without revealing it."""
        return hmac.digest(self._key, b"warmset fingerprint", "sha256").hex()[:8]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<Secret{_from(self._origin)}>"

    def __reduce__(self) -> Any:
        if self._origin is None:
            raise TypeError(
                "a key that was given as bytes cannot be pickled; use key_file= or the environment "
                f"variable {KEY_VARIABLE} on each machine"
            )
        kind, where = self._origin
        return (secret_from, (None, where)) if kind == "file" else (secret_from, ())

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self


def _from(origin: tuple[str, str] | None) -> str:
    return "" if origin is None else f" from {origin[0]} {origin[1]}"


def secret_from(
    key: bytes | str | Secret | None = None, key_file: AnyPath | None = None
) -> Secret | None:
    """
    Find the key to use.

    Args:
        key: The key itself.
        key_file: A file that contains the key and that other users cannot read. White space around
            the key is ignored.

    Returns:
        The key. Without arguments, that of the environment variable ``WARMSET_STORE_KEY``, or None
        if the variable is not set.

    Raises:
        TypeError: An argument has the wrong type, or both are given.
        ValueError: The key is too short.
        StoreRefusedError: The file cannot be read, or other users can read or write it.
    """
    if key is not None and key_file is not None:
        raise TypeError("key and key_file are both given; expected at most one")
    if isinstance(key, Secret):
        return key
    if key is not None:
        if isinstance(key, str):
            key = key.encode()
        if not isinstance(key, (bytes, bytearray)):
            raise TypeError(f"the key of a store must be bytes, got {type(key).__name__}")
        return Secret(bytes(key))
    if key_file is not None:
        path = os.path.abspath(os.fspath(key_file))
        return Secret(_read(path), ("file", path))
    found = os.environ.get(KEY_VARIABLE)
    if not found:
        return None
    return Secret(found.strip().encode(), ("environment variable", KEY_VARIABLE))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o027:
                raise StoreRefusedError(
                    f"the key file {path!r} is open to other users: mode {stat.S_IMODE(mode):04o}; "
                    f"expected 0600 or 0640: chmod 600 {path}"
                )
            return file.read(1 << 16).strip()
    except OSError as error:
        raise StoreRefusedError(
            f"the key file {path!r} cannot be read: {error.strerror}"
        ) from error


def digest(secret: Secret | None) -> Any:
    """Make the hash that signs a snapshot: an HMAC with a key, a checksum without one."""
    return hashlib.sha256() if secret is None else secret.signer()
