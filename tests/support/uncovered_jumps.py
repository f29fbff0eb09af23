"""
Backward jumps that leave a handler: the compiler of CPython 3.12 and later makes them.

The interpreter looks for signals at a backward jump. Where the end of a loop is a condition, the
compiler copies it and leaves the new jump out of the table of handlers, so that an interrupt there
is not seen by the `with` or `try` block around the loop: a lock stays locked.
"""

from __future__ import annotations

import dis
import types
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Jump(NamedTuple):
    """A backward jump, and what it leaves."""

    function: str
    line: int
    handler: str


def uncovered_jumps(source: str, path: str) -> list[Jump]:
    """Return the jumps of a module that leave a `with`, `finally` or `except BaseException`."""
    return sorted({jump for code in _codes(compile(source, path, "exec")) for jump in _jumps(code)})


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _jumps(code: types.CodeType) -> Iterator[Jump]:
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    instructions = {each.offset: each for each in dis.get_instructions(code)}

    def handlers(offset: int) -> list[int]:
        """Return the handlers that an error at an instruction passes through."""
        found: list[int] = []
        while True:
            targets = [each.target for each in table if each.start <= offset < each.end]
            if not targets or targets[0] in found:
                return found
            found.append(offset := targets[0])

    for each in instructions.values():
        # Those without a line belong to an `await` into which an error was thrown.
        if (
            "JUMP_BACKWARD" in each.opname
            and "NO_INTERRUPT" not in each.opname
            and _line(each) is not None
        ):
            covered = handlers(each.offset)
            for target in handlers(each.argval):
                kind = _kind(instructions, target)
                if kind and target not in covered:
                    yield Jump(code.co_qualname, _line(each), kind)  # type: ignore[attr-defined]


def _kind(instructions: dict[int, Any], offset: int) -> str:
    """Return which block a handler belongs to, or "" if it may be left by an interrupt."""
    if instructions[offset].opname != "PUSH_EXC_INFO":  # it restores the names of a comprehension
        return ""
    following = iter([each for key, each in sorted(instructions.items()) if key > offset])
    first = next(following)
    if first.opname == "WITH_EXCEPT_START":
        return "with"
    caught = [first]
    for each in following:
        if each.opname == "CHECK_EXC_MATCH":
            names = {str(one.argval) for one in caught}
            return "except BaseException" if "BaseException" in names else ""
        if each.opname not in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "BUILD_TUPLE"):
            break
        caught.append(each)
    return "finally"


def _line(instruction: Any) -> Any:
    return instruction.positions.lineno
