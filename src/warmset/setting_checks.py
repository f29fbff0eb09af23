"""
What a setting is: a name, the values that it may have, defaults, and documentation.

Everything here may be called from any number of threads.
"""

from __future__ import annotations

from .resolver import safe_repr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, Protocol, TypeAlias

    class HasWorth(Protocol):
        """A policy."""

        def worth(self, entry: Any, now: float, /) -> float: ...

    class HasSize(Protocol):
        """A sizer."""

        def size(self, instance: Any, /) -> int: ...

    SizerSetting: TypeAlias = (
        Literal["measured", "deep", "declared"] | Callable[[Any], int] | HasSize
    )


LEAST_PROCESS_BYTES = 1_000_000

_COROUTINE_FUNCTION = 0x80  # the code flag


class InvalidValueError(Exception):
    """
    A check refuses a value.

    Args:
        kind: TypeError if the value is of the wrong type, ValueError if it is out of range.
    """

    def __init__(self, kind: type[TypeError] | type[ValueError]) -> None:
        super().__init__(kind)
        self.kind = kind


class Rule:
    """
    Which values a setting may have.

    Args:
        check: Takes a value, and returns it as an exact float, bool or int, or raises
            `InvalidValueError`.
        annotation: The type of the values, as it stands in a signature.
        expected: The values in words, for error messages.
    """

    __slots__ = ("annotation", "check", "expected")

    def __init__(self, check: Callable[[Any], Any], annotation: str, expected: str) -> None:
        self.check = check
        self.annotation = annotation
        self.expected = expected


class Setting:
    """
    A row of the table: one setting of a registry, option of a class, or both.

    Args:
        name: Its name.
        rule: Which values it may have.
        registry: Default and documentation as a setting of a registry; None: it is not one.
        option: Default and documentation as an option of a class; None: it is not one. An option
            whose default is None may be None.
        note: What a special value means; part of error messages.
        positional: Whether the constructor of a registry takes it by position, too.
        in_files: Whether a settings file may have it.
        as_path: Whether a settings file has the dotted path of its value, which is a callable.
        needs: The setting without which it has no effect, and how that is written; None: none.
    """

    __slots__ = (
        "as_path",
        "in_files",
        "name",
        "needs",
        "note",
        "option",
        "positional",
        "registry",
        "rule",
    )

    def __init__(
        self,
        name: str,
        rule: Rule,
        *,
        registry: tuple[Any, str] | None = None,
        option: tuple[Any, str] | None = None,
        note: str = "",
        positional: bool = False,
        in_files: bool = True,
        as_path: bool = False,
        needs: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.rule = rule
        self.registry = registry
        self.option = option
        self.note = note
        self.positional = positional
        self.in_files = in_files
        self.as_path = as_path
        self.needs = needs

    @property
    def expected(self) -> str:
        """The values that it may have, in words."""
        return f"{self.rule.expected} ({self.note})" if self.note else self.rule.expected

    def unmet(self, values: Any, default: Any) -> str | None:
        """
        Tell what is missing beside this setting.

        Args:
            values: An object with this setting and the others as attributes.
            default: Its default: then it counts as not given.

        Returns:
            A text for an error; None if nothing is missing.
        """
        if self.needs is None or getattr(values, self.name) == default:
            return None
        name, written = self.needs
        value = getattr(values, name)
        if value == "auto" if written.endswith('"auto"') else value:
            return None
        return f"has no effect without {written}; give both or neither"

    def checked(self, value: object, label: str = "") -> Any:
        """
        Check a value.

        Args:
            value: The value.
            label: Names the setting in the error; empty: its name.

        Returns:
            The value, as an exact float, bool or int.

        Raises:
            TypeError: The value is of the wrong type.
            ValueError: The value is out of range, or NaN.
        """
        try:
            return self.rule.check(value)
        except InvalidValueError as refusal:
            kind = type(value).__name__
            text = f"{label or self.name} must be {self.expected}, got {kind} {safe_repr(value)}"
            raise refusal.kind(text) from refusal.__cause__


# -- values --------------------------------------------------------------------------------------


def _is_no_number(kind: type) -> bool:
    # numpy's bool is recognised by its name; it would pass for the numbers 0 and 1.
    return kind.__name__ in ("bool", "bool_") or issubclass(kind, (str, bytes, bytearray))


def _seconds(value: Any) -> float:
    kind = type(value)
    if _is_no_number(kind) or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        raise InvalidValueError(TypeError)
    try:
        # The sum turns -0.0 into 0.0.
        seconds = float(value) + 0.0
    except (ValueError, OverflowError) as error:
        raise InvalidValueError(ValueError) from error
    except Exception as error:
        raise InvalidValueError(TypeError) from error
    # `not >=` and not `<`: NaN compares false to everything.
    if not seconds >= 0.0:
        raise InvalidValueError(ValueError)
    return seconds


def _finite_seconds(value: Any) -> float:
    seconds = _seconds(value)
    if seconds == float("inf"):
        raise InvalidValueError(ValueError)
    return seconds


def _flag(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise InvalidValueError(TypeError)


def _whole(value: Any, least: int) -> int:
    import sys
    from operator import index

    if _is_no_number(type(value)):
        raise InvalidValueError(TypeError)
    try:
        # `int.__index__` turns an instance of a subclass of int into an exact int.
        count = int.__index__(index(value))
    except Exception as error:
        raise InvalidValueError(TypeError) from error
    if not least <= count <= sys.maxsize:
        raise InvalidValueError(ValueError)
    return count


def _one_or_more(value: Any) -> int:
    return _whole(value, 1)


def _count_or_auto(value: Any) -> int | str:
    return "auto" if isinstance(value, str) and value == "auto" else _one_or_more(value)


def _none_or_more(value: Any) -> int:
    return _whole(value, 0)


def _integer(value: Any) -> int:
    return _whole(value, -(2**31))


def _bytes_or_fraction(value: Any) -> int | float:
    if not isinstance(value, float):
        size = _whole(value, 0)
        # No process is that small: 80 is meant as megabytes or as a percentage, 1 as 1.0.
        if 0 < size < LEAST_PROCESS_BYTES:
            raise InvalidValueError(ValueError)
        return size
    # `not <=`, so that NaN is refused.
    if not 0.0 <= value <= 1.0:
        raise InvalidValueError(ValueError)
    return float(value) or 0


def _one_of(value: Any, *names: str) -> str:
    if not isinstance(value, str):
        raise InvalidValueError(TypeError)
    if value not in names:
        raise InvalidValueError(ValueError)
    return str(value)


def _has(value: Any, *methods: str) -> bool:
    return not isinstance(value, type) and all(
        callable(getattr(value, method, None)) for method in methods
    )


def _policy(value: Any) -> Any:
    return value if _has(value, "worth") else _one_of(value, "lru", "cost")


def _sizer(value: Any) -> Any:
    if value is None or _has(value, "size" if hasattr(value, "size") else "__call__"):
        return value
    return _one_of(value, "measured", "deep", "declared")


def _store(value: Any) -> Any:
    if value is None or _has(value, "fetch", "claim"):
        return value
    if not isinstance(value, str):
        raise InvalidValueError(TypeError)
    # A password would be shown with the settings.
    if not value or safe_repr(value) != repr(value):
        raise InvalidValueError(ValueError)
    return str(value)


def _host_budget(value: Any) -> Any:
    if not hasattr(value, "one_heavy_build"):
        return _bytes_or_fraction(value)
    value.check()
    return value


def _shareable(value: Any) -> bool | str:
    return _one_of(value, "copy_on_write") if isinstance(value, str) else _flag(value)


def _callable_or_none(value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise InvalidValueError(TypeError)


def _synchronous_or_none(value: Any) -> Any:
    # A coroutine would count as true, whatever it says.
    flags = getattr(getattr(value, "__code__", None), "co_flags", 0)
    if type(flags) is int and flags & _COROUTINE_FUNCTION:
        raise InvalidValueError(TypeError)
    return _callable_or_none(value)


def _closer(value: Any) -> Any:
    if isinstance(value, str) and value == "auto":
        return "auto"
    return _callable_or_none(value)


def _closing(value: Any) -> str:
    return _one_of(value, "inline", "background")


def _after_fork(value: Any) -> str:
    return _one_of(value, "keep", "drop", "rebuild")


def _arguments(value: Any) -> str:
    return _one_of(value, "strict", "names", "off")


FLAG = Rule(_flag, "bool", "a bool, true or false")
SECONDS = Rule(_seconds, "float", "a number of seconds, 0 or more")
FINITE_SECONDS = Rule(_finite_seconds, "float", "a finite number of seconds, 0 or more")
COUNT = Rule(_one_or_more, "int", "a whole number, 1 or more")
COUNT_OR_AUTO = Rule(
    _count_or_auto, 'int | Literal["auto"]', "a whole number, 1 or more, or 'auto'"
)
USES = Rule(_none_or_more, "int", "a whole number of uses, 0 or more")
BYTES = Rule(_none_or_more, "int", "a whole number of bytes, 0 or more")
INTEGER = Rule(_integer, "int", "a whole number")
MEMORY = Rule(
    _bytes_or_fraction,
    "int | float",
    "a whole number of bytes, 1,000,000 or more or 0, or a float up to 1.0, a fraction of the "
    "memory available to the process (1.0 is all of it, 1 would be one byte)",
)
POLICY = Rule(
    _policy,
    'Literal["lru", "cost"] | HasWorth',
    "'lru', 'cost', or an object with a method worth(entry, now)",
)
SIZER = Rule(
    _sizer,
    "SizerSetting | None",
    "None, 'measured', 'deep', 'declared', a callable that takes an instance, or an object with a "
    "method size(instance)",
)
STORE = Rule(
    _store,
    "Any",
    "None, the path of a directory, a URL such as 'valkey://host:6379/0' without a password, or a "
    "store of warmset.share",
)
HOST_BUDGET = Rule(
    _host_budget,
    "Any",
    "a whole number of bytes, 1,000,000 or more or 0, a float up to 1.0, a fraction of the memory "
    "of the machine (1.0 is all of it, 1 would be one byte), or a warmset.share.HostBudget",
)
CLOSER = Rule(
    _closer, 'Callable[[Any], Any] | Literal["auto"] | None', "a callable, None or 'auto'"
)
ARGUMENTS = Rule(_arguments, 'Literal["strict", "names", "off"]', "'strict', 'names' or 'off'")
CLOSING = Rule(_closing, 'Literal["inline", "background"]', "'inline' or 'background'")
AFTER_FORK = Rule(_after_fork, 'Literal["keep", "drop", "rebuild"]', "'keep', 'drop' or 'rebuild'")
SHAREABLE = Rule(
    _shareable, 'bool | Literal["copy_on_write"]', "a bool, true or false, or 'copy_on_write'"
)
VALIDATE = Rule(
    _synchronous_or_none,
    "Callable[[Any], Any] | None",
    "None, or a callable that takes an instance and returns whether it is valid, and is no "
    "coroutine function",
)
SNAPSHOT = Rule(
    _callable_or_none,
    "Callable[[Any], Any] | None",
    "None, or a callable that takes an instance and returns what is to be stored",
)
RESTORE = Rule(
    _callable_or_none,
    "Callable[[type, Any], Any] | None",
    "None, or a callable that takes the class and what was stored, and returns an instance",
)
