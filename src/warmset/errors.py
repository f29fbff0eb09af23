"""
The errors: one class for each stage between a class name and a method call.

Every error of the registry derives from `MethodRegistryError` and, where there is one, from the
matching built-in error, so that callers can catch either. The details are available as attributes.
None derives from `ImportError` or `OSError`: their objects are laid out otherwise than those of
`AttributeError`, and `execute` raises each error in a variant that is an `AttributeError`, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    _Error = TypeVar("_Error", bound=Exception)


def restore_error(cls: type[_Error], args: tuple[Any, ...], fields: dict[str, Any]) -> _Error:
    """
    Create an error without calling its constructor, whose parameters differ from `args`.

    Args:
        cls: The class of the error.
        args: The `args` of the error.
        fields: Its attributes.

    Returns:
        The error, without traceback, cause and context.
    """
    # `__new__` must come from the base with the widest layout: `RuntimeError.__new__` cannot
    # create an `OSError`.
    base: Any = cls
    while "__new__" not in vars(base):
        base = base.__base__
    error: _Error = base.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class MethodRegistryError(RuntimeError):
    """
    The registry could not provide a class, an instance or a method.

    Args:
        message: The complete message: what failed, where, and what was expected.
        class_name: The requested class name.
        class_path: The dotted path registered for the name, if any.

    The original error, if any, is available as ``__cause__``.
    """

    stage = "registry"
    class_name: str | None = None
    class_path: str | None = None

    def __init__(
        self,
        message: str,
        *,
        class_name: str | None = None,
        class_path: str | None = None,
    ) -> None:
        super().__init__(message)
        self.class_name = class_name
        self.class_path = class_path

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_error, (type(self), self.args, self.__dict__)

    def fresh_copy(self) -> MethodRegistryError:
        """
        Copy the error, so that it can be raised again.

        Returns:
            An equal error with the same cause and without a traceback.
        """
        # Each raise appends to the traceback of the exception object. If waiters in several
        # threads raised the same object, their tracebacks would mix.
        copy = restore_error(type(self), self.args, self.__dict__)
        copy.__cause__ = self.__cause__
        return copy


class UnknownClassError(MethodRegistryError, LookupError):
    """
    The class name is not registered.

    Args:
        class_name: The requested class name.
        suggestions: The most similar registered names, best match first.
        advice: What to do instead, if that is known.
    """

    stage = "name"

    def __init__(
        self, class_name: str, suggestions: Sequence[str] = (), *, advice: str | None = None
    ) -> None:
        hint = f"; nearest: {', '.join(map(repr, suggestions))}" if suggestions else ""
        hint = hint if advice is None else f"; {advice}"
        super().__init__(f"no class is registered as {class_name!r}{hint}", class_name=class_name)
        self.suggestions = tuple(suggestions)


class AmbiguousClassError(MethodRegistryError, LookupError):
    """
    A class that is used as a key is registered under several names.

    Args:
        class_name: The class, as a dotted path.
        names: The names under which it is registered.
    """

    stage = "name"

    def __init__(self, class_name: str, names: Sequence[str]) -> None:
        known = ", ".join(map(repr, names))
        super().__init__(
            f"class {class_name!r} is registered as {known}: look it up by one of these names",
            class_name=class_name,
        )
        self.names = tuple(names)


class ClassPathError(MethodRegistryError, ValueError):
    """A class path does not have the shape ``package.module.Class``."""

    stage = "path"


class ClassImportError(MethodRegistryError):
    """The module of a class path could not be imported."""

    stage = "import"


class ClassAttributeError(MethodRegistryError, AttributeError):
    """The module of a class path has no such attribute."""

    stage = "attribute"


class NotAClassError(MethodRegistryError, TypeError):
    """A class path refers to something that is not a class."""

    stage = "class"


class BuildError(MethodRegistryError):
    """The constructor or rule of a class raised an error or returned None."""

    stage = "build"


class AsyncRuleError(BuildError):
    """
    What an asynchronous rule or factory builds was looked up synchronously.

    Args:
        class_name: The requested class name.
        class_path: The class path.
    """

    def __init__(self, class_name: str, class_path: str | None) -> None:
        super().__init__(
            f"{class_name!r} ({class_path}) is built asynchronously, which cannot be awaited in a "
            "synchronous look-up; use warmset.aio.AsyncMethodExecutor",
            class_name=class_name,
            class_path=class_path,
        )


class MethodNotFoundError(MethodRegistryError, AttributeError):
    """
    An instance has no such method, or the attribute is not callable.

    Args:
        message: The complete message.
        method_name: The requested method name.
        class_name: As in `MethodRegistryError`.
        class_path: As in `MethodRegistryError`.
    """

    stage = "method"

    def __init__(
        self,
        message: str,
        *,
        method_name: str,
        class_name: str | None = None,
        class_path: str | None = None,
    ) -> None:
        super().__init__(message, class_name=class_name, class_path=class_path)
        self.method_name = method_name


class CycleError(MethodRegistryError, RecursionError):
    """
    A build waits, directly or through other builds, for its own completion.

    Args:
        chain: The class names in the order of their look-ups; the first name is also the last.
    """

    stage = "cycle"

    def __init__(self, chain: Sequence[str]) -> None:
        super().__init__(f"cyclic build: {' -> '.join(chain)}", class_name=chain[-1])
        self.chain = tuple(chain)


class BuildTimeoutError(MethodRegistryError):
    """
    A look-up waited longer than ``build_timeout_seconds`` for a build in another thread.

    Args:
        class_name: The requested class name.
        class_path: The class path.
        builder: The name of the building thread.
        seconds: The duration of the build so far.
    """

    stage = "build"

    def __init__(
        self, class_name: str, class_path: str | None, *, builder: str, seconds: float
    ) -> None:
        super().__init__(
            f"thread {builder!r} has been building {class_name!r} ({class_path}) for "
            f"{seconds:.1f} s, longer than build_timeout_seconds",
            class_name=class_name,
            class_path=class_path,
        )
        self.builder = builder
        self.seconds = seconds


class CapacityError(MethodRegistryError):
    """A build timed out while it waited for capacity, because every cached instance is held."""

    stage = "build"


class ClosedError(MethodRegistryError):
    """The registry is closed: it can be read, but not changed, and it builds no instances."""

    stage = "closed"


# -- what `execute` raises -----------------------------------------------------------------------
# One class for each of the above that is no AttributeError itself; static, so they are pickled.


class ExecuteError(MethodRegistryError, AttributeError):
    """A `MethodRegistryError` in `execute`."""

    method_name: str | None = None


class ExecuteUnknownClassError(UnknownClassError, ExecuteError):
    """An `UnknownClassError` in `execute`."""


class ExecuteAmbiguousClassError(AmbiguousClassError, ExecuteError):
    """An `AmbiguousClassError` in `execute`."""


class ExecuteClassPathError(ClassPathError, ExecuteError):
    """A `ClassPathError` in `execute`."""


class ExecuteClassImportError(ClassImportError, ExecuteError):
    """A `ClassImportError` in `execute`."""


class ExecuteNotAClassError(NotAClassError, ExecuteError):
    """A `NotAClassError` in `execute`."""


class ExecuteBuildError(BuildError, ExecuteError):
    """A `BuildError` in `execute`."""


class ExecuteAsyncRuleError(AsyncRuleError, ExecuteBuildError):
    """An `AsyncRuleError` in `execute`."""


class ExecuteCycleError(CycleError, ExecuteError):
    """A `CycleError` in `execute`."""


class ExecuteBuildTimeoutError(BuildTimeoutError, ExecuteError):
    """A `BuildTimeoutError` in `execute`."""


class ExecuteCapacityError(CapacityError, ExecuteError):
    """A `CapacityError` in `execute`."""


class ExecuteClosedError(ClosedError, ExecuteError):
    """A `ClosedError` in `execute`."""


_IN_EXECUTE: dict[type, type[ExecuteError]] = {
    MethodRegistryError: ExecuteError,
    UnknownClassError: ExecuteUnknownClassError,
    AmbiguousClassError: ExecuteAmbiguousClassError,
    ClassPathError: ExecuteClassPathError,
    ClassImportError: ExecuteClassImportError,
    NotAClassError: ExecuteNotAClassError,
    BuildError: ExecuteBuildError,
    AsyncRuleError: ExecuteAsyncRuleError,
    CycleError: ExecuteCycleError,
    BuildTimeoutError: ExecuteBuildTimeoutError,
    CapacityError: ExecuteCapacityError,
    ClosedError: ExecuteClosedError,
}


def error_in_execute(error: MethodRegistryError, method_name: str) -> MethodRegistryError:
    """
    Return an error in the form in which `execute` raises it.

    Args:
        error: The error of a stage.
        method_name: The requested method.

    Returns:
        The error itself, if it is an `AttributeError`; else one that is an `AttributeError` and of
        the same class, with the same message, fields, cause and traceback.
    """
    if isinstance(error, AttributeError):
        return error
    for base in type(error).__mro__:
        kind = _IN_EXECUTE.get(base)
        if kind is not None:
            break
    assert kind is not None
    made: ExecuteError = restore_error(kind, error.args, error.__dict__)
    made.method_name = method_name
    # A class of somebody else's has no variant: the error itself is then the cause.
    made.__cause__ = error.__cause__ if type(error) in _IN_EXECUTE else error
    return made.with_traceback(error.__traceback__)


class ArgRouterError(RuntimeError):
    """A payload could not be routed to a method."""

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_error, (type(self), self.args, self.__dict__)


class ArgumentValidationError(ArgRouterError, TypeError):
    """
    A payload does not match the signature of the method; the method was not called.

    Args:
        class_name: The requested class name.
        method_name: The requested method name.
        missing: Required parameters that are not in the payload.
        unexpected: Names in the payload that the method does not accept.
        mistyped: Parameter name -> "expected X, got Y".
    """

    def __init__(
        self,
        class_name: str,
        method_name: str,
        *,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        mistyped: Mapping[str, str] | None = None,
    ) -> None:
        self.class_name = class_name
        self.method_name = method_name
        self.missing = frozenset(missing)
        self.unexpected = frozenset(unexpected)
        self.mistyped = dict(mistyped or {})
        problems = [
            f"{word} {', '.join(sorted(names))}"
            for word, names in (("missing", self.missing), ("unexpected", self.unexpected))
            if names
        ]
        problems += [f"{name} {problem}" for name, problem in sorted(self.mistyped.items())]
        super().__init__(
            f"arguments do not match {class_name}.{method_name}: {'; '.join(problems)}"
        )

    @property
    def type_mismatches(self) -> dict[str, str]:
        """The same as `mistyped`."""
        return self.mistyped
