"""
The private directory of this user: no other user can write to it or replace it.
"""

from __future__ import annotations

import os
import stat

from ._paths import ReplaceableLinkError, open_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_directory", "make_directory", "private_directories"]


def private_directories() -> Iterator[str]:
    """
    Yield the paths at which this user's private directory may be; new ones use the first.

    Returns:
        A path below ``XDG_RUNTIME_DIR``, if that is set, and one below ``/tmp``. There are two
        because a service and its user's shell often have different values of the variable.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        yield os.path.join(runtime, "warmset")
    yield f"/tmp/warmset-{os.geteuid()}"


def make_directory(error_type: type[Exception]) -> str:
    """
    Make the private directory of this user unless it exists.

    Args:
        error_type: The error to raise if the directory cannot be made or is not private.

    Returns:
        Its path.
    """
    path = next(private_directories())
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise error_type(f"cannot make {path!r}: {error.strerror}") from error
    check_directory(path, error_type)
    return path


def check_directory(path: str, error_type: type[Exception]) -> None:
    """
    Check that no other user can reach or replace the contents of a directory.

    Args:
        path: The directory.
        error_type: The error to raise if the path is a symbolic link or not a directory, belongs to
            another user, grants access to others, or if others can replace it or a parent of it.

    Raises:
        FileNotFoundError: The directory does not exist.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise error_type(f"{path!r} is {kind}; expected a private directory")
    if found.st_uid != os.geteuid():
        raise error_type(f"{path!r} belongs to user {found.st_uid}, not to this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise error_type(f"{path!r} is open to other users: mode {mode:04o}; expected 0700")
    try:
        opened = open_path(os.path.abspath(path))
    except ReplaceableLinkError as error:
        raise error_type(f"cannot use {path!r}: {error.strerror}") from error
    os.close(opened.file)
    if opened.reason is not None:
        raise error_type(
            f"other users can replace {path!r} with another directory: {opened.reason}"
        )
    if not os.path.samestat(found, opened.status):
        raise error_type(f"{path!r} was replaced while it was checked")
