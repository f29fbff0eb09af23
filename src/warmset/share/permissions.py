"""Ownership and write permissions of directories."""

from __future__ import annotations

import os
import stat

__all__ = ["others_can_write"]


def others_can_write(path: str) -> str | None:
    """
    Check whether users other than this one and root can write to a directory or replace it.

    Args:
        path: The absolute path of a directory.

    Returns:
        The reason, for the text of an error; None if no other user can.

    Raises:
        OSError: The directory or one of its parents cannot be inspected.

    It resolves symbolic links and checks the directory and all its parents.
    """
    if not hasattr(os, "geteuid"):
        return "this system does not report the owner of a directory"
    me = os.geteuid()
    directory = os.path.realpath(path)
    found = os.stat(directory)
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory!r} is not a directory"
    if found.st_uid != me:
        return f"{directory!r} belongs to user {found.st_uid}, not to user {me} of this process"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        return f"{directory!r} can be written by other users: mode {mode:04o}, expected 0700"
    while (parent := os.path.dirname(directory)) != directory:
        directory = parent
        found = os.stat(directory)
        if found.st_uid not in (0, me):
            return f"its parent {directory!r} belongs to user {found.st_uid}"
        # In a sticky directory such as /tmp, other users cannot replace our files.
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            return f"its parent {directory!r} can be written by other users"
    return None
