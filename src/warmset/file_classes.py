"""
Registers the classes and the families of a file: a `warmset.toml`, or a pipeline file.
"""

from __future__ import annotations

from .resolver import import_dotted
from .setting_table import BY_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    class Registry(Protocol):
        """What registering needs of a registry."""

        @property
        def register(self) -> Callable[..., Any]: ...
        @property
        def register_instantiation_rule(self) -> Callable[..., Any]: ...
        @property
        def family(self) -> Callable[..., Any]: ...


__all__ = ["register_classes", "register_families"]


def register_classes(
    registry: Registry,
    class_paths: Mapping[str, str],
    class_options: Mapping[str, Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
    view: Any = None,
    documents: Sequence[Any] | None = None,
) -> None:
    """
    Register classes with the options that a file gives them, without importing them.

    Args:
        registry: The registry.
        class_paths: Class name -> class path.
        class_options: Class name -> options, with `kwargs` and `rule`.
        names: Class name -> the name to register it under; None: its own.
        view: What a rule gets as the registry; None: the registry itself.
        documents: What a rule gets as the documents; None if the file has none.
    """
    # Here and not at the first build: a finaliser or a signal handler that builds while a module is
    # being imported would find half of it.
    import inspect  # noqa: F401
    from weakref import ref

    for name, path in class_paths.items():
        options = dict(class_options.get(name, {}))
        class_name = name if names is None else names[name]
        rule: Callable[[Any], Any] | None = None
        version = None
        if _has_mutable(options):
            args, kwargs = options.pop("args", ()), options.pop("kwargs", {})
            rule, version = _Constructor(args, kwargs), repr(sorted(kwargs.items()))
            version = f"{args!r} {version}" if args else version
        if "rule" in options:
            # Weak: what a registry keeps alive must not keep it alive.
            found: Callable[[], Any] = ref(registry) if view is None else _Always(view)
            rule = _FileRule(options.pop("rule"), found, documents)
        _import_later(options)
        registry.register(class_name, path, **options)
        if rule is not None:
            registry.register_instantiation_rule(class_name, rule, version=version)


def register_families(
    registry: Registry,
    families: Mapping[str, Mapping[str, Any]],
    *,
    names: Mapping[str, str] | None = None,
) -> None:
    """
    Register families with the arguments that a file gives them, without importing their factories.

    Args:
        registry: The registry.
        families: Family -> arguments of `Registry.family`, `factory` among them.
        names: Family -> the name to register it under; None: its own.

    Raises:
        ValueError: A family has no factory.
    """
    for name, arguments in families.items():
        options = dict(arguments)
        if "factory" not in options:
            raise ValueError(f"the family {name!r} needs a factory: a path, a function or a class")
        _import_later(options)
        factory = options.pop("factory")
        if isinstance(factory, str) and _has_mutable(options):
            factory = _Factory(factory, options.pop("args", ()), options.pop("kwargs", {}))
        registry.family(name if names is None else names[name], factory, **options)


def _import_later(options: dict[str, Any]) -> None:
    """Replace dotted paths of callables, such as closers, by callables that import them."""
    for key, value in options.items():
        if key in BY_NAME and BY_NAME[key].as_path and isinstance(value, str) and value != "auto":
            options[key] = _FileCallable(value)


class _FileCallable:
    """Imports a callable when it is first called."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.__module__, _, self.__qualname__ = path.rpartition(".")

    def __call__(self, *args: Any) -> Any:
        return import_dotted(self._path)(*args)

    def __repr__(self) -> str:
        return f"<{self._path}>"


def _has_mutable(options: Mapping[str, Any]) -> bool:
    given = (*(options.get("args") or ()), *(options.get("kwargs") or {}).values())
    return any(isinstance(value, (dict, list)) for value in given)


class _Factory:
    """Imports a factory when it is first called, and calls it with copies of its arguments."""

    def __init__(self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._path, self._args, self._kwargs = path, tuple(args), dict(kwargs)
        # What it is displayed as.
        self.__module__, _, self.__qualname__ = path.rpartition(".")

    def __call__(self, key: Any) -> Any:
        from copy import deepcopy

        factory = import_dotted(self._path)
        return factory(key, *deepcopy(self._args), **deepcopy(self._kwargs))

    def __eq__(self, other: object) -> bool:
        if type(other) is not _Factory:
            return NotImplemented
        mine = self._path, self._args, self._kwargs
        return mine == (other._path, other._args, other._kwargs)

    def __hash__(self) -> int:
        return hash(self._path)


class _Constructor:
    """Calls the class with copies of its arguments: a constructor may keep and change a list."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._args, self._kwargs = tuple(args), dict(kwargs)

    def __call__(self, cls: Any) -> Any:
        from copy import deepcopy

        return cls(*deepcopy(self._args), **deepcopy(self._kwargs))


class _Always:
    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Any:
        return self._value


class _FileRule:
    """Imports a rule when it is first needed, and calls it with what it has parameters for."""

    def __init__(
        self, path: str, registry: Callable[[], Any], documents: Sequence[Any] | None
    ) -> None:
        self._path, self._registry, self._documents = path, registry, documents

    # A weak reference cannot be copied; the registry that refers to this rule can.
    def __getstate__(self) -> tuple[str, Any, Sequence[Any] | None]:
        return self._path, self._registry(), self._documents

    def __setstate__(self, state: tuple[str, Any, Sequence[Any] | None]) -> None:
        from weakref import ref

        self._path, registry, self._documents = state
        self._registry = ref(registry)

    def __call__(self, cls: Any) -> Any:
        import inspect

        rule = import_dotted(self._path)
        parameters = inspect.signature(rule).parameters
        given = {}
        if "registry" in parameters:
            given["registry"] = self._registry()
        if "documents" in parameters:
            if self._documents is not None:
                given["documents"] = self._documents
            elif parameters["documents"].default is inspect.Parameter.empty:
                raise TypeError(
                    f"the rule {self._path} takes the documents, which only a pipeline file with a"
                    " table [documents] has"
                )
        return rule(cls, **given)
