"""
The files of a directory store: in a subdirectory of its own, opened only if they are what they
should be.

    DIRECTORY/warmset-snapshots-USER/NAME-DIGEST.snapshot
                                     NAME-DIGEST.building
                                     NAME-DIGEST.new

The subdirectory belongs to this user and cannot be entered by others, also if the directory itself
can be written by them. All accesses are relative to its descriptor, which is opened anew for each
operation by walking the path from the root.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from .._paths import Opened, ReplaceableLinkError, open_path, others_can_write
from .errors import DamagedError, StoreError, StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BUILDING", "NEW", "SNAPSHOT", "OwnDirectory", "entries", "open_own", "opened"]

SNAPSHOT, BUILDING, NEW = ".snapshot", ".building", ".new"
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class OwnDirectory(NamedTuple):
    """The subdirectory of a store, opened for one operation."""

    file: int
    """Its descriptor."""
    private: bool
    """Whether no other user can write to the directory of the store, or replace it."""


def own_name() -> str:
    """Get the name of the subdirectory."""
    return f"warmset-snapshots-{os.geteuid()}"


def is_key(key: str) -> bool:
    """Whether a text can be a part of a file's name: no other is the key of a snapshot."""
    return _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Check that a key can be a part of a file's name; raise StoreError if not."""
    if not is_key(key):
        raise StoreError(
            f"a key of a store has at most 200 letters, digits, dots, hyphens and underscores, got "
            f"{key!r}"
        )
    return key


@contextmanager
def opened(path: str, *, signed: bool, advice: str) -> Iterator[OwnDirectory]:
    """
    Open the subdirectory of a store, which is made if it does not exist.

    Args:
        path: The directory of the store.
        signed: Whether snapshots are signed, so that the directory may be writable by others.
        advice: What to do if it is and they are not, for the text of the error.

    Returns:
        A context with the subdirectory.

    Raises:
        StoreRefusedError: Others can write to the directory, and snapshots are not signed.
        StoreError: It cannot be opened, or another user has put something in its place.
    """
    try:
        base = open_path(path, make=True)
    except ReplaceableLinkError as error:
        raise StoreRefusedError(f"cannot use {path!r}: {error.strerror}") from error
    except OSError as error:
        raise StoreError(f"cannot use {path!r}: {error.strerror}") from error
    try:
        reason = others_can_write(path, base)
        if reason is not None and not signed:
            raise StoreRefusedError(
                f"{path!r} is not trusted, because opening a snapshot runs code in it: {reason}. "
                f"{advice}"
            )
        file = _open_subdirectory(path, base)
    finally:
        os.close(base.file)
    try:
        yield OwnDirectory(file, reason is None)
    finally:
        os.close(file)


def _open_subdirectory(path: str, base: Opened) -> int:
    name = own_name()
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            file = os.open(name, flags, dir_fd=base.file)
        except FileNotFoundError:
            with suppress(FileExistsError):  # made by another process meanwhile
                os.mkdir(name, 0o700, dir_fd=base.file)
            file = os.open(name, flags, dir_fd=base.file)
    except OSError as error:
        raise StoreError(f"cannot use {os.path.join(path, name)!r}: {error.strerror}") from error
    status = os.fstat(file)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(file)
        raise StoreRefusedError(
            f"{os.path.join(path, name)!r} belongs to user {status.st_uid} and has mode "
            f"{stat.S_IMODE(status.st_mode):04o}, expected a directory of user {os.geteuid()} with "
            "mode 0700"
        )
    return file


def open_own(directory: OwnDirectory, name: str, flags: int) -> tuple[int, os.stat_result]:
    """
    Open a file of this user, without waiting and without following a link.

    Args:
        directory: The subdirectory.
        name: The name of the file in it.
        flags: How to open it.

    Returns:
        The descriptor and the status.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: It is no regular file, belongs to another user, or others can write to it.
        OSError: It cannot be opened.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, 0o600, dir_fd=directory.file)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK):
            raise DamagedError(f"{name!r} is not a file") from error
        raise
    status = os.fstat(file)
    reason = None
    if not stat.S_ISREG(status.st_mode):
        reason = "is not a file"
    elif status.st_uid != os.geteuid() or status.st_mode & 0o022:
        reason = "belongs to another user or can be written by other users"
    if reason is not None:
        os.close(file)
        raise DamagedError(f"{name!r} {reason}")
    return file, status


def entries(directory: OwnDirectory, suffix: str) -> list[tuple[str, os.stat_result]]:
    """
    List the files of the store with a suffix.

    Args:
        directory: The subdirectory.
        suffix: The suffix.

    Returns:
        The key and the status of each regular file of this user whose name has the exact form.

    Raises:
        OSError: The subdirectory cannot be read.
    """
    found = []
    for name in os.listdir(directory.file):
        key = name.removesuffix(suffix)
        if key == name or not is_key(key):
            continue
        with suppress(OSError):
            status = os.stat(name, dir_fd=directory.file, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                found.append((key, status))
    return found
