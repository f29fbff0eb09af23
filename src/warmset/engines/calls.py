"""A call as a value: which class, which method, which arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..resolver import check_name, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MethodCall", "checked_call", "checked_calls"]


class MethodCall(NamedTuple):
    """One call of a method of a class."""

    class_name: str
    method_name: str
    arguments: Mapping[str, Any] = {}  # never written


def checked_call(class_name: object, method_name: object, arguments: object) -> MethodCall:
    """
    Make a call of three values.

    Args:
        class_name: A non-empty str.
        method_name: A non-empty str.
        arguments: A mapping from str.

    Returns:
        The call, with a dict of its own.

    Raises:
        TypeError: One of them is of a wrong type.
        ValueError: A name is empty.
    """
    class_name = check_name(class_name)
    if type(method_name) is not str or not method_name:
        raise TypeError(f"a method name must be a non-empty str, got {shown(method_name)}")
    try:
        given = dict(arguments)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the arguments of {class_name}.{method_name} must be a mapping, got {shown(arguments)}"
        ) from error
    for key in given:
        if type(key) is not str:
            raise TypeError(
                f"the arguments of {class_name}.{method_name} must have strings as keys,"
                f" got {shown(key)}"
            )
    return MethodCall(class_name, method_name, given)


def checked_calls(calls: Iterable[Any]) -> list[MethodCall]:
    """
    Make calls of what somebody wrote.

    Args:
        calls: Of `MethodCall`, or (class, method), or (class, method, arguments).

    Returns:
        A new list.

    Raises:
        TypeError: One of them is something else; the text says which.
        ValueError: As for `checked_call`.
    """
    checked = []
    for at, call in enumerate(calls):
        if not isinstance(call, tuple) or len(call) not in (2, 3):
            raise TypeError(
                f"call {at} must be (class_name, method_name) or (class_name, method_name,"
                f" arguments), got {shown(call)}"
            )
        try:
            checked.append(checked_call(call[0], call[1], call[2] if len(call) == 3 else {}))
        except (TypeError, ValueError) as error:
            raise type(error)(f"call {at}: {error}") from error
    return checked
