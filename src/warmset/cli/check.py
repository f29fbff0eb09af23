"""
``warmset check``: all that is wrong with a pipeline, found without building anything.

What is named is imported: classes, rules, the source of documents. No constructor, rule or method
is called. What cannot be known without that (a method that a rule's own kind of instance may have,
or one that a constructor sets) is told as a note and is no fault.
"""

from __future__ import annotations

import dis
import glob
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warmset.errors import ArgumentValidationError, MethodRegistryError
from warmset.resolver import import_dotted, near_names, resolve, told
from warmset.routing import compile_plan
from warmset.settings import SettingsError

from .app_path import app_dir_option, put_first
from .exit_codes import BAD_FILE, PASSED, exit_status_help
from .faults import fault
from .pipeline_file import Reference, read_pipeline
from .refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .pipeline_file import Pipeline, Step

_EPILOG = f"""
{exit_status_help(PASSED, BAD_FILE)}

All faults are listed, each in a line, and not only the first. Nothing is built: that a constructor
fails, or a rule gives something else than its class, is found by `warmset run --runs 1`.
"""


@click.command(epilog=_EPILOG)
@click.argument("pipeline_toml", metavar="PIPELINE.toml", type=click.Path(path_type=Path))
@app_dir_option
def check(pipeline_toml: Path, app_dir: Path) -> int:
    """
    List what is wrong with a pipeline file, without running it.

    Imports every class, rule and source that the file names, and looks for methods and their
    arguments.
    """
    try:
        pipeline, faults = read_pipeline(pipeline_toml)
    except SettingsError as error:
        raise Refused(str(error)) from error
    put_first(app_dir)
    checker = _Checker(pipeline)
    checker.run()
    lines = [*map(str, faults), *checker.faults]
    for line in lines:
        click.echo(line)
    for line in checker.notes:
        click.echo(f"note: {line}")
    if lines:
        click.echo(f"{len(lines)} fault{'' if len(lines) == 1 else 's'}")
        return BAD_FILE
    click.echo(
        f"{pipeline.file}: {len(pipeline.class_paths)} classes and {len(pipeline.steps)} steps"
        " are sound"
    )
    return PASSED


class _Checker:
    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._classes: dict[str, type] = {}

    def run(self) -> None:
        for name, path in self.pipeline.class_paths.items():
            self._import_class(name, path)
        for name, path in self.pipeline.rules.items():
            self._import_callable("rules", name, path)
        for name, arguments in self.pipeline.build.items():
            cls = self._classes.get(name)
            if cls is not None:
                self._match(f"build.{name}", name, "the constructor", cls, arguments)
        self._check_documents()
        for step in self.pipeline.steps:
            cls = self._classes.get(step.class_name)
            if cls is not None:
                self._check_step(step, cls)

    def _fault(
        self, table: str, key: str, value: object, expected: str, near: Iterable[str] = ()
    ) -> None:
        error = fault(self.pipeline.file, table, key, value, expected, near=near)
        self.faults.append(str(error))

    def _import_class(self, name: str, path: str) -> None:
        try:
            self._classes[name] = resolve(name, path)
        except MethodRegistryError as error:
            self.faults.append(f"{self.pipeline.file}: [classes]: {error}")
        except SystemExit as error:
            self._fault("classes", name, path, f"a module that can be imported ({told(error)})")

    def _import_callable(self, table: str, key: str, path: str) -> None:
        try:
            found = import_dotted(path)
        except (ImportError, SystemExit) as error:
            self._fault(table, key, path, f"a callable that can be imported: {told(error)}")
            return
        if not callable(found):
            self._fault(table, key, path, f"a callable, not {type(found).__name__}")

    def _check_documents(self) -> None:
        source = self.pipeline.documents
        if source is None:
            return
        if source.source is not None:
            self._import_callable("documents", "source", source.source)
        for pattern in source.files:
            rooted = os.path.join(glob.escape(str(source.base)), pattern)
            if not any(os.path.isfile(path) for path in glob.iglob(rooted, recursive=True)):
                self._fault("documents", "files", pattern, "a glob that matches a file")

    def _check_step(self, step: Step, cls: type) -> None:
        where = f"step {step.name!r}"
        missing = object()
        method = inspect.getattr_static(cls, step.method, missing)
        if method is missing:
            why = self._may_have(step, cls)
            if why:
                self.notes.append(
                    f"{where}: {cls.__qualname__} has no {step.method!r} that can be seen: {why}"
                )
                return
            names = [name for name in dir(cls) if not name.startswith("_")]
            expected = f"a method of {cls.__module__}.{cls.__qualname__}"
            self._fault(f"steps.{step.name}", "method", step.method, expected, names)
            return
        if isinstance(method, (staticmethod, classmethod)) or inspect.isroutine(method):
            self._match(
                f"steps.{step.name}",
                step.class_name,
                step.method,
                _Bound(cls, step.method, method).signed(),
                step.arguments,
            )
        elif isinstance(method, property) or not callable(method):
            if hasattr(type(method), "__get__"):
                return  # it gives what it gives only for an instance
            kind = type(method).__name__
            self._fault(f"steps.{step.name}", "method", step.method, f"a method, not {kind}")

    def _may_have(self, step: Step, cls: type) -> str:
        """Why an instance may have a method that its class has not; empty if it may not."""
        if step.class_name in self.pipeline.rules:
            return "its rule may build something that has"
        if hasattr(cls, "__getattr__"):
            return "it has a __getattr__"
        for base in cls.__mro__:
            if step.method in vars(base).get("__annotations__", {}):
                return "it is only annotated"
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
    ) -> None:
        """Compare the names of arguments, and the literals among their values."""
        if target is None:
            return
        try:
            plan = compile_plan(target)
            plan.route(class_name, what, dict(arguments))
        except ArgumentValidationError as error:
            taken = _parameters(target)
            for name in error.missing:
                self._fault(table, "arguments", dict(arguments), f"{name!r} too, for {what}")
            for name in error.unexpected:
                near = near_names(name, taken)
                hint = f" (nearest: {', '.join(map(repr, near))})" if near else ""
                self.faults.append(
                    f"{self.pipeline.file}: [{table}]: {what} takes no argument"
                    f" {name!r}{hint}; expected {', '.join(taken) or 'none'}"
                )
            for name, text in error.mistyped.items():
                if not _is_put_in(arguments[name]):
                    expected = text.removeprefix("expected ")
                    self._fault(table, f"arguments.{name}", arguments[name], expected)


class _Bound:
    # A method as an instance would show it, without an instance: its signature less the first one.

    def __init__(self, cls: type, name: str, method: object) -> None:
        self._cls, self._name, self._method = cls, name, method

    def signed(self) -> Callable[..., Any] | None:
        found = getattr(self._cls, self._name)
        if isinstance(self._method, (staticmethod, classmethod)):
            return found  # type: ignore[no-any-return]
        try:
            signature = inspect.signature(found)
        except Exception:
            return None  # as many built-in methods, which then take anything
        parameters = list(signature.parameters.values())
        if not parameters:
            return None
        if parameters[0].kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            del parameters[0]

        def method(*arguments: Any, **named: Any) -> None:
            raise AssertionError("nothing is called")

        method.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        method.__wrapped__ = found  # type: ignore[attr-defined]  # where its annotations mean something
        return method


def _parameters(target: Callable[..., Any]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _is_put_in(value: object) -> bool:
    """Whether a run puts the value in, so that its type is not known yet."""
    return value is None or isinstance(value, Reference)
