"""
Routing of a payload (parameter name -> value) to the arguments of a method.

A signature is compiled once into a plan. The core of the executor handles the simple cases itself,
using `Plan.direct`; all other cases, and all errors, are handled by `Plan.route`.

How a payload becomes arguments
    Parameters are passed by keyword where the method allows it, and by position where it does not:
    positional-only parameters, those of a single-dispatch function, and those of a wrapper without
    keywords. A list under the name of a ``*`` parameter is spread, unless the method has a ``**``
    parameter, too, which then takes that name as any other.

What is checked
    Names: a required parameter is missing, or the method takes no such argument. Types: see
    `annotations`. The annotations of a method are not checked where something may convert the
    values before: a wrapper (`functools.wraps`), a dispatcher, a class that pydantic builds; nor
    under `typing.no_type_check`. ``"names"`` checks no types anywhere, ``"off"`` nothing.

For a decorated method, the signature is that of the wrapped function, as recorded by
`functools.wraps`, unless the wrapper names all of its parameters itself. A decorator that supplies
arguments must set a ``__signature__`` without those parameters.

A plan is valid while the functions that it was compiled from are as they were. A reload changes
them in place.
"""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]

from .annotations import Expected, converts, evaluate, scope_of, written_annotation
from .errors import ArgumentValidationError
from .streams import type_has

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from inspect import Parameter, Signature
    from typing import Any

__all__ = ["Plan", "compile_plan", "returned_type"]


class _Parameter:
    """One parameter: whether it must be given, and what it accepts."""

    __slots__ = ("default", "expected", "required")

    def __init__(self, default: Any, expected: Expected | None, required: bool) -> None:
        self.default = default  # `_MISSING` if there is none
        self.expected = expected
        self.required = required

    def mismatch(self, value: Any) -> str | None:
        """Describe why a value is not acceptable; None if it is."""
        if self.expected is None or value is self.default or self.expected.accepts(value):
            return None
        return f"expected {self.expected.text}, got {type(value).__qualname__}"


_FUNCTION = type(lambda: None)
_MISSING: Any = object()


class Plan:
    """
    A compiled signature.

    `direct` lists (name, required, exact types or None) for each parameter if all of them can be
    passed by keyword and the method has no ``**`` parameter; otherwise it is None and `route` must
    be called, except if the plan is `unchecked`: then every payload is passed as it is.
    """

    __slots__ = (
        "_by_name",
        "_functions",
        "_open",
        "_ordered",
        "_positional",
        "_rest",
        "direct",
        "owner",
        "unchecked",
    )

    def __init__(
        self,
        by_name: dict[str, _Parameter],
        *,
        functions: tuple[Any, ...],
        owner: type | None,
        positional: tuple[str, ...] = (),
        ordered: tuple[str, ...] = (),
        rest: str | None = None,
        is_open: bool = False,
        unchecked: bool = False,
    ) -> None:
        self._by_name = by_name
        self._positional = positional  # passed by position
        self._ordered = ordered  # passed by position where the `*` parameter is given
        self._rest = rest  # the `*` parameter
        self._open = is_open
        self._functions = tuple((function, _state_of(function)) for function in functions)
        self.owner = owner
        self.unchecked = unchecked
        self.direct = (
            None
            if positional or is_open or unchecked
            else tuple(
                (name, each.required, None if each.expected is None else each.expected.exact)
                for name, each in by_name.items()
            )
        )

    @property
    def is_current(self) -> bool:
        """Whether the functions still have the signatures that it was compiled from."""
        for function, before in self._functions:
            if len(before) == 4 and type(function) is _FUNCTION and not function.__kwdefaults__:
                own = function.__dict__
                code, defaults, signature, wrapped = before
                if (
                    function.__code__ is code
                    and function.__defaults__ is defaults
                    and own.get("__signature__") is signature
                    and own.get("__wrapped__") is wrapped
                ):
                    continue
                return False
            state = _state_of(function)
            if len(state) != len(before):
                return False
            for now, then in zip(state, before, strict=True):
                if now is not then:
                    return False
        return True

    def become(self, other: Plan) -> None:
        """Take over everything from a plan that was compiled anew."""
        for name in Plan.__slots__:
            setattr(self, name, getattr(other, name))

    def route(
        self,
        class_name: str,
        method_name: str,
        payload: dict[str, Any],
        arguments: str = "strict",
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        Check a payload and convert it to arguments.

        Args:
            class_name: Used in messages.
            method_name: Used in messages.
            payload: Parameter name -> value; not modified.
            arguments: What is checked: ``"strict"``, ``"names"`` or ``"off"``.

        Returns:
            The positional and keyword arguments for the method.

        Raises:
            ArgumentValidationError: Arguments are missing, unexpected or mistyped; lists all of
                them.

        Thread-safe; O(parameters + payload).
        """
        if self.unchecked or self._fits(payload):
            return (), payload
        if arguments != "off":
            self._check(class_name, method_name, payload, types=arguments == "strict")
        if not self._positional and self._rest not in payload:
            return (), payload
        return self._by_position(payload)

    def _fits(self, payload: dict[str, Any]) -> bool:
        """Whether it certainly is a payload that is passed as it is."""
        if self.direct is None:
            return False
        given = 0
        for name, required, types in self.direct:
            if name in payload:
                if types is not None and type(payload[name]) not in types:
                    return False
                given += 1
            elif required:
                return False
        return given == len(payload)

    def _check(
        self, class_name: str, method_name: str, payload: dict[str, Any], *, types: bool
    ) -> None:
        by_name = self._by_name
        missing = [name for name, each in by_name.items() if each.required and name not in payload]
        unexpected = []
        mistyped = {}
        for name, value in payload.items():
            parameter = by_name.get(name)
            if parameter is not None:
                problem = parameter.mismatch(value) if types else None
                if problem is not None:
                    mistyped[name] = problem
            elif name == self._rest:
                if not isinstance(value, (list, tuple)):
                    mistyped[name] = f"expected list or tuple, got {type(value).__qualname__}"
            elif not self._open:
                unexpected.append(name)
        if missing or unexpected or mistyped:
            raise ArgumentValidationError(
                class_name, method_name, missing=missing, unexpected=unexpected, mistyped=mistyped
            )

    def _by_position(self, payload: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        keywords = dict(payload)
        spread = self._rest in payload
        names = self._ordered if spread else self._positional
        # All parameters up to the last one in the payload; missing ones get their defaults.
        given = [at for at, name in enumerate(names) if name in payload]
        head = names if spread else names[: given[-1] + 1] if given else ()
        values: list[Any] = []
        for name in head:
            value = keywords.pop(name) if name in payload else self._by_name[name].default
            if value is _MISSING:  # nothing is checked: the call itself raises
                return tuple(values), keywords
            values.append(value)
        if spread:
            values += keywords.pop(self._rest)  # type: ignore[arg-type]
        return tuple(values), keywords


# -- compilation ---------------------------------------------------------------------------------


def compile_plan(method: Callable[..., Any], owner: type | None = None) -> Plan:
    """
    Compile the signature of a callable.

    Args:
        method: A bound method or other callable; without a signature, it accepts any payload.
        owner: The type of the instance that it was found on, if it was.

    Returns:
        The plan. It does not refer to the instance.

    Thread-safe; takes tens of microseconds, and imports `inspect` the first time.
    """
    from inspect import Parameter

    functions = _chain(method)
    signature = _signature_of(method, functions, owner)
    if signature is None:
        return Plan({}, functions=functions, owner=owner, unchecked=True)
    by_position = dispatches = _dispatches(method)
    if len(functions) > 1 and not by_position:
        own = _kinds(_signature(functions[0], follow_wrapped=False))
        by_position = Parameter.VAR_POSITIONAL in own and Parameter.VAR_KEYWORD not in own
    expect = None
    if not dispatches and _checks_types(method, functions):
        expect = partial(_expected, functions[-1], owner, scope_of(functions[-1], owner))
    by_name: dict[str, _Parameter] = {}
    positional: list[str] = []
    ordered: list[str] = []
    rest = None
    for parameter in signature.parameters.values():
        name, kind, default = parameter.name, parameter.kind, parameter.default
        if kind is Parameter.VAR_POSITIONAL:
            rest = name
        if kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            continue
        required = default is Parameter.empty
        if dispatches and by_name:
            required = False  # what it selects may take less than the function it is named after
        by_name[name] = _Parameter(
            _MISSING if default is Parameter.empty else default,
            None if expect is None else expect(parameter),
            required,
        )
        if kind is not Parameter.KEYWORD_ONLY:
            ordered.append(name)
            if by_position or kind is Parameter.POSITIONAL_ONLY:
                positional.append(name)
    has_keywords = Parameter.VAR_KEYWORD in _kinds(signature)
    if has_keywords:
        rest = None
    return Plan(
        by_name,
        functions=functions,
        owner=owner,
        positional=tuple(positional),
        ordered=tuple(ordered),
        rest=rest,
        is_open=has_keywords or dispatches,
    )


def _chain(method: Any) -> tuple[Any, ...]:
    """The functions behind a callable, from the one that is called to the innermost wrapped one."""
    while isinstance(method, partial):
        method = method.func
    method = getattr(method, "__func__", method)
    if isinstance(method, type):
        constructor = method.__init__  # type: ignore[misc]
        if constructor is object.__init__:
            constructor = method.__new__
        method = getattr(constructor, "__func__", constructor)
    elif not hasattr(method, "__code__") and not hasattr(method, "__wrapped__"):
        method = getattr(type(method), "__call__", method)  # noqa: B004
    functions = [method]
    # Bounded: an object that answers to every name has a `__wrapped__` without end.
    while len(functions) < 100 and hasattr(functions[-1], "__wrapped__"):
        wrapped = functions[-1].__wrapped__
        functions.append(getattr(wrapped, "__func__", wrapped))
    return tuple(functions)


def _state_of(function: Any) -> tuple[Any, ...]:
    """What a signature depends on."""
    own = getattr(function, "__dict__", None)
    own = own if isinstance(own, dict) else {}
    keywords = getattr(function, "__kwdefaults__", None)
    keywords = keywords if isinstance(keywords, dict) else {}
    return (
        getattr(function, "__code__", None),
        getattr(function, "__defaults__", None),
        own.get("__signature__"),
        own.get("__wrapped__"),
        *keywords,
        *keywords.values(),
    )


def _signature_of(
    method: Callable[..., Any], functions: tuple[Any, ...], owner: type | None
) -> Signature | None:
    """The signature of a callable, without what it supplies itself."""
    from inspect import Parameter

    if len(functions) == 1:
        return _signature(method)
    if "__signature__" not in getattr(functions[0], "__dict__", ()):
        own = _signature(method, follow_wrapped=False)
        kinds = _kinds(own)
        # One that names all of its parameters itself is called with these.
        if kinds and not {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}.intersection(kinds):
            return own
    signature = _signature(method)
    if signature is not None and _supplies_first(method, functions[-1], owner):
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    return signature


def _kinds(signature: Signature | None) -> tuple[Any, ...]:
    return () if signature is None else tuple(p.kind for p in signature.parameters.values())


def _signature(method: Callable[..., Any], *, follow_wrapped: bool = True) -> Signature | None:
    import sys
    from inspect import signature

    try:
        return signature(method, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):
        return None
    except Exception:
        # From 3.14 on, annotations are evaluated here and can raise any exception.
        if sys.version_info < (3, 14):
            return None
    try:
        from annotationlib import Format  # type: ignore[import-not-found, unused-ignore]

        return signature(  # type: ignore[call-arg, unused-ignore]
            method, follow_wrapped=follow_wrapped, annotation_format=Format.FORWARDREF
        )
    except Exception:
        return None


def _supplies_first(method: Any, function: Any, owner: type | None) -> bool:
    """
    Whether the first parameter of the wrapped function is not one of the method's.

    A descriptor that binds by itself, such as `functools.singledispatchmethod`, returns a plain
    function that wraps the unbound one, whose signature still has ``self``.
    """
    from types import MethodType

    if owner is None or isinstance(method, (MethodType, partial)):
        return False
    outer, _, name = getattr(function, "__qualname__", "").rpartition(".")
    for base in owner.__mro__:
        found = vars(base).get(name)
        if isinstance(found, staticmethod):
            return False
        if found is not None and (
            base.__qualname__ == outer
            or any(each is function for each in _held_by_descriptor(found))
        ):
            return True
    return False


def _held_by_descriptor(found: Any) -> list[Any]:
    if not type_has(type(found), "__get__"):
        return []
    return [each for each in getattr(found, "__dict__", {}).values() if callable(each)]


def _dispatches(method: Any) -> bool:
    """Whether a callable selects, by its first argument, one of several functions to call."""
    function = getattr(method, "__func__", method)
    if isinstance(function, type):
        return False
    return callable(getattr(function, "register", None)) and (
        callable(getattr(function, "dispatch", None)) or hasattr(function, "__wrapped__")
    )


def _checks_types(method: Any, functions: tuple[Any, ...]) -> bool:
    """Whether the annotations tell which values the method takes."""
    from functools import _lru_cache_wrapper

    if any(getattr(each, "__no_type_check__", False) for each in functions):
        return False
    if isinstance(method, type) and converts(method):
        return False
    # A wrapper may convert; a cache calls the function with what it gets.
    return all(isinstance(each, _lru_cache_wrapper) for each in functions[:-1])


def _expected(
    function: Any,
    owner: type | None,
    scope: tuple[dict[str, Any], Mapping[str, Any]],
    parameter: Parameter,
) -> Expected | None:
    if parameter.annotation is parameter.empty:
        return None
    written = None
    if not isinstance(parameter.annotation, str):
        written = partial(written_annotation, function, parameter.name, owner)
    annotation = evaluate(parameter.annotation, *scope)
    return Expected(annotation, written=written, also_none=parameter.default is None)


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

    annotation = evaluate(annotation, *scope_of(function))
    kind = get_origin(annotation) or annotation
    return kind if issubclass(type(kind), type) else None
