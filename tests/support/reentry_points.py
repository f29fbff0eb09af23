"""
The re-entry points of Python code: the instructions at which CPython runs other code in between.

A signal handler, a finaliser that the collector runs, and another thread come in between two
instructions, but not between any two. `ReentryPoints` follows the instructions of some modules,
counts the points where that can happen in this version of the interpreter, and calls back at one.
"""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CodeType, FrameType

# Each jump that is taken is a re-entry point in 3.10; since 3.11 only a backward one is.
_FORWARD_JUMPS = sys.version_info < (3, 11)
# The collector runs where a container is allocated; since 3.12 it runs where signals are handled.
_ALLOCATIONS = sys.version_info < (3, 12)

_RAISED = -2  # in place of the offset of the instruction that raised an exception

_instructions: dict[CodeType, dict[int, tuple[str, int]]] = {}


def _instructions_of(code: CodeType) -> dict[int, tuple[str, int]]:
    """Return offset -> name of the instruction, and offset of the following one."""
    known = _instructions.get(code)
    if known is None:
        listed = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
        following = [i.offset for i in listed[1:]] + [-1]
        known = {i.offset: (i.opname, after) for i, after in zip(listed, following, strict=True)}
        _instructions[code] = known
    return known


class ReentryPoints:
    """
    Trace a call, and call back at one of its re-entry points.

    Args:
        number: The number of the point; 0 is the first.
        callback: The code that comes in there.
        files: The file names of the modules whose points count.
    """

    def __init__(self, number: int, callback: Callable[[], object], files: Collection[str]) -> None:
        self.seen = 0
        self.where = ""
        self._number = number
        self._callback = callback
        self._files = files
        self._last: dict[FrameType, int] = {}

    def run(self, work: Callable[[], object]) -> bool:
        """Do the work; return whether it has a point of that number."""
        before = sys.gettrace()
        # Since 3.12 instructions are only traced if a frame asked for it before tracing starts.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._enter)
        try:
            work()
        finally:
            sys.settrace(before)
            self._last.clear()
        return self.seen > self._number

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace = self._step  # since 3.13 instructions are traced only if it comes first
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self._last.pop(frame, None)
        elif event == "exception":
            self._last[frame] = _RAISED
        elif event == "opcode":
            offset = frame.f_lasti
            before = self._last.get(frame, -1)
            self._last[frame] = offset
            if self._is_point(frame.f_code, before, offset):
                number, self.seen = self.seen, self.seen + 1
                if number == self._number:
                    self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                    # What follows needs no tracing, which takes most of the time.
                    sys.settrace(None)
                    self._last.clear()  # no frame outlives its call because of that
                    self._callback()
                    return None
        return self._step

    @staticmethod
    def _is_point(code: CodeType, before: int, offset: int) -> bool:
        instructions = _instructions_of(code)
        name, _ = instructions.get(offset, ("", 0))
        if _ALLOCATIONS and name.startswith(("BUILD_", "GET_ITER", "MAKE_FUNCTION")):
            return True
        if before == _RAISED:
            return False  # nobody is let in on the way to a handler
        if before < 0:
            return True  # the beginning of a function
        previous, following = instructions.get(before, ("", 0))
        if previous.startswith("CALL"):
            return True
        if "JUMP" not in previous:
            return False
        return offset <= before or (_FORWARD_JUMPS and offset != following)
