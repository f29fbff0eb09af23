"""
Access control of the live view: the private socket directory, and the user at the other end.

Server and client rely on the same two facts: only this user can put sockets into the directory, and
the kernel reports which user a connection belongs to.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from .. import _private_directory
from .._private_directory import private_directories
from .protocol import LiveViewError

__all__ = ["check_directory", "check_peer", "make_directory", "peer", "private_directories"]

SUFFIX = ".sock"


def make_directory() -> str:
    """
    Make the private directory of this user unless it exists.

    Returns:
        Its path.

    Raises:
        LiveViewError: The directory cannot be made, or is not private.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid"):
        raise LiveViewError("the live view needs Unix sockets, which this system does not have")
    return _private_directory.make_directory(LiveViewError)


def check_directory(path: str) -> None:
    """
    Check that no other user can reach or replace the contents of a directory.

    Args:
        path: The directory.

    Raises:
        FileNotFoundError: The directory does not exist.
        LiveViewError: The directory is not private.
    """
    _private_directory.check_directory(path, LiveViewError)


def check_peer(connection: socket.socket) -> int | None:
    """
    Check that the other end of a connection belongs to this user.

    Args:
        connection: A connected Unix socket.

    Returns:
        The process ID of the other end; None if the system does not report it.

    Raises:
        LiveViewError: The other end belongs to another user, or the system does not report its
            user.
    """
    try:
        user, process = peer(connection)
    except OSError as error:
        raise LiveViewError(
            f"the system does not report the user of the connection: {error}"
        ) from error
    if user != os.geteuid():
        raise LiveViewError(f"the other end belongs to user {user}, not to this user")
    return process


def peer(connection: socket.socket) -> tuple[int, int | None]:
    """
    Get the credentials of the other end of a connection from the kernel.

    Args:
        connection: A connected Unix socket.

    Returns:
        Its effective user ID, and its process ID or None if the system does not report that.

    Raises:
        OSError: The system does not report credentials.
    """
    if sys.platform == "linux":
        layout = struct.Struct("3i")  # ucred: pid, uid, gid
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
        process, user, _ = layout.unpack(raw)
        return user, process
    if sys.platform == "darwin" or "bsd" in sys.platform:
        layout = struct.Struct("Ii")  # xucred: version, uid, then the groups
        raw = connection.getsockopt(0, 1, 128)  # SOL_LOCAL, LOCAL_PEERCRED
        version, user = layout.unpack_from(raw)
        if version == 0:
            return user, None
    raise OSError(f"no peer credentials on {sys.platform}")
