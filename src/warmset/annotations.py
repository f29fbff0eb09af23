"""
What an annotation says about values, as far as `isinstance` can tell.

An annotation is evaluated in the scope that it was written in: the class of the method, then its
module. The classes that it names are what a value is compared with; an annotation that has none
(a protocol, a type variable, a name that exists for type checkers only) accepts anything.

Beyond `isinstance`, a value is accepted that a call is commonly given and works with:

- an int for a float, and numpy's scalars for Python's numbers and the other way round
- a list for a tuple: payloads come from JSON and TOML, which have no tuples
- a mock that was not told which class it stands for
- an instance of another class of the same name: of a class before it was reloaded, or of a class
  that is local to a function, where the name alone finds a namesake in the module
- a value that the annotation was meant to accept: ``int or None`` evaluates to ``int``, so before
  a value is refused, the annotation is read from the source
"""

from __future__ import annotations

import sys

from .streams import type_has

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["Expected", "converts", "evaluate", "scope_of", "written_annotation"]


class AnyOf:
    """What ``a or b`` in an annotation was meant to say."""

    def __init__(self, members: list[Any]) -> None:
        self.members = members

    def __repr__(self) -> str:
        return " | ".join(map(describe, self.members))


class Expected:
    """
    The values that an annotation accepts.

    Args:
        annotation: The evaluated annotation.
        written: Returns the annotation as it is written in the source; called at most once, before
            a value is refused. None: there is no source to ask.
        also_none: Whether None is accepted in any case, since it is the default.
    """

    __slots__ = ("_also_none", "_written", "checked", "exact", "text")

    def __init__(
        self,
        annotation: Any,
        *,
        written: Callable[[], Any] | None = None,
        also_none: bool = False,
    ) -> None:
        self._written = written
        self._also_none = also_none
        self._set(annotation)

    def _set(self, annotation: Any) -> None:
        classes = classes_of(annotation)
        if classes is not None and self._also_none:
            classes = (*classes, type(None))
        # `exact`: types that are accepted by identity. `checked`: the classes for isinstance.
        self.exact: tuple[type, ...] | None = None
        self.checked: tuple[type, ...] | None = None
        if classes is not None:
            self.exact, self.checked = _widen(classes)
        self.text = describe(annotation) if classes is not None else ""

    def accepts(self, value: Any) -> bool:
        """Whether the annotation accepts a value."""
        if self._matches(value):
            return True
        written, self._written = self._written, None
        if written is None:
            return False
        annotation = written()
        if not isinstance(annotation, AnyOf):
            return False
        self._set(annotation)
        return self._matches(value)

    def _matches(self, value: Any) -> bool:
        if self.checked is None or self.exact is None or type(value) in self.exact:
            return True
        try:
            return (
                isinstance(value, self.checked)
                or _is_open_mock(value)
                or any(_is_alike(value, kind) for kind in self.checked)
            )
        except Exception:  # raised by the `__instancecheck__` of the class, or by the value
            return True


# -- evaluation ----------------------------------------------------------------------------------


def scope_of(function: Any, owner: type | None = None) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """
    Return the namespaces in which the annotations of a function are evaluated.

    Args:
        function: A function, or anything with its attributes.
        owner: The type that it was found on, if that is known: classes that are local to a function
            are only found through it.

    Returns:
        The globals, and the names of the class in which it was defined, with type parameters.
    """
    found = getattr(function, "__globals__", None)
    namespace = found if isinstance(found, dict) else {}
    outer = getattr(function, "__qualname__", "")
    outer = outer.rpartition(".")[0] if isinstance(outer, str) else ""
    parameters = getattr(function, "__type_params__", ())
    defined_in = _class_named(outer, namespace, owner)
    local: Mapping[str, Any] = {} if defined_in is None else vars(defined_in)
    if defined_in is not None:
        parameters = (*getattr(defined_in, "__type_params__", ()), *parameters)
    if parameters:
        local = {**local, **{each.__name__: each for each in parameters}}
    return namespace, local


def _class_named(qualname: str, namespace: dict[str, Any], owner: type | None) -> type | None:
    if not qualname or qualname.endswith("<locals>"):
        return None
    for base in () if owner is None else owner.__mro__:
        if base.__qualname__ == qualname:
            return base
    if "<locals>" in qualname:
        return None
    parts = qualname.split(".")
    found = namespace.get(parts[0])
    for part in parts[1:]:
        found = getattr(found, "__dict__", {}).get(part)
    return found if issubclass(type(found), type) else None


def evaluate(
    annotation: Any, namespace: dict[str, Any], local: Mapping[str, Any] | None = None
) -> Any:
    """
    Evaluate an annotation that is a string.

    Args:
        annotation: The annotation; what is not a string is returned as it is.
        namespace: The globals.
        local: The names of the class.

    Returns:
        The value; `typing.Any` if it does not exist at run time.
    """
    if not isinstance(annotation, str):
        return annotation
    from typing import Any as Anything

    try:
        if " or " in annotation:
            import ast

            tree = ast.parse(annotation.strip(), mode="eval")
            return _evaluated(tree.body, namespace, local or {})
        return eval(annotation, namespace, local)
    except Exception:
        return Anything


def written_annotation(function: Any, name: str, owner: type | None = None) -> Any:
    """
    Evaluate the annotation of a parameter from the source, where ``a or b`` means either.

    Args:
        function: The function.
        name: The parameter.
        owner: As for `scope_of`.

    Returns:
        An `AnyOf`, if it is written with ``or``; else None, also where there is no source.
    """
    import ast
    import inspect
    import textwrap

    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        definition = next(
            node
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        )
        given = definition.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs):
            if argument.arg == name and isinstance(argument.annotation, ast.BoolOp):
                return _evaluated(argument.annotation, *scope_of(function, owner))
    except Exception:
        pass
    return None


def _evaluated(node: Any, namespace: dict[str, Any], local: Mapping[str, Any]) -> Any:
    import ast

    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        return AnyOf([_evaluated(each, namespace, local) for each in node.values])
    return eval(compile(ast.Expression(node), "<annotation>", "eval"), namespace, local)


# -- classes -------------------------------------------------------------------------------------


def classes_of(annotation: Any) -> tuple[type, ...] | None:
    """
    Return the classes that an annotation accepts.

    Args:
        annotation: An evaluated annotation.

    Returns:
        The classes; None if it cannot be checked.
    """
    from types import UnionType
    from typing import IO, Annotated, BinaryIO, NewType, TextIO, Union, get_args, get_origin

    if annotation is None:
        return (type(None),)
    origin = get_origin(annotation)
    if origin is Union or origin is UnionType or isinstance(annotation, AnyOf):
        union = annotation.members if isinstance(annotation, AnyOf) else get_args(annotation)
        members = [classes_of(member) for member in union]
        if any(member is None for member in members):
            return None
        return tuple(kind for member in members for kind in member)  # type: ignore[union-attr]
    if origin is Annotated:
        return classes_of(get_args(annotation)[0])
    if isinstance(annotation, NewType):
        return classes_of(annotation.__supertype__)
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
    return None if converts(kind) and not _is_model(kind) else (kind,)


def converts(kind: type) -> bool:
    """
    Whether a class tells validators how to make or to check a value.

    Args:
        kind: A class of an annotation.

    Returns:
        Whether it has a hook of pydantic, as pandera's data frames have. Values are then commonly
        of another type.
    """
    return type_has(kind, "__get_pydantic_core_schema__") or type_has(kind, "__get_validators__")


def _is_model(kind: type) -> bool:
    """Whether values are instances of the class itself, where no validator is at work."""
    return type_has(kind, "__pydantic_fields__") or type_has(kind, "__fields__")


def _widen(classes: tuple[type, ...]) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """The exact types to accept and the classes for isinstance."""
    from numbers import Complex, Integral, Real

    wider: dict[type, tuple[tuple[type, ...], type]] = {
        int: ((int, bool), Integral),
        float: ((float, int, bool), Real),
        complex: ((complex, float, int, bool), Complex),
        tuple: ((tuple, list), list),
    }
    exact: list[type] = []
    checked: list[type] = []
    for kind in classes:
        alike, abstract = wider.get(kind, ((kind,), kind))
        exact += alike
        checked += (kind, abstract)
    return tuple(dict.fromkeys(exact)), tuple(dict.fromkeys(checked))


def _is_alike(value: Any, kind: type) -> bool:
    """Whether a value serves as an instance of a class, although it is none."""
    if _is_alike_in_numpy(value, kind):
        return True
    if kind.__module__ == "builtins":
        return False
    return any(base.__name__ == kind.__name__ for base in type(value).__mro__)


def _is_alike_in_numpy(value: Any, kind: type) -> bool:
    from numbers import Complex, Integral, Real

    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    if isinstance(value, numpy.bool_):
        return kind in (bool, int, float, complex, Integral, Real, Complex)
    for scalar, alike in (
        (numpy.bool_, bool),
        (numpy.integer, Integral),
        (numpy.floating, Real),
        (numpy.number, Complex),
        (numpy.str_, str),
        (numpy.bytes_, bytes),
    ):
        if issubclass(kind, scalar):
            return isinstance(value, alike)
    return False


def _is_open_mock(value: Any) -> bool:
    """Whether a value is a double of the standard library without a class to stand for."""
    if not any(base.__module__ == "unittest.mock" for base in type(value).__mro__):
        return False
    return vars(value).get("_spec_class") is None


def describe(annotation: Any) -> str:
    """
    Return the text of an annotation for a message.

    Args:
        annotation: An evaluated annotation.

    Returns:
        As it would be written.
    """
    if annotation is None:
        return "None"
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")
