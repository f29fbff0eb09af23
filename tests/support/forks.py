"""A function in a forked child."""

from __future__ import annotations

import os
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(work: Callable[[], object]) -> int:
    """Run a function in a forked child; return its exit status, 0 if the function returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(120, os._exit, (9,)).start()  # so that a hang is an exit status, too
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
