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

__all__ = [
    "check_arguments",
    "check_target",
    "checked_table",
    "misfit",
    "same_arguments",
    "target_name",
    "unknown_option",
]


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
    hint = "" if target is None else "; an object that exists is registered as a lambda of it"
    raise TypeError(
        f"the target of {class_name!r} must be a class path, {PATH_EXPECTED}, a class, or a "
        f"factory, got {type(target).__name__} {safe_repr(target)}{hint}"
    )


def checked_table(class_paths: object) -> Any:
    """
    Check a class table.

    Args:
        class_paths: A mapping of names to what may be registered under them.

    Returns:
        The same.

    Raises:
        TypeError: It is no mapping.
    """
    if hasattr(type(class_paths), "items"):
        return class_paths
    hint = ""
    if isinstance(class_paths, str):
        hint = "; MethodRegistry.from_file reads a file"
    raise TypeError(
        "class_paths must be a mapping of names to class paths, classes or factories, or None, got "
        f"{type(class_paths).__name__} {safe_repr(class_paths)}{hint}"
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


def unknown_option(what: str, name: str, known: Iterable[str], *, otherwise: str = "") -> TypeError:
    """
    Make the error for an option that does not exist.

    Args:
        what: Whose option it is, in words.
        name: The option.
        known: The options that exist; the nearest is suggested.
        otherwise: Added to the text where none is near.

    Returns:
        The error.
    """
    near = near_names(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else otherwise
    return TypeError(f"{what} has no option {name!r}{hint}")


def check_arguments(
    class_name: str,
    target: object,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    of_family: bool = False,
) -> None:
    """
    Check that a class or a factory takes the arguments with which it is registered.

    Args:
        class_name: The name; for the text of an error.
        target: The target. A class path is not imported, so it is not checked.
        args: Positional arguments.
        kwargs: Keyword arguments.
        of_family: Whether the first argument is the key of a family.

    Raises:
        TypeError: It does not take them; the signature is shown. That others are missing is an
            error of a family only: for a class, a rule may be registered later.
    """
    if isinstance(target, str):
        return
    if args or kwargs:
        text = misfit(target, args, kwargs, complete=of_family)
        if text is not None:
            which = "the key and the arguments" if of_family else "the arguments"
            raise TypeError(f"{which} of {class_name!r} do not fit: {text}")


def misfit(
    target: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, complete: bool = False
) -> str | None:
    """
    Tell why a class or a factory does not take some arguments.

    Args:
        target: The class or factory.
        args: Positional arguments.
        kwargs: Keyword arguments.
        complete: Whether they are all that it gets.

    Returns:
        The reason, with the signature; None if it takes them, or has no readable signature.
    """
    signature = _signature(target)
    if signature is None:
        return None
    try:
        bind = signature.bind if complete else signature.bind_partial
        bind(*args, **kwargs)
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


def same_arguments(one: Any, other: Any) -> bool:
    """
    Tell whether the options of two registrations have the same arguments for the target.

    Args:
        one: Options of a class, or None.
        other: As well.

    Returns:
        Whether they have. Those that cannot be compared differ.
    """
    if one is None or other is None:
        given = one or other
        return given is None or not (given.args or given.kwargs)
    try:
        return bool(one.args == other.args and one.kwargs == other.kwargs)
    except Exception:  # as of arrays
        return False


def _signature(target: Any) -> Signature | None:
    from inspect import signature

    try:
        return signature(target)
    except Exception:  # written in C, or its `__signature__` raises
        return None
