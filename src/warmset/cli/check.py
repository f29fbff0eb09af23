"""
``warmset check``: finds all errors in a file without building an instance.

Classes, rules and the source of the documents are imported. No constructor, rule or method is
called. A method that may exist only on the instance, because a rule returns another class or a
constructor sets it, is reported as a note instead of an error.
"""

from __future__ import annotations

import dis
import glob
import inspect
import os
import sys
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

import click

from warmset.errors import ArgumentValidationError, MethodRegistryError
from warmset.resolver import error_text, import_dotted, near_names, resolve
from warmset.routing import compile_plan
from warmset.setting_table import BY_NAME
from warmset.settings import SettingsError
from warmset.targets import misfit

from .app_dir import app_dir_option, missing_module_hints, prepend_to_import_path
from .command_error import CommandError
from .exit_codes import BAD_INPUT, PASSED, exit_status_help
from .file_errors import file_error
from .output import echo
from .pipeline_file import read_file
from .pipeline_steps import Reference
from .warm_up import read_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from warmset.memory.profiles import Profile

    from .pipeline_file import Pipeline
    from .pipeline_steps import Step

_EPILOG = f"""
{exit_status_help(PASSED, BAD_INPUT)}

All errors are listed, one in each line. No instance is built: to find constructors that fail and
rules that return an unexpected object, use `warmset run --runs 1`. A warning does not change the
exit status.
"""


@click.command(epilog=_EPILOG, short_help="List the errors in a file, without running anything.")
@click.argument("file", metavar="FILE.toml", type=click.Path(path_type=Path))
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    metavar="PROFILE.json",
    help="Compare the sizes of pinned classes in a recorded profile with max_cache_bytes.",
)
@app_dir_option
def check(file: Path, profile: Path | None, app_dir: Path) -> int:
    """
    List the errors in a pipeline file or a warmset.toml, without running anything.

    Imports every class, rule, factory and document source that the file names, and checks the
    arguments of constructors and factories, and the methods and the arguments of the steps. Warns
    if the pinned classes alone exceed a bound of the cache.
    """
    recorded = None if profile is None else read_profile(profile)
    try:
        pipeline, errors = read_file(file)
    except SettingsError as error:
        raise CommandError(str(error)) from error
    prepend_to_import_path(app_dir)
    checker = _Checker(pipeline)
    checker.run()
    lines = [*map(str, errors), *checker.errors]
    for line in lines:
        echo(line)
    for line in checker.notes:
        echo(f"note: {line}")
    for line in missing_module_hints(pipeline.dotted_paths, file, app_dir):
        echo(f"hint: {line}")
    for line in _pinned_beyond_bounds(pipeline, recorded):
        echo(f"warning: {line}")
    if lines:
        echo(f"{len(lines)} error{'' if len(lines) == 1 else 's'}")
        return BAD_INPUT
    counts = [
        f"{count} {one if count == 1 else many}"
        for count, one, many in (
            (len(pipeline.class_paths), "class", "classes"),
            (len(pipeline.families), "family", "families"),
            (len(pipeline.steps), "step", "steps"),
        )
        if count or one == "class"
    ]
    text = " and ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))
    single = len(counts) == 1 and len(pipeline.class_paths) == 1
    echo(f"{pipeline.file}: {text} {'is' if single else 'are'} valid")
    return PASSED


def _pinned_beyond_bounds(pipeline: Pipeline, profile: Profile | None) -> Iterator[str]:
    """Describe the bounds that the pinned classes alone exceed, and those of families."""
    pinned = [name for name, options in pipeline.class_options.items() if options.get("pin")]
    settings = pipeline.settings
    if len(pinned) > settings.first_size:
        yield (
            f"{pipeline.file}: [options]: {len(pinned)} pinned classes exceed"
            f" max_cache_size={settings.first_size} by {len(pinned) - settings.first_size}:"
            f" {', '.join(pinned)}; pinned instances are not evicted, and every other instance is"
            " evicted by the next build"
        )
    for name, family in pipeline.families.items():
        if family.get("max_cache_size", 1) > settings.first_size:
            yield (
                f"{pipeline.file}: [families.{name}]: max_cache_size={family['max_cache_size']}"
                f" exceeds that of [registry], {settings.first_size}, within which it counts"
            )
    if profile is None or not settings.max_cache_bytes:
        return
    sizes = {name: profile.classes[name].bytes or 0 for name in pinned if name in profile.classes}
    total = sum(sizes.values())
    if total > settings.max_cache_bytes:
        shown = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes.items())
        yield (
            f"{pipeline.file}: [options]: the pinned classes have {total / 1e6:,.1f} MB and exceed"
            f" max_cache_bytes={settings.max_cache_bytes} by"
            f" {(total - settings.max_cache_bytes) / 1e6:,.1f} MB: {shown}"
        )


class _Checker:
    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.errors: list[str] = []
        self.notes: list[str] = []
        self._classes: dict[str, type] = {}

    def run(self) -> None:
        for name, path in self.pipeline.class_paths.items():
            self._import_class(name, path)
        for name, cls in self._classes.items():
            options = self.pipeline.class_options.get(name, {})
            self._check_callables(f"options.{name}", options)
            if "rule" in options:
                self._check_rule(f"options.{name}", options["rule"])
            # Beside a settings file, code may register a rule that passes the arguments.
            elif "args" in options:
                self._check_misfit(f"options.{name}", cls, options, "args", options["args"])
            elif "kwargs" in options or self.pipeline.steps:
                arguments = options.get("kwargs", {})
                self._match(
                    f"options.{name}", name, "the constructor", cls, arguments, key="kwargs"
                )
        self._check_documents()
        for name, family in self.pipeline.families.items():
            self._check_family(name, family)
        for step in self.pipeline.steps:
            of_step = self._classes.get(step.class_name)
            if of_step is not None:
                self._check_step(step, of_step)

    def _error(
        self, table: str, key: str, value: object, expected: str, near: Iterable[str] = ()
    ) -> None:
        error = file_error(self.pipeline.file, table, key, value, expected, near=near)
        self.errors.append(str(error))

    def _import_class(self, name: str, path: str) -> None:
        try:
            self._classes[name] = resolve(name, path)
        except MethodRegistryError as error:
            self.errors.append(f"{self.pipeline.file}: [classes]: {error}")
        except SystemExit as error:
            self._error(
                "classes", name, path, f"a module that can be imported ({error_text(error)})"
            )

    def _import_callable(self, table: str, key: str, path: str) -> Any:
        try:
            found = import_dotted(path)
        except (ImportError, SystemExit) as error:
            self._error(table, key, path, f"a callable that can be imported: {error_text(error)}")
            return None
        if not callable(found):
            self._error(table, key, path, f"a callable, not {type(found).__name__}")
            return None
        return found

    def _check_rule(self, table: str, path: str) -> None:
        rule = self._import_callable(table, "rule", path)
        if rule is None:
            return
        try:
            signature = inspect.signature(rule)
        except Exception:
            return  # as with many built-in functions; any argument is accepted
        available = {"registry": None}
        if self.pipeline.documents is not None:
            available["documents"] = None
        given = {name: None for name in available if name in signature.parameters}
        try:
            signature.bind(object, **given)
        except TypeError as error:
            names = " and ".join(f"{name!r}" for name in available)
            self._error(
                table,
                "rule",
                path,
                f"a callable that takes the class, and possibly {names}: {error}",
            )

    def _check_family(self, name: str, family: Mapping[str, Any]) -> None:
        factory = self._import_callable(f"families.{name}", "factory", family["factory"])
        if factory is None:
            return
        self._check_callables(f"families.{name}", family)
        whole = {**family, "args": ("key", *family.get("args", ()))}
        self._check_misfit(f"families.{name}", factory, whole, "factory", family["factory"])
        made = factory if isinstance(factory, type) else _returned_class(factory)
        if made is not None:
            self._classes[name] = made
        elif any(step.class_name == name for step in self.pipeline.steps):
            self.notes.append(
                f"family {name!r}: the methods of its steps are not checked, because"
                f" {family['factory']} does not say what it returns; annotate it with a class"
            )

    def _check_misfit(
        self, table: str, target: Any, options: Mapping[str, Any], key: str, shown: Any
    ) -> None:
        args, kwargs = options.get("args", ()), options.get("kwargs", {})
        text = misfit(target, args, kwargs, complete=True)
        if text is not None:
            whose = "the key and the arguments" if key == "factory" else "the arguments"
            self._error(table, key, shown, f"what takes {whose}: {text}")

    def _check_callables(self, table: str, options: Mapping[str, Any]) -> None:
        for key, path in options.items():
            if key in BY_NAME and BY_NAME[key].as_path and path != "auto":
                found = self._import_callable(table, key, path)
                if key == "validate" and inspect.iscoroutinefunction(found):
                    self._error(table, key, path, BY_NAME[key].expected)

    def _check_documents(self) -> None:
        source = self.pipeline.documents
        if source is None:
            return
        if source.source is not None:
            self._import_callable("documents", "source", source.source)
        for pattern in source.files:
            rooted = os.path.join(glob.escape(str(source.base)), pattern)
            if not any(os.path.isfile(path) for path in glob.iglob(rooted, recursive=True)):
                self._error("documents", "files", pattern, "a glob that matches a file")

    def _check_step(self, step: Step, cls: type) -> None:
        where = f"step {step.name!r}"
        missing = object()
        method = inspect.getattr_static(cls, step.method, missing)
        if method is missing:
            why = self._why_undecided(step, cls)
            if why:
                self.notes.append(
                    f"{where}: {cls.__qualname__} has no visible method {step.method!r}: {why}"
                )
                return
            names = [name for name in dir(cls) if not name.startswith("_")]
            expected = f"a method of {cls.__module__}.{cls.__qualname__}"
            self._error(f"steps.{step.name}", "method", step.method, expected, names)
            return
        if isinstance(method, (staticmethod, classmethod)) or inspect.isroutine(method):
            self._match(
                f"steps.{step.name}",
                step.class_name,
                step.method,
                _Bound(cls, step.method, method).as_callable(),
                step.arguments,
            )
        elif isinstance(method, property) or not callable(method):
            if hasattr(type(method), "__get__"):
                return  # a descriptor: its value is known only for an instance
            kind = type(method).__name__
            self._error(f"steps.{step.name}", "method", step.method, f"a method, not {kind}")

    def _why_undecided(self, step: Step, cls: type) -> str:
        """Why an instance may have a method that its class lacks; empty if it cannot."""
        if "rule" in self.pipeline.class_options.get(step.class_name, {}):
            return "its rule may return an instance of another class"
        family = self.pipeline.families.get(step.class_name)
        if family is not None and import_dotted(family["factory"]) is not cls:
            return "its factory may return an instance of a derived class"
        if hasattr(cls, "__getattr__"):
            return "the class defines __getattr__"
        for base in cls.__mro__:
            if step.method in _annotated(base):
                return "it is annotated without a value"
            constructor = vars(base).get("__init__")
            code = getattr(constructor, "__code__", None)
            if code is not None and any(
                instruction.opname == "STORE_ATTR" and instruction.argval == step.method
                for instruction in dis.get_instructions(code)
            ):
                return "its constructor sets it"
        return ""

    def _match(
        self,
        table: str,
        class_name: str,
        what: str,
        target: Callable[..., Any] | None,
        arguments: Any,
        *,
        key: str = "arguments",
    ) -> None:
        """Compare the names and literal values of the arguments with the signature."""
        if target is None:
            return
        try:
            plan = compile_plan(target, self._classes.get(class_name))
            plan.route(class_name, what, dict(arguments))
        except ArgumentValidationError as error:
            parameters = _parameters(target)
            for name in error.missing:
                self._error(table, key, dict(arguments), f"also {name!r}, for {what}")
            for name in error.unexpected:
                near = near_names(name, parameters)
                hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
                self.errors.append(
                    f"{self.pipeline.file}: [{table}]: {what} takes no argument"
                    f" {name!r}{hint}; expected {', '.join(parameters) or 'none'}"
                )
            for name, text in error.mistyped.items():
                if not _is_filled_in(arguments[name]):
                    expected = text.removeprefix("expected ")
                    self._error(table, f"{key}.{name}", arguments[name], expected)


class _Bound:
    # A method bound without an instance: its signature without the first parameter.

    def __init__(self, cls: type, name: str, method: object) -> None:
        self._cls, self._name, self._method = cls, name, method

    def as_callable(self) -> Callable[..., Any] | None:
        found = getattr(self._cls, self._name)
        if isinstance(self._method, (staticmethod, classmethod)):
            return found  # type: ignore[no-any-return]
        try:
            signature = inspect.signature(found)
        except Exception:
            return None  # as with many built-in methods; any argument is accepted
        # Of an object that is never used: no instance is built.
        return MethodType(found, self._cls) if signature.parameters else None


def _returned_class(factory: Any) -> type | None:
    """Return the class that a factory is annotated to return; None if that is unknown."""
    try:
        found = get_type_hints(factory).get("return")
    except Exception:  # a name in the annotation cannot be resolved
        return None
    if isinstance(found, type) and found is not type(None) and get_origin(found) is None:
        return found
    return None


def _parameters(target: Callable[..., Any]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _is_filled_in(value: object) -> bool:
    """Whether a run fills the value in, so that its type is not known yet."""
    return value is None or isinstance(value, Reference)


def _annotated(cls: type) -> Mapping[str, object]:
    """Return the annotations that a class itself has; names in them may be unknown yet."""
    found: Any = vars(cls).get("__annotations__", {})
    if sys.version_info >= (3, 14):  # they are evaluated when they are asked for
        library = import_module("annotationlib")
        found = library.get_annotations(cls, format=library.Format.FORWARDREF)
    return found  # type: ignore[no-any-return]
