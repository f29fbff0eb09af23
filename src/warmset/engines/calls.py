"""Method calls as values, and their validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..family_keys import check_key
from ..resolver import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..family_keys import SlotKey

__all__ = ["MethodCall", "checked_call", "checked_calls"]


class MethodCall(NamedTuple):
    """A call of one method of a class, or of the instance of a key of a family."""

    class_name: SlotKey
    method_name: str
    arguments: Mapping[str, Any] = {}  # never modified


def checked_call(class_name: object, method_name: object, arguments: object) -> MethodCall:
    """
    Validate the parts of a call.

    Args:
        class_name: A non-empty str, or a `FamilyKey`.
        method_name: A non-empty str.
        arguments: A mapping with str keys.

    Returns:
        The call, with a copy of the arguments.

    Raises:
        TypeError: A part has the wrong type.
        ValueError: The class name is empty.
    """
    class_name = check_key(class_name)
    if type(method_name) is not str or not method_name:
        raise TypeError(f"a method name must be a non-empty str, got {safe_repr(method_name)}")
    try:
        given = dict(arguments)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the arguments of {class_name}.{method_name} must be a mapping,"
            f" got {safe_repr(arguments)}"
        ) from error
    for key in given:
        if type(key) is not str:
            raise TypeError(
                f"the arguments of {class_name}.{method_name} must have strings as keys,"
                f" got {safe_repr(key)}"
            )
    return MethodCall(class_name, method_name, given)


def checked_calls(calls: Iterable[Any]) -> list[MethodCall]:
    """
    Validate a sequence of calls.

    Args:
        calls: Items of the form `MethodCall`, (class, method) or (class, method, arguments).

    Returns:
        A new list.

    Raises:
        TypeError: An item has another form; the message contains its index.
        ValueError: A class name is empty.
    """
    checked = []
    for index, call in enumerate(calls):
        if not isinstance(call, tuple) or len(call) not in (2, 3):
            raise TypeError(
                f"call {index} must be (class_name, method_name) or (class_name, method_name,"
                f" arguments), got {safe_repr(call)}"
            )
        try:
            checked.append(checked_call(call[0], call[1], call[2] if len(call) == 3 else {}))
        except (TypeError, ValueError) as error:
            raise type(error)(f"call {index}: {error}") from error
    return checked
