"""
The private directory that sockets lie in, and who is at the other end of one.

Both sides trust the same two things: a directory that nobody but this user can have put sockets
into, and the kernel's word on which user a connection belongs to.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from .. import _private_place
from .._private_place import places
from .protocol import LiveViewError

__all__ = ["check_directory", "check_peer", "make_directory", "peer", "places"]

SUFFIX = ".sock"


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
    return _private_place.make_directory(LiveViewError)


def check_directory(path: str) -> None:
    """
    Check that nobody else can reach or replace what is in a directory.

    Args:
        path: The directory.

    Raises:
        FileNotFoundError: It is not there.
        LiveViewError: It is not private.
    """
    _private_place.check_directory(path, LiveViewError)


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
