"""
Targets: what may be registered under a name, and whether its arguments fit.
"""

from __future__ import annotations

from .resolver import PATH_EXPECTED, check_path, near_names, safe_repr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from inspect import Signature
    from typing import Any

__all__ = ["check_arguments", "check_target", "misfit", "target_name", "unknown_option"]


def check_target(class_name: str, target: object) -> Any:
    """
    Check what is to be registered under a name.

    Args:
        class_name: The name.
        target: A class path, a class, or a factory: a callable that returns the instance.

    Returns:
        The target; a path as an exact str.

    Raises:
        TypeError: It is none of these.
        ClassPathError: A path does not have the shape of one.
    """
    if isinstance(target, str):
        return check_path(class_name, target)
    if callable(target):
        return target
    raise TypeError(
        f"the target of {class_name!r} must be a class path, {PATH_EXPECTED}, a class, or a "
        f"factory, got {type(target).__name__} {safe_repr(target)}"
    )


def target_name(target: object) -> str:
    """
    Return the name under which a target is registered if none is given.

    Args:
        target: A class, or a factory.

    Returns:
        Its ``__name__``.

    Raises:
        TypeError: It has none that could be written.
    """
    name = getattr(target, "__name__", None)
    if type(name) is str and name.isidentifier():
        return name
    raise TypeError(f"{safe_repr(target)} has no name of its own: register it under a name")


def unknown_option(what: str, name: str, known: Iterable[str]) -> TypeError:
    """
    Make the error for an option that does not exist.

    Args:
        what: Whose option it is, in words.
        name: The option.
        known: The options that exist; the nearest is suggested.

    Returns:
        The error.
    """
    near = near_names(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return TypeError(f"{what} has no option {name!r}{hint}")


def check_arguments(
    class_name: str, target: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """
    Check that a class or a factory takes the arguments with which it is registered.

    Args:
        class_name: The name; for the text of an error.
        target: The target. A class path is not imported, so it is not checked.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Raises:
        TypeError: It does not take them; the signature is shown. That others are missing is no
            error: a rule may be registered later.
    """
    if (args or kwargs) and not isinstance(target, str):
        text = misfit(target, args, kwargs)
        if text is not None:
            raise TypeError(f"the arguments of {class_name!r} do not fit: {text}")


def misfit(target: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """
    Tell why a class or a factory does not take some arguments.

    Args:
        target: The class or factory.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        The reason, with the signature; None if it takes them, or has no readable signature.
    """
    signature = _signature(target)
    if signature is None:
        return None
    try:
        signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        named = getattr(target, "__qualname__", None) or type(target).__qualname__
        names = [
            name
            for name, each in signature.parameters.items()
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        ]
        unknown = [name for name in kwargs if name not in names]
        near = near_names(unknown[0], names, 1) if unknown else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{named}{signature}: {error}{hint}"
    return None


def _signature(target: Any) -> Signature | None:
    from inspect import signature

    try:
        return signature(target)
    except Exception:  # written in C, or its `__signature__` raises
        return None
