"""
Routing of a payload (parameter name -> value) to the arguments of a method.

A signature is compiled once into a plan. The core of the executor handles the simple cases itself,
using `Plan.direct`; all other cases, and all errors, are handled by `Plan.route`.

Type checks
    Annotations are checked as far as `isinstance` allows: classes, unions, the origin of a generic
    (`list[str]` is checked as `list`), `Annotated` and `NewType`. An int is accepted for a float,
    numpy's numbers for both, and None if the default is None. Annotations that cannot be resolved
    or checked (a name that does not exist at run time, a protocol, a type variable) are ignored.

For a decorated method, the signature is that of the wrapped function, as recorded by
`functools.wraps`. A decorator that supplies arguments itself must set a `__signature__` without
those parameters.
"""

from __future__ import annotations

from .errors import ArgumentValidationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Parameter
    from typing import Any

__all__ = ["Plan", "compile_plan", "returned_type"]


class _Expected:
    """The requirements of one parameter."""

    __slots__ = ("checked", "default", "exact", "required", "text")

    def __init__(self, parameter: Parameter, annotation: Any) -> None:
        self.required = parameter.default is parameter.empty
        self.default = None if self.required else parameter.default
        classes = _classes(annotation)
        if classes is not None and not self.required and self.default is None:
            classes = (*classes, type(None))
        # `exact`: types that are accepted by identity. `checked`: the classes for isinstance.
        self.exact: tuple[type, ...] | None = None
        self.checked: tuple[type, ...] | None = None
        if classes is not None:
            self.exact, self.checked = _widen(classes)
        self.text = _describe(annotation) if classes is not None else ""

    def mismatch(self, value: Any) -> str | None:
        """Describe why a value is not acceptable; None if it is."""
        if not self.required and value is self.default:
            return None
        if self.exact is None or self.checked is None or type(value) in self.exact:
            return None
        try:
            if isinstance(value, self.checked):
                return None
        except Exception:  # raised by the `__instancecheck__` of the class
            return None
        return f"expected {self.text}, got {type(value).__qualname__}"


class Plan:
    """
    A compiled signature.

    `direct` lists (name, required, exact types or None) for each parameter if all of them can be
    passed by keyword and the method has no ``**`` parameter; otherwise it is None and `route` must
    be called.
    """

    __slots__ = ("_by_name", "_open", "_positional", "direct")

    def __init__(
        self, by_name: dict[str, _Expected], positional: tuple[str, ...], is_open: bool
    ) -> None:
        self._by_name = by_name
        self._positional = positional
        self._open = is_open
        self.direct = (
            None
            if positional or is_open
            else tuple(
                (name, expected.required, expected.exact) for name, expected in by_name.items()
            )
        )

    def route(
        self, class_name: str, method_name: str, payload: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        Check a payload and convert it to arguments.

        Args:
            class_name: Used in messages.
            method_name: Used in messages.
            payload: Parameter name -> value; not modified.

        Returns:
            The positional and keyword arguments for the method.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; lists all of
                them.

        Thread-safe; O(parameters + payload).
        """
        by_name = self._by_name
        missing = [n for n, expected in by_name.items() if expected.required and n not in payload]
        unexpected = [] if self._open else [name for name in payload if name not in by_name]
        mistyped = {}
        for name, value in payload.items():
            expected = by_name.get(name)
            problem = None if expected is None else expected.mismatch(value)
            if problem is not None:
                mistyped[name] = problem
        if missing or unexpected or mistyped:
            raise ArgumentValidationError(
                class_name, method_name, missing=missing, unexpected=unexpected, mistyped=mistyped
            )
        if not self._positional:
            return (), payload
        keywords = dict(payload)
        # All parameters up to the last one in the payload; missing ones get their defaults.
        given = [i for i, name in enumerate(self._positional) if name in payload]
        head = self._positional[: given[-1] + 1] if given else ()
        arguments = [
            keywords.pop(name) if name in payload else by_name[name].default for name in head
        ]
        return tuple(arguments), keywords


def compile_plan(method: Callable[..., Any]) -> Plan:
    """
    Compile the signature of a callable.

    Args:
        method: A bound method or other callable; without a signature, it accepts any payload.

    Returns:
        The plan.

    Thread-safe; takes tens of microseconds, and imports `inspect` the first time.
    """
    from inspect import Parameter

    signature = _signature(method)
    if signature is None:
        return Plan({}, (), True)
    namespace = _namespace(method)
    by_name: dict[str, _Expected] = {}
    positional: list[str] = []
    is_open = False
    for parameter in signature.parameters.values():
        if parameter.kind is Parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not Parameter.VAR_POSITIONAL:
            by_name[parameter.name] = _Expected(
                parameter, _resolved(parameter.annotation, namespace)
            )
            if parameter.kind is Parameter.POSITIONAL_ONLY:
                positional.append(parameter.name)
    return Plan(by_name, tuple(positional), is_open)


def returned_type(function: Any) -> type | None:
    """
    Return the class that a function says it returns.

    Args:
        function: A function, or anything with its attributes.

    Returns:
        The class of its annotation, or the origin of a generic one; None if there is none, or it
        cannot be resolved.
    """
    try:
        annotation = function.__annotations__["return"]
    except Exception:  # from 3.14 on, annotations are evaluated here and can raise anything
        return None
    from typing import get_origin

    annotation = _resolved(annotation, _namespace(function))
    kind = get_origin(annotation) or annotation
    return kind if issubclass(type(kind), type) else None


def _signature(method: Callable[..., Any]) -> Any:
    import sys
    from inspect import signature

    try:
        return signature(method)
    except (TypeError, ValueError):
        return None
    except Exception:
        # From 3.14 on, annotations are evaluated here and can raise any exception.
        if sys.version_info < (3, 14):
            return None
    try:
        from annotationlib import Format  # type: ignore[import-not-found, unused-ignore]

        return signature(method, annotation_format=Format.FORWARDREF)
    except Exception:
        return None


def _namespace(method: Callable[..., Any]) -> dict[str, Any]:
    from inspect import unwrap

    try:
        function = unwrap(getattr(method, "__func__", method))
    except ValueError:
        return {}
    found = getattr(function, "__globals__", None)
    return found if isinstance(found, dict) else {}


def _resolved(annotation: Any, namespace: dict[str, Any]) -> Any:
    """Evaluate an annotation; a string that cannot be evaluated at run time becomes Any."""
    if not isinstance(annotation, str):
        return annotation
    from typing import Any as Anything

    try:
        return eval(annotation, namespace)
    except Exception:
        return Anything


def _classes(annotation: Any) -> tuple[type, ...] | None:
    """The classes that an annotation accepts; None if it cannot be checked."""
    from types import UnionType
    from typing import IO, Annotated, BinaryIO, NewType, TextIO, Union, get_args, get_origin

    if annotation is None:
        return (type(None),)
    origin = get_origin(annotation)
    if origin is Union or origin is UnionType:
        members = [_classes(member) for member in get_args(annotation)]
        if any(member is None for member in members):
            return None
        return tuple(kind for member in members for kind in member)  # type: ignore[union-attr]
    if origin is Annotated:
        return _classes(get_args(annotation)[0])
    if isinstance(annotation, NewType):
        return _classes(annotation.__supertype__)
    kind = annotation if origin is None else origin
    if not isinstance(kind, type):
        return None
    from inspect import Parameter

    if kind in (object, Parameter.empty, IO, TextIO, BinaryIO):
        return None  # accept anything; file objects do not inherit from the classes in typing
    try:
        isinstance(None, kind)
    except Exception:  # for example a protocol or a typed dict
        return None
    return (kind,)


def _widen(classes: tuple[type, ...]) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """The exact types to accept and the classes for isinstance; an int is accepted for a float."""
    from numbers import Complex, Integral, Real

    tower: dict[type, tuple[tuple[type, ...], type]] = {
        int: ((int, bool), Integral),
        float: ((float, int, bool), Real),
        complex: ((complex, float, int, bool), Complex),
    }
    exact: list[type] = []
    checked: list[type] = []
    for kind in classes:
        alike, abstract = tower.get(kind, ((kind,), kind))
        exact += alike
        checked += (kind, abstract)
    return tuple(dict.fromkeys(exact)), tuple(dict.fromkeys(checked))


def _describe(annotation: Any) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")
