"""
The private directory of this user: nobody else can put anything into it, or another in its place.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_directory", "make_directory", "places"]


def places() -> Iterator[str]:
    """
    Give the directories that may be this user's private one; the first is taken.

    Returns:
        Below ``XDG_RUNTIME_DIR``, where that is set, and below ``/tmp``: a service and its user's
        shell often do not agree on the variable.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        yield os.path.join(runtime, "warmset")
    yield f"/tmp/warmset-{os.geteuid()}"


def make_directory(refusal: type[Exception]) -> str:
    """
    Make the private directory of this user, unless it is there.

    Args:
        refusal: What is raised where it cannot be made, or is not private.

    Returns:
        Its path.
    """
    path = next(places())
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise refusal(f"{path!r} cannot be made: {error.strerror}") from error
    check_directory(path, refusal)
    return path


def check_directory(path: str, refusal: type[Exception]) -> None:
    """
    Check that nobody else can reach or replace what is in a directory.

    Args:
        path: The directory.
        refusal: What is raised if it is a link or no directory, is somebody else's, is open to
            others, or lies where others could put another in its place.

    Raises:
        FileNotFoundError: It is not there.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise refusal(f"{path!r} is {kind}; expected a private directory")
    if found.st_uid != os.geteuid():
        raise refusal(f"{path!r} belongs to user {found.st_uid}, not to this one")
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise refusal(f"{path!r} is open to others: mode {mode:04o}; expected 0700")
    above = os.stat(os.path.dirname(path))
    replaceable = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    if replaceable or above.st_uid not in (0, os.geteuid()):
        raise refusal(f"others could put another directory in the place of {path!r}")
