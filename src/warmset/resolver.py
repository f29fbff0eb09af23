"""
Resolution of class paths: validation of names and paths, and the import of classes.

This module has no lock and no cache: `sys.modules` is the cache, and the import system locks each
module itself. All functions are thread-safe.
"""

from __future__ import annotations

import sys

from .errors import (
    ClassAttributeError,
    ClassImportError,
    ClassPathError,
    MethodNotFoundError,
    NotAClassError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

_Module = type(sys)
PATH_EXPECTED = "an absolute dotted path 'package.module.Class'"


def safe_repr(value: object, limit: int = 200) -> str:
    """
    Return the repr of an object for use in a message, even if its `__repr__` raises.

    Args:
        value: Any object.
        limit: The maximum length; longer text is truncated and ends in ``...``.

    Returns:
        An exact str, with passwords in URLs masked.
    """
    try:
        text = str.__str__(repr(value))
    except KeyboardInterrupt:
        raise
    except BaseException:  # foreign code may raise anything
        # Also raised for an int with more digits than the interpreter converts.
        text = f"<unprintable {type(value).__name__}>"
    if "://" in text:
        text = _without_passwords(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _without_passwords(text: str) -> str:
    # A URL that is passed in the wrong place must not leak its password into a message.
    parts = text.split("://")
    for at, part in enumerate(parts[1:], 1):
        place = part.partition("/")[0]
        user, found, host = place.rpartition("@")
        if found and ":" in user:
            parts[at] = f"{user.partition(':')[0]}:***@{host}{part[len(place) :]}"
    return "://".join(parts)


def error_text(error: BaseException, limit: int = 500) -> str:
    """
    Return the type and text of an error for use in a message, even if its `__str__` raises.

    Args:
        error: The error.
        limit: The maximum length; longer text is truncated and ends in ``...``.

    Returns:
        An exact str such as ``KeyError: 'x'``, or only the type if the text is empty.
    """
    kind = type(error).__name__
    try:
        text = str.__str__(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:  # foreign code may raise anything
        text = "<unprintable>"
    text = f"{kind}: {text}" if text else kind
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def near_names(name: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """
    Find the names that are most similar to an unknown one.

    Args:
        name: The unknown name.
        names: The known names.
        limit: The maximum number of results.

    Returns:
        The most similar names first, ignoring case. If none is similar, the names that contain
        `name` or are contained in it. Empty if there are none.

    Considers only the first 5,000 names, at about 10 microseconds each, so that a suggestion never
    takes seconds.
    """
    from difflib import get_close_matches
    from itertools import islice

    wanted = name[:100].casefold()
    folded: dict[str, str] = {}
    for candidate in islice(names, 5_000):
        folded.setdefault(candidate.casefold(), candidate)
    near = get_close_matches(wanted, folded, n=limit)
    if not near and len(wanted) > 2:
        near = [key for key in folded if wanted in key or (len(key) > 2 and key in wanted)]
    return [folded[key] for key in near[:limit]]


def exact_str(value: object) -> str | None:
    # The result is an exact str, so that hashing, comparing and formatting never run the code of a
    # subclass. `str.__str__` copies the characters; `str(value)`, `f"{value}"` and
    # `str.__format__` would call the subclass. `isinstance` would read `__class__`, which is
    # foreign code, and is true for a mock with `spec=str`.
    if issubclass(type(value), str):
        return str.__str__(value)
    return None


def check_name(class_name: object) -> str:
    """
    Check that a class name is a non-empty str.

    Args:
        class_name: A str, or an instance of a subclass, whose methods are not called.

    Returns:
        An exact str with the same characters.

    Raises:
        TypeError: The name is not a str.
        ValueError: The name is empty.
    """
    return _checked(class_name, "class")


def check_method_name(method_name: object) -> str:
    """Check that a method name is a non-empty str; as `check_name`."""
    return _checked(method_name, "method")


def _checked(name: object, what: str) -> str:
    found = exact_str(name)
    if found is None:
        kind = type(name).__name__
        raise TypeError(f"a {what} name must be a str, got {kind} {safe_repr(name)}")
    if not found:
        raise ValueError(f"a {what} name must be a non-empty str, got ''")
    return found


def method_of(instance: Any, class_name: str, method_name: str) -> Callable[..., Any]:
    """
    Return the method of an instance, as attribute access finds it.

    Args:
        instance: The instance.
        class_name: Used in messages.
        method_name: The name of the method.

    Returns:
        The callable.

    Raises:
        MethodNotFoundError: There is none, or it is not callable.
    """
    try:
        method = getattr(instance, method_name)
    except AttributeError as error:
        raise_not_found(instance, class_name, method_name, None, error)
    if not callable(method):
        raise_not_found(instance, class_name, method_name, method)
    return method  # type: ignore[no-any-return]


def raise_not_found(
    instance: object,
    class_name: str,
    method_name: str,
    found: object,
    error: AttributeError | None = None,
) -> NoReturn:
    """
    Raise that an instance has no such method.

    Args:
        instance: The instance.
        class_name: Used in messages.
        method_name: The name of the method.
        found: What has this name, but is not callable.
        error: The error of the attribute access, if that failed.

    Raises:
        MethodNotFoundError: Always.
    """
    if error is None:
        reason = (
            f"{class_name}.{method_name} is not callable, it is of type {type(found).__qualname__}"
        )
    else:
        reason = (
            f"the instance of {class_name!r}, of type {type(instance).__qualname__}, "
            f"has no method {method_name!r}"
        )
    raise MethodNotFoundError(reason, class_name=class_name, method_name=method_name) from error


def check_path(class_name: str, class_path: object) -> str:
    """
    Check that a class path has the form ``package.module.Class`` without importing anything.

    Args:
        class_name: The name that the path is registered for; used in messages.
        class_path: The path. The notation of entry points, ``package.module:Outer.Inner``, is also
            accepted.

    Returns:
        An exact str with dots only.

    Raises:
        TypeError: The path is not a str.
        ClassPathError: The path is relative, has no dot, or has a part that is not an identifier.
    """
    from keyword import iskeyword

    given = exact_str(class_path)
    if given is None:
        raise TypeError(
            f"the class path of {class_name!r} must be a str, {PATH_EXPECTED},"
            f" got {type(class_path).__name__} {safe_repr(class_path)}"
        )
    path = given.replace(":", ".", 1)
    parts = path.split(".")
    if not given:
        problem = "it is empty"
    elif not parts[0]:
        problem = "it is relative, or its first part is empty"
    elif len(parts) == 1:
        problem = "it has no dot, so it does not name a module"
    else:
        for part in parts:
            if not part.isidentifier():
                problem = f"{safe_repr(part)} is not an identifier"
                break
            if iskeyword(part):
                problem = f"{part!r} is a keyword"
                break
        else:
            return path
    raise ClassPathError(
        f"class path {safe_repr(given)} of {class_name!r}: {problem}; expected {PATH_EXPECTED}",
        class_name=class_name,
        class_path=given,
    )


def resolve(class_name: str, class_path: str, *, factories: bool = False) -> Any:
    """
    Import the module of a class path and return the class.

    The longest prefix that is a module is imported; the remaining parts are looked up as
    attributes. A prefix is taken as "not a module" only if the import system reports exactly that
    prefix as missing. A module that exists but fails to import, for example because of a missing
    dependency, is an error.

    Args:
        class_name: The name that the path is registered for; used in messages.
        class_path: A path that `check_path` accepts.
        factories: Whether the path may refer to any callable, as that of a family may.

    Returns:
        The class, or the factory.

    Raises:
        TypeError: The path is not a str.
        ClassPathError: The path is malformed.
        ClassImportError: The module is missing or raised an error, or a lazily imported attribute
            raised an ImportError.
        ClassAttributeError: The module or outer class has no such attribute.
        NotAClassError: The path refers to something that is not a class.

    The original error is chained. Exceptions that do not derive from `Exception`, such as
    KeyboardInterrupt, propagate. Thread-safe. Runs the code of the imported modules, so callers
    must not hold a lock. Costs one import the first time and some microseconds afterwards.
    """
    path = check_path(class_name, class_path)
    parts = path.split(".")
    what = f"class {class_name!r} ({path})"
    cut = len(parts) - 1
    not_found: ModuleNotFoundError | None = None
    while True:
        prefix = ".".join(parts[:cut])
        try:
            # `__import__` rather than `importlib.import_module`: if the module is already
            # imported, it does not acquire the module lock. Before 3.12 that lock deadlocks if a
            # signal handler looks up a class while its own thread holds the lock.
            __import__(prefix)
            target: object = sys.modules[prefix]
            break
        except Exception as error:
            cut = _missing_module(error, prefix).count(".")
            if not cut:
                raise ClassImportError(
                    f"{what}: importing module {prefix!r} failed: {error_text(error)}",
                    class_name=class_name,
                    class_path=path,
                ) from error
            # `_missing_module` returns a prefix only for a ModuleNotFoundError.
            not_found = error  # type: ignore[assignment]

    for index in range(cut, len(parts)):
        part = parts[index]
        holder = ".".join(parts[:index])
        try:
            target = getattr(target, part)
        except ImportError as error:
            raise ClassImportError(
                f"{what}: importing {part!r} of {holder!r} at first use failed:"
                f" {error_text(error)}",
                class_name=class_name,
                class_path=path,
            ) from error
        except AttributeError as error:
            modules = _submodules(target) if index == cut else None
            last = index == len(parts) - 1
            if modules is not None and part in modules and last:
                raise NotAClassError(
                    f"{what}: {path!r} is a module, not a class; expected {PATH_EXPECTED}",
                    class_name=class_name,
                    class_path=path,
                ) from error
            hint = _hint(part, target, modules or ())
            if modules is not None and not last:
                # The part before the class name was most likely meant to be a module.
                raise ClassImportError(
                    f"{what}: package {holder!r} has no module and no attribute {part!r}{hint}",
                    class_name=class_name,
                    class_path=path,
                ) from not_found
            if error.name not in (None, part):
                # The `__getattr__` of the module raised an error about something else.
                hint = f": {error_text(error)}{hint}"
            kind = "module" if index == cut else "class"
            raise ClassAttributeError(
                f"{what}: {kind} {holder!r} has no attribute {part!r}{hint}",
                class_name=class_name,
                class_path=path,
            ) from error
        except Exception as error:
            raise ClassAttributeError(
                f"{what}: reading attribute {part!r} of {holder!r} raised {error_text(error)}",
                class_name=class_name,
                class_path=path,
            ) from error

    # `isinstance(list[int], type)` is true on 3.10.
    if issubclass(type(target), type) or (factories and callable(target)):
        return target
    expected = "a class or a factory" if factories else "a class"
    raise NotAClassError(
        f"{what}: expected {expected}, got {type(target).__name__} {safe_repr(target)}",
        class_name=class_name,
        class_path=path,
    )


def find_imported(class_path: str) -> type | None:
    """
    Find the class of a path if its module has already been imported.

    Args:
        class_path: A path returned by `check_path`.

    Returns:
        The class, or None if the module is not imported or has no such class.
    """
    module_name, _, attribute = class_path.rpartition(".")
    found = getattr(sys.modules.get(module_name), "__dict__", {}).get(attribute)
    return found if issubclass(type(found), type) else None


def find_ready(class_path: str) -> type | None:
    """
    Find the class of a path if its module has been imported to the end.

    Args:
        class_path: A path returned by `check_path`.

    Returns:
        What `resolve` would return; None if only that can tell.
    """
    module_name, _, attribute = class_path.rpartition(".")
    module = sys.modules.get(module_name)
    if type(module) is not _Module:  # such as one that imports at first use
        return None
    known = module.__dict__
    found = known.get(attribute)
    if not issubclass(type(found), type):
        return None
    # The import system sets it while the code of the module runs, maybe in another thread.
    spec = known.get("__spec__")
    return None if getattr(spec, "_initializing", False) else found


def import_dotted(path: str) -> Any:
    """
    Import the object that a dotted path ``package.module.name`` refers to.

    Args:
        path: The dotted path.

    Returns:
        The attribute of the module.

    Raises:
        ImportError: The module cannot be imported, or has no such attribute.
    """
    from importlib import import_module

    module_name, _, attribute = path.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:
        # Importing a module can raise any exception.
        raise ImportError(f"cannot import {module_name!r}: {error_text(error)}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        near = near_names(attribute, [name for name in vars(module) if not name.startswith("_")])
        hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
        raise ImportError(f"module {module_name!r} has no {attribute!r}{hint}") from error


def _missing_module(error: Exception, prefix: str) -> str:
    """The name of the missing module if it is `prefix` or one of its parents, otherwise ""."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if not isinstance(name, str) or not f"{prefix}.".startswith(f"{name}."):
        return ""
    # An existing module may raise such an error itself ("install the extra first"). In that case
    # the traceback contains a frame outside the import system. If the import system did not find
    # the module, all frames below ours are its own.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
        module = trace.tb_frame.f_globals.get("__name__")
        if module not in ("importlib", "importlib._bootstrap", "importlib._bootstrap_external"):
            return ""
    return name


def _submodules(module: object) -> list[str] | None:
    # The names of the modules in a package, imported or not; None if it is not a package. Used
    # only for suggestions, so errors in a module's `__getattr__` or in finders are ignored.
    try:
        from pkgutil import iter_modules

        path = module.__path__  # type: ignore[attr-defined]
        return [found.name for found in iter_modules(path)]
    except Exception:
        return None


def _hint(part: str, holder: object, more: Iterable[str]) -> str:
    try:
        names = [name for name in map(exact_str, dir(holder)) if name]
    except Exception:
        names = []
    if not part.startswith("_"):
        names = [name for name in names if not name.startswith("_")]
    near = near_names(part, [*names, *more])
    return f"; nearest: {', '.join(map(repr, near))}" if near else ""
