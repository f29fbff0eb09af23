"""
The places where CPython lets foreign code into the middle of Python code, one after another.

A signal handler, a finaliser run by the collector, and another thread come in between two
instructions, but not between any two. `Doors` follows the instructions of some modules, counts the
places where that can happen in this version of the interpreter, and calls back at one of them.
"""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CodeType, FrameType

# Any jump that is taken is a door in 3.10, and a backward one ever since.
_FORWARD_JUMPS = sys.version_info < (3, 11)
# The collector runs where a container is allocated, and since 3.12 where signals are looked for.
_ALLOCATIONS = sys.version_info < (3, 12)

_instructions: dict[CodeType, dict[int, tuple[str, int]]] = {}


def _of(code: CodeType) -> dict[int, tuple[str, int]]:
    """Offset -> name of the instruction, and offset of the one behind it."""
    known = _instructions.get(code)
    if known is None:
        listed = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
        behind = [i.offset for i in listed[1:]] + [-1]
        known = {i.offset: (i.opname, end) for i, end in zip(listed, behind, strict=True)}
        _instructions[code] = known
    return known


class Doors:
    """
    Trace a call, and call back at the door of a number.

    Args:
        number: At which door; 0 is the first.
        callback: What comes in.
        files: The modules whose doors count, by file name.
    """

    def __init__(self, number: int, callback: Callable[[], object], files: Collection[str]) -> None:
        self.seen = 0
        self.where = ""
        self._number = number
        self._callback = callback
        self._files = files
        self._last: dict[FrameType, int] = {}

    def run(self, work: Callable[[], object]) -> bool:
        """Do the work, and tell whether it had a door of that number."""
        before = sys.gettrace()
        # Since 3.12 the events of instructions are switched on with the tracing, if any frame
        # asks for them by then.
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
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self._last.pop(frame, None)
        elif event == "opcode":
            offset = frame.f_lasti
            before = self._last.get(frame, -1)
            self._last[frame] = offset
            if self._is_door(frame.f_code, before, offset):
                number, self.seen = self.seen, self.seen + 1
                if number == self._number:
                    self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                    self._callback()
        return self._step

    @staticmethod
    def _is_door(code: CodeType, before: int, offset: int) -> bool:
        instructions = _of(code)
        name, _ = instructions.get(offset, ("", 0))
        if _ALLOCATIONS and name.startswith(("BUILD_", "GET_ITER")):
            return True
        if before < 0:
            return True  # the beginning of a function
        previous, behind = instructions.get(before, ("", 0))
        if previous.startswith("CALL"):
            return True
        if "JUMP" not in previous:
            return False
        return offset <= before or (_FORWARD_JUMPS and offset != behind)
