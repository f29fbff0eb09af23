"""
Opens paths by walking them from the root, so that no other user can redirect them.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Opened", "ReplaceableLinkError", "open_path", "others_can_write"]

_MOST_LINKS = 40


class Opened(NamedTuple):
    """An opened file or directory."""

    file: int
    """The descriptor, which the caller closes."""
    status: os.stat_result
    reason: str | None
    """Why other users could replace it, for the text of an error; None if they cannot."""


class ReplaceableLinkError(PermissionError):
    """A path leads through a symbolic link that another user could replace."""


def open_path(path: str, flags: int | None = None, *, make: bool = False) -> Opened:
    """
    Open a path component by component, each relative to the directory before it.

    Args:
        path: An absolute path.
        flags: The flags for a file; None opens a directory for reading.
        make: Whether missing directories are made, private to this user.

    Returns:
        The descriptor, its status, and whether other users can replace what the path leads to.

    Raises:
        ReplaceableLinkError: The path leads through a link that others can replace or have made.
        OSError: A component does not exist, or cannot be opened.

    A symbolic link is followed only if its directory cannot be written by others, or is sticky and
    belongs, like the link, to root or this user. It never blocks on a FIFO.
    """
    last_flags = _DIRECTORY if flags is None else flags | os.O_NOFOLLOW | os.O_CLOEXEC
    pending = _parts(path)[::-1]
    reached = [os.open("/", _step(pending))]
    try:
        return _follow(pending, reached, last_flags, make)
    except BaseException:
        os.close(reached[0])
        raise


def _follow(pending: list[str], reached: list[int], last_flags: int, make: bool) -> Opened:
    """Open what is pending, the last first, from a descriptor, which the last one replaces."""
    me = os.geteuid()
    where, reason, links = "/", None, 0
    status = os.fstat(reached[0])
    while pending:
        at = reached[0]
        name = pending.pop()
        reason = reason or _why_replaceable(where, status, me)
        try:
            file = _open(name, at, _STEP if pending else last_flags, make)
        except OSError as error:
            target = _link_target(name, at)
            if target is None:
                raise
            _check_link(os.path.join(where, name), status, os.lstat(name, dir_fd=at), me, error)
            links += 1
            if links > _MOST_LINKS:
                raise
            pending += _parts(target)[::-1]
            if not target.startswith("/"):
                continue
            file, where, name = os.open("/", _step(pending)), "/", ""
        reached[0] = file
        os.close(at)
        where = os.path.normpath(os.path.join(where, name))
        status = os.fstat(file)
    return Opened(reached[0], status, reason)


_DIRECTORY = _STEP = 0
if hasattr(os, "O_DIRECTORY"):
    _DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # A directory that may be entered but not read can still be passed through.
    _STEP = _DIRECTORY | getattr(os, "O_PATH", 0)


def _step(pending: list[str]) -> int:
    return _STEP if pending else _DIRECTORY


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _open(name: str, at: int, flags: int, make: bool) -> int:
    # Without O_NONBLOCK, opening a FIFO would wait for its other end.
    flags |= os.O_NONBLOCK
    try:
        return os.open(name, flags, dir_fd=at)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # made by another process meanwhile
        os.mkdir(name, 0o700, dir_fd=at)
    return os.open(name, flags, dir_fd=at)


def _link_target(name: str, at: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=at)
    except OSError:
        return None


def _check_link(
    path: str, directory: os.stat_result, link: os.stat_result, me: int, error: OSError
) -> None:
    trusted = (0, me)
    sticky = directory.st_mode & stat.S_ISVTX and link.st_uid in trusted
    if directory.st_uid not in trusted or (directory.st_mode & 0o022 and not sticky):
        raise ReplaceableLinkError(
            errno.EPERM, f"{path!r} is a symbolic link that other users can replace"
        ) from error


def _why_replaceable(where: str, status: os.stat_result, me: int) -> str | None:
    """Why others could replace what is in a directory on the way."""
    if status.st_uid not in (0, me):
        return f"its parent {where!r} belongs to user {status.st_uid}"
    # In a sticky directory such as /tmp, other users cannot replace our files.
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return f"its parent {where!r} can be written by other users"
    return None


def others_can_write(path: str, opened: Opened) -> str | None:
    """
    Check whether users other than this one and root can write to a directory or replace it.

    Args:
        path: Its path, for the text.
        opened: The directory, opened by `open_path`.

    Returns:
        The reason, for the text of an error; None if no other user can.
    """
    me = os.geteuid()
    status = opened.status
    if status.st_uid != me:
        return f"{path!r} belongs to user {status.st_uid}, not to user {me} of this process"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        return f"{path!r} can be written by other users: mode {mode:04o}, expected 0700"
    return opened.reason
