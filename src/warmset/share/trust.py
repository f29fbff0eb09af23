"""Whom a directory belongs to, and who else could put something into it."""

from __future__ import annotations

import os
import stat

__all__ = ["others_can_write"]


def others_can_write(path: str) -> str | None:
    """
    Tell whether anybody but this user, and root, can write into a directory, or replace it.

    Args:
        path: An absolute path of a directory.

    Returns:
        Why, for the text of an error; None if nobody can.

    Raises:
        OSError: It cannot be looked at.

    It looks at the directory and at all above it, with the links that lead there resolved.
    """
    if not hasattr(os, "geteuid"):
        return "this system does not tell whom a directory belongs to"
    me = os.geteuid()
    place = os.path.realpath(path)
    found = os.stat(place)
    if not stat.S_ISDIR(found.st_mode):
        return f"{place!r} is not a directory"
    if found.st_uid != me:
        return f"{place!r} belongs to user {found.st_uid}, and this process is user {me}"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        return f"{place!r} can be written by others: mode {mode:04o}, expected 0700"
    while (above := os.path.dirname(place)) != place:
        place = above
        found = os.stat(place)
        if found.st_uid not in (0, me):
            return f"{place!r} above it belongs to user {found.st_uid}"
        # In a sticky directory, as /tmp, others can put nothing in the place of what is ours.
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            return f"{place!r} above it can be written by others"
    return None
