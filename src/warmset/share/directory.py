"""
Snapshots as mapped files in a directory: all processes that open one share one physical copy.

    NAME-DIGEST.snapshot   the complete bytes: written to another file, flushed, and renamed
    NAME-DIGEST.building   exists during a build: locked by flock, which the kernel releases when
                           the process dies; removed by the process that has the lock
    NAME-DIGEST.new        exists during a write

The modification time of a file is when it was made, its access time when it was last used. Files
that are too old are removed, and above the size bound the least recently used ones. A removed file
remains usable where it is mapped.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import _fork
from .errors import StoreBusyError, StoreError, StoreRefusedError
from .permissions import others_can_write
from .protocol import Blob
from .secret import KEY_VARIABLE, Secret, secret_from

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from .secret import AnyPath

__all__ = ["DirectoryStore"]

_SNAPSHOT, _BUILDING, _NEW = ".snapshot", ".building", ".new"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 0.1


class DirectoryStore:
    """
    Keeps snapshots in a directory.

    Args:
        path: The directory; if it does not exist, it is made private to this user.
        key: The signing key of snapshots, at least 16 bytes. Without a key (also without `key_file`
            and the environment variable ``WARMSET_STORE_KEY``), the directory must belong to this
            user, and no other user may be able to write to it.
        key_file: A file that contains the key.
        max_bytes: The most bytes to keep; 0: unlimited.
        max_age_seconds: The maximum age of a snapshot; 0: unlimited.
        wait_seconds: How long to wait for a build in another process before building anyway.
        clock: Returns the seconds since the epoch, for tests.
        pause: Sleeps for some seconds, for tests.

    Raises:
        StoreRefusedError: The directory is not trusted; the text says what to do.
        StoreError: The directory cannot be made or used, or this system has no file locks.
        TypeError: An argument has the wrong type.
        ValueError: A number is negative, or the key is too short.

    Files are mapped only if no other user can write to the directory, because truncating a mapped
    file crashes the process that reads it. If others can write to it, which requires a key, files
    are copied into private memory before they are verified.

    Safe under threads and after a fork; picklable with a key from a file or the environment.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        key: bytes | str | Secret | None = None,
        key_file: AnyPath | None = None,
        max_bytes: int = 10_000_000_000,
        max_age_seconds: float = 30 * 86400.0,
        wait_seconds: float = 600.0,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        if fcntl is None:
            raise StoreError("a DirectoryStore needs the file locks of a POSIX system")
        for name, value in (
            ("max_bytes", max_bytes),
            ("max_age_seconds", max_age_seconds),
            ("wait_seconds", wait_seconds),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value!r}")
        self.path = os.path.abspath(os.fsdecode(path))
        self._secret = secret_from(key, key_file)
        self._max_bytes, self._max_age = max_bytes, max_age_seconds
        self._wait = wait_seconds
        self._clock, self._pause = clock, pause
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            reason = others_can_write(self.path)
        except OSError as error:
            raise StoreError(f"cannot use {self.path!r}: {error.strerror}") from error
        self._mapped = reason is None
        if reason is not None and self._secret is None:
            raise StoreRefusedError(
                f"{self.path!r} is not trusted, because opening a snapshot runs code in it: "
                f"{reason}. Use a directory that only this user can write to (chmod 700), or a "
                f"key: key=, key_file= or the environment variable {KEY_VARIABLE}"
            )

    @property
    def secret(self) -> Secret | None:
        """The signing key; None if all who can write to the directory are trusted."""
        return self._secret

    def __repr__(self) -> str:
        return f"<DirectoryStore {self.path!r}, {'signed' if self._secret else 'private'}>"

    def __reduce__(self) -> Any:
        options = {
            "max_bytes": self._max_bytes,
            "max_age_seconds": self._max_age,
            "wait_seconds": self._wait,
        }
        return _unpickle, (self.path, self._secret, options)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.path, self._secret) == (other.path, other._secret)

    def __hash__(self) -> int:
        return hash((self.path, self._secret))

    # -- reading -----------------------------------------------------------------------------------

    def fetch(self, key: str) -> Blob | None:
        """
        Get the bytes stored under a key, and record the use; see `protocol.Store`.

        It takes microseconds: the file is mapped, and its pages are read on access.
        """
        path = self._file(key, _SNAPSHOT)
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot open {path!r}: {error.strerror}") from error
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{path!r} is not a file")
            if self._is_old(found):
                return None  # the next build replaces it
            with suppress(OSError):  # the directory may be read-only
                os.utime(file, ns=(int(self._clock() * 1e9), found.st_mtime_ns))
            return self._blob(file, found)
        except OSError as error:
            raise StoreError(f"cannot read {path!r}: {error.strerror}") from error
        finally:
            os.close(file)

    def _blob(self, file: int, found: os.stat_result) -> Blob:
        foreign = found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022
        if not self._mapped or foreign:
            if self._secret is None:
                raise StoreRefusedError(
                    f"a file in {self.path!r} belongs to another user or can be written by other "
                    "users; remove it, or give the store a key"
                )
            with open(os.dup(file), "rb") as stream:
                return Blob(memoryview(bytearray(stream.read())), shared=False)
        if not found.st_size:
            return Blob(memoryview(b""), shared=False)
        try:
            # Written pages become private copies; the others remain shared with the file.
            mapped = mmap.mmap(file, found.st_size, access=mmap.ACCESS_COPY)
        except OSError:  # the system does not reserve memory for the private copies
            mapped = mmap.mmap(file, found.st_size, access=mmap.ACCESS_READ)
        return Blob(memoryview(mapped), shared=True)

    def _is_old(self, found: os.stat_result) -> bool:
        return bool(self._max_age) and self._clock() - found.st_mtime > self._max_age

    def _file(self, key: str, suffix: str) -> str:
        return os.path.join(self.path, key + suffix)

    # -- building ----------------------------------------------------------------------------------

    def claim(self, key: str, *, wait: bool = True) -> _Claim | None:
        """Claim the exclusive right to build for a key; see `protocol.Store`."""
        path = self._file(key, _BUILDING)
        deadline = time.monotonic() + self._wait
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                claim = self._try_claim(path, key)
            except OSError as error:
                raise StoreError(f"cannot lock {path!r}: {error.strerror}") from error
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

    def _try_claim(self, path: str, key: str) -> _Claim | None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder removes the file: a lock on a removed file excludes no one.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False)):
                    claim = _Claim(self, key, path, file)
                    file = -1
                    return claim
        except BlockingIOError:
            pass
        finally:
            if file >= 0:
                os.close(file)
        return None

    def _put(self, key: str, pieces: Sequence[memoryview | bytes]) -> None:
        """Store bytes under a key; for the holder of the claim only."""
        # Only the holder of the claim writes the new file; an existing one is a dead process's.
        new, path = self._file(key, _NEW), self._file(key, _SNAPSHOT)
        try:
            with suppress(FileNotFoundError):
                os.unlink(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600), "wb", buffering=0) as stream:
                for piece in pieces:
                    _write(stream, memoryview(piece))
                now = int(self._clock() * 1e9)
                os.utime(stream.fileno(), ns=(now, now))
                os.fsync(stream.fileno())
            os.replace(new, path)
            self._flush_directory()
        except OSError as error:
            with suppress(OSError):
                os.unlink(new)
            raise StoreError(f"cannot write {path!r}: {error.strerror}") from error
        self.trim(spare=key)

    def _flush_directory(self) -> None:
        with suppress(OSError):  # some file systems cannot flush a directory
            directory = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    # -- bounds ------------------------------------------------------------------------------------

    def discard(self, key: str) -> bool:
        """Remove the bytes stored under a key; see `protocol.Store`."""
        path = self._file(key, _SNAPSHOT)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot remove {path!r}: {error.strerror}") from error
        return True

    def clear(self) -> int:
        """
        Remove all snapshots; builds in progress are not affected.

        Returns:
            The number of removed snapshots.
        """
        return sum(self.discard(name) for name, _ in self._snapshots())

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
        kept = self._snapshots()
        removed = 0
        for name, found in list(kept):
            if self._is_old(found):
                removed += self._try_discard(name)
                kept.remove((name, found))
        total = sum(found.st_size for _, found in kept)
        for name, found in sorted(kept, key=lambda each: each[1].st_atime_ns):
            if not self._max_bytes or total <= self._max_bytes:
                break
            if name != spare:
                total -= found.st_size
                removed += self._try_discard(name)
        self._remove_leftovers()
        return removed

    def _try_discard(self, key: str) -> bool:
        with suppress(StoreError):
            return self.discard(key)
        return False

    def _remove_leftovers(self) -> None:
        for name in {*self._names(_NEW), *self._names(_BUILDING)}:
            claim = None
            with suppress(StoreError):
                claim = self.claim(name, wait=False)
            if claim is not None:
                with claim, suppress(OSError):  # releasing the claim removes its file, too
                    os.unlink(self._file(name, _NEW))

    def _snapshots(self) -> list[tuple[str, os.stat_result]]:
        kept = []
        for name in self._names(_SNAPSHOT):
            with suppress(OSError):
                kept.append((name, os.lstat(self._file(name, _SNAPSHOT))))
        return kept

    def _names(self, suffix: str) -> list[str]:
        try:
            return [n.removesuffix(suffix) for n in os.listdir(self.path) if n.endswith(suffix)]
        except OSError as error:
            raise StoreError(f"cannot list {self.path!r}: {error.strerror}") from error


def _write(stream: Any, piece: memoryview) -> None:
    rest = piece.cast("B") if piece.ndim != 1 or piece.format != "B" else piece
    while rest.nbytes:
        rest = rest[stream.write(rest) :]


def _unpickle(path: str, secret: Secret | None, options: dict[str, Any]) -> DirectoryStore:
    return DirectoryStore(path, key=secret, **options)


class _Claim:
    """The exclusive right to build for a key: a file lock, freed by the kernel on exit."""

    def __init__(self, store: DirectoryStore, key: str, path: str, file: int) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._file = file
        _claims.add(self)

    def put(self, pieces: Sequence[memoryview | bytes]) -> None:
        """Store bytes under the key; see `protocol.Claim`."""
        if self._file < 0:
            raise StoreError(f"the claim of {self._key} was released or is another process's")
        self._store._put(self._key, pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        file, self._file = self._file, -1
        _claims.discard(self)
        if file < 0:
            return
        try:
            # Removed while locked: whoever locks it later sees that it was removed.
            with suppress(OSError):
                os.unlink(self._path)
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            os.close(file)

    def abandon(self) -> None:
        """Close the file in a forked child; the claim remains the parent's."""
        # Parent and child share the lock: the child closes its descriptor without unlocking, so
        # that the lock ends with the parent's claim or with the parent.
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class _Claims:
    """All claims of this process, which its forked children abandon."""

    def __init__(self) -> None:
        self._held: set[_Claim] = set()
        _fork.watch(self)

    def add(self, claim: _Claim) -> None:
        self._held.add(claim)

    def discard(self, claim: _Claim) -> None:
        self._held.discard(claim)

    def reset_after_fork(self) -> None:
        held, self._held = self._held, set()
        for claim in held:
            claim.abandon()


_claims = _Claims()
