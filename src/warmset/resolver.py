"""
From a class path to the class: the shape of names and paths, and the import behind them.

Nothing here holds a lock or keeps a cache: `sys.modules` is the cache, and the import system has
its own lock for each module. Everything may be called from any number of threads.
"""

from __future__ import annotations

from .errors import ClassAttributeError, ClassImportError, ClassPathError, NotAClassError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PATH_EXPECTED = "an absolute dotted path 'package.module.Class'"


def shown(value: object, limit: int = 200) -> str:
    """
    Give the repr of any object for the text of an error, whatever its `__repr__` does.

    Args:
        value: Anything.
        limit: The most characters to give; what is longer ends in ``...``.

    Returns:
        An exact str.
    """
    try:
        text = str.__str__(repr(value))
    except Exception:
        # Also an int of more digits than the interpreter prints.
        text = f"<unprintable {type(value).__name__}>"
    if "://" in text:
        text = _without_passwords(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _without_passwords(text: str) -> str:
    # A URL that was put where it does not belong must not tell in an error what it holds.
    parts = text.split("://")
    for at, part in enumerate(parts[1:], 1):
        place = part.partition("/")[0]
        user, found, host = place.rpartition("@")
        if found and ":" in user:
            parts[at] = f"{user.partition(':')[0]}:***@{host}{part[len(place) :]}"
    return "://".join(parts)


def told(error: BaseException, limit: int = 500) -> str:
    """
    Give type and text of an error for the text of another one, whatever its `__str__` does.

    Args:
        error: The original error.
        limit: The most characters to give; what is longer ends in ``...``.

    Returns:
        An exact str: ``KeyError: 'x'``, or the type alone where there is no text.
    """
    kind = type(error).__name__
    try:
        text = str.__str__(str(error))
    except Exception:
        text = "<unprintable>"
    text = f"{kind}: {text}" if text else kind
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def near_names(name: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """
    Find the names that somebody who wrote `name` probably meant.

    Args:
        name: What was written.
        names: What there is.
        limit: The most names to give.

    Returns:
        The nearest first, upper and lower case counted as equal; where none is near, those that
        contain `name` or are contained in it. Empty where none fits.

    Looks at the first 5,000 names only, some 10 microseconds each: a hint must not cost seconds.
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


def _exact_str(value: object) -> str | None:
    # Exact, so that no code of a subclass runs when the name is hashed, compared or formatted.
    # `str.__str__`, taken from the base, copies the characters of a subclass; `str(value)`,
    # `f"{value}"` and `str.__format__` would call the subclass. `issubclass(type(...))` and not
    # `isinstance`, which would ask `__class__`: foreign code, and a mock answers that it is a str.
    if issubclass(type(value), str):
        return str.__str__(value)
    return None


def check_name(class_name: object) -> str:
    """
    Check that a class name is a non-empty str.

    Args:
        class_name: A str, or an instance of a subclass of it, none of whose methods is called.

    Returns:
        An exact str of the same characters.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty.
    """
    name = _exact_str(class_name)
    if name is None:
        kind = type(class_name).__name__
        raise TypeError(f"a class name must be a str, got {kind} {shown(class_name)}")
    if not name:
        raise ValueError("a class name must be a non-empty str, got ''")
    return name


def check_path(class_name: str, class_path: object) -> str:
    """
    Check that a class path has the shape ``package.module.Class``; nothing is imported.

    Args:
        class_name: The name that the path belongs to; for the text of the error.
        class_path: The path; the spelling of entry points, ``package.module:Outer.Inner``, will do.

    Returns:
        An exact str with dots only.

    Raises:
        TypeError: It is not a str.
        ClassPathError: It is relative, has no dot, or a part that is no identifier.
    """
    from keyword import iskeyword

    given = _exact_str(class_path)
    if given is None:
        raise TypeError(
            f"the class path of {class_name!r} must be a str, {PATH_EXPECTED},"
            f" got {type(class_path).__name__} {shown(class_path)}"
        )
    path = given.replace(":", ".", 1)
    parts = path.split(".")
    if not given:
        fault = "it is empty"
    elif not parts[0]:
        fault = "it is relative, or its first part is empty"
    elif len(parts) == 1:
        fault = "it has no dot, so it names no module"
    else:
        for part in parts:
            if not part.isidentifier():
                fault = f"{shown(part)} is not an identifier"
                break
            if iskeyword(part):
                fault = f"{part!r} is a keyword"
                break
        else:
            return path
    raise ClassPathError(
        f"class path {shown(given)} of {class_name!r}: {fault}; expected {PATH_EXPECTED}",
        class_name=class_name,
        class_path=given,
    )


def resolve(class_name: str, class_path: str) -> type:
    """
    Import the module of a class path and get the class.

    The longest prefix that is a module is imported; what is left is looked up as attributes. A
    prefix counts as "no module" only where the import system says so of that very prefix: a module
    that exists and fails, for example by a missing dependency, is an error and never passed over.

    Args:
        class_name: The name that the path belongs to; for the text of the error.
        class_path: As `check_path` takes it.

    Returns:
        The class.

    Raises:
        TypeError: The path is not a str.
        ClassPathError: The path does not have the shape of one.
        ClassImportError: The module is missing or raised an error; also a lazily imported
            attribute that raised an ImportError.
        ClassAttributeError: The module, or an outer class, has no such attribute.
        NotAClassError: There is something of that name, which is not a class.

    The cause is chained. What is no `Exception`, such as KeyboardInterrupt, passes through. May be
    called from any number of threads; runs the foreign code of the imported modules, so that no
    lock may be held. Costs one import the first time, some microseconds after that.
    """
    import sys

    path = check_path(class_name, class_path)
    parts = path.split(".")
    what = f"class {class_name!r} ({path})"
    cut = len(parts) - 1
    refusal: ModuleNotFoundError | None = None
    while True:
        prefix = ".".join(parts[:cut])
        try:
            # As the statement does it, not `importlib.import_module`: where the module is there
            # already, no lock of the import system is touched. Before 3.12, that lock deadlocks
            # where a signal handler asks for a class while its own thread is inside it.
            __import__(prefix)
            target: object = sys.modules[prefix]
            break
        except Exception as error:
            cut = _missing(error, prefix).count(".")
            if not cut:
                raise ClassImportError(
                    f"{what}: importing module {prefix!r} failed: {told(error)}",
                    class_name=class_name,
                    class_path=path,
                ) from error
            # Only a ModuleNotFoundError gives a prefix to go on with.
            refusal = error  # type: ignore[assignment]

    for index in range(cut, len(parts)):
        part = parts[index]
        holder = ".".join(parts[:index])
        try:
            target = getattr(target, part)
        except ImportError as error:
            raise ClassImportError(
                f"{what}: importing {part!r} of {holder!r} at first use failed: {told(error)}",
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
                # What comes before the class in a package is most likely meant as a module.
                raise ClassImportError(
                    f"{what}: package {holder!r} has no module and no attribute {part!r}{hint}",
                    class_name=class_name,
                    class_path=path,
                ) from refusal
            if error.name not in (None, part):
                # A module's `__getattr__` got as far as an error of its own.
                hint = f": {told(error)}{hint}"
            kind = "module" if index == cut else "class"
            raise ClassAttributeError(
                f"{what}: {kind} {holder!r} has no attribute {part!r}{hint}",
                class_name=class_name,
                class_path=path,
            ) from error
        except Exception as error:
            raise ClassAttributeError(
                f"{what}: reading attribute {part!r} of {holder!r} raised {told(error)}",
                class_name=class_name,
                class_path=path,
            ) from error

    # Not `isinstance`: on 3.10 `list[int]` says that it is a type.
    if issubclass(type(target), type):
        return target  # type: ignore[return-value]
    raise NotAClassError(
        f"{what}: expected a class, got {type(target).__name__} {shown(target)}",
        class_name=class_name,
        class_path=path,
    )


def imported(class_path: str) -> type | None:
    """
    Give the class of a path if its module is imported already; nothing is imported.

    Args:
        class_path: As `check_path` gives it.

    Returns:
        The class, or None where that cannot be told.
    """
    import sys

    module_name, _, attribute = class_path.rpartition(".")
    found = getattr(sys.modules.get(module_name), "__dict__", {}).get(attribute)
    return found if issubclass(type(found), type) else None


def import_dotted(path: str) -> Any:
    """
    Import what a dotted path ``package.module.name`` names.

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
        # A module can fail with anything on import.
        raise ImportError(f"cannot import {module_name!r}: {told(error)}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        near = near_names(attribute, [name for name in vars(module) if not name.startswith("_")])
        hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
        raise ImportError(f"module {module_name!r} has no {attribute!r}{hint}") from error


def _missing(error: Exception, prefix: str) -> str:
    # The name of the module that is not there, if it is `prefix` or a parent of it, or "".
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if not isinstance(name, str) or not f"{prefix}.".startswith(f"{name}."):
        return ""
    # A module may raise such an error of itself ("install the extra first"), and then it does
    # exist. Its frame, or that of whatever called it, tells: where the import system alone found
    # nothing, there are no frames but its own below ours.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
        module = trace.tb_frame.f_globals.get("__name__")
        if module not in ("importlib", "importlib._bootstrap", "importlib._bootstrap_external"):
            return ""
    return name


def _submodules(module: object) -> list[str] | None:
    # The names of the modules in a package, imported or not; None for what is no package. A
    # module's `__getattr__`, and finders, may raise anything; this is for a hint only.
    try:
        from pkgutil import iter_modules

        path = module.__path__  # type: ignore[attr-defined]
        return [found.name for found in iter_modules(path)]
    except Exception:
        return None


def _hint(part: str, holder: object, more: Iterable[str]) -> str:
    try:
        names = [name for name in map(_exact_str, dir(holder)) if name]
    except Exception:
        names = []
    if not part.startswith("_"):
        names = [name for name in names if not name.startswith("_")]
    near = near_names(part, [*names, *more])
    return f"; nearest: {', '.join(map(repr, near))}" if near else ""
