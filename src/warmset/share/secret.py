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

from .._paths import Opened, open_path
from .errors import StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    AnyPath: TypeAlias = "str | os.PathLike[str]"
    AnyKey: TypeAlias = "bytes | str | Secret"

__all__ = [
    "KEY_VARIABLE",
    "OLD_KEY_VARIABLE",
    "Secret",
    "read_private",
    "secrets_from",
]

KEY_VARIABLE, OLD_KEY_VARIABLE = "WARMSET_STORE_KEY", "WARMSET_STORE_OLD_KEY"
_LEAST_BYTES, _MOST_BYTES = 16, 1 << 16


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
        return (_from_file if kind == "file" else _from_environment, (where,))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self


def _from(origin: tuple[str, str] | None) -> str:
    return "" if origin is None else f" from {origin[0]} {origin[1]}"


def secrets_from(
    key: AnyKey | None = None,
    key_file: AnyPath | None = None,
    keys: Sequence[AnyKey] | None = None,
) -> tuple[Secret, ...]:
    """
    Find the keys to use.

    Args:
        key: The key itself.
        key_file: A file that contains the key, that other users cannot read or replace, and that
            belongs to this user or to root. White space around the key is ignored.
        keys: Several keys: the first signs, all are accepted.

    Returns:
        The keys. Without arguments, those of the environment variables ``WARMSET_STORE_KEY`` and
        ``WARMSET_STORE_OLD_KEY``, as far as they are set and not empty.

    Raises:
        TypeError: An argument has the wrong type, or several are given.
        ValueError: A key is too short, or there is only an old one.
        StoreRefusedError: The file cannot be read, or other users can read, write or replace it.
    """
    if sum(given is not None for given in (key, key_file, keys)) > 1:
        raise TypeError("key, keys and key_file are both given; expected at most one")
    if key is not None:
        return (_secret(key),)
    if keys is not None:
        if isinstance(keys, (str, bytes, bytearray)):
            raise TypeError(f"keys must be a sequence of keys, got {type(keys).__name__}")
        return tuple(map(_secret, keys))
    if key_file is not None:
        path = os.path.abspath(os.fspath(key_file))
        return (_from_file(path),)
    found = tuple(
        _from_environment(name) for name in (KEY_VARIABLE, OLD_KEY_VARIABLE) if os.environ.get(name)
    )
    if found and not os.environ.get(KEY_VARIABLE):
        raise ValueError(f"{OLD_KEY_VARIABLE} is set, but {KEY_VARIABLE} is not")
    return found


def _secret(key: AnyKey) -> Secret:
    if isinstance(key, Secret):
        return key
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, (bytes, bytearray)):
        raise TypeError(f"the key of a store must be bytes, got {type(key).__name__}")
    return Secret(bytes(key))


def _from_environment(name: str) -> Secret:
    return Secret(os.environ[name].strip().encode(), ("environment variable", name))


def _from_file(path: str) -> Secret:
    return Secret(read_private(path, "key"), ("file", path))


def read_private(path: str, what: str) -> bytes:
    """
    Read a small file that other users can neither read nor replace.

    Args:
        path: Its absolute path.
        what: What it contains, for the text of errors.

    Returns:
        Its content, without white space around it.

    Raises:
        StoreRefusedError: It cannot be read, or others have access to it.
    """
    try:
        if os.name != "posix":
            with open(path, "rb") as stream:
                return stream.read(_MOST_BYTES).strip()
        opened = open_path(path, os.O_RDONLY)
    except OSError as error:
        raise StoreRefusedError(
            f"the {what} file {path!r} cannot be read: {error.strerror}"
        ) from error
    try:
        reason = _why_refused(opened)
        if reason is not None:
            raise StoreRefusedError(f"the {what} file {path!r} {reason}")
        with open(opened.file, "rb", closefd=False) as stream:
            return stream.read(_MOST_BYTES).strip()
    finally:
        os.close(opened.file)


def _why_refused(opened: Opened) -> str | None:
    status, me = opened.status, os.geteuid()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_uid not in (0, me):
        return f"belongs to user {status.st_uid}; expected user {me} or root"
    if mode & 0o027:
        return f"is open to other users: mode {mode:04o}; expected 0600 or 0640: chmod 600"
    if status.st_size > _MOST_BYTES:
        return f"has {status.st_size} bytes; expected at most {_MOST_BYTES}"
    if opened.reason is not None:
        return f"can be replaced by other users: {opened.reason}"
    return None


def digest(secret: Secret | None) -> Any:
    """Make the hash that signs a snapshot: an HMAC with a key, a checksum without one."""
    return hashlib.sha256() if secret is None else secret.signer()
