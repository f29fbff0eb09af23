"""
Records for the standard `logging`, which this package does not import before it has to.

Who wants records below WARNING has set a level, and so has imported `logging`; until then there is
nobody to tell, and nothing is formatted. A WARNING imports it: without any handler it goes to
stderr. Nothing that a filter, a formatter or a handler raises gets out of here, and no lock of ours
is held by those who call.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["info", "info_wanted", "warning"]

_INFO, _WARNING = 20, 30


def info_wanted(area: str) -> bool:
    """Whether a record at INFO of ``warmset.<area>`` would go anywhere; about 1 us."""
    return _wanted(area, _INFO)


def info(area: str, message: str, *arguments: Any, fields: dict[str, Any]) -> None:
    """
    Log at INFO, if `logging` was imported by anybody.

    Args:
        area: The logger is ``warmset.<area>``.
        message: With %-places for the arguments.
        arguments: Are formatted in.
        fields: Become attributes of the record.
    """
    if _wanted(area, _INFO):
        _log(area, _INFO, message, arguments, fields, None)


def warning(
    area: str,
    message: str,
    *arguments: Any,
    fields: dict[str, Any] | None = None,
    error: BaseException | None = None,
) -> None:
    """
    Log at WARNING.

    Args:
        area: The logger is ``warmset.<area>``.
        message: With %-places for the arguments.
        arguments: Are formatted in.
        fields: Become attributes of the record.
        error: What is logged with its traceback.
    """
    _log(area, _WARNING, message, arguments, fields, error)


def _wanted(area: str, level: int) -> bool:
    try:
        # It may be there in part only: another thread, or this one further up, is importing it.
        return bool(sys.modules["logging"].getLogger("warmset." + area).isEnabledFor(level))
    except (KeyError, AttributeError):
        return False


def _log(
    area: str,
    level: int,
    message: str,
    arguments: tuple[Any, ...],
    fields: dict[str, Any] | None,
    error: BaseException | None,
) -> None:
    try:
        from logging import getLogger

        getLogger("warmset." + area).log(
            level, message, *arguments, exc_info=error, extra=fields, stacklevel=3
        )
    except Exception:
        _shown()


def _shown() -> None:
    """A handler raised, or `logging` is half imported: do as `logging` does with its own errors."""
    try:
        if getattr(sys.modules.get("logging"), "raiseExceptions", True) and sys.stderr is not None:
            from traceback import print_exc

            sys.stderr.write("warmset: writing a log record failed\n")
            print_exc(file=sys.stderr)
    except Exception:  # stderr is closed: there is nowhere left to say it
        return
