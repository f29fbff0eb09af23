"""
Reads a pipeline file, checks it as a whole, and returns it as immutable values.

Every error that can be found without importing a class is reported here, so that a run does not
fail halfway because of a misspelt name. The run imports the classes, the rules and the source of
the documents.

A string that begins with ``$`` anywhere in the arguments of a step is a reference:
``$document.name``, ``$document.text``, ``$documents.names``, ``$documents.texts`` and
``$steps.NAME``; ``$$`` stands for a literal dollar.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmset.resolver import safe_repr
from warmset.settings import SettingsError
from warmset.settings_file import (
    FILE_TABLES,
    check_dotted,
    load_toml,
    read_settings_file,
    read_tables,
)
from warmset.toml_tables import ErrorCollector, check_table, unknown_keys

from .file_errors import file_error

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from warmset.settings import RegistrySettings
    from warmset.settings_file import SettingsFile

# Tables that a pipeline file has and a settings file has not.
PIPELINE_TABLES = ("documents", "steps")
# Tables of earlier files, and what replaces them.
_REPLACED = {
    "build": "[options.NAME] with kwargs = { ... } for each class",
    "rules": "[options.NAME] with rule = 'package.module.callable' for each class",
}
_DOCUMENT_REFERENCES = ("$document.name", "$document.text")
_CORPUS_REFERENCES = ("$documents.names", "$documents.texts")
_STEP_PREFIX = "$steps."


@dataclass(frozen=True, slots=True)
class Reference:
    """
    A value that the run fills in: of the document, of all documents, or of an earlier step.

    Args:
        scope: ``"document"``, ``"documents"`` or ``"steps"``.
        name: ``"name"``, ``"text"``, ``"names"``, ``"texts"``, or the name of the step.
    """

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """
    One call of a method.

    Args:
        name: The name of the step, unique in the pipeline.
        class_name: The class name in ``[classes]``.
        method: The name of the method.
        per_document: Whether it is called for each document, or once per run before all documents.
        arguments: Keyword -> value; a `Reference` is filled in by the run.
        needs: The names of the steps whose results it uses.
    """

    name: str
    class_name: str
    method: str
    per_document: bool
    arguments: Mapping[str, Any]
    needs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """
    The source of the documents: either files or a callable.

    Args:
        base: The directory that relative globs start from.
        files: Globs; empty if there is a `source`.
        source: Dotted path to a callable that yields (name, text).
        limit: The most documents to load; None for no limit.
        max_characters: The most characters to keep of each document; None for no limit.
        encoding: The encoding of the files.
    """

    base: Path
    files: tuple[str, ...] = ()
    source: str | None = None
    limit: int | None = None
    max_characters: int | None = None
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """
    The contents of a valid pipeline file.

    Args:
        file: The path of the file, as it was given.
        settings: The table ``[registry]``.
        class_paths: The table ``[classes]``.
        class_options: The tables ``[options.NAME]``, as in `SettingsFile`.
        documents: The table ``[documents]``; None if the file has none.
        steps: The steps in the order of the file.
    """

    file: str
    settings: RegistrySettings
    class_paths: Mapping[str, str]
    class_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    documents: DocumentSource | None = None
    steps: tuple[Step, ...]

    @property
    def dotted_paths(self) -> list[str]:
        """Everything that is imported: classes, rules, and the source of the documents."""
        rules = [each["rule"] for each in self.class_options.values() if "rule" in each]
        source = self.documents.source if self.documents is not None else None
        return [*self.class_paths.values(), *rules, *([] if source is None else [source])]


def load_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """
    Read and check a pipeline file.

    Args:
        path: The file.

    Returns:
        The pipeline.

    Raises:
        SettingsError: The file cannot be read or has an error; the message names the file, the
            table, the key and the value.
    """
    pipeline, errors = read_pipeline(path)
    if errors:
        raise errors[0]
    return pipeline


def read_pipeline(path: str | os.PathLike[str]) -> tuple[Pipeline, list[SettingsError]]:
    """
    Read a pipeline file and find all errors in it.

    Args:
        path: The file.

    Returns:
        The valid parts of the file, and the errors.

    Raises:
        SettingsError: The file cannot be read or is not valid TOML.
    """
    file = str(path)
    return _read(load_toml(file), file)


def read_file(path: str | os.PathLike[str]) -> tuple[Pipeline, list[SettingsError]]:
    """
    Read a pipeline file or a settings file, which has neither documents nor steps.

    Args:
        path: The file.

    Returns:
        The valid parts of the file, and the errors. A settings file gives a pipeline without steps.

    Raises:
        SettingsError: The file cannot be read or is not valid TOML.
    """
    file = str(path)
    content = load_toml(file)
    if not any(table in content for table in (*PIPELINE_TABLES, *_REPLACED)):
        loaded, errors = read_settings_file(file)
        return _pipeline(loaded, None, ()), errors
    return _read(content, file)


def _read(content: dict[str, Any], file: str) -> tuple[Pipeline, list[SettingsError]]:
    errors = ErrorCollector()
    for table, instead in _REPLACED.items():
        with errors:
            if table in content:
                del content[table]
                raise SettingsError(
                    f"{file}: top level: the table [{table}] is not read; expected {instead}",
                    file=file,
                    table="",
                    key=table,
                )
    with errors:
        unknown_keys(content, (*FILE_TABLES, *PIPELINE_TABLES), file=file, table_name="")
    common = read_tables(content, file=file, errors=errors)
    names = content.get("classes")
    with errors:
        if names is None or names == {}:
            raise SettingsError(f"{file}: [classes]: missing or empty; expected at least one class")
    if not isinstance(names, dict):
        names = {}
    documents = None
    if "documents" in content:
        with errors:
            documents = _check_documents(content["documents"], file, errors)
    steps: tuple[Step, ...] = ()
    with errors:
        steps = _check_steps(content.get("steps", []), names, "documents" in content, file, errors)
    return _pipeline(common, documents, steps), errors.found


def _pipeline(
    common: SettingsFile, documents: DocumentSource | None, steps: tuple[Step, ...]
) -> Pipeline:
    return Pipeline(
        file=common.path,
        settings=common.settings,
        class_paths=dict(common.class_paths),
        # Plain dicts, which can be pickled: the pipeline is sent to the workers of an engine.
        class_options={name: dict(options) for name, options in common.class_options.items()},
        documents=documents,
        steps=steps,
    )


def _check_documents(value: object, file: str, errors: ErrorCollector) -> DocumentSource:
    table = check_table(value, file=file, table_name="documents")
    with errors:
        known = ("files", "source", "limit", "max_characters", "encoding")
        unknown_keys(table, known, file=file, table_name="documents")
    if ("files" in table) == ("source" in table):
        given = "both" if "files" in table else "neither"
        raise SettingsError(
            f"{file}: [documents]: {given} of files and source; expected exactly one of them",
            file=file,
            table="documents",
        )
    files = table.get("files", [])
    with errors:
        if "files" in table and not _are_globs(files):
            raise file_error(file, "documents", "files", files, "a list of one or more globs")
    source = table.get("source")
    with errors:
        if source is not None:
            source = check_dotted(source, file=file, table_name="documents", key="source")
    for key in ("limit", "max_characters"):
        with errors:
            _check_number(table.get(key, 1), key, file)
    encoding = table.get("encoding", "utf-8")
    with errors:
        try:
            codecs.lookup(encoding)
        except (LookupError, TypeError, ValueError) as error:
            raise file_error(
                file, "documents", "encoding", encoding, "the name of an encoding, such as 'utf-8'"
            ) from error
    return DocumentSource(
        base=Path(file).parent,
        files=tuple(files) if isinstance(files, list) else (),
        source=source,
        limit=table.get("limit"),
        max_characters=table.get("max_characters"),
        encoding=encoding,
    )


def _are_globs(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(glob, str) and glob for glob in value)


def _check_number(number: object, key: str, file: str) -> None:
    if type(number) is not int or number < 1:
        raise file_error(file, "documents", key, number, "a whole number, 1 or more")


def _check_steps(
    value: object,
    classes: Mapping[str, Any],
    has_documents: bool,
    file: str,
    errors: ErrorCollector,
) -> tuple[Step, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise SettingsError(
            f"{file}: [[steps]]: {safe_repr(value)}; expected one or more tables (without steps it"
            " is a settings file, for MethodRegistry.from_file)",
            file=file,
        )
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for number, row in enumerate(value, 1):
        with errors:
            rows.append((f"steps[{number}]", _step_name(row, f"steps[{number}]", file), row))
    names = [name for _, name, _ in rows]
    earlier: dict[str, Step] = {}
    for index, (table, name, row) in enumerate(rows):
        later = [other for other in names[index:] if other not in earlier]
        with errors:
            if name in earlier:
                raise file_error(file, table, "name", name, "a name that no other step has")
            checker = _StepChecker(file, table, earlier, later, has_documents, errors)
            # Also for a step with errors, so that references to it are not reported as errors.
            earlier[name] = checker.step(name, row, classes)
    return tuple(step for step in earlier.values() if step.class_name in classes and step.method)


def _step_name(row: Mapping[str, Any], table: str, file: str) -> str:
    for key in ("class", "method"):
        if key not in row:
            raise SettingsError(
                f"{file}: [{table}]: no {key!r}; expected the keys class and method",
                file=file,
                table=table,
                key=key,
            )
    name = row.get("name", f"{row['class']}.{row['method']}")
    if not isinstance(name, str) or not name:
        raise file_error(file, table, "name", name, "a non-empty string")
    return name


class _StepChecker:
    # Checks one step; its references may only name steps before it.

    def __init__(
        self,
        file: str,
        table: str,
        earlier: Mapping[str, Step],
        later: list[str],
        has_documents: bool,
        errors: ErrorCollector,
    ) -> None:
        self.errors = errors
        self.file = file
        self.table = table
        self.earlier = earlier
        self.later = later
        self.has_documents = has_documents
        self.per_document = True
        self.needs: set[str] = set()

    def step(self, name: str, row: Mapping[str, Any], classes: Mapping[str, Any]) -> Step:
        with self.errors:
            known = ("name", "class", "method", "each", "arguments")
            unknown_keys(row, known, file=self.file, table_name=self.table)
        class_name, method = row["class"], row["method"]
        with self.errors:
            if not isinstance(class_name, str) or class_name not in classes:
                class_name, wrong = "", class_name
                raise self._error("class", wrong, "a name from [classes]", near=classes)
        with self.errors:
            if not isinstance(method, str) or not method.isidentifier():
                method, wrong = "", method
                raise self._error("method", wrong, "the name of a method")
        each = row.get("each", "document")
        with self.errors:
            if each not in ("document", "run"):
                raise self._error("each", each, "'document' or 'run'", near=("document", "run"))
            self.per_document = each == "document"
            if self.per_document and not self.has_documents:
                raise self._error("each", each, "'run', or a table [documents]")
        arguments = row.get("arguments", {})
        parsed: dict[str, Any] = {}
        with self.errors:
            if not isinstance(arguments, dict):
                raise self._error("arguments", arguments, "a table of keyword arguments")
            for key, item in arguments.items():
                parsed[key] = None
                with self.errors:
                    parsed[key] = self._value(f"arguments.{key}", item)
        return Step(name, class_name, method, self.per_document, parsed, frozenset(self.needs))

    def _error(self, key: str, value: object, expected: str, *, near: Any = ()) -> SettingsError:
        return file_error(self.file, self.table, key, value, expected, near=near)

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(key, item) for item in value]
        if isinstance(value, dict):
            return {name: self._value(f"{key}.{name}", item) for name, item in value.items()}
        if not isinstance(value, str) or not value.startswith("$"):
            return value
        if value.startswith("$$"):
            return value[1:]
        return self._reference(key, value)

    def _reference(self, key: str, value: str) -> Reference:
        if value.startswith(_STEP_PREFIX):
            return self._step_reference(key, value)
        if value in _CORPUS_REFERENCES and self.has_documents:
            return Reference("documents", value.partition(".")[2])
        if value in _DOCUMENT_REFERENCES and self.per_document:
            return Reference("document", value.partition(".")[2])
        if value in _CORPUS_REFERENCES:
            raise self._error(key, value, "a table [documents] for this reference")
        allowed = [*_CORPUS_REFERENCES, *(f"{_STEP_PREFIX}{name}" for name in self.earlier)]
        if self.per_document:
            allowed = [*_DOCUMENT_REFERENCES, *allowed]
        elif value in _DOCUMENT_REFERENCES:
            raise self._error(
                key,
                value,
                "$documents.names or $documents.texts, because a step with each = 'run' has no"
                " document",
            )
        raise self._error(
            key,
            value,
            "$document.name, $document.text, $documents.names, $documents.texts or $steps.NAME"
            " ('$$' for a literal dollar)",
            near=allowed,
        )

    def _step_reference(self, key: str, value: str) -> Reference:
        name = value[len(_STEP_PREFIX) :]
        step = self.earlier.get(name)
        if step is None and name in self.later:
            raise self._error(key, value, "an earlier step, not this one or a later one")
        if step is None:
            near = [f"{_STEP_PREFIX}{known}" for known in self.earlier]
            raise self._error(key, value, "$steps. and the name of an earlier step", near=near)
        if step.per_document and not self.per_document:
            raise self._error(
                key, value, "a step with each = 'run', because this step runs before the documents"
            )
        self.needs.add(name)
        return Reference("steps", name)
