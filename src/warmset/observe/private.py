"""
The private directory that sockets lie in, and who is at the other end of one.

Both sides trust the same two things: a directory that nobody but this user can have put sockets
into, and the kernel's word on which user a connection belongs to.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys

from .protocol import LiveViewError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_directory", "check_peer", "make_directory", "peer", "places"]

SUFFIX = ".sock"


def places() -> Iterator[str]:
    """
    Give the directories that sockets of this user may be in; a server takes the first.

    Returns:
        Below ``XDG_RUNTIME_DIR``, where that is set, and below ``/tmp``: a service and its user's
        shell often do not agree on the variable.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        yield os.path.join(runtime, "warmset")
    yield f"/tmp/warmset-{os.geteuid()}"


def make_directory() -> str:
    """
    Make the private directory of this user, unless it is there.

    Returns:
        Its path.

    Raises:
        LiveViewError: It cannot be made, or it is not private.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid"):
        raise LiveViewError("the live view needs Unix sockets, which this system does not have")
    path = next(places())
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise LiveViewError(f"{path!r} cannot be made: {error.strerror}") from error
    check_directory(path)
    return path


def check_directory(path: str) -> None:
    """
    Check that nobody else can reach or replace what is in a directory.

    Args:
        path: The directory.

    Raises:
        FileNotFoundError: It is not there.
        LiveViewError: It is a link or no directory, is somebody else's, is open to others, or lies
            where others could put another in its place.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise LiveViewError(f"{path!r} is {kind}; expected a private directory")
    if found.st_uid != os.geteuid():
        raise LiveViewError(f"{path!r} belongs to user {found.st_uid}, not to this one")
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise LiveViewError(f"{path!r} is open to others: mode {mode:04o}; expected 0700")
    above = os.stat(os.path.dirname(path))
    replaceable = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    if replaceable or above.st_uid not in (0, os.geteuid()):
        raise LiveViewError(f"others could put another directory in the place of {path!r}")


def check_peer(connection: socket.socket) -> int | None:
    """
    Check that the other end of a connection is this user's.

    Args:
        connection: A connected Unix socket.

    Returns:
        The process at the other end, where the system tells it.

    Raises:
        LiveViewError: It is another user's, or the system does not tell whose it is.
    """
    try:
        user, process = peer(connection)
    except OSError as error:
        raise LiveViewError(f"the system does not tell whose connection it is: {error}") from error
    if user != os.geteuid():
        raise LiveViewError(f"the other end belongs to user {user}, not to this one")
    return process


def peer(connection: socket.socket) -> tuple[int, int | None]:
    """
    Ask the kernel whose process is at the other end of a connection.

    Args:
        connection: A connected Unix socket.

    Returns:
        Its effective user and, where it is told, its process.

    Raises:
        OSError: The system cannot tell.
    """
    if sys.platform == "linux":
        layout = struct.Struct("3i")  # ucred: pid, uid, gid
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
        process, user, _ = layout.unpack(raw)
        return user, process
    if sys.platform == "darwin" or "bsd" in sys.platform:
        layout = struct.Struct("Ii")  # xucred: version, uid, and groups behind them
        raw = connection.getsockopt(0, 1, 128)  # SOL_LOCAL, LOCAL_PEERCRED
        version, user = layout.unpack_from(raw)
        if version == 0:
            return user, None
    raise OSError(f"no peer credentials on {sys.platform}")
