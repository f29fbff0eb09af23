"""
What can go wrong, one class for each stage of the way from a class name to a method call.

Every error of the registry is a `MethodRegistryError` and also the builtin that fits, so that a
caller may catch broad or narrow. Each carries its facts as fields, not only as text.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    _Error = TypeVar("_Error", bound=Exception)


def _restore(cls: type[_Error], args: tuple[Any, ...], fields: dict[str, Any]) -> _Error:
    # Without the constructor, whose parameters are not those that `args` holds.
    # The builtin with the widest layout makes it: `RuntimeError` refuses to make an `OSError`.
    base: Any = cls
    while "__new__" not in vars(base):
        base = base.__base__
    error: _Error = base.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class MethodRegistryError(RuntimeError):
    """
    A class, an instance or a method could not be had.

    Args:
        message: The whole text: what, where, and what was expected.
        class_name: The name that was asked for.
        class_path: The dotted path behind the name, if it has one.

    The cause, where there is one, is chained as ``__cause__``.
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
        return _restore, (type(self), self.args, self.__dict__)

    def _again(self) -> MethodRegistryError:
        # One exception object must not be raised twice: each raise appends to its traceback, and
        # threads would append to each other's. A waiter and a remembered failure raise a copy.
        copy = _restore(type(self), self.args, self.__dict__)
        copy.__cause__ = self.__cause__
        return copy


class UnknownClassError(MethodRegistryError, LookupError):
    """
    No class of this name is registered.

    Args:
        class_name: The name that was asked for.
        suggestions: The nearest registered names, best first.
    """

    stage = "name"

    def __init__(self, class_name: str, suggestions: Sequence[str] = ()) -> None:
        hint = f"; nearest: {', '.join(map(repr, suggestions))}" if suggestions else ""
        super().__init__(f"no class is registered as {class_name!r}{hint}", class_name=class_name)
        self.suggestions = tuple(suggestions)


class ClassPathError(MethodRegistryError, ValueError):
    """A class path does not have the shape ``package.module.Class``."""

    stage = "path"


class ClassImportError(MethodRegistryError, ImportError):
    """The module of a class path cannot be imported."""

    stage = "import"


class ClassAttributeError(MethodRegistryError, AttributeError):
    """The module of a class path has no such attribute."""

    stage = "attribute"


class NotAClassError(MethodRegistryError, TypeError):
    """What a class path names is not a class."""

    stage = "class"


class BuildError(MethodRegistryError):
    """The constructor, or the rule, of a class raised or gave nothing."""

    stage = "build"


class AsyncRuleError(BuildError):
    """
    The rule of a class is asynchronous, and the class was asked for synchronously.

    Args:
        class_name: The class that was asked for.
        class_path: Its path.
    """

    def __init__(self, class_name: str, class_path: str | None) -> None:
        super().__init__(
            f"the rule of {class_name!r} ({class_path}) is asynchronous, and no event loop waits "
            "for this build; ask for the class by way of warmset.aio.AsyncMethodExecutor",
            class_name=class_name,
            class_path=class_path,
        )


class MethodNotFoundError(MethodRegistryError, AttributeError):
    """
    An instance has no such method, or what it has is not callable.

    Args:
        message: The whole text.
        method_name: The method that was asked for.
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
    A build waits, directly or through other builds, for itself.

    Args:
        chain: The class names in the order in which they asked for each other; the first is also
            the last.
    """

    stage = "cycle"

    def __init__(self, chain: Sequence[str]) -> None:
        super().__init__(f"cyclic build: {' -> '.join(chain)}", class_name=chain[-1])
        self.chain = tuple(chain)


class BuildTimeoutError(MethodRegistryError, TimeoutError):
    """
    Another thread's build of a class took longer than this one would wait.

    Args:
        class_name: The class that was asked for.
        class_path: Its path.
        builder: The name of the thread that builds it.
        seconds: For how long it has been building.
    """

    stage = "build"

    def __init__(
        self, class_name: str, class_path: str | None, *, builder: str, seconds: float
    ) -> None:
        super().__init__(
            f"{class_name!r} ({class_path}) is being built by {builder!r} for {seconds:.1f} s now, "
            "longer than build_timeout_seconds",
            class_name=class_name,
            class_path=class_path,
        )
        self.builder = builder
        self.seconds = seconds


class CapacityError(MethodRegistryError, TimeoutError):
    """A build waited in vain for room: everything that is cached is held."""

    stage = "build"


class ClosedError(MethodRegistryError):
    """The registry was closed and builds nothing any more."""

    stage = "closed"


class ArgRouterError(RuntimeError):
    """A payload could not be routed to a method."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class ArgumentValidationError(ArgRouterError, TypeError):
    """
    A payload does not fit the signature of its method; the method was not called.

    Args:
        class_name: The class that was asked for.
        method_name: The method that was asked for.
        missing: Required parameters that the payload lacks.
        unexpected: Names in the payload that the method does not take.
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
        faults = [
            f"{word} {', '.join(sorted(names))}"
            for word, names in (("missing", self.missing), ("unexpected", self.unexpected))
            if names
        ]
        faults += [f"{name} {fault}" for name, fault in sorted(self.mistyped.items())]
        super().__init__(f"arguments do not fit {class_name}.{method_name}: {'; '.join(faults)}")
