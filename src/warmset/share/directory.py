"""
Snapshots as mapped files in a directory: all processes that open one share one physical copy.

    NAME-DIGEST.snapshot   the complete bytes: written to another file, flushed, and renamed
    NAME-DIGEST.building   exists during a build: locked by flock, which the kernel releases when
                           the process dies; removed by the process that has the lock
    NAME-DIGEST.new        exists during a write

They are in a subdirectory of their own; see `files`. The modification time of a file is when it was
made, its access time when it was last used. Files that are too old are removed, and above the size
bound the least recently used ones. A removed file remains usable where it is mapped.
"""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import files
from .checks import check_numbers, check_version
from .claims import FileClaim
from .errors import DamagedError, StoreBusyError, StoreError
from .files import BUILDING, NEW, SNAPSHOT, OwnDirectory, check_key, entries, open_own
from .protocol import Blob
from .secret import KEY_VARIABLE, Secret, secrets_from

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from .secret import AnyKey, AnyPath

__all__ = ["DirectoryStore"]

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.1
_READ_BYTES = 1 << 24


class DirectoryStore:
    """
    Keeps snapshots in a directory.

    Args:
        path: The directory; if it does not exist, it is made private to this user. The files are in
            its subdirectory ``warmset-snapshots-USER``, where USER is the number of this user; the
            store touches nothing else.
        key: The signing key of snapshots, at least 16 bytes. Without a key (also without `keys`,
            `key_file` and the environment variable ``WARMSET_STORE_KEY``), the directory must
            belong to this user, and no other user may be able to write to it.
        keys: Several keys, to replace one: the first signs, and all are accepted.
        key_file: A file that contains the key.
        version: Snapshots of another version are not found. A new version therefore rejects all
            snapshots that were made before.
        max_bytes: The most bytes to keep; 0: unlimited.
        max_snapshot_bytes: The size of the largest snapshot that is stored or read.
        max_age_seconds: The maximum age of a snapshot; 0: unlimited.
        wait_seconds: How long to wait for a build in another process before building anyway.
        clock: Returns the seconds since the epoch, for tests.
        pause: Sleeps for some seconds, for tests.

    Raises:
        StoreRefusedError: The directory is not trusted; the text says what to do.
        StoreError: The directory cannot be made or used, or this system has no file locks.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range, or the key is too short.

    The path is walked from the root at each operation. Links are followed only where no other user
    can replace them. If other users can write to the directory, which requires a key, files are
    copied into private memory before they are verified, and not mapped.

    Safe under threads and after a fork; picklable with a key from a file or the environment.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        key: AnyKey | None = None,
        keys: Sequence[AnyKey] | None = None,
        key_file: AnyPath | None = None,
        version: str = "",
        max_bytes: int = 10_000_000_000,
        max_snapshot_bytes: int = 10_000_000_000,
        max_age_seconds: float = 30 * 86400.0,
        wait_seconds: float = 600.0,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        if fcntl is None:
            raise StoreError("a DirectoryStore needs the file locks of a POSIX system")
        check_numbers(
            max_bytes=(max_bytes, 0),
            max_snapshot_bytes=(max_snapshot_bytes, 1),
            max_age_seconds=(max_age_seconds, 0),
            wait_seconds=(wait_seconds, 0),
        )
        self.path = os.path.abspath(os.fsdecode(path))
        self.version = check_version(version)
        self.max_age_seconds = max_age_seconds
        self._secrets = secrets_from(key, key_file, keys)
        self._max_bytes, self._max_snapshot_bytes = max_bytes, max_snapshot_bytes
        self._wait = wait_seconds
        self._clock, self._pause = clock, pause
        with self._opened():
            pass

    @property
    def secret(self) -> Secret | None:
        """The signing key; None if all who can write to the directory are trusted."""
        return self._secrets[0] if self._secrets else None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The signing key, and the other keys that are accepted."""
        return self._secrets

    @property
    def own_path(self) -> str:
        """The subdirectory that contains the files."""
        return os.path.join(self.path, files.own_name())

    def __repr__(self) -> str:
        return f"<DirectoryStore {self.path!r}, {'signed' if self._secrets else 'private'}>"

    def __reduce__(self) -> Any:
        options = {
            "version": self.version,
            "max_bytes": self._max_bytes,
            "max_snapshot_bytes": self._max_snapshot_bytes,
            "max_age_seconds": self.max_age_seconds,
            "wait_seconds": self._wait,
        }
        return _unpickle, (self.path, self._secrets, options)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = self.path, self._secrets, self.version
        return mine == (other.path, other._secrets, other.version)

    def __hash__(self) -> int:
        return hash((self.path, self._secrets, self.version))

    def _opened(self) -> AbstractContextManager[OwnDirectory]:
        return files.opened(
            self.path,
            signed=bool(self._secrets),
            advice=(
                "Use a directory that only this user can write to (chmod 700), or a key: key=, "
                f"key_file= or the environment variable {KEY_VARIABLE}"
            ),
        )

    # -- reading -----------------------------------------------------------------------------------

    def fetch(self, key: str) -> Blob | None:
        """
        Get the bytes stored under a key, and record the use; see `protocol.Store`.

        It takes some 100 us: the file is mapped, and its pages are read on access.
        """
        name = check_key(key) + SNAPSHOT
        with self._opened() as directory:
            try:
                file, found = open_own(directory, name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise StoreError(f"cannot open {self._text(name)}: {error.strerror}") from error
            try:
                if self._is_old(found):
                    return None  # the next build replaces it
                if found.st_size > self._max_snapshot_bytes:
                    raise DamagedError(
                        f"{name!r} has {found.st_size} bytes, more than max_snapshot_bytes"
                    )
                with suppress(OSError):  # the directory may be read-only
                    os.utime(file, ns=(int(self._clock() * 1e9), found.st_mtime_ns))
                return _map(file, found) if directory.private else _copy(file, found)
            except (OSError, MemoryError) as error:
                reason = getattr(error, "strerror", None) or "not enough memory"
                raise StoreError(f"cannot read {self._text(name)}: {reason}") from error
            finally:
                os.close(file)

    def _is_old(self, found: os.stat_result) -> bool:
        return bool(self.max_age_seconds) and self._clock() - found.st_mtime > self.max_age_seconds

    def _text(self, name: str) -> str:
        return repr(os.path.join(self.own_path, name))

    # -- building ----------------------------------------------------------------------------------

    def claim(self, key: str, *, wait: bool = True) -> FileClaim | None:
        """Claim the exclusive right to build for a key; see `protocol.Store`."""
        name = check_key(key) + BUILDING
        deadline = time.monotonic() + self._wait
        pause = _FIRST_PAUSE_SECONDS
        while True:
            with self._opened() as directory:
                claim = self._try_claim(directory, name, key)
            if claim is not None:
                return claim
            if not wait:
                return None
            if time.monotonic() >= deadline:
                raise StoreBusyError(
                    f"another process has been building {key} for {self._wait:.0f} s"
                )
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _try_claim(self, directory: OwnDirectory, name: str, key: str) -> FileClaim | None:
        file = -1
        try:
            file, _ = open_own(directory, name, os.O_RDWR | os.O_CREAT)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder removes the file: a lock on a removed file excludes no one.
            if _is_at(directory, name, file):
                claim = FileClaim(key, file, self._put, self._remove_lock)
                file = -1
                return claim
        except BlockingIOError:
            pass
        except (OSError, DamagedError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StoreError(f"cannot lock {self._text(name)}: {reason}") from error
        finally:
            if file >= 0:
                os.close(file)
        return None

    def _remove_lock(self, key: str, file: int) -> None:
        name = key + BUILDING
        with self._opened() as directory:
            if _is_at(directory, name, file):
                os.unlink(name, dir_fd=directory.file)

    def _put(self, key: str, pieces: Sequence[memoryview | bytes]) -> None:
        """Store bytes under a key; for the holder of the claim only."""
        size = sum(memoryview(piece).nbytes for piece in pieces)
        if size > self._max_snapshot_bytes:
            raise StoreError(f"it has {size} bytes, more than max_snapshot_bytes")
        # Only the holder of the claim writes the new file; an existing one is a dead process's.
        new, name = key + NEW, key + SNAPSHOT
        with self._opened() as directory:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(new, dir_fd=directory.file)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                file = os.open(new, flags, 0o600, dir_fd=directory.file)
                with open(file, "wb", buffering=0) as stream:
                    for piece in pieces:
                        _write(stream, memoryview(piece))
                    now = int(self._clock() * 1e9)
                    os.utime(file, ns=(now, now))
                    os.fsync(file)
                os.replace(new, name, src_dir_fd=directory.file, dst_dir_fd=directory.file)
                with suppress(OSError):  # some file systems cannot flush a directory
                    os.fsync(directory.file)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(new, dir_fd=directory.file)
                raise StoreError(f"cannot write {self._text(name)}: {error.strerror}") from error
        self.trim(spare=key)

    # -- bounds ------------------------------------------------------------------------------------

    def discard(self, key: str) -> bool:
        """Remove the bytes stored under a key; see `protocol.Store`."""
        check_key(key)
        with self._opened() as directory:
            return self._discard(directory, key)

    def _discard(self, directory: OwnDirectory, key: str) -> bool:
        name = key + SNAPSHOT
        try:
            os.unlink(name, dir_fd=directory.file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot remove {self._text(name)}: {error.strerror}") from error
        return True

    def clear(self) -> int:
        """
        Remove all snapshots; builds in progress are not affected.

        Returns:
            The number of removed snapshots.
        """
        with self._opened() as directory:
            names = [key for key, _ in self._entries(directory, SNAPSHOT)]
            return sum(self._discard(directory, key) for key in names)

    def trim(self, *, spare: str | None = None) -> int:
        """
        Apply the bounds, and remove files of processes that died.

        It removes snapshots above the maximum age, then the least recently used ones until the rest
        is within `max_bytes`.

        Args:
            spare: A key that was just written and does not count as least recently used.

        Returns:
            The number of removed snapshots.
        """
        with self._opened() as directory:
            removed = self._trim(directory, spare)
            self._remove_leftovers(directory)
        return removed

    def _trim(self, directory: OwnDirectory, spare: str | None) -> int:
        removed = 0
        kept = self._entries(directory, SNAPSHOT)
        for name, found in list(kept):
            if self._is_old(found):
                removed += self._try_discard(directory, name)
                kept.remove((name, found))
        total = sum(found.st_size for _, found in kept)
        for name, found in sorted(kept, key=lambda each: each[1].st_atime_ns):
            if not self._max_bytes or total <= self._max_bytes:
                break
            if name != spare:
                total -= found.st_size
                removed += self._try_discard(directory, name)
        return removed

    def _try_discard(self, directory: OwnDirectory, key: str) -> bool:
        with suppress(StoreError):
            return self._discard(directory, key)
        return False

    def _remove_leftovers(self, directory: OwnDirectory) -> None:
        leftovers = [*self._entries(directory, NEW), *self._entries(directory, BUILDING)]
        for key in {key for key, _ in leftovers}:
            claim = None
            with suppress(StoreError):
                claim = self._try_claim(directory, key + BUILDING, key)
            if claim is not None:
                with claim, suppress(OSError):  # releasing the claim removes its file, too
                    os.unlink(key + NEW, dir_fd=directory.file)

    def _entries(self, directory: OwnDirectory, suffix: str) -> list[tuple[str, os.stat_result]]:
        try:
            return entries(directory, suffix)
        except OSError as error:
            raise StoreError(f"cannot list {self.own_path!r}: {error.strerror}") from error


def _is_at(directory: OwnDirectory, name: str, file: int) -> bool:
    """Whether a file is still the one of that name."""
    with suppress(FileNotFoundError):
        at = os.stat(name, dir_fd=directory.file, follow_symlinks=False)
        return os.path.samestat(os.fstat(file), at)
    return False


def _map(file: int, found: os.stat_result) -> Blob:
    if not found.st_size:
        return Blob(memoryview(b""), shared=False)
    try:
        # Written pages become private copies; the others remain shared with the file.
        mapped = mmap.mmap(file, found.st_size, access=mmap.ACCESS_COPY)
    except OSError:  # the system does not reserve memory for the private copies
        mapped = mmap.mmap(file, found.st_size, access=mmap.ACCESS_READ)
    return Blob(memoryview(mapped), shared=True)


def _copy(file: int, found: os.stat_result) -> Blob:
    # Read in pieces up to the size that was checked: the file may be sparse, or may have grown.
    content = bytearray()
    while len(content) < found.st_size:
        piece = os.read(file, min(_READ_BYTES, found.st_size - len(content)))
        if not piece:
            break
        content += piece
    return Blob(memoryview(content), shared=False)


def _write(stream: Any, piece: memoryview) -> None:
    rest = piece.cast("B") if piece.ndim != 1 or piece.format != "B" else piece
    while rest.nbytes:
        rest = rest[stream.write(rest) :]


def _unpickle(path: str, secrets: tuple[Secret, ...], options: dict[str, Any]) -> DirectoryStore:
    return DirectoryStore(path, keys=secrets, **options)
