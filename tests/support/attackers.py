"""Another user of the host, who attacks: possible for tests that root runs."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

USER = 12345

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can become another user: run the tests as root to attack as one",
)


def attack(code: Callable[[], object], *, stay: bool = False) -> int:
    """
    Run code as another user, in a forked child.

    Args:
        code: The attack.
        stay: Whether the child lives on after the attack, to hold its locks, until it is killed.

    Returns:
        The process ID of a child that stays; 0 otherwise.
    """
    ended, end = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            code()
            status = 0
            os.write(end, b"x")
            if stay:
                signal.pause()
        except BaseException as error:
            print(f"the attack failed: {error!r}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(end)
    os.read(ended, 1)
    os.close(ended)
    if stay:
        return pid
    _, result = os.waitpid(pid, 0)
    assert result == 0, "the attack failed, so the test shows nothing"
    return 0


def end(pid: int) -> None:
    """End a child that stays."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
