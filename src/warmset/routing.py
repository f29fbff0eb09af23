"""
From a payload, names to values, to the arguments of a method.

A signature is compiled once into a plan. The executor's core takes from it what can be checked
without thinking, `Plan.direct`; everything else, and every refusal, is `Plan.route`.

How types are read
    An annotation is checked as far as `isinstance` can: classes, unions, the origin of a generic
    (`list[str]` is checked as `list`), `Annotated`, `NewType`. An int will do for a float, numpy's
    numbers for both, and None where the default is None. What cannot be resolved or checked (a
    name that does not exist at run time, a protocol, a type variable) is not checked.

A decorated method is read by the signature that `functools.wraps` shows. A decorator that supplies
arguments of its own must say so, by a `__signature__` without them.
"""

from __future__ import annotations

from .errors import ArgumentValidationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Parameter
    from typing import Any

__all__ = ["Plan", "compile_plan"]


class _Expected:
    """What one parameter takes."""

    __slots__ = ("checked", "default", "exact", "required", "text")

    def __init__(self, parameter: Parameter, annotation: Any) -> None:
        self.required = parameter.default is parameter.empty
        self.default = None if self.required else parameter.default
        classes = _classes(annotation)
        if classes is not None and not self.required and self.default is None:
            classes = (*classes, type(None))
        # `exact`: types known good by identity. `checked`: what isinstance decides the rest by.
        self.exact: tuple[type, ...] | None = None
        self.checked: tuple[type, ...] | None = None
        if classes is not None:
            self.exact, self.checked = _widen(classes)
        self.text = _describe(annotation) if classes is not None else ""

    def fault(self, value: Any) -> str | None:
        """Say what is wrong with a value, if anything is."""
        if not self.required and value is self.default:
            return None
        if self.exact is None or self.checked is None or type(value) in self.exact:
            return None
        try:
            if isinstance(value, self.checked):
                return None
        except Exception:  # a class whose `__instancecheck__` refuses to tell
            return None
        return f"expected {self.text}, got {type(value).__qualname__}"


class Plan:
    """
    A compiled signature.

    `direct` lists (name, required, exact types or None) of each parameter, where all can be passed
    by keyword and the method takes no others; it is None where `route` has to be asked.
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
        Check a payload and lay it out as arguments.

        Args:
            class_name: For the text of the error.
            method_name: For the text of the error.
            payload: Parameter name -> value; it is not changed.

        Returns:
            Positional and keyword arguments for the method.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; all are named.

        Safe under threads; O(parameters + payload).
        """
        by_name = self._by_name
        missing = [n for n, expected in by_name.items() if expected.required and n not in payload]
        unexpected = [] if self._open else [name for name in payload if name not in by_name]
        mistyped = {}
        for name, value in payload.items():
            expected = by_name.get(name)
            fault = None if expected is None else expected.fault(value)
            if fault is not None:
                mistyped[name] = fault
        if missing or unexpected or mistyped:
            raise ArgumentValidationError(
                class_name, method_name, missing=missing, unexpected=unexpected, mistyped=mistyped
            )
        if not self._positional:
            return (), payload
        keywords = dict(payload)
        # Up to the last one given; those left out before it get their defaults.
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
        method: A bound method or any other callable; one without a signature takes anything.

    Returns:
        The plan.

    Safe under threads; tens of microseconds, and it imports `inspect` the first time.
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


def _signature(method: Callable[..., Any]) -> Any:
    import sys
    from inspect import signature

    try:
        return signature(method)
    except (TypeError, ValueError):
        return None
    except Exception:
        # From 3.14 on, annotations are evaluated only now, and may fail as any code may.
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
    """An annotation as an object; a string that means nothing at run time means anything."""
    if not isinstance(annotation, str):
        return annotation
    from typing import Any as Anything

    try:
        return eval(annotation, namespace)
    except Exception:
        return Anything


def _classes(annotation: Any) -> tuple[type, ...] | None:
    """The classes that an annotation comes down to; None where it cannot be checked."""
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
        return None  # anything; and files, of which none inherits from typing's classes
    try:
        isinstance(None, kind)
    except Exception:  # a protocol, a typed dict
        return None
    return (kind,)


def _widen(classes: tuple[type, ...]) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Exact types that fit, and classes to ask by isinstance: an int is a float's equal."""
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
