"""
Snapshots as files of a directory, mapped: all processes that open one share one physical copy.

    NAME-DIGEST.snapshot   the bytes, complete, or not there: written beside, flushed, and renamed
    NAME-DIGEST.building   while somebody builds: locked by flock, which the kernel gives back when
                           that process dies; removed by whoever had it, under the lock
    NAME-DIGEST.new        while it is being written

A file's time of modification is when it was made, its time of access when it was used last; what is
too old or too much leaves, least recently used first. What is removed stays usable where it is
mapped.
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
from .protocol import Blob
from .secret import KEY_VARIABLE, Secret, secret_from
from .trust import others_can_write

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
        path: The directory; it is made, for this user alone, if it is not there.
        key: At least 16 bytes that snapshots are signed with. Without one (and without `key_file`
            and the environment variable ``WARMSET_STORE_KEY``) the directory must belong to this
            user, and nobody else may be able to write it.
        key_file: A file that holds the key.
        max_bytes: How much is kept at most; 0: no bound.
        max_age_seconds: How old a snapshot may be; 0: no bound.
        wait_seconds: How long to wait while another process builds, before building all the same.
        clock: Gives the seconds since the epoch, for tests.
        pause: Waits for some seconds, for tests.

    Raises:
        StoreRefusedError: The directory is not to be trusted; what to do is said.
        StoreError: It cannot be made or used, or this system has no file locks.
        TypeError: An argument is of a wrong type.
        ValueError: A number is negative, or the key too short.

    Files are mapped only where nobody else can write the directory; a file that others could cut
    short would end the process. Where others can write it, which takes a key, files are read into
    this process's own memory before they are checked.

    Safe under threads, and after a fork; picklable, with a key from a file or the environment.
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
            why = others_can_write(self.path)
        except OSError as error:
            raise StoreError(f"{self.path!r} cannot be used: {error.strerror}") from error
        self._mapped = why is None
        if why is not None and self._secret is None:
            raise StoreRefusedError(
                f"snapshots in {self.path!r} are not to be trusted, and opening one runs what is "
                f"in it: {why}. Either give a directory that only this user can write (chmod 700), "
                f"or a key: key=, key_file= or the environment variable {KEY_VARIABLE}"
            )

    @property
    def secret(self) -> Secret | None:
        """What snapshots are signed with; None where who can write the directory is trusted."""
        return self._secret

    def __repr__(self) -> str:
        return f"<DirectoryStore {self.path!r}, {'signed' if self._secret else 'private'}>"

    def __reduce__(self) -> Any:
        options = {
            "max_bytes": self._max_bytes,
            "max_age_seconds": self._max_age,
            "wait_seconds": self._wait,
        }
        return _reopened, (self.path, self._secret, options)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.path, self._secret) == (other.path, other._secret)

    def __hash__(self) -> int:
        return hash((self.path, self._secret))

    # -- reading ---------------------------------------------------------------------------------

    def fetch(self, key: str) -> Blob | None:
        """
        Give what is kept under a key, and note that it was used; see `protocol.Store`.

        Microseconds: the file is mapped, and its pages come when they are looked at.
        """
        path = self._file(key, _SNAPSHOT)
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path!r} cannot be opened: {error.strerror}") from error
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{path!r} is not a file")
            if self._is_old(found):
                return None  # whoever builds it anew replaces it
            with suppress(OSError):  # of a directory that may only be read
                os.utime(file, ns=(int(self._clock() * 1e9), found.st_mtime_ns))
            return self._blob(file, found)
        except OSError as error:
            raise StoreError(f"{path!r} cannot be read: {error.strerror}") from error
        finally:
            os.close(file)

    def _blob(self, file: int, found: os.stat_result) -> Blob:
        foreign = found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022
        if not self._mapped or foreign:
            if self._secret is None:
                raise StoreRefusedError(
                    f"a file in {self.path!r} belongs to another user or can be written by others; "
                    "remove it, or give the store a key"
                )
            with open(os.dup(file), "rb") as stream:
                return Blob(memoryview(bytearray(stream.read())), shared=False)
        if not found.st_size:
            return Blob(memoryview(b""), shared=False)
        try:
            # Pages that are written become this process's own; the others stay the file's.
            mapped = mmap.mmap(file, found.st_size, access=mmap.ACCESS_COPY)
        except OSError:  # no memory is to be promised that may never be needed
            mapped = mmap.mmap(file, found.st_size, access=mmap.ACCESS_READ)
        return Blob(memoryview(mapped), shared=True)

    def _is_old(self, found: os.stat_result) -> bool:
        return bool(self._max_age) and self._clock() - found.st_mtime > self._max_age

    def _file(self, key: str, suffix: str) -> str:
        return os.path.join(self.path, key + suffix)

    # -- building --------------------------------------------------------------------------------

    def claim(self, key: str, *, wait: bool = True) -> _Claim | None:
        """Claim the right to build for a key; see `protocol.Store`."""
        path = self._file(key, _BUILDING)
        until = time.monotonic() + self._wait
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                claim = self._try(path, key)
            except OSError as error:
                raise StoreError(f"{path!r} cannot be locked: {error.strerror}") from error
            if claim is not None:
                return claim
            if not wait:
                return None
            if time.monotonic() >= until:
                raise StoreBusyError(
                    f"another process has been building {key} for {self._wait:.0f} s"
                )
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _try(self, path: str, key: str) -> _Claim | None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it removed the file: a lock on what is not there any more locks nothing.
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
        # Only who has the claim writes it, so one name will do; what is there is a dead one's.
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
            raise StoreError(f"{path!r} cannot be written: {error.strerror}") from error
        self.trim(spare=key)

    def _flush_directory(self) -> None:
        with suppress(OSError):  # where a directory cannot be flushed
            directory = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    # -- bounds ----------------------------------------------------------------------------------

    def discard(self, key: str) -> bool:
        """Keep nothing under a key any more; see `protocol.Store`."""
        path = self._file(key, _SNAPSHOT)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{path!r} cannot be removed: {error.strerror}") from error
        return True

    def clear(self) -> int:
        """
        Keep nothing at all any more; builds that are under way go on.

        Returns:
            How many snapshots were removed.
        """
        return sum(self.discard(name) for name, _ in self._kept())

    def trim(self, *, spare: str | None = None) -> int:
        """
        Remove what is too old, and then what was used least recently, until the rest is within
        `max_bytes`; and what builders that died have left.

        Args:
            spare: What was just written, which is not removed for the sake of room.

        Returns:
            How many snapshots were removed.
        """
        kept = self._kept()
        removed = 0
        for name, found in list(kept):
            if self._is_old(found):
                removed += self._drop(name)
                kept.remove((name, found))
        total = sum(found.st_size for _, found in kept)
        for name, found in sorted(kept, key=lambda each: each[1].st_atime_ns):
            if not self._max_bytes or total <= self._max_bytes:
                break
            if name != spare:
                total -= found.st_size
                removed += self._drop(name)
        self._tidy()
        return removed

    def _drop(self, key: str) -> bool:
        with suppress(StoreError):
            return self.discard(key)
        return False

    def _tidy(self) -> None:
        for name in {*self._names(_NEW), *self._names(_BUILDING)}:
            claim = None
            with suppress(StoreError):
                claim = self.claim(name, wait=False)
            if claim is not None:
                with claim, suppress(OSError):  # leaving it removes the lock's file, too
                    os.unlink(self._file(name, _NEW))

    def _kept(self) -> list[tuple[str, os.stat_result]]:
        kept = []
        for name in self._names(_SNAPSHOT):
            with suppress(OSError):
                kept.append((name, os.lstat(self._file(name, _SNAPSHOT))))
        return kept

    def _names(self, suffix: str) -> list[str]:
        try:
            return [n.removesuffix(suffix) for n in os.listdir(self.path) if n.endswith(suffix)]
        except OSError as error:
            raise StoreError(f"{self.path!r} cannot be listed: {error.strerror}") from error


def _write(stream: Any, piece: memoryview) -> None:
    rest = piece.cast("B") if piece.ndim != 1 or piece.format != "B" else piece
    while rest.nbytes:
        rest = rest[stream.write(rest) :]


def _reopened(path: str, secret: Secret | None, options: dict[str, Any]) -> DirectoryStore:
    return DirectoryStore(path, key=secret, **options)


class _Claim:
    """The right to build for a key: a lock on a file, freed by the kernel if the process dies."""

    def __init__(self, store: DirectoryStore, key: str, path: str, file: int) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._file = file
        _claims.add(self)

    def put(self, pieces: Sequence[memoryview | bytes]) -> None:
        """Keep bytes under the key; see `protocol.Claim`."""
        if self._file < 0:
            raise StoreError(f"the claim of {self._key} was given back, or is another process's")
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
            # While it is locked: who locks it later sees that it is not there any more.
            with suppress(OSError):
                os.unlink(self._path)
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            os.close(file)

    def _forked(self) -> None:
        # The lock belongs to what parent and child have open in common: it is closed here, and not
        # unlocked, so that it ends with the parent's claim, or with the parent.
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class _Claims:
    """All claims of this process, for its forked children to close."""

    def __init__(self) -> None:
        self._held: set[_Claim] = set()
        _fork.watch(self)

    def add(self, claim: _Claim) -> None:
        self._held.add(claim)

    def discard(self, claim: _Claim) -> None:
        self._held.discard(claim)

    def _reset_after_fork(self) -> None:
        held, self._held = self._held, set()
        for claim in held:
            claim._forked()


_claims = _Claims()
