"""
Log records for the standard `logging` module, which is imported lazily.

Records below WARNING appear only if the program has set a level, which requires `logging` to be
imported; until then they are neither formatted nor emitted. The first WARNING imports `logging`;
without a handler the record goes to stderr. Errors in filters, formatters and handlers are
contained here. Callers must not hold any of our locks.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger, LogRecord
    from typing import Any

__all__ = ["info", "info_wanted", "logger", "warning"]

# Fields of a record whose text comes from the program, or that are handled separately.
_OWN_FIELDS = frozenset(("msg", "exc_text", "pathname", "filename", "module", "stack_info"))

_INFO, _WARNING = 20, 30

# `logging.getLogger` takes a lock of the whole process, which an interrupt in it can leave locked.
_loggers: dict[str, Logger] = {}


def info_wanted(area: str) -> bool:
    """Whether the logger ``warmset.<area>`` would emit a record at INFO; takes about 0.1 us."""
    known = _loggers.get(area)
    return _wanted(area, _INFO) if known is None else known.isEnabledFor(_INFO)


def info(area: str, message: str, *arguments: Any, fields: dict[str, Any]) -> None:
    """
    Log at INFO, provided that `logging` has been imported.

    Args:
        area: The last part of the logger's name, ``warmset.<area>``.
        message: A %-format string.
        arguments: The values for the format string.
        fields: Additional attributes of the record.
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
        area: The last part of the logger's name, ``warmset.<area>``.
        message: A %-format string.
        arguments: The values for the format string.
        fields: Additional attributes of the record.
        error: An exception to log with its traceback.
    """
    _log(area, _WARNING, message, arguments, fields, error)


def logger(area: str) -> Logger:
    """
    Get the logger of an area, whose records contain only printable text.

    Args:
        area: The last part of the logger's name, ``warmset.<area>``.

    Returns:
        The logger. A filter on it escapes names, paths and error texts, also in tracebacks, since
        a handler may write them to a terminal or into a log with one record per line.
    """
    found = _loggers.get(area)
    if found is None:
        from logging import getLogger

        found = getLogger("warmset." + area)
        found.addFilter(_make_printable)
        _loggers[area] = found
    return found


def _make_printable(record: LogRecord) -> bool:
    from ._text import printable

    try:
        message = record.getMessage()
        # Ordinary records keep the template and its arguments, by which handlers group records.
        if not message.isprintable():
            record.msg, record.args = printable(message), None
        for name, value in vars(record).items():
            if name not in _OWN_FIELDS and isinstance(value, str) and not value.isprintable():
                setattr(record, name, printable(value))
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            from traceback import format_exception

            text = "".join(format_exception(record.exc_info[1])).rstrip("\n")
            escaped = printable(text, keep="\n\t")
            if escaped != text:  # formatters use this text in place of the traceback
                record.exc_text = escaped
    except KeyboardInterrupt:
        raise
    except BaseException:  # foreign code: the `__repr__` of an argument
        _report_logging_error()
        return False
    return True


def _wanted(area: str, level: int) -> bool:
    if area not in _loggers and "logging" not in sys.modules:
        return False
    try:
        return logger(area).isEnabledFor(level)
    except (ImportError, AttributeError):
        return False  # the module is being imported and only partly initialised


def _log(
    area: str,
    level: int,
    message: str,
    arguments: tuple[Any, ...],
    fields: dict[str, Any] | None,
    error: BaseException | None,
) -> None:
    try:
        try:
            logger(area).log(level, message, *arguments, exc_info=error, extra=fields, stacklevel=3)
        except KeyError:  # a record factory of the program has set one of the fields already
            prefixed = {f"warmset_{name}": value for name, value in (fields or {}).items()}
            logger(area).log(
                level, message, *arguments, exc_info=error, extra=prefixed, stacklevel=3
            )
    except KeyboardInterrupt:
        raise
    except BaseException:  # a filter, a factory, or the `__repr__` of an argument
        _report_logging_error()


def _report_logging_error() -> None:
    """Print an error of `logging` to stderr, as `logging` itself does for errors in handlers."""
    try:
        if getattr(sys.modules.get("logging"), "raiseExceptions", True) and sys.stderr is not None:
            from traceback import format_exc

            from ._text import printable

            sys.stderr.write("warmset: writing a log record failed\n")
            sys.stderr.write(printable(format_exc(), keep="\n\t"))
    except Exception:  # stderr is closed, so the error cannot be reported
        return
